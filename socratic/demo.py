"""The demo: five small students trained from nothing on the bundled problems, and what came of it.

All of it is the recipe ``recipes/demo.yaml``; this module only shows the results: the comparison, headed by the tests
that differ most from training, one problem solved step by step, one failure and whose it was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from socratic.answers import sub_answer_value
from socratic.evaluate import Run, group_scores, load_run, majority_correct
from socratic.interventions import intervene
from socratic.lm.load import load_lm
from socratic.pipeline import run_plan
from socratic.planner import Plan, make_plan
from socratic.progress import evaluate_with_bar
from socratic.recipe_file import read_recipe
from socratic.report import visible
from socratic.report.compare import Comparison
from socratic.report.paint import paint_solved
from socratic.report.problem import find_problem
from socratic.report.tables import interval, new_table
from socratic.solving import Solving
from socratic.stages import EvaluateStage
from socratic.store import shipped
from socratic.tasks import load_chains
from socratic.types import Chain

_PAIR = "socratic"


@dataclass(frozen=True)
class Blame:
    """Of ``failures`` of the pair in ``run``, ``mended`` come right with gold questions; the others are QA's.

    ``problem`` is one of them, with its gold ``chain``.
    """

    run: Run
    failures: int
    mended: frozenset[str]
    problem: str
    chain: Chain

    @property
    def culprit(self) -> str:
        """Whose the shown failure is."""
        return "QG" if self.problem in self.mended else "QA"


def run_demo(out_dir: Path, overrides: Mapping[str, Any], console: Console | None, progress: Console) -> dict[str, Any]:
    """Run the demo's recipe, or what is left of it, below ``out_dir``; print what came of it, and return it as data.

    ``progress`` gets bars and the time left; ``console`` None prints nothing.
    """
    started = time.monotonic()
    plan = make_plan(read_recipe(shipped("recipes") / "demo.yaml", overrides), out_dir)
    progress.print(
        f"{len(plan.stages) - len(plan.evaluation)} students, then {len(plan.evaluation)} evaluations; what is done "
        f"is kept in {out_dir}",
        soft_wrap=True,
    )
    compared = run_plan(plan, progress)
    recipe = plan.recipe
    on = recipe.calculator[0]
    by_split = {split: compared[f"{split}, calculator {'on' if on else 'off'}"] for split in recipe.splits}
    first = [s for s in plan.evaluation if (s.arm, s.calculator, s.settings.seed) == (_PAIR, on, recipe.seeds[0])]
    runs = {stage.split: load_run(stage.folder) for stage in first}
    solved = next(((run, id) for run in runs.values() if (id := _first_right(run))), None)
    blame = _blame(plan, first[0], runs[recipe.splits[0]], progress)
    seconds = time.monotonic() - started
    if console is not None:
        _show(console, plan, by_split, solved, blame, seconds)
    return {
        "seconds": round(seconds, 1),
        "comparisons": {name: comparison.to_json() for name, comparison in compared.items()},
        "failures": {
            "split": recipe.splits[0],
            "all": blame.failures,
            "qg": len(blame.mended),
            "shown": blame.problem,
            "culprit": blame.culprit,
        }
        if blame
        else None,
        "folders": [str(stage.link) for stage in plan.stages],
    }


def _first_right(run: Run) -> str | None:
    """The first problem that was solved in several steps."""
    several = {(t.problem_id, t.sample) for t in run.traces if len(t.steps) > 1}
    return next((s.problem_id for s in run.scores if s.correct and (s.problem_id, s.sample) in several), None)


def _blame(plan: Plan, stage: EvaluateStage, run: Run, progress: Console) -> Blame | None:
    """Whose the failures are: QA is given gold questions, and what then comes right was QG's error."""
    data, split = stage.source
    asked = {problem.id for problem in stage.problems}
    chains = {c.problem_id: c for c in load_chains(data, split, **plan.reading) if c.problem_id in asked}
    models = {place: load_lm(model) for place, model in stage.models.items()}
    solving = Solving(stage.settings, **models).with_intervention(intervene("questions", list(chains.values())))
    folder = stage.folder.with_name(f"{stage.folder.name}-gold-questions")
    evaluate_with_bar(
        f"{stage.name}, gold questions",
        stage.problems,
        solving,
        folder,
        record={"data": data, "split": split, "split_scheme": stage.split_scheme},
        samples=run.samples,
        resume="if-possible",
        batch_size=plan.recipe.batch_size,
        console=progress,
    )
    mine, gold = (group_scores(one.scores) for one in (run, load_run(folder)))
    wrong = [id for id, group in mine.items() if not majority_correct(group)]
    if not wrong:
        return None
    mended = frozenset(id for id in wrong if majority_correct(gold[id]))
    shown = next((id for id in wrong if id in mended), wrong[0])
    return Blame(run, len(wrong), mended, shown, chains[shown])


