"""The demo: five small students trained from nothing on the bundled problems, and what came of it.

All of it is the recipe ``recipes/demo.yaml``; this module only shows the results: the comparison, headed by the tests
that differ most from training, one problem solved step by step, one failure and whose it was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from socratic.evaluate import Run, load_run, score_trace
from socratic.interventions import intervene
from socratic.lm.load import load_lm
from socratic.loops import SolveSettings, Solving
from socratic.pipeline import EvaluateStage, Plan, make_plan, read_recipe, run_plan
from socratic.report import visible
from socratic.report.compare import Comparison
from socratic.report.steps import step_value
from socratic.report.tables import interval, new_table
from socratic.store import shipped
from socratic.tasks import load_chains
from socratic.types import Chain, Problem, Trace

SEEN = "test"
"""The split of problems like those trained on; the others are further away."""
_PAIR = "socratic"
_KINDS = {"test": "seen", "longer": "longer", "unseen": "unseen"}


@dataclass(frozen=True)
class Blame:
    """Of ``failures`` of the pair on ``split``, ``qg`` come right with gold questions; the others are QA's.

    ``trace`` is one of them and ``culprit`` whose it is.
    """

    split: str
    failures: int
    qg: int
    culprit: str
    problem: Problem
    chain: Chain
    trace: Trace


def run_demo(out_dir: Path, overrides: Mapping[str, Any], console: Console | None, progress: Console) -> dict[str, Any]:
    """Run the demo's recipe, or what is left of it, below ``out_dir``; print what came of it, and return it as data.

    ``progress`` gets bars and the time left; ``console`` None prints nothing.
    """
    started = time.monotonic()
    plan = make_plan(read_recipe(shipped("recipes") / "demo.yaml", overrides), out_dir)
    progress.print(
        f"{len(plan.training)} students of about {len(plan.training[0].run.chains):,} problems each, then "
        f"{len(plan.evaluation)} evaluations; what is done is kept in {out_dir}",
        soft_wrap=True,
    )
    compared = run_plan(plan, progress)
    by_split = {split: compared[f"{split}, calculator on"] for split in plan.recipe.splits}
    pair = {stage.split: stage for stage in plan.evaluation if stage.arm == _PAIR and stage.calculator}
    hardest = plan.recipe.splits[0]
    runs = {split: load_run(stage.folder) for split, stage in pair.items()}
    solved = next((found for run in runs.values() if (found := _first(run, right=True))), None)
    blame = _blame(pair[hardest], runs[hardest])
    seconds = time.monotonic() - started
    if console is not None:
        _show(console, plan, by_split, solved, blame, seconds)
    return {
        "seconds": round(seconds, 1),
        "comparisons": {name: comparison.to_json() for name, comparison in compared.items()},
        "solved": solved[1].to_json() if solved else None,
        "failure": {"trace": blame.trace.to_json(), "culprit": blame.culprit} if blame else None,
        "failures": {"split": blame.split, "all": blame.failures, "qg": blame.qg} if blame else None,
        "folders": [str(stage.link) for stage in (*plan.training, *plan.evaluation)],
    }


def _first(run: Run, right: bool) -> tuple[Problem, Trace] | None:
    """The first problem of a run that came out right, or wrong."""
    traces = {trace.problem_id: trace for trace in run.traces if trace.sample == 0}
    for problem, score in zip(run.problems, run.scores, strict=True):
        if score.correct == right and len(traces[problem.id].steps) > 1:
            return problem, traces[problem.id]
    return None


def _blame(stage: EvaluateStage, run: Run) -> Blame | None:
    """Whose the failures are: QA is given gold questions, and what then comes right was QG's error."""
    wrong = [problem for problem, score in zip(run.problems, run.scores, strict=True) if not score.correct]
    if not wrong:
        return None
    chains = {chain.problem_id: chain for chain in load_chains(wrong[0].dataset, stage.split)}
    gold = intervene("questions", [chains[problem.id] for problem in wrong])
    models = {place: load_lm(model) for place, model in stage.models.items()}
    again = Solving(SolveSettings.parse(stage.settings.model_dump()), **models, intervention=gold)
    by_id = {problem.id: problem for problem in wrong}
    mended = {t.problem_id for t in again.run((p, 0) for p in wrong) if score_trace(by_id[t.problem_id], t).correct}
    shown = next((problem for problem in wrong if problem.id in mended), wrong[0])
    trace = next(trace for trace in run.traces if trace.problem_id == shown.id)
    culprit = "QG" if shown.id in mended else "QA"
    return Blame(stage.split, len(wrong), len(mended), culprit, shown, chains[shown.id], trace)


