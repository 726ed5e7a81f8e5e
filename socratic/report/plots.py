"""The plots of a comparison, as SVG for the report's page and as PNG files, each with its numbers as a table."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from socratic import stats
from socratic.calculator import disagreements
from socratic.evaluate import Run
from socratic.report.compare import Comparison, Row, run_names
from socratic.report.figures import COLOURS, Series, bars_figure, inline, label, panels_figure, points_figure, style
from socratic.report.interventions import Effect
from socratic.report.steps import by_length, right_by_length
from socratic.report.tables import new_table, percent, text
from socratic.report.training import Curve
from socratic.types import Chain, Score, Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

_COSTS = (
    ("tokens", "decoded tokens a problem", "tokens_per_problem", "{:.0f}"),
    ("seconds", "seconds a problem", "seconds_per_problem", "{:.2f}"),
    ("parameters", "parameters of all students, millions", None, "{:.2f}"),
)

WRONG = {
    "no answer": "no answer was read (unparsed, ambiguous, truncated or empty)",
    "wrong arithmetic": "a calculation states a wrong result",
    "fewer steps": "fewer steps than gold",
    "more steps": "more steps than gold",
    "other": "none of these",
}


@dataclass(frozen=True)
class Arm:
    """One row of a comparison with its runs; ``place`` decides its colour."""

    place: int
    row: Row
    runs: tuple[Run, ...]

    @property
    def colour(self) -> int:
        """Which of `COLOURS` it has."""
        return self.place % len(COLOURS)


@dataclass(frozen=True)
class Plot:
    """A drawn plot; ``rows`` hold the numbers in it as text."""

    name: str
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    figure: Figure

    def table(self) -> Table:
        """The numbers in it, for the terminal."""
        first, *others = self.columns
        made = new_table(self.title, others, first)
        for cells in self.rows:
            made.add_row(*map(text, cells))
        return made

    def svg(self) -> str:
        """For a page whose policy refuses style attributes; black is the page's ``currentColor``."""
        buffer = io.StringIO()
        with style(self.name):
            self.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        return inline(buffer.getvalue(), f"{self.title}. {self.note}")

    def png(self) -> bytes:
        """At 200 dots an inch."""
        buffer = io.BytesIO()
        with style(self.name):
            self.figure.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()


def arms_of(runs: Sequence[Run], comparison: Comparison) -> list[Arm]:
    """The rows of ``comparison`` with the runs they were made of."""
    named = dict(zip(run_names(runs), runs, strict=True))
    return [Arm(place, row, tuple(named[name] for name in row.runs)) for place, row in enumerate(comparison.rows)]


def draw(
    arms: Sequence[Arm],
    chains: Mapping[str, Chain],
    effects: Sequence[tuple[Effect, int]],
    curves: Sequence[Curve],
) -> list[Plot]:
    """All plots that can be drawn of ``arms``: without gold ``chains``, ``effects`` or ``curves``, not theirs."""
    with style(""):
        plots = [plot for cost in _COSTS if (plot := _cost_plot(arms, *cost))]
        if chains:
            plots.append(_steps_plot(arms, chains))
        plots.append(_stops_plot(arms))
        if any(not score.correct for arm in arms for run in arm.runs for score in run.scores):
            plots.append(_wrong_plot(arms, chains))
        if effects:
            plots.append(_effects_plot(effects))
        if curves:
            plots.append(_curves_plot(curves))
    return plots


def curve_plot(name: str, x: str, lines: Mapping[str, Sequence[tuple[float, Row]]]) -> Plot:
    """Right answers of arms (of the majority where there are several samples) against what they differ in, ``x``."""
    series, rows = [], []
    for place, (line, points) in enumerate(lines.items()):
        xs = [value for value, _ in points]
        rates = [row.metrics["majority"] or row.metrics["correct"] for _, row in points]
        ys, lows, highs = ([100 * rate[key] for rate in rates] for key in ("rate", "low", "high"))
        series.append(Series(line, place, xs, ys, lows, highs))
        for (value, row), rate in zip(points, rates, strict=True):
            cells = (percent(rate[key]) for key in ("rate", "low", "high"))
            rows.append((label(line), f"{value:g}", *cells, f"{len(row.runs)}"))
    title = f"Right answers against {x}"
    positive = [value for one in series for value in one.xs if value > 0]
    is_log = all(value > 0 for one in series for value in one.xs) and max(positive) > 10 * min(positive)
    with style(""):
        figure = points_figure(title, x, "right, %", series, log=is_log)
    columns = ("line", x, "right, %", "low", "high", "runs")
    return Plot(name, title, "Bars: 95 % intervals.", columns, tuple(rows), figure)


def _cost_plot(arms: Sequence[Arm], name: str, axis: str, metric: str | None, form: str) -> Plot | None:
    """Without a ``metric`` the cost is in parameters; None where no arm says how many it has."""
    if metric:
        known = [(arm, arm.row.metrics[metric], arm.row.metrics["correct"]) for arm in arms]
    else:
        known = [(arm, n / 1e6, arm.row.metrics["correct"]) for arm in arms if (n := arm.row.parameters) is not None]
    if not known:
        return None
    series = [
        Series(arm.row.name, arm.place, [cost], [100 * rate["rate"]], [100 * rate["low"]], [100 * rate["high"]])
        for arm, cost, rate in known
    ]
    title = f"Right answers against {name}"
    spent = [cost for _, cost, _ in known]
    figure = points_figure(title, axis, "right, %", series, log=max(spent) > 10 * min(spent) > 0)
    rows = tuple(
        (label(arm.row.name), form.format(cost), *(percent(rate[key]) for key in ("rate", "low", "high")))
        for arm, cost, rate in known
    )
    return Plot(f"cost-{name}", title, "Bars: 95 % intervals.", ("arm", axis, "right, %", "low", "high"), rows, figure)


