"""Runs side by side with intervals and paired tests, and one problem of a run in full."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from socratic import stats
from socratic.config import nearest
from socratic.evaluate import (
    Metrics,
    Run,
    differing_problems,
    group_scores,
    majority_correct,
    measure,
    solved_content,
)
from socratic.report import visible
from socratic.types import Problem, Score, Trace, UserError

_SEED = 0  # of the bootstrap: the same runs give the same interval


@dataclass(frozen=True)
class Row:
    """One run; ``metrics`` as `evaluate.measure` gives them, over the compared problems."""

    name: str
    solver: str
    calculator: str
    metrics: Metrics


@dataclass(frozen=True)
class Pair:
    """A run against the baseline, on majority answers where a run has several samples.

    ``only_run`` and ``only_baseline`` count the problems that one alone solves, ``p`` is McNemar's exact two-sided p,
    ``difference`` is run minus baseline with its 95 % paired bootstrap interval.
    """

    name: str
    baseline: str
    only_run: int
    only_baseline: int
    p: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """``rows`` in the order given; ``pairs`` sets every further run against the first."""

    problems: int
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]

    def to_json(self) -> dict[str, Any]:
        """All figures, unrounded, as plain values."""
        return dataclasses.asdict(self)

    def table(self) -> Group:
        """For the terminal, readable at 80 columns; names from disk are shown as text, never as markup."""
        tables = [self._accuracy_table(), self._process_table()]
        if self.pairs:
            tables.append(self._pair_table())
        return Group(*tables)

    def _accuracy_table(self) -> Table:
        voted = ["majority"] if any(row.metrics["majority"] for row in self.rows) else []
        columns = ["correct", "strict", *voted, "unparsed", "truncated"]
        table = _table(f"Accuracy in % [95 % Wilson] on {self.problems} problems", columns)
        for row in self.rows:
            m = row.metrics
            majority = [_percent(m["majority"]["rate"]) if m["majority"] else "-"] if voted else []
            accuracy = [_interval(m["correct"]), _percent(m["strict"]["rate"]), *majority]
            table.add_row(_text(row.name), *accuracy, str(m["unparsed"]), str(m["truncated"]))
        return table

    def _process_table(self) -> Table:
        columns = ["solver", "calc", "samples", "finished", "steps", "tokens", "seconds"]
        table = _table("Solving (finished in %; tokens and seconds per problem)", columns)
        for row in self.rows:
            m = row.metrics
            finished = m["stop_reasons"]["finished"] / (m["problems"] * m["samples"])
            table.add_row(
                _text(row.name),
                _text(row.solver),
                row.calculator,
                str(m["samples"]),
                _percent(finished),
                f"{m['mean_steps']:.1f}",
                f"{m['tokens_per_problem']:.0f}",
                f"{m['seconds_per_problem']:.2f}",
            )
        return table

    def _pair_table(self) -> Table:
        title = "Against the first run, in points [95 % paired bootstrap], exact McNemar p"
        table = _table(title, ["difference", "only this right", "only first right", "p"])
        for pair in self.pairs:
            difference = f"{100 * pair.difference:+.1f} [{100 * pair.low:+.1f}, {100 * pair.high:+.1f}]"
            p = f"{pair.p:.3f}" if pair.p >= 0.001 else f"{pair.p:.1e}"
            table.add_row(_text(pair.name), difference, str(pair.only_run), str(pair.only_baseline), p)
        return table


def compare(runs: Sequence[Run], common: bool = False) -> Comparison:
    """``runs`` over the same problems, or with ``common`` over the problems that all of them share.

    Raises `UserError` for runs that are not complete, were scored by different scorers, or are over different problems
    (saying how many differ).
    """
    if not runs:
        raise UserError("no runs to compare; name at least one run folder")
    _check_scored(runs)
    ids = _shared_ids(runs, common)
    names = _names(runs)
    rows, outcomes = [], []
    for name, run in zip(names, runs, strict=True):
        traces = [t for t in run.traces if t.problem_id in ids]
        scores = [s for s in run.scores if s.problem_id in ids]
        rows.append(Row(name, _solvers(traces), _calculators(traces), measure(traces, scores)))
        groups = group_scores(scores)
        outcomes.append({id: majority_correct(groups[id]) for id in ids})
    pairs = [_pair(name, names[0], outcome, outcomes[0]) for name, outcome in zip(names[1:], outcomes[1:], strict=True)]
    return Comparison(len(ids), tuple(rows), tuple(pairs))


def show_problem(run: Run, problem_id: str) -> str:
    """One problem in full as safe plain text: question, gold, each sample's steps, answer, stop reason and score."""
    problem = next((p for p in run.problems if p.id == problem_id), None)
    if problem is None:
        near = nearest(problem_id, [p.id for p in run.problems])
        raise UserError(f"no problem {problem_id!r} in {run.path}; did you mean {near!r}?")
    scores = {s.sample: s for s in run.scores if s.problem_id == problem_id}
    traces = sorted((t for t in run.traces if t.problem_id == problem_id), key=lambda t: t.sample)
    parts = [_problem_text(problem), *(_trace_text(t, scores.get(t.sample)) for t in traces)]
    if not traces:
        parts.append("not solved yet")
    return visible("\n\n".join(parts) + "\n")


