"""Where the errors came from: runs with other words against the run as it is, in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.table import Table

from socratic import stats
from socratic.evaluate import Run, load_run
from socratic.interventions import REPLACEMENTS, intervene
from socratic.report.compare import Pair, compare
from socratic.report.steps import step_accuracy
from socratic.report.tables import new_table, percent, points, text
from socratic.solving import Solving
from socratic.types import Chain, Problem, UserError

AS_IS = "as-is"
_SEED = 0


@dataclass(frozen=True)
class Effect:
    """One run: the share of problems ``right``, of gold ``steps`` whose result stands in place, and the differences.

    ``pair`` is about right answers (of several samples the majority's), p adjusted for all runs against that baseline;
    ``steps_difference`` (difference, low, high) is about steps. Both are None for the run as it is.
    """

    name: str
    right: float
    steps: float | None
    against: str | None
    pair: Pair | None
    steps_difference: tuple[float, float, float] | None


def investigate(
    kinds: Sequence[str],
    solving: Solving,
    problems: Sequence[Problem],
    chains: Sequence[Chain],
    seed: int,
    out: Path,
    run: Callable[[Solving, Path], object],
) -> list[Effect]:
    """The run as it is, then one for each kind, in folders below ``out``, and their `effects`.

    ``run`` evaluates a solver over ``problems`` into a folder; ``chains`` are gold. What replaces the questions is set
    against gold questions, which are then among the kinds. Raises `UserError`, before anything is run, for a problem
    without gold sub-questions and a solver that asks none.
    """
    gold = {chain.problem_id: chain for chain in chains}
    if missing := next((p.id for p in problems if p.id not in gold), None):
        raise UserError(f"{missing} has no gold chain to put in a student's place; choose problems that have")
    gold = {problem.id: gold[problem.id] for problem in problems}
    if set(kinds) & set(REPLACEMENTS):
        kinds = ["questions", *(kind for kind in kinds if kind != "questions")]
    solvers = {kind: solving.with_intervention(intervene(kind, list(gold.values()), seed)) for kind in kinds}
    for kind, solver in {AS_IS: solving, **solvers}.items():
        run(solver, out / kind)
    return effects({kind: load_run(out / kind) for kind in (AS_IS, *kinds)}, gold)


def effects(runs: Mapping[str, Run], chains: Mapping[str, Chain]) -> list[Effect]:
    """Each run against its baseline: replaced questions against gold ones, all else against the run as it is.

    ``runs`` are named by the kind of intervention, `AS_IS` among them, over the same problems; ``chains`` are gold.
    """
    steps = {name: _steps(run, chains) for name, run in runs.items()}
    against = {name: None if name == AS_IS else "questions" if name in REPLACEMENTS else AS_IS for name in runs}
    found: dict[str, Effect] = {}
    for baseline in [name for name in (AS_IS, "questions") if name in runs]:
        names = [baseline, *(name for name in runs if against[name] == baseline)]
        family = compare([runs[name] for name in names])
        for name, row, pair in zip(names, family.rows, (None, *family.pairs), strict=True):
            rate = (row.metrics["majority"] or row.metrics["correct"])["rate"]
            share = fmean(steps[name]) if steps[name] else None
            gap = _gap(steps[name], steps[baseline]) if pair else None
            found.setdefault(name, Effect(name, rate, share, against[name], pair, gap))
    return [found[name] for name in runs]


def effects_table(found: Sequence[Effect]) -> Table:
    """Readable at 80 columns."""
    made = new_table("Right answers and right steps in %, differences in points [95 %, paired]", _COLUMNS)
    for effect in found:
        pair, gap = effect.pair, effect.steps_difference
        made.add_row(
            text(effect.name),
            percent(effect.right),
            "-" if effect.steps is None else percent(effect.steps),
            effect.against or "",
            points(pair.difference, pair.low, pair.high) if pair else "",
            points(*gap) if gap else "",
        )
    return made


_COLUMNS = ("right", "steps", "against", "right, points", "steps, points")


def _steps(run: Run, chains: Mapping[str, Chain]) -> list[float]:
    """For each problem with numbers in its gold steps, the mean share over its samples, in the problems' order."""
    shares: dict[str, list[float]] = {}
    for trace in run.traces:
        if (share := step_accuracy(trace, chains[trace.problem_id])) is not None:
            shares.setdefault(trace.problem_id, []).append(share)
    return [fmean(shares[p.id]) for p in run.problems if p.id in shares]


def _gap(mine: list[float], theirs: list[float]) -> tuple[float, float, float] | None:
    if not mine:
        return None
    low, high, _ = stats.bootstrap_difference([mine], [theirs], _SEED)
    return fmean(mine) - fmean(theirs), low, high