def _show(
    console: Console,
    plan: Plan,
    by_split: Mapping[str, Comparison],
    solved: tuple[Problem, Trace] | None,
    blame: Blame | None,
    seconds: float,
) -> None:
    console.print(_accuracies(by_split))
    for split, comparison in by_split.items():
        console.print(Text(f"{split}:", style="bold"))
        console.print(comparison.pair_table())
    console.print(_costs(next(iter(by_split.values()))))
    if solved:
        console.print(Text("One problem, step by step", style="bold"))
        console.print(Text(_told(*solved)), soft_wrap=True)
    if blame:
        console.print(Text(f"A failure, and whose: {blame.culprit}", style="bold"))
        console.print(Text(_told(blame.problem, blame.trace)), soft_wrap=True)
        console.print(Text(_cause(blame)), soft_wrap=True)
    qg, qa = (plan.out / f"{role}-s{plan.recipe.seeds[0]}" for role in ("qg", "qa"))
    console.print(f"\n{seconds / 60:.1f} minutes. Students and runs lie in {plan.out}; go on with", soft_wrap=True)
    console.print(f'  socratic solve "…" --qg {qg} --qa {qa}', soft_wrap=True)
    runs = " ".join(str(run) for run in plan.runs(SEEN, True)[:2])
    console.print(f"  socratic compare {runs} --steps", soft_wrap=True)
    why = plan.out / "why"
    console.print(
        f"  socratic evaluate stories --qg {qg} --qa {qa} --swap all --intervene all --out {why}", soft_wrap=True
    )


def _accuracies(by_split: Mapping[str, Comparison]) -> Table:
    splits = list(by_split)
    problems = " and ".join(sorted({str(comparison.problems) for comparison in by_split.values()}))
    made = new_table(f"Right answers in % [95 %], {problems} problems each, calculator on", splits, first="student")
    for place, row in enumerate(by_split[splits[0]].rows):
        cells = (interval(by_split[split].rows[place].metrics["correct"]) for split in splits)
        made.add_row(Text(visible(row.name)), *cells)
    return made


def _costs(comparison: Comparison) -> Table:
    made = new_table(
        "What it took, each student's base included", ["parameters", "trained on", "decoded a problem"], first="student"
    )
    for row in comparison.rows:
        trained = f"{(row.trained_tokens or 0) / 1e6:.2f} M tokens"
        decoded = f"{row.metrics['tokens_per_problem']:.0f} tokens"
        made.add_row(Text(visible(row.name)), f"{(row.parameters or 0) / 1e6:.2f} M", trained, decoded)
    return made


def _told(problem: Problem, trace: Trace) -> str:
    lines = [f"{problem.id}: {problem.question}"]
    for step in trace.steps:
        lines += [f"  QG: {step.question}", f"  QA: {step.answer}"]
    return visible("\n".join([*lines, f"  QA: #### {trace.answer}   (gold: {problem.answer})"]))


def _cause(blame: Blame) -> str:
    """Where the trace leaves the gold chain, and how the failures of the split divide."""
    values: Sequence[str | None] = [step_value(step) for step in blame.trace.steps]
    gold = [step_value(step) for step in blame.chain.steps]
    place = next((i for i, value in enumerate(gold) if i >= len(values) or values[i] != value), len(gold) - 1)
    wanted = blame.chain.steps[place]
    why = "given gold questions, QA solves it" if blame.culprit == "QG" else "QA fails with gold questions too"
    return visible(
        f"  It leaves the gold steps at step {place + 1} (gold: {wanted.question} {wanted.answer}); {why}.\n"
        f"  Of {blame.failures} failures on {blame.split}, {blame.qg} come right with gold questions (QG's errors), "
        f"{blame.failures - blame.qg} do not (QA's)."
    )
