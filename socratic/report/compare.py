"""Runs side by side with intervals and paired tests."""

from __future__ import annotations

import dataclasses
import os
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table

from socratic import stats
from socratic.answers import canonical
from socratic.choosing import SAMPLES
from socratic.evaluate import (
    Metrics,
    Run,
    differing_problems,
    group_scores,
    majority_correct,
    measure,
    stated_content,
)
from socratic.report import visible
from socratic.report.tables import interval, new_table, p_value, percent, points, text
from socratic.types import Problem, Trace, UserError

_SEED = 0  # of the bootstrap: the same runs give the same interval


@dataclass(frozen=True)
class Row:
    """One arm: a run, or the runs of one recipe over several seeds.

    ``metrics`` are as `evaluate.measure` gives them, over the compared problems, each figure the mean over ``runs``;
    with several runs the intervals are a bootstrap over seeds and problems, and ``spread`` is the standard deviation of
    the strict rate over seeds. ``parameters`` and ``trained_tokens`` are of all its students (tokens read in training,
    those of the students they started from included, a shared one once), None where a run does not say.
    """

    name: str
    runs: tuple[str, ...]
    solver: str
    calculator: str
    metrics: Metrics
    spread: float | None
    parameters: int | None
    trained_tokens: float | None


@dataclass(frozen=True)
class Pair:
    """An arm against the baseline, on majority answers where a run has several samples.

    ``difference`` is arm minus baseline with its 95 % bootstrap interval over seeds and problems. Of two single runs,
    ``only_run`` and ``only_baseline`` count the problems that one alone solves and ``p`` is McNemar's exact two-sided
    p; of several seeds they are None and ``p`` is the bootstrap's. ``p_holm`` is p adjusted for all pairs of the table,
    ``detectable`` the smallest difference the test would have seen at this number of problems with 80 % power.
    """

    name: str
    baseline: str
    only_run: int | None
    only_baseline: int | None
    p: float
    p_holm: float
    difference: float
    low: float
    high: float
    detectable: float


