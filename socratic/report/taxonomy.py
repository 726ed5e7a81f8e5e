"""What went wrong first in a wrong numeric trace, by its equations against gold's; no model runs.

The rule: ``unparsed`` where no number could be read from the output. Else the calculations of the trace, those of a
dropped answer last, are read in the order of the text, up to the first that leaves the gold chain. One stays on it
whose value is a gold result, that of a part of a sum or product there (``60*2`` where gold has ``3*2=6`` and
``60*6``), or one that the trace had before; if it states another result than its value, the error is ``arithmetic``.
The first that leaves it is ``extra`` where gold's last result was reached before. Else it is set against the gold
step, of those not made so far, that has the most numbers in common with it, then the most of those that the problem
states, then the same signs:

- ``extra`` where there is no number in common, or where both numbers and signs are others;
- ``unit`` where a number of the gold step that the problem does not state, or 100, makes its value the gold step's;
- ``operation`` where the numbers are the same and the signs are others;
- ``missing`` where the signs are the same, and of the gold step it lacks the result of a step that was not made;
- ``quantity`` where the signs are the same, and it lacks another number.

Where no calculation leaves the chain, the trace is ``early_stop`` (it, or the loop, ended before gold's last result) or
``quantity`` (that was reached, and the final slot holds another number).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Any, Literal, get_args

from rich.table import Table

from socratic.answers import canonical, sub_answer_value
from socratic.evaluate import Run
from socratic.numerals import values
from socratic.prompts import render_problem
from socratic.report import visible
from socratic.report.calculations import Calculation, calculations, reachable
from socratic.report.tables import new_table, percent, text
from socratic.types import Chain, Problem, Score, Step, Trace

Error = Literal["quantity", "operation", "missing", "extra", "early_stop", "arithmetic", "unit", "unparsed"]
COLUMNS = ("quant", "oper", "missing", "extra", "early", "arith", "unit", "none")
"""The errors as headings of tables, in their order."""

_WORDS = 3  # of a question that are its opening
_SHOWN = 8  # openings


@dataclass(frozen=True)
class Asked:
    """The questions of a run whose step comes to a number, and which of these numbers stand nowhere in gold's steps.

    ``openings`` has, by the first three words, the shares of gold's questions and of the questions ``beyond`` gold.
    """

    questions: int
    beyond: int
    openings: dict[str, tuple[float, float]]


def diagnose(problem: Problem, trace: Trace, score: Score, chain: Chain) -> Error:
    """The first error of a trace whose answer is a wrong number."""
    if score.predicted is None:
        return "unparsed"
    gold, stated, on_the_way = _gold(render_problem(problem), chain.steps)
    last = Fraction(canonical(chain.answer, "number"))
    reached: set[Fraction] = set()
    ends = max(1, sum(step.value == last for step in gold))  # gold itself may have its last result on the way
    for made in calculations([*trace.steps, *_dropped(trace)]):
        if not ends and made.value not in reached:
            return "extra"
        if made.value not in on_the_way | reached | {last}:
            return _name(made, _left(gold, reached), stated)
        if not made.holds:
            return "arithmetic"
        reached.add(made.value)
        ends = max(0, ends - (made.value == last))
    return "early_stop" if ends else "quantity"


@cache  # the runs that are compared share their problems
def _gold(problem: str, steps: tuple[Step, ...]) -> tuple[list[Calculation], set[Fraction], set[Fraction]]:
    """Gold's calculations, the numbers that the problem states, and the values that stay on gold's chain."""
    gold = [*calculations(steps)]
    stated = values(problem)
    return gold, stated, reachable(gold, stated) | {*_results(steps)}


@cache
def _known(steps: tuple[Step, ...]) -> set[Fraction]:
    """The numbers that gold's steps state."""
    return values(" ".join(step.answer for step in steps))


def _dropped(trace: Trace) -> Iterator[Step]:
    """The step that does not stand, up to its last whole word: behind that a number may have been cut off."""
    if trace.rejected is not None:
        yield replace(trace.rejected, answer=re.sub(r"\S+\Z", "", trace.rejected.answer))