def _steps_plot(arms: Sequence[Arm], chains: Mapping[str, Chain]) -> Plot:
    """A panel an arm, since the intervals of several would hide each other."""
    groups = by_length(chains)
    series, rows = [], []
    for arm in arms:
        rates = right_by_length(arm.runs, groups)
        bounds = [stats.wilson(rate * len(ids), len(ids)) for rate, ids in zip(rates, groups.values(), strict=True)]
        lows, highs = zip(*bounds, strict=True)
        for (length, ids), *shares in zip(groups.items(), rates, lows, highs, strict=True):
            rows.append((label(arm.row.name), length, f"{len(ids)}", *map(percent, shares)))
        ys, below, above = ([100 * share for share in shares] for shares in (rates, lows, highs))
        series.append(Series(arm.row.name, arm.place, range(len(groups)), ys, below, above))
    title = "Right answers by number of gold steps"
    figure = panels_figure(title, "right, %", series, [f"{length}\n{len(ids)}" for length, ids in groups.items()])
    note = "Below the steps the number of problems; bars: 95 % Wilson intervals over them; grey: the other arms."
    columns = ("arm", "gold steps", "problems", "right, %", "low", "high")
    return Plot("gold-steps", title, note, columns, tuple(rows), figure)


def _stops_plot(arms: Sequence[Arm]) -> Plot:
    stops = [arm.row.metrics["stop_reasons"] for arm in arms]
    shares = {reason: [counts[reason] / sum(counts.values()) for counts in stops] for reason in stops[0]}
    return _shares_plot("stop-reasons", "Why solving stopped", "Share of samples, %.", arms, shares)


def _wrong_plot(arms: Sequence[Arm], chains: Mapping[str, Chain]) -> Plot:
    shares: dict[str, list[float]] = {meaning: [] for meaning in WRONG.values()}
    for arm in arms:
        kinds = [kind for run in arm.runs for kind in _wrong_kinds(run, chains)]
        for name, meaning in WRONG.items():
            shares[meaning].append(kinds.count(name) / len(kinds) if kinds else 0.0)
    note = "Share of an arm's wrong samples, %; each counts under the first that holds."
    if chains:
        note += " The lines of a chain of thought are its steps."
    else:
        note += " Numbers of steps are not compared: no gold chains were found."
    return _shares_plot("wrong-answers", "What stands in wrong answers", note, arms, shares)


def _wrong_kinds(run: Run, chains: Mapping[str, Chain]) -> Iterator[str]:
    for problem, trace, score in run.scored():
        if not score.correct:
            yield _wrong_kind(score, trace, chains.get(problem.id))


def _wrong_kind(score: Score, trace: Trace, chain: Chain | None) -> str:
    """The first key of `WRONG` that holds."""
    if score.predicted is None:
        return "no answer"
    if any(disagreements(step.answer) for step in trace.steps):
        return "wrong arithmetic"
    if chain is None or trace.solver in ("answer", "likelihood"):
        return "other"
    lines = (1 if step.question else len(step.answer.split("\n")) for step in trace.steps)
    more = sum(lines) - len(chain.steps)
    return "more steps" if more > 0 else "fewer steps" if more < 0 else "other"


def _shares_plot(name: str, title: str, note: str, arms: Sequence[Arm], shares: Mapping[str, Sequence[float]]) -> Plot:
    found = {group: values for group, values in shares.items() if any(values)}
    groups = {
        group: [(arm.row.name, arm.place, 100 * share) for arm, share in zip(arms, values, strict=True)]
        for group, values in found.items()
    }
    rows = tuple(
        (label(arm.row.name), *(percent(values[place]) for values in found.values())) for place, arm in enumerate(arms)
    )
    return Plot(name, title, note, ("arm", *found), rows, bars_figure(title, groups))


def _effects_plot(effects: Sequence[tuple[Effect, int]]) -> Plot:
    groups = {
        "right answers, %": [(effect.name, place, 100 * effect.right) for effect, place in effects],
        "right gold steps, %": [(e.name, place, 100 * e.steps) for e, place in effects if e.steps is not None],
    }
    title = "Given gold or other words"
    rows = tuple((label(e.name), percent(e.right), "-" if e.steps is None else percent(e.steps)) for e, _ in effects)
    note = "What each run was given in a student's place; docs/comparing.md says how to read it."
    columns = ("run", *groups)
    return Plot("effects", title, note, columns, rows, bars_figure(title, {k: v for k, v in groups.items() if v}))


def _curves_plot(curves: Sequence[Curve]) -> Plot:
    series, rows = [], []
    for curve in curves:
        for kind, points, dashed in (("train", curve.train, False), ("dev", curve.dev, bool(curve.train))):
            if points:
                updates, losses = zip(*points, strict=True)
                series.append(Series(curve.student, curve.place, updates, losses, dashed=dashed))
                ends = (f"{loss:.4f}" for loss in (losses[0], losses[-1]))
                rows.append((label(curve.student), kind, f"{len(points)}", *ends))
    title = "Training loss"
    figure = points_figure(title, "update", "loss per learned token", series)
    note = "Hollow, dashed: the loss on dev. A student in several arms has the colour of the first."
    return Plot("training", title, note, ("student", "on", "points", "first", "last"), tuple(rows), figure)
