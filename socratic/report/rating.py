"""Blind ratings of sub-questions by people, and how far raters agree."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, TypeVar

from rich.table import Table

from socratic.evaluate import Run
from socratic.prompts import render_problem
from socratic.report.tables import new_table, text
from socratic.stats import krippendorff_alpha
from socratic.store import JsonlAppender, end_last_line, read_records
from socratic.types import UserError

CRITERIA = {
    "necessary": "each sub-question is needed to solve the problem",
    "answerable": "each can be answered from the problem and the answers before it",
    "ordered": "they stand in an order that leads to the solution",
    "complete": "answering all of them solves the problem",
}
Level = Literal[0, 1, 2]
Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Rating:
    """What ``rater`` said of one system's sub-questions to one problem: 0 (no), 1 (partly) or 2 (yes)."""

    problem_id: str
    run: str
    questions: list[str]
    rater: str
    necessary: Level
    answerable: Level
    ordered: Level
    complete: Level


@dataclass(frozen=True)
class Item:
    """One thing to rate: a problem's text and the sub-questions of a system that is not shown."""

    problem_id: str
    problem: str
    run: str
    questions: tuple[str, ...]


def items(runs: Sequence[tuple[str, Run]], limit: int | None, seed: int) -> list[Item]:
    """The first ``limit`` problems of a seeded order, each with every run's sub-questions in an order of its own.

    The same for every rater. Raises `UserError` where a run stands twice or asks no sub-questions, or the runs share
    no problem.
    """
    names = [name for name, _ in runs]
    if doubled := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{doubled} stands twice among the runs to rate; name each once")
    found: dict[str, list[Item]] = {}
    for name, run in runs:
        texts = {p.id: render_problem(p) for p in run.problems}
        asked = {t.problem_id: tuple(s.question for s in t.steps if s.question) for t in run.traces if t.sample == 0}
        if not any(asked.values()):
            raise UserError(f"{run.path} asks no sub-questions; rate runs of the solvers socratic, tied or unified")
        for id, questions in asked.items():
            found.setdefault(id, []).append(Item(id, texts[id], name, questions))
    shared = sorted(id for id, group in found.items() if len(group) == len(runs))
    if not shared:
        raise UserError(f"the {len(runs)} runs share no problem; rate runs over the same data set and split")
    rng = random.Random(seed)
    rng.shuffle(shared)
    return [item for id in shared[:limit] for item in rng.sample(found[id], len(found[id]))]


def rate(
    todo: Sequence[Item], rater: str, out: Path, ask: Callable[[Item, int], str], explain: Callable[[], None]
) -> int:
    """Have one rater rate what ``out`` does not hold yet of theirs, each rating kept at once; how many were given.

    ``ask(item, left)`` shows an item and returns the line typed: a digit for each of `CRITERIA`, ``s`` to
    skip it, ``q`` to stop.
    """
    end_last_line(out)
    mine = [r for r in read_ratings([out]) if r.rater == rater] if out.exists() else []
    done = {(r.problem_id, r.run, tuple(r.questions)) for r in mine}

    def read(item: Item, line: str) -> dict[str, Any] | None:
        digits = [character for character in line if not character.isspace()]
        if len(digits) != len(CRITERIA) or not set(digits) <= set("012"):
            return None
        values: dict[str, Any] = dict(zip(CRITERIA, map(int, digits), strict=True))
        return asdict(Rating(item.problem_id, item.run, list(item.questions), rater, **values))

    left = [item for item in todo if (item.problem_id, item.run, item.questions) not in done]
    return collect(left, out, ask, read, explain)


def collect(
    left: Sequence[Thing],
    out: Path,
    ask: Callable[[Thing, int], str],
    read: Callable[[Thing, str], dict[str, Any] | None],
    explain: Callable[[], None],
) -> int:
    """Have a person judge each thing ``left``, each record appended to ``out`` at once; how many were given.

    ``ask(thing, how many are left)`` returns the line typed, of which ``read`` makes the record, or None where it is
    no judgement: then ``explain``, which is called once before all, is called and the line asked for again. ``s`` skips
    a thing, ``q`` stops.
    """
    given = 0
    with JsonlAppender(out) as log:
        if left:
            explain()
        for place, thing in enumerate(left):
            record = None
            while record is None:
                line = ask(thing, len(left) - place).strip().lower()
                if line == "q":
                    return given
                if line == "s":
                    break
                record = read(thing, line)
                if record is None:
                    explain()
            if record is not None:
                log.append(record)
                given += 1
    return given


def read_ratings(paths: Sequence[Path]) -> list[Rating]:
    """All ratings of some files; raises `UserError` with file and line for what is none."""
    return [rating for path in paths for rating in read_records(path, Rating, allow_torn_tail=True)]


def agreement(ratings: Sequence[Rating]) -> dict[str, Any]:
    """Mean and number of ratings of each run by criterion, and Krippendorff's alpha of each criterion over raters."""
    if not ratings:
        raise UserError("there are no ratings yet; rate some runs first")
    raters = sorted({r.rater for r in ratings})
    units: dict[tuple[str, str, tuple[str, ...]], dict[str, Rating]] = {}
    for rating in ratings:
        units.setdefault((rating.problem_id, rating.run, tuple(rating.questions)), {})[rating.rater] = rating
    runs: dict[str, list[Rating]] = {}
    for (_, run, _), unit in units.items():
        runs.setdefault(run, []).extend(unit.values())
    alphas = {}
    for criterion in CRITERIA:
        table = [[getattr(u[r], criterion) if r in u else None for r in raters] for u in units.values()]
        alphas[criterion] = krippendorff_alpha(table)
    means = {
        run: {"ratings": len(group), **{c: fmean(getattr(r, c) for r in group) for c in CRITERIA}}
        for run, group in runs.items()
    }
    return {"raters": raters, "runs": means, "alpha": alphas}


def agreement_table(found: dict[str, Any]) -> Table:
    """One row a run, and one for the agreement."""
    raters = f"{len(found['raters'])} rater{'s' * (len(found['raters']) > 1)}"
    made = new_table(f"Mean rating, 0 to 2; Krippendorff's alpha over {raters}", ["ratings", *CRITERIA])
    for run, means in found["runs"].items():
        made.add_row(text(run), str(means["ratings"]), *(f"{means[c]:.2f}" for c in CRITERIA))
    alphas = ("-" if found["alpha"][c] is None else f"{found['alpha'][c]:.2f}" for c in CRITERIA)
    made.add_row("(alpha)", "", *alphas)
    return made
