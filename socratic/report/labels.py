"""What people say went wrong first in wrong traces, and how far the rule of `taxonomy` agrees with them."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from rich import box
from rich.table import Table

from socratic.evaluate import Run
from socratic.report.problem import STOPPED
from socratic.report.rating import collect
from socratic.report.tables import new_table, percent, text
from socratic.report.taxonomy import COLUMNS, Error, first_errors
from socratic.stats import krippendorff_alpha
from socratic.store import end_last_line, hash_text, read_records
from socratic.types import Chain, Problem, Trace, UserError

MEANINGS: dict[Error, str] = {
    "quantity": "gold's operation with a wrong number, or a right calculation held for something else",
    "operation": "another operation than is needed",
    "missing": "a step is left out: a number that is given stands where its result belongs",
    "extra": "what is calculated is given, was calculated before, or is not needed",
    "early_stop": "all is right as far as it goes",
    "arithmetic": "a right calculation with a wrong result",
    "unit": "a number in another unit or scale",
    "unparsed": "there is no number to read",
}
KEYS: dict[str, Error] = dict(zip("womxeaun", get_args(Error), strict=True))
"""No key is ``q`` or ``s``, which stop and skip."""


@dataclass(frozen=True)
class Label:
    """The first error of one trace as ``rater`` sees it; ``trace`` is the hash of its text."""

    problem_id: str
    sample: int
    run: str
    trace: str
    rater: str
    label: Error


@dataclass(frozen=True)
class Failure:
    """A wrong trace with its problem and gold chain, and what the rule says of it (not shown to raters)."""

    run: str
    problem: Problem
    trace: Trace
    chain: Chain
    rule: Error

    @property
    def key(self) -> tuple[str, int, str]:
        """What a label is found by: the same trace in another folder is the same."""
        seen = self.trace.raw
        if self.trace.rejected is not None:
            seen += f"\n[dropped] {self.trace.rejected.question}\n{self.trace.rejected.answer}"
        return self.problem.id, self.trace.sample, hash_text(seen)


def failures(runs: Sequence[tuple[str, Run, Mapping[str, Chain]]]) -> list[Failure]:
    """Every wrong numeric trace of ``runs``, each with its name and gold chains, that has a gold chain."""
    found = []
    for name, run, chains in runs:
        errors = first_errors(run, chains)
        found += [
            Failure(name, problem, trace, chains[problem.id], errors[problem.id, trace.sample])
            for problem, trace, _ in sorted(run.scored(), key=lambda sample: (sample[0].id, sample[1].sample))
            if (problem.id, trace.sample) in errors
        ]
    if not found:
        raise UserError("the runs have no wrong numeric answers with gold chains; name runs over gsm8k or stories")
    return found


def draw(found: Sequence[Failure], limit: int, seed: int) -> list[Failure]:
    """About ``limit`` failures in a seeded order: of each run as many, and of each number of gold steps its share."""
    rng = random.Random(seed)
    drawn = []
    runs = list(dict.fromkeys(failure.run for failure in found))
    for place, run in enumerate(runs):
        own = [failure for failure in found if failure.run == run]
        rng.shuffle(own)
        own.sort(key=lambda failure: len(failure.chain.steps))
        wanted = min(len(own), (limit + place) // len(runs))
        drawn += [own[i * len(own) // wanted] for i in range(wanted)]
    rng.shuffle(drawn)
    return drawn


def side_by_side(failure: Failure) -> Table:
    """The gold chain and the trace."""
    made = Table(box=box.SIMPLE_HEAD, expand=True)
    for heading in ("gold", "trace"):
        made.add_column(heading, overflow="fold")
    for gold, mine in itertools.zip_longest(failure.chain.steps, failure.trace.steps):
        made.add_row(*(text(f"{step.question}\n{step.answer}".strip()) if step else "" for step in (gold, mine)))
    if failure.trace.rejected is not None:
        made.add_row("", text(f"{failure.trace.rejected.question}\n{failure.trace.rejected.answer} [dropped]".strip()))
    stopped = "" if failure.trace.stop_reason == "finished" else f"\n{STOPPED[failure.trace.stop_reason]}"
    made.add_row(text(f"#### {failure.problem.answer}"), text(f"#### {failure.trace.answer or ''}{stopped}"))
    return made


def label(
    todo: Sequence[Failure], rater: str, out: Path, ask: Callable[[Failure, int], str], explain: Callable[[], None]
) -> int:
    """Have one rater label what ``out`` does not hold yet of theirs, by the keys of `KEYS`; how many were given."""
    end_last_line(out)
    mine = [made for made in read_labels([out]) if made.rater == rater] if out.exists() else []
    done = {(made.problem_id, made.sample, made.trace) for made in mine}

    def read(failure: Failure, line: str) -> dict[str, Any] | None:
        problem_id, sample, trace = failure.key
        return asdict(Label(problem_id, sample, failure.run, trace, rater, KEYS[line])) if line in KEYS else None

    return collect([failure for failure in todo if failure.key not in done], out, ask, read, explain)


def read_labels(paths: Sequence[Path]) -> list[Label]:
    """All labels of some files; raises `UserError` with file and line for what is none."""
    return [made for path in paths for made in read_records(path, Label, allow_torn_tail=True)]


def agreement(labels: Sequence[Label], found: Sequence[Failure]) -> dict[str, Any]:
    """How far the rule agrees with people on the failures that they labelled.

    ``share`` and ``alpha`` (Krippendorff, nominal) are of the rule against each label, ``alpha_raters`` of raters among
    themselves, ``confusion`` counts, by label, what the rule says, and ``runs`` counts each run's labels.
    """
    failed: dict[tuple[str, int, str], list[Failure]] = {}
    for failure in found:
        failed.setdefault(failure.key, []).append(failure)
    units: dict[tuple[str, int, str], dict[str, Error]] = {}
    for made in labels:
        key = made.problem_id, made.sample, made.trace
        if key in failed:
            units.setdefault(key, {})[made.rater] = made.label
    if not units:
        raise UserError("none of the labels is of a trace in these runs; name the runs that were labelled")
    place = {name: i for i, name in enumerate(get_args(Error))}
    raters = sorted({rater for unit in units.values() for rater in unit})
    table = [[place[unit[rater]] if rater in unit else None for rater in raters] for unit in units.values()]
    pairs = [(said, failed[key][0].rule) for key, unit in units.items() for said in unit.values()]
    counts = Counter(pairs)
    by_run = Counter((same.run, said) for key, unit in units.items() for said in unit.values() for same in failed[key])
    return {
        "raters": raters,
        "labels": len(pairs),
        "share": sum(said == ruled for said, ruled in pairs) / len(pairs),
        "alpha": krippendorff_alpha([[place[said], place[ruled]] for said, ruled in pairs], nominal=True),
        "alpha_raters": krippendorff_alpha(table, nominal=True),
        "confusion": {said: {ruled: counts[said, ruled] for ruled in place} for said in place},
        "runs": {run: {said: by_run[run, said] for said in place} for run in sorted({run for run, _ in by_run})},
    }


def agreement_tables(found: dict[str, Any]) -> list[Table]:
    """What was labelled, run by run; then labels down, the rule across."""
    shares = new_table("The first error as it was labelled, in %", ["labels", *COLUMNS])
    for run, labelled in found["runs"].items():
        total = sum(labelled.values())
        shares.add_row(text(run), str(total), *(percent(count / total) for count in labelled.values()))
    alpha, among = ("-" if found[name] is None else f"{found[name]:.2f}" for name in ("alpha", "alpha_raters"))
    title = f"The rule on {found['labels']} labels: {100 * found['share']:.0f} % agree, alpha {alpha}"
    made = new_table(
        f"{title}; raters among themselves {among}" if len(found["raters"]) > 1 else title,
        COLUMNS,
        first="label",
    )
    for said, counts in found["confusion"].items():
        made.add_row(said.replace("_", " "), *(str(n or "") for n in counts.values()))
    return [shares, made]
