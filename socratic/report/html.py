"""A comparison as one HTML file that needs no network: tables and plots, and every problem with all transcripts.

Tables and plots stand in the page as such; the problems are JSON in it, which the page's script shows with
``textContent`` alone. Everything that comes from models and files goes through `visible` and the template's escaping,
and the page's policy lets nothing run or load but its own script and style, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socratic import store
from socratic.answers import sub_answer_value
from socratic.calculator import calculate, disagreements, format_result
from socratic.evaluate import Run, group_scores, majority_correct
from socratic.interventions import REPLACEMENTS
from socratic.report import plots, visible
from socratic.report.compare import Comparison, shared_ids
from socratic.report.figures import COLOURS
from socratic.report.interventions import AS_IS, Effect, effects, effects_table
from socratic.report.plots import Arm, Plot
from socratic.report.training import curves
from socratic.types import Chain, Problem, Score, Step, Trace

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Report:
    """What the page and the plots are made of; ``notes`` say what is missing and why."""

    runs: tuple[Run, ...]
    arms: tuple[Arm, ...]
    tables: tuple[Table, ...]
    plots: tuple[Plot, ...]
    chains: Mapping[str, Chain]
    notes: tuple[str, ...]

    def named_runs(self) -> list[tuple[str, Run, Arm]]:
        """The runs in the arms' order, with their names."""
        return [(name, run, arm) for arm in self.arms for name, run in zip(arm.row.runs, arm.runs, strict=True)]


def make_report(
    runs: Sequence[Run], comparison: Comparison, chains: Mapping[str, Chain], steps: Table | None = None
) -> Report:
    """The tables of ``comparison`` (and ``steps``), and the plots, of complete ``runs``; ``chains`` are gold."""
    ids = shared_ids(runs, common=True)
    runs = [_restricted(run, ids) for run in runs]
    arms = plots.arms_of(runs, comparison)
    gold = {id: chain for id, chain in chains.items() if id in ids}
    notes = []
    if not gold:
        notes.append("No gold chains were found: nothing is shown by number of gold steps.")
    if all(arm.row.parameters is None for arm in arms):
        notes.append("The runs do not say how many parameters their students have: there is no plot against them.")
    effects_of = _effects(arms, gold)
    found, missing = curves([arm.runs for arm in arms])
    if missing:
        notes.append(f"No training log was found near the runs for: {', '.join(map(visible, missing))}.")
    tables = [*comparison.tables(), *([steps] if steps else [])]
    if effects_of:
        tables.append(effects_table([effect for effect, _ in effects_of]))
    drawn = plots.draw(arms, gold, effects_of, found)
    return Report(tuple(runs), tuple(arms), tuple(tables), tuple(drawn), gold, tuple(notes))


