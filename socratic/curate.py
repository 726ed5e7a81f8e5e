"""Which chains are good enough to train on: every chain is kept, or rejected for one named reason.

What a teacher wrote is filtered by its final answer (Shridhar et al. 2212.00193, section 3.1; Ho et al. 2212.10071,
section 3), by its arithmetic, and by whether its sub-questions ask. Gold chains pass through the same checks, which
says how strict they are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, get_args

from socratic.answers import MAX_DIGITS, score
from socratic.calculator import disagreements, marks, prose
from socratic.prompts import problem_text
from socratic.types import Chain

Reason = Literal[
    "no_steps",
    "empty_question",
    "empty_answer",
    "wrong_answer",
    "wrong_mark",
    "unfounded_number",
    "answer_not_reached",
    "repeated_question",
    "leaking_question",
    "duplicate",
]
"""In the order in which they are looked for; a chain has the first that holds."""

_NUMBER = re.compile(r"[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?|\.[0-9]+")
_PART = re.compile(rf"{_NUMBER.pattern}|\S")
_MARK = re.compile(r"<<[^<>]*>>")
_NAMES = {
    0: "zero",
    1: "one once single",
    2: "two twice double doubled doubles pair couple both half halves",
    3: "three thrice triple tripled triples third thirds",
    4: "four quadruple quarter quarters fourth fourths",
    5: "five fifth fifths",
    6: "six sixth sixths",
    7: "seven",
    8: "eight eighth eighths",
    9: "nine",
    10: "ten tenth tenths",
    11: "eleven",
    12: "twelve dozen dozens",
    13: "thirteen",
    14: "fourteen",
    15: "fifteen",
    16: "sixteen",
    17: "seventeen",
    18: "eighteen",
    19: "nineteen",
    20: "twenty",
    30: "thirty",
    40: "forty",
    50: "fifty",
    60: "sixty",
    70: "seventy",
    80: "eighty",
    90: "ninety",
    100: "hundred",
    1000: "thousand",
}
_WORDS = {name: Fraction(n) for n, names in _NAMES.items() for name in names.split()}
_WORDS |= {
    f"{_NAMES[tens]}-{_NAMES[unit].split()[0]}": Fraction(tens + unit)
    for tens in range(20, 100, 10)
    for unit in range(1, 10)
}
_WORD = re.compile(rf"\b(?:{'|'.join(sorted(map(re.escape, _WORDS), key=len, reverse=True))})\b", re.IGNORECASE)
_WHOLE = (0, 1, 2, 3, 4, 5, 7, 10, 12, 16, 24, 30, 52, 60, 100, 360, 365, 1000, 3600)
_CONSTANTS = frozenset([*map(Fraction, _WHOLE), Fraction(1, 10), Fraction(1, 100)])
"""What people know without being told: days of a week, minutes of an hour, sides, per cents, what to halve by."""


@dataclass
class Curated:
    """Chains that were kept, and the others with their reasons."""

    kept: list[Chain] = field(default_factory=list)
    rejected: list[tuple[Chain, Reason]] = field(default_factory=list)

    def yields(self) -> dict[str, int]:
        """How many chains came to what: ``kept``, and each reason that occurred."""
        counts = Counter(reason for _, reason in self.rejected)
        return {"kept": len(self.kept), **{reason: counts[reason] for reason in get_args(Reason) if counts[reason]}}


def curate(chains: Iterable[Chain]) -> Curated:
    """Check every chain; of those of one problem that calculate the same, all but the first are duplicates."""
    done = Curated()
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for chain in chains:
        reason = check(chain)
        if reason is None:
            way = chain.problem_id, equations(chain)
            reason = "duplicate" if way in seen else None
            seen.add(way)
        if reason is None:
            done.kept.append(chain)
        else:
            done.rejected.append((chain, reason))
    return done


def check(chain: Chain) -> Reason | None:
    """The first reason not to train on ``chain`` alone, or None."""
    return next(_faults(chain), None)


def _faults(chain: Chain) -> Iterator[Reason]:
    steps = chain.steps
    asked = [" ".join(step.question.lower().split()) for step in steps]
    is_stepwise = any(asked)  # a chain of thought asks nothing
    if not steps:
        yield "no_steps"
    if is_stepwise and not all(asked):
        yield "empty_question"
    if not all(step.answer.strip() for step in steps):
        yield "empty_answer"
    final = f"#### {chain.final_answer}" if chain.final_answer else ""
    if not score(final, chain.answer, chain.answer_type, chain.metadata.get("choices")).strict:
        yield "wrong_answer"
    if any(disagreements(step.answer) for step in steps):
        yield "wrong_mark"
    if chain.answer_type == "number":
        yield from _number_faults(chain, is_stepwise)
    if is_stepwise and len(set(asked)) < len(asked):
        yield "repeated_question"


def _number_faults(chain: Chain, is_stepwise: bool) -> Iterator[Reason]:
    """Faults that only numbers can have: facts of a yes/no question bring numbers of their own."""
    known = values(_text(chain))
    given = set(known)
    gold = values(chain.answer)
    reached = False
    leaks = False
    for step in chain.steps:
        if is_stepwise and gold & (values(step.question) - known):
            leaks = True
        written = [(mark.expr, mark.result) for mark in marks(step.answer)]
        for expression, result in [*prose(step.answer), *written]:
            if all(_known(number, known) for number in values(expression)):
                known |= values(result)
            elif (expression, result) in written:
                yield "unfounded_number"
        for number in values(_MARK.sub(" ", step.answer)) - known:
            if not _follows(number, known):
                yield "unfounded_number"
            known.add(number)
        reached = reached or bool(gold & values(step.answer))
    if not reached and not gold & given:
        yield "answer_not_reached"
    if leaks:
        yield "leaking_question"


def values(text: str) -> set[Fraction]:
    """The numbers that a text states, in digits or words."""
    found = {Fraction(number.replace(",", "")[:MAX_DIGITS]) for number in _NUMBER.findall(text)}
    return found | {_WORDS[word.lower()] for word in _WORD.findall(text)}


def equations(chain: Chain) -> tuple[str, ...]:
    """What a chain calculates, whatever its words: its marks in order, else its answers' numbers, else its answers.

    The parts of an expression are sorted, so ``3*12`` and ``12 * 3`` are one.
    """
    written = [mark for step in chain.steps for mark in marks(step.answer)]
    if written:
        return tuple(f"{' '.join(sorted(_PART.findall(mark.expr)))} = {mark.result.strip()}" for mark in written)
    numbers = tuple(number for step in chain.steps for number in _NUMBER.findall(step.answer))
    return numbers or tuple(" ".join(step.answer.lower().split()) for step in chain.steps)


def _text(chain: Chain) -> str:
    return problem_text(chain.question, chain.metadata.get("context"), chain.metadata.get("choices"))


def _known(number: Fraction, known: set[Fraction]) -> bool:
    """Whether a calculation may begin with ``number``: it is known, a constant, or a share made of known ones.

    A known per cent is also a share (of 15: 0.15, 0.85 and 1.15), and so is the ratio of two known numbers.
    """
    share = 100 * number
    if number in known or number in _CONSTANTS or not known.isdisjoint({share, 100 - share, share - 100}):
        return True
    return number.denominator > 1 and any(b and number == a / b for a in known for b in known)


def _follows(number: Fraction, known: set[Fraction]) -> bool:
    """Whether a sub-answer may state ``number``: it is known, or one operation away from two that are."""
    return _known(number, known) or any(
        number in (a + b, a - b, a * b) or (b and number == a / b) or 100 * number == a * b
        for a in known
        for b in known
    )
