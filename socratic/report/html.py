"""A comparison as one HTML file that needs no network: tables and plots, and every problem with all transcripts.

Tables and plots stand in the page as such; the problems are JSON in it, which the page's script shows with
``textContent`` alone. Everything that comes from models and files goes through `visible` and the template's escaping,
and the page's policy lets nothing run or load but its own script and style, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socratic import store
from socratic.answers import sub_answer_value
from socratic.calculator import calculate, disagreements, format_result
from socratic.evaluate import Run, group_scores, majority_correct
from socratic.report import visible
from socratic.report.plots import Arm
from socratic.report.report import Report
from socratic.types import Chain, Problem, Score, Step, Trace

if TYPE_CHECKING:
    from rich.table import Table


def page(report: Report) -> str:
    """The whole file as text; the same report gives the same text."""
    import jinja2
    from jinja2.utils import htmlsafe_json_dumps
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
        data=htmlsafe_json_dumps(_records(report), separators=(",", ":"), allow_nan=False),
        title=visible(" and ".join(sorted({f"{p.dataset} {p.split}" for p in problems}))),
        problems=len(problems),
        runs=[_described(*named) for named in report.named_runs()],
        places={visible(arm.row.name): arm.colour for arm in report.arms},
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


def _policy(script: str, style: str) -> str:
    """Nothing runs and nothing is loaded but this script and this style."""
    script_hash, style_hash = (
        base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode() for text in (script, style)
    )
    return (
        f"default-src 'none'; script-src 'sha256-{script_hash}'; style-src 'sha256-{style_hash}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


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
    runs = [{"name": visible(name), "place": arm.colour} for name, _, arm in named]
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
    dropped = (trace.rejected.question, trace.rejected.answer) if trace.rejected else ()
    return {
        "steps": [_step(step) for step in trace.steps],
        "rejected": visible("\n".join(filter(None, dropped))),
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