def page(report: Report) -> str:
    """The whole file as text; the same report gives the same text."""
    import jinja2
    from markupsafe import Markup

    source = files("socratic.report") / "templates"
    script, style = ((source / f"report.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((source / "report.html").read_text(encoding="utf-8"))
    problems = report.runs[0].problems
    return template.render(
        policy=_policy(script, style),
        script=Markup(script),
        style=Markup(style),
        data=Markup(_embedded(_records(report))),
        title=visible(" and ".join(sorted({f"{p.dataset} {p.split}" for p in problems}))),
        problems=len(problems),
        runs=[_described(*named) for named in report.named_runs()],
        places={visible(arm.row.name): arm.place % len(COLOURS) for arm in report.arms},
        tables=[_cells(table) for table in report.tables],
        plots=report.plots,
        svgs=[Markup(plot.svg()) for plot in report.plots],
        lengths=sorted({len(chain.steps) for chain in report.chains.values()}),
        stops=sorted({trace.stop_reason for run in report.runs for trace in run.traces}),
        notes=report.notes,
    )


def write_page(path: Path, report: Report) -> None:
    """Write `page` to ``path`` atomically."""
    store.atomic_write(path, page(report).encode("utf-8"))


def write_plots(folder: Path, report: Report) -> None:
    """Write every plot into ``folder`` as a PNG file."""
    for plot in report.plots:
        store.atomic_write(folder / f"{plot.name}.png", plot.png())


def _restricted(run: Run, ids: Mapping[str, None]) -> Run:
    """``run`` with the problems of ``ids`` alone."""
    return replace(
        run,
        problems=tuple(problem for problem in run.problems if problem.id in ids),
        traces=tuple(trace for trace in run.traces if trace.problem_id in ids),
        scores=tuple(score for score in run.scores if score.problem_id in ids),
    )


def _effects(arms: Sequence[Arm], chains: Mapping[str, Chain]) -> list[tuple[Effect, int]]:
    """Of the first run with interventions on the same students among ``arms``, their effects, with the arms' places."""
    single = [(arm.place, arm.runs[0]) for arm in arms if len(arm.runs) == 1]
    for _, base in single:
        if "intervention" in base.config or not all(problem.id in chains for problem in base.problems):
            continue
        family = {AS_IS: base}
        places = {}
        for place, run in single:
            same = all(run.config.get(key) == value for key, value in base.config.items() if key != "arm")
            kind = run.config.get("intervention", {}).get("kind", AS_IS)
            if same and (run is base or kind != AS_IS):
                family[kind] = run
                places[kind] = place
        if "questions" not in family:
            family = {kind: run for kind, run in family.items() if kind not in REPLACEMENTS}
        if len(family) > 1:
            return [(effect, places[effect.name]) for effect in effects(family, chains)]
    return []


def _policy(script: str, style: str) -> str:
    """Nothing runs and nothing is loaded but this script and this style."""
    script_hash, style_hash = (
        base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode() for text in (script, style)
    )
    return (
        f"default-src 'none'; script-src 'sha256-{script_hash}'; style-src 'sha256-{style_hash}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _embedded(value: Any) -> str:
    """JSON in ASCII without the characters that could end its element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _cells(table: Table) -> dict[str, Any]:
    """A table of the terminal as text: title, header and rows."""
    columns = [[getattr(cell, "plain", cell) for cell in column.cells] for column in table.columns]
    header = [str(column.header) for column in table.columns]
    return {"title": str(table.title), "header": header, "rows": list(zip(*columns, strict=True))}


def _described(name: str, run: Run, arm: Arm) -> list[str]:
    """Name, arm, folder, students and settings of a run."""
    students = [f"{place}: {model.get('name')}" for place, model in run.config.get("models", {}).items()]
    settings = [f"{key} {run.config[key]}" for key in ("temperature", "seed", "max_steps") if key in run.config]
    return [*map(visible, (name, arm.row.name, str(run.path), ", ".join(students), ", ".join(settings)))]


def _records(report: Report) -> dict[str, Any]:
    """What the page's script shows: runs, and problems with the samples of every run, in one order."""
    named = report.named_runs()
    scores = [group_scores(run.scores) for _, run, _ in named]
    traces = [{(trace.problem_id, trace.sample): trace for trace in run.traces} for _, run, _ in named]
    problems = []
    for problem in report.runs[0].problems:
        chain = report.chains.get(problem.id)
        groups = [by_problem[problem.id] for by_problem in scores]
        samples = [
            [_sample(trace[score.problem_id, score.sample], score, chain) for score in group]
            for group, trace in zip(groups, traces, strict=True)
        ]
        problems.append({**_problem(problem, chain), "right": [*map(majority_correct, groups)], "runs": samples})
    runs = [{"name": visible(name), "place": arm.place % len(COLOURS)} for name, _, arm in named]
    return {"runs": runs, "problems": problems}


def _problem(problem: Problem, chain: Chain | None) -> dict[str, Any]:
    return {
        "id": visible(problem.id),
        "question": visible(problem.question),
        "context": visible(problem.context or ""),
        "choices": [*map(visible, problem.choices or ())],
        "answer": visible(problem.answer),
        "gold": [_step(step) for step in chain.steps] if chain else None,
    }


def _sample(trace: Trace, score: Score, chain: Chain | None) -> dict[str, Any]:
    return {
        "steps": [_step(step) for step in trace.steps],
        "off": _off_gold(trace, chain),
        "answer": None if trace.answer is None else visible(trace.answer),
        "stop": trace.stop_reason,
        "error": visible(trace.error or ""),
        "calculator": trace.calculator,
        "tokens": trace.tokens,
        "seconds": round(trace.seconds, 2),
        "right": score.correct,
        "strict": score.strict,
        "read": None if score.predicted is None else visible(score.predicted),
        "reason": score.reason,
    }


def _step(step: Step) -> list[Any]:
    """Question and answer; the answer as one text, or as a list in which a mark with a wrong result is a pair.

    The pair is the mark as written and the right result.
    """
    text = visible(step.answer)
    wrong = disagreements(text)
    if not wrong:
        return [visible(step.question), text]
    pieces: list[Any] = []
    end = 0
    for mark in wrong:
        start = max(mark.start, end)  # the number behind a mark may begin the next calculation
        pieces += [text[end:start], [text[start : mark.end], format_result(calculate(mark.expr))]]
        end = mark.end
    return [visible(step.question), [*pieces, text[end:]]]


def _off_gold(trace: Trace, chain: Chain | None) -> list[Any] | None:
    """The first place at which a step's result is not the gold step's, and that; None where there are no such steps."""
    if chain is None or not any(step.question for step in trace.steps):
        return None
    for place, (mine, gold) in enumerate(zip(trace.steps, chain.steps, strict=False)):
        wanted = sub_answer_value(gold.answer)
        if wanted is not None and sub_answer_value(mine.answer) != wanted:
            return [place, wanted]
    return None
