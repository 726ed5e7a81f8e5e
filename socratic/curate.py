"""Which chains are good enough to train on: every chain is kept, or rejected for one named reason.

What a teacher wrote is filtered by its final answer (Shridhar et al. 2212.00193, section 3.1; Ho et al. 2212.10071,
section 3), by its arithmetic, and by whether its sub-questions ask. Gold chains pass through the same checks, which
says how strict they are. Most papers look at the final answer alone, which `By` ``answer`` does too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Literal, get_args

from socratic.answers import score
from socratic.calculator import holds, marks, prose
from socratic.numerals import NUMBER, digits, stated, values
from socratic.prompts import render_problem
from socratic.types import Chain

Reason = Literal[
    "no_steps",
    "empty_question",
    "empty_answer",
    "wrong_answer",
    "special_token",
    "wrong_mark",
    "repeated_question",
    "unfounded_number",
    "answer_not_reached",
    "leaking_question",
    "duplicate",
]
"""In the order in which they are looked for; a chain has the first that holds."""
By = Literal["all", "answer"]
"""What a chain is kept by: all checks, or merely a right final answer, whatever the arithmetic before it."""

_BY_ANSWER: tuple[Reason, ...] = ("no_steps", "empty_question", "empty_answer", "wrong_answer")
"""The reasons that count then: of the first three nothing can be learned."""

_SPECIAL = re.compile(r"<?\|\w+\|>|</?s>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>")
_PART = re.compile(rf"{NUMBER.pattern}|\S")
_WHOLE = (0, 1, 2, 3, 4, 5, 7, 10, 12, 16, 24, 30, 52, 60, 100, 360, 365, 1000, 3600)
_SHARES = ("1/2", "1/4", "3/4", "1/10", "1/100")
CONSTANTS = frozenset([*map(Fraction, _WHOLE), *map(Fraction, _SHARES)])
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


def curate(chains: Iterable[Chain], by: By = "all") -> Curated:
    """Check every chain; of those of one problem that calculate the same, all but the first are duplicates.

    ``by`` answer, the same calculation may come again.
    """
    done = Curated()
    seen: set[tuple[str, str, tuple[str, ...]]] = set()
    for chain in chains:
        reason = check(chain, by)
        if reason is None and by == "all":
            way = chain.problem_id, chain.question, equations(chain)
            reason = "duplicate" if way in seen else None
            seen.add(way)
        if reason is None:
            kept = {name: value for name, value in chain.metadata.items() if name != "rejected"}  # by an earlier call
            done.kept.append(replace(chain, metadata=kept))
        else:
            done.rejected.append((chain, reason))
    return done


def check(chain: Chain, by: By = "all") -> Reason | None:
    """The first reason not to train on ``chain`` alone, or None."""
    return next((fault for fault in _faults(chain) if by == "all" or fault in _BY_ANSWER), None)


def _faults(chain: Chain) -> Iterator[Reason]:
    steps = chain.steps
    asked = [" ".join(re.findall(r"\w+", step.question.lower())) for step in steps]
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
    if any(_SPECIAL.search(f"{step.question}\n{step.answer}") for step in steps):
        yield "special_token"
    if any(_has_wrong_mark(step.answer) for step in steps):
        yield "wrong_mark"
    if is_stepwise and len(set(asked)) < len(asked):
        yield "repeated_question"
    if chain.answer_type == "number":
        yield from _number_faults(chain, is_stepwise)


def _has_wrong_mark(answer: str) -> bool:
    """Whether a mark is not closed, cannot be computed, or is miscalculated."""
    written = list(marks(answer))
    return not all(map(holds, written)) or max(answer.count("<<"), answer.count(">>")) != len(written)


def _number_faults(chain: Chain, is_stepwise: bool) -> Iterator[Reason]:
    """Faults that only numbers can have: facts of a yes/no question bring numbers of their own."""
    known = values(render_problem(chain.problem()))
    gold = values(chain.answer)
    reached = bool(gold & known)
    leaks = False
    for step in chain.steps:
        if is_stepwise and gold & {number for _, number in digits(step.question)} - known:
            leaks = True
        if not _is_founded(step.answer, known):
            yield "unfounded_number"
        reached = reached or bool(gold & values(step.answer))
    if not reached:
        yield "answer_not_reached"
    if leaks:
        yield "leaking_question"


def _is_founded(answer: str, known: set[Fraction]) -> bool:
    """Whether every number of ``answer``, in the order of the text, follows from those ``known``, which it then joins.

    The result of a calculation follows where its operands are known; that of one in prose only if it is right.
    """
    written = list(marks(answer))
    said = dict(stated(answer))
    for mark in written:
        for place in [place for place in said if mark.start <= place < mark.end]:
            del said[place]
    calculations = {calculation.start: calculation for calculation in (*prose(answer), *written)}
    for place in sorted(said.keys() | calculations.keys()):
        if place in calculations:
            calculation = calculations[place]
            operands = values(calculation.expr)
            if operands and all(_known(number, known) for number in operands):
                if calculation in written or holds(calculation):
                    known |= values(calculation.result)
            elif calculation in written:
                return False
        if place in said:
            if not _follows(said[place], known):
                return False
            known.add(said[place])
    return True


def equations(chain: Chain) -> tuple[str, ...]:
    """What a chain calculates, whatever its words: its calculations, else its answers' numbers, else its answers.

    Calculations, and the parts of each, are sorted, so ``3*12`` and ``12 * 3.0`` are one, and the order of steps that
    do not need each other does not matter.
    """
    texts = [step.answer for step in chain.steps]
    written = [m for text in texts for m in marks(text)] or [m for text in texts for m in prose(text)]
    if written:
        return tuple(sorted(f"{_parts(mark.expr)} = {_parts(mark.result)}" for mark in written))
    numbers = tuple(number for step in chain.steps for number in NUMBER.findall(step.answer))
    if numbers and chain.answer_type == "number":
        return numbers
    return tuple(" ".join(step.answer.lower().split()) for step in chain.steps)


def _parts(expression: str) -> str:
    """Numbers, each in one form, and signs, sorted."""
    parts = _PART.findall(expression)
    return " ".join(sorted(str(next(iter(digits(part)), (0, part))[1]) for part in parts))


def _known(number: Fraction, known: set[Fraction]) -> bool:
    """Whether a calculation may begin with ``number``: it is known, a constant, or a share made of known ones.

    A known per cent is also a share (of 15: 0.15, 0.85 and 1.15), and so is the ratio of two known numbers.
    """
    share = 100 * number
    if number in known or number in CONSTANTS or not known.isdisjoint({share, 100 - share, share - 100}):
        return True
    return number.denominator > 1 and any(number * b in known for b in known if b)


def _follows(number: Fraction, known: set[Fraction]) -> bool:
    """Whether a sub-answer may state ``number``: it is known, or one operation away from two that are."""
    return _known(number, known) or any(
        not known.isdisjoint({number - a, number + a, a - number, number * a})
        or (a and not known.isdisjoint({number / a, 100 * number / a}))
        or (number and a / number in known)
        for a in known
    )