def _show(
    console: Console,
    plan: Plan,
    by_split: Mapping[str, Comparison],
    solved: tuple[Run, str] | None,
    blame: Blame | None,
    seconds: float,
) -> None:
    on = plan.recipe.calculator[0]
    console.print(_accuracies(by_split, on))
    for split, comparison in by_split.items():
        console.print(Text(f"{split}:", style="bold"))
        console.print(comparison.pair_table())
    console.print(next(iter(by_split.values())).cost_table())
    if solved:
        console.print(Text("One problem, step by step", style="bold"))
        paint_solved(console, *find_problem(*solved))
    if blame:
        console.print(Text(f"A failure, and whose: {blame.culprit}", style="bold"))
        paint_solved(console, *find_problem(blame.run, blame.problem))
        console.print(Text(_cause(blame)), soft_wrap=True)
    qg, qa = (quote(str(plan.out / f"{role}-s{plan.recipe.seeds[0]}")) for role in ("qg", "qa"))
    runs = " ".join(quote(str(run)) for run in plan.runs(plan.recipe.splits[-1], on))
    why = quote(str(plan.out / "why"))
    console.print(
        f"\n{seconds / 60:.1f} minutes. Students and runs lie in {plan.out}; go on with\n"
        f'  socratic solve "…" --qg {qg} --qa {qa}\n'
        f"  socratic compare {runs} --steps\n"
        f"  socratic evaluate stories --qg {qg} --qa {qa} --swap all --intervene all --out {why}",
        soft_wrap=True,
    )


def _accuracies(by_split: Mapping[str, Comparison], on: bool) -> Table:
    splits = list(by_split)
    problems = " and ".join(sorted({str(comparison.problems) for comparison in by_split.values()}))
    made = new_table(
        f"Right answers in % [95 %], {problems} problems each, calculator {'on' if on else 'off'}",
        splits,
        first="student",
    )
    for place, row in enumerate(by_split[splits[0]].rows):
        cells = (interval(by_split[split].rows[place].metrics["correct"]) for split in splits)
        made.add_row(Text(visible(row.name)), *cells)
    return made


def _cause(blame: Blame) -> str:
    """Where the trace leaves the gold chain, and how the failures divide."""
    trace = next(t for t in blame.run.traces if t.problem_id == blame.problem)
    values = [sub_answer_value(step.answer) for step in trace.steps]
    gold = [sub_answer_value(step.answer) for step in blame.chain.steps]
    place = next((i for i, value in enumerate(gold) if i >= len(values) or values[i] != value), None)
    if place is None:
        where = "All gold steps are right; what comes after them is not"
    else:
        wanted = blame.chain.steps[place]
        where = f"It leaves the gold steps at step {place + 1} (gold: {wanted.question} {wanted.answer})"
    why = "given gold questions, QA solves it" if blame.culprit == "QG" else "QA fails with gold questions too"
    return visible(
        f"  {where}; {why}.\n"
        f"  Of {blame.failures} failures on {blame.run.config['split']}, {len(blame.mended)} come right with gold "
        f"questions (QG's errors), {blame.failures - len(blame.mended)} do not (QA's)."
    )