def _check_scored(runs: Sequence[Run]) -> None:
    for run in runs:
        if run.metrics is None:
            raise UserError(f"{run.path} is not complete; continue it with `socratic evaluate`, then compare")
    versions = {str(run.metrics["scorer_version"]) for run in runs if run.metrics}
    if len(versions) > 1:
        named = " and ".join(sorted(versions))
        raise UserError(
            f"the runs were scored by different scorers ({named}); run `socratic score` on each of them first"
        )


def _shared_ids(runs: Sequence[Run], common: bool) -> list[str]:
    """Ids of the problems in all runs with equal content; without ``common`` they must be all there are."""
    first = runs[0]
    for run in runs[1:]:
        differing = differing_problems(first.problems, run.problems)
        if differing and not common:
            raise UserError(
                f"{first.path} and {run.path} are over different problems ({len(differing)} differ, the first "
                f"{differing[0]!r}); compare what they share with --common"
            )
    contents = [{p.id: solved_content(p) for p in run.problems} for run in runs]
    ids = [id for id, content in contents[0].items() if all(other.get(id) == content for other in contents[1:])]
    if not ids:
        raise UserError(f"the {len(runs)} runs share no problem; compare runs over the same data set and split")
    return ids


def _pair(name: str, baseline: str, run: dict[str, bool], first: dict[str, bool]) -> Pair:
    a, b = list(run.values()), list(first.values())
    only_run = sum(x and not y for x, y in zip(a, b, strict=True))
    only_baseline = sum(y and not x for x, y in zip(a, b, strict=True))
    low, high = stats.paired_bootstrap(a, b, seed=_SEED)
    difference = (only_run - only_baseline) / len(a)
    return Pair(name, baseline, only_run, only_baseline, stats.mcnemar(only_run, only_baseline), difference, low, high)


def _names(runs: Sequence[Run]) -> list[str]:
    """Folder names, or whole paths where two folders share a name."""
    names = [run.path.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _solvers(traces: Sequence[Trace]) -> str:
    return ", ".join(sorted({t.solver for t in traces}))


def _calculators(traces: Sequence[Trace]) -> str:
    used = {t.calculator for t in traces}
    return "mixed" if len(used) > 1 else "on" if used == {True} else "off"


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("run", overflow="fold")
    for column in columns:
        table.add_column(column, justify="left" if column == "solver" else "right", no_wrap=True)
    return table


def _text(value: str) -> Text:
    return Text(visible(value))


def _interval(rate: dict[str, float]) -> str:
    return f"{_percent(rate['rate'])} [{_percent(rate['low'])}, {_percent(rate['high'])}]"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _problem_text(problem: Problem) -> str:
    lines = [f"Problem {problem.id} ({problem.dataset}, {problem.split})"]
    if problem.context:
        lines.append(_field("Context", problem.context))
    lines.append(_field("Question", problem.question))
    lines += [_field(f"({chr(ord('A') + i)})", choice) for i, choice in enumerate(problem.choices or ())]
    lines.append(_field("Gold", problem.answer))
    return "\n".join(lines)


def _trace_text(trace: Trace, score: Score | None) -> str:
    calculator = "on" if trace.calculator else "off"
    lines = [
        f"Sample {trace.sample}: {trace.solver}, calculator {calculator}, stopped by {trace.stop_reason}, "
        f"{trace.tokens} tokens, {trace.seconds:.2f} s"
    ]
    for number, step in enumerate(trace.steps, start=1):
        if step.question:
            lines.append(_field(f"Q{number}", step.question))
        lines.append(_field(f"A{number}", step.answer))
    lines.append(_field("Answer", "none" if trace.answer is None else trace.answer))
    if trace.error:
        lines.append(_field("Error", trace.error))
    if score is None:
        lines.append("  Score: not scored yet")
    else:
        right, strict = "right" if score.correct else "wrong", "right" if score.strict else "wrong"
        lines.append(_field("Score", f"{right}, strict {strict}, read {score.predicted}, reason {score.reason}"))
    return "\n".join(lines)


def _field(label: str, text: str) -> str:
    """A labelled text, further lines indented so that no text can pass for another field."""
    return f"  {label}: " + text.replace("\n", "\n      ")