@dataclass(frozen=True)
class Comparison:
    """``rows`` in the order given; ``pairs`` sets every further arm against the first.

    ``chance`` has the accuracy of always giving the most frequent gold answer, and of guessing where that is defined.
    """

    problems: int
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    chance: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """All figures, unrounded, as plain values."""
        return dataclasses.asdict(self)

    def table(self) -> Group:
        """For the terminal, readable at 80 columns; names from disk are shown as text, never as markup."""
        return Group(*self.tables())

    def tables(self) -> list[Table]:
        """What `table` consists of."""
        tables = [self._accuracy_table(), self._process_table(), self.cost_table()]
        if any(row.metrics["at_k"] for row in self.rows):
            tables.append(self._samples_table())
        if self.pairs:
            tables.append(self.pair_table())
        return tables

    def _accuracy_table(self) -> Table:
        spread = ["seeds"] if any(row.spread is not None for row in self.rows) else []
        voted = ["majority"] if any(row.metrics["majority"] for row in self.rows) else []
        columns = ["correct", "strict", *spread, *voted, "unparsed", "truncated"]
        how = "95 % over seeds and problems" if spread else "95 % Wilson"
        made = new_table(f"Accuracy in % [{how}] on {self.problems} problems", columns)
        for row in self.rows:
            m = row.metrics
            majority = [percent(m["majority"]["rate"]) if m["majority"] else "-"] if voted else []
            sd = f"{len(row.runs)}" if row.spread is None else f"{len(row.runs)}, sd {percent(row.spread)}"
            strict = percent(m["strict"]["rate"])
            counts = (f"{m[name]:g}" if len(row.runs) == 1 else f"{m[name]:.1f}" for name in ("unparsed", "truncated"))
            made.add_row(text(row.name), interval(m["correct"]), strict, *([sd] if spread else []), *majority, *counts)
        for name, rate in self.chance.items():
            made.add_row(f"({name})", percent(rate), percent(rate), *[""] * (len(columns) - 2))
        return made

    def _process_table(self) -> Table:
        made = new_table("Solving (finished in %)", ["solver", "calc", "samples", "finished", "steps"])
        for row in self.rows:
            m = row.metrics
            finished = m["stop_reasons"]["finished"] / (m["problems"] * m["samples"])
            described = (text(row.solver), row.calculator, f"{m['samples']:g}")
            made.add_row(text(row.name), *described, percent(finished), f"{m['mean_steps']:.1f}")
        return made

    def cost_table(self) -> Table:
        """Parameters, tokens and seconds of every arm."""
        made = new_table("Cost (tokens and seconds per problem)", ["parameters", "trained on", "decoded", "seconds"])
        for row in self.rows:
            m = row.metrics
            size = "-" if row.parameters is None else f"{row.parameters / 1e6:.2f} M"
            trained = "-" if row.trained_tokens is None else f"{row.trained_tokens / 1e6:.2f} M tokens"
            decoded, seconds = f"{m['tokens_per_problem']:.0f}", f"{m['seconds_per_problem']:.2f}"
            made.add_row(text(row.name), size, trained, decoded, seconds)
        return made

    def _samples_table(self) -> Table:
        sizes = sorted({k for row in self.rows for k in row.metrics["at_k"] or ()}, key=int)
        made = new_table("Of k samples: majority right / any right, in %", [f"k={k}" for k in sizes])
        for row in self.rows:
            found = row.metrics["at_k"] or {}
            cells = (
                f"{percent(found[k]['majority'])} / {percent(found[k]['pass'])}" if k in found else "-" for k in sizes
            )
            made.add_row(text(row.name), *cells)
        return made

    def pair_table(self) -> Table:
        """Every further arm against the first."""
        exact = any(pair.only_run is not None for pair in self.pairs)
        bootstrap = any(pair.only_run is None for pair in self.pairs)
        several = len(self.pairs) > 1
        test = " or, of several seeds, ".join(["exact McNemar"] * exact + ["bootstrap"] * bootstrap)
        title = f"Against {self.pairs[0].baseline}, in points [95 %]; p: {test}; seen: the least visible"
        columns = [
            "difference",
            *(["only this", "only that"] if exact else []),
            "p",
            *(["Holm"] if several else []),
            "seen",
        ]
        made = new_table(visible(title), columns)
        for pair in self.pairs:
            difference = points(pair.difference, pair.low, pair.high)
            only = ["-" if n is None else str(n) for n in (pair.only_run, pair.only_baseline)] if exact else []
            adjusted = [p_value(pair.p_holm)] if several else []
            made.add_row(text(pair.name), difference, *only, p_value(pair.p), *adjusted, percent(pair.detectable))
        return made


def compare(runs: Sequence[Run], common: bool = False) -> Comparison:
    """``runs`` over the same problems, or with ``common`` over the problems that all of them share.

    Runs that differ in seeds alone, of training or of sampling, are one arm. Raises `UserError` for runs that are not
    complete, were scored by different scorers, or are over different problems (saying how many differ).
    """
    if not runs:
        raise UserError("no runs to compare; name at least one run folder")
    folders = [run.path.resolve() for run in runs]
    for run, folder in zip(runs, folders, strict=True):
        if folders.count(folder) > 1:
            raise UserError(f"{run.path} stands twice among the runs, perhaps as a link; name each run once")
    _check_scored(runs)
    ids = shared_ids(runs, common)
    names = dict(zip(map(id, runs), run_names(runs), strict=True))
    groups = _arms(runs)
    rows, outcomes = [], []
    for name, group in zip(_arm_names(groups, names), groups, strict=True):
        row, outcome = _row(name, [names[id(run)] for run in group], group, ids)
        rows.append(row)
        outcomes.append(outcome)
    pairs = [_pair(rows[0], outcomes[0], row, outcome) for row, outcome in zip(rows[1:], outcomes[1:], strict=True)]
    adjusted = stats.holm([pair.p for pair in pairs])
    pairs = [dataclasses.replace(pair, p_holm=p) for pair, p in zip(pairs, adjusted, strict=True)]
    return Comparison(len(ids), tuple(rows), tuple(pairs), _chance([p for p in runs[0].problems if p.id in ids]))


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