def _left(gold: Sequence[Calculation], reached: set[Fraction]) -> list[Calculation]:
    """The gold steps that were not made: not reached, nor used by one that was."""
    made = set(reached)
    left: list[Calculation] = []
    for step in reversed(gold):
        if step.value in made:
            made |= step.numbers.keys()
        else:
            left.insert(0, step)
    return left


def _name(made: Calculation, left: Sequence[Calculation], stated: set[Fraction]) -> Error:
    """What a calculation is that leaves the gold chain, of which the steps ``left`` were not made."""

    def closeness(step: Calculation) -> tuple[int, int, bool]:
        common = made.numbers & step.numbers
        return common.total(), sum(number in stated for number in common), made.signs == step.signs

    near = max(left, key=closeness, default=None)
    if near is None or not made.numbers & near.numbers:
        return "extra"
    factors = {number for number in near.numbers if number > 1} - stated | {Fraction(100)}
    if near.value in {value for factor in factors for value in (made.value * factor, made.value / factor)}:
        return "unit"
    if made.signs != near.signs:
        return "operation" if made.numbers == near.numbers else "extra"
    not_made = {step.value for step in left} - stated
    return "missing" if not_made & (near.numbers - made.numbers).keys() else "quantity"


def _results(steps: Iterable[Step]) -> Iterator[Fraction]:
    """What each step comes to, calculated or told."""
    return (Fraction(value) for step in steps if (value := sub_answer_value(step.answer)) is not None)


def first_errors(run: Run, chains: Mapping[str, Chain]) -> dict[tuple[str, int], Error]:
    """The first error of every wrong sample that is to be a number and has a gold chain, by problem and sample."""
    return {
        (problem.id, trace.sample): diagnose(problem, trace, score, chains[problem.id])
        for problem, trace, score in run.scored()
        if not score.correct and problem.answer_type == "number" and problem.id in chains
    }


def shares(errors: Mapping[Any, Error]) -> dict[str, float]:
    """How many there are, ``wrong``, and the share of each kind."""
    counts = Counter(errors.values())
    return {"wrong": len(errors)} | {name: counts[name] / max(1, len(errors)) for name in get_args(Error)}


def errors_table(found: Mapping[str, Mapping[Any, Error]]) -> Table:
    """Shares of the wrong samples of each run."""
    made = new_table("The first error, in % of the wrong numeric answers (docs/comparing.md)", ["wrong", *COLUMNS])
    for name, errors in found.items():
        wrong, *parts = shares(errors).values()
        made.add_row(text(name), f"{wrong:g}", *(percent(share) if errors else "-" for share in parts))
    return made


def asked(run: Run, chains: Mapping[str, Chain]) -> Asked:
    """The questions of ``run`` against gold's of the same problems."""
    gold, mine, beyond = Counter[str](), 0, Counter[str]()
    for trace in run.traces:
        chain = chains.get(trace.problem_id)
        if chain is None:
            continue
        gold.update(_opening(step.question) for step in chain.steps if step.question)
        known = _known(chain.steps)
        results = [(step.question, result) for step in trace.steps if step.question for result in _results([step])]
        mine += len(results)
        beyond.update(_opening(question) for question, result in results if result not in known)
    first = [opening for opening, _ in (beyond + gold).most_common(_SHOWN)]
    openings = {words: (gold[words] / max(1, gold.total()), beyond[words] / max(1, beyond.total())) for words in first}
    return Asked(mine, beyond.total(), openings)


def asked_tables(found: Mapping[str, Asked]) -> list[Table]:
    """What the runs with sub-questions ask that gold does not."""
    made = new_table("Questions whose result is not in gold", ["questions", "of these", "in %"])
    tables = [made]
    for name, one in found.items():
        if not one.questions:
            continue
        made.add_row(text(name), str(one.questions), str(one.beyond), percent(one.beyond / one.questions))
        tables.append(new_table(f"Their first words in {visible(name)}", ["in %", "gold's, in %"], first="first words"))
        for words, (gold, mine) in one.openings.items():
            tables[-1].add_row(text(words), percent(mine), percent(gold))
    return tables if made.row_count else []


def _opening(question: str) -> str:
    return " ".join(question.lower().split()[:_WORDS])