def shared_ids(runs: Sequence[Run], common: bool) -> dict[str, None]:
    """Ids of the problems in all runs with equal content; without ``common`` they must be all there are."""
    first = runs[0]
    for run in runs[1:]:
        differing = differing_problems(first.problems, run.problems)
        if differing and not common:
            raise UserError(
                f"{first.path} and {run.path} are over different problems ({len(differing)} differ, the first "
                f"{differing[0]!r}); compare what they share with --common"
            )
    contents = [{p.id: stated_content(p) for p in run.problems} for run in runs]
    ids = {id: None for id, content in contents[0].items() if all(other.get(id) == content for other in contents[1:])}
    if not ids:
        raise UserError(f"the {len(runs)} runs share no problem; compare runs over the same data set and split")
    return ids


def restricted(run: Run, ids: Mapping[str, None]) -> Run:
    """``run`` with the problems of ``ids`` alone."""
    return dataclasses.replace(
        run,
        problems=tuple(problem for problem in run.problems if problem.id in ids),
        traces=tuple(trace for trace in run.traces if trace.problem_id in ids),
        scores=tuple(score for score in run.scores if score.problem_id in ids),
    )


def _arms(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs of one recipe together, in the order of their first; two with the same seeds stay two arms."""
    arms: list[tuple[object, list[Run]]] = []
    for run in runs:
        key = _recipe(run)
        for other, arm in arms:
            if key is not None and other == key and _seeds(run) not in map(_seeds, arm):
                arm.append(run)
                break
        else:
            arms.append((key, [run]))
    return [arm for _, arm in arms]


def _recipe(run: Run) -> object:
    """The settings of a run without seeds and what follows from them; None where its models' making is not known."""
    models = run.config.get("models")
    if not models or not all("training" in model for model in models.values()):
        return None
    recipes = {role: (model["training"]["recipe"], model["dtype"]) for role, model in models.items()}
    kept = {key: value for key, value in run.config.items() if key not in ("seed", "models", "intervention")}
    if "chosen" in kept:
        kept["chosen"] = {key: value for key, value in kept["chosen"].items() if key != SAMPLES}
    return kept, recipes, run.config.get("intervention", {}).get("kind")


def _seeds(run: Run) -> tuple[object, ...]:
    """The seeds that can have changed the traces: of the trainings, and where there was any, of sampling."""
    sampling = run.config["seed"] if run.config.get("temperature") else None
    return (sampling, *(model["training"]["seed"] for _, model in sorted(run.config["models"].items())))


def _row(name: str, names: list[str], runs: Sequence[Run], ids: Mapping[str, None]) -> tuple[Row, list[list[bool]]]:
    """An arm, and its outcomes [runs, problems]."""
    measured, outcomes, traces = [], [], []
    shares: dict[str, list[list[float]]] = {"correct": [], "strict": []}  # of right samples, [runs, problems]
    for run in runs:
        kept = [t for t in run.traces if t.problem_id in ids]
        scores = [s for s in run.scores if s.problem_id in ids]
        measured.append(measure(kept, scores))
        by_problem = group_scores(scores)
        groups = [by_problem[id] for id in ids]
        outcomes.append([majority_correct(group) for group in groups])
        for kind, share in shares.items():
            share.append([statistics.fmean(getattr(score, kind) for score in group) for group in groups])
        traces += kept
    metrics = _mean(measured)
    if len(runs) > 1:
        voted = {"majority": outcomes} if metrics["majority"] else {}
        for kind, values in (shares | voted).items():
            low, high, _ = stats.bootstrap_difference(values, [[0.0] * len(ids)], _SEED)
            least = stats.wilson(metrics[kind]["rate"] * len(ids), len(ids))  # where nothing varies to be resampled
            metrics[kind] |= {"low": min(low, least[0]), "high": max(high, least[1])}
    models = [list({m["sha256"]: m for m in run.config.get("models", {}).values()}.values()) for run in runs]
    sizes = [model.get("parameters") for model in models[0]]
    trainings = [[model.get("training", {}).get("tokens") for model in trained] for trained in models]
    known = all(read and all(isinstance(tokens, dict) for tokens in read) for read in trainings)
    read = [{key: n for tokens in of_run for key, n in tokens.items()} for of_run in trainings] if known else []
    row = Row(
        name=name,
        runs=tuple(names),
        solver=_solvers(traces),
        calculator=_calculators(traces),
        metrics=metrics,
        spread=statistics.stdev(m["strict"]["rate"] for m in measured) if len(runs) > 1 else None,
        parameters=sum(sizes) if sizes and None not in sizes else None,
        trained_tokens=sum(sum(of_run.values()) for of_run in read) / len(runs) if known else None,
    )
    return row, outcomes


def _mean(values: Sequence[Any]) -> Any:
    """The mean of equal structures, figure by figure; what is no figure is the first's."""
    if isinstance(values[0], dict):
        return {key: _mean([value[key] for value in values]) for key in values[0]}
    if isinstance(values[0], int | float) and len(values) > 1:
        return statistics.fmean(values)
    return values[0]


def _pair(first: Row, baseline: list[list[bool]], row: Row, outcome: list[list[bool]]) -> Pair:
    low, high, p = stats.bootstrap_difference(outcome, baseline, seed=_SEED)
    only_run = only_baseline = None
    problems = len(outcome[0])
    pairs = [(a, b) for mine in outcome for theirs in baseline for a, b in zip(mine, theirs, strict=True)]
    if len(outcome) == len(baseline) == 1:
        only_run, only_baseline = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
        p = stats.mcnemar(only_run, only_baseline)
    discordant = sum(a != b for a, b in pairs) / len(pairs)
    difference = sum(a - b for a, b in pairs) / len(pairs)
    if only_run is None:
        detectable = stats.detectable_from_interval(low, high)
    else:
        detectable = stats.detectable_difference(discordant, problems)
    return Pair(row.name, first.name, only_run, only_baseline, p, p, difference, low, high, detectable)


def _chance(problems: Sequence[Problem]) -> dict[str, float]:
    golds = Counter(canonical(p.answer, p.answer_type, p.choices) for p in problems)
    rates = {"most frequent answer": golds.most_common(1)[0][1] / len(problems)}
    options = [2 if p.answer_type == "yesno" else len(p.choices or ()) for p in problems]
    if all(options):
        rates["guessing"] = statistics.fmean(1 / n for n in options)
    return rates


def _arm_names(groups: Sequence[Sequence[Run]], names: Mapping[int, str]) -> list[str]:
    """What a recipe calls its arms where all runs come from one, else the folders' names or what they begin with."""
    arms = [group[0].config.get("arm") for group in groups]
    if all(arms) and len(set(arms)) == len(arms):
        return [str(arm) for arm in arms]
    return [_common_name([names[id(run)] for run in group]) for group in groups]


def _common_name(names: Sequence[str]) -> str:
    """The one name, or what the names of several seeds begin with."""
    if len(names) == 1:
        return names[0]
    shared = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return re.sub(r"[-_.]?s?\d*$", "", "".join(letters[0] for letters in shared)) or names[0]


def run_names(runs: Sequence[Run]) -> list[str]:
    """Folder names, or whole paths where two folders share a name."""
    names = [Path(os.path.abspath(run.path)).name for run in runs]  # as named, not where a link leads
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _solvers(traces: Sequence[Trace]) -> str:
    return ", ".join(sorted({t.solver for t in traces}))


def _calculators(traces: Sequence[Trace]) -> str:
    used = {t.calculator for t in traces}
    return "mixed" if len(used) > 1 else "on" if used == {True} else "off"
