"""How good must data be? Chains of which an exact share is spoiled, each in one plausible way.

`wrong_step`  an operation or a number is wrong in one calculation; all that follows is calculated on from it
`reordered`   two steps are exchanged, so that a number is used before the step that calculates it
`missing`     a step whose result is used later is left out
`verbose`     each sub-answer first says again what is told and asked, and at the end its result once more

Calculator's marks stay right in all of them: what is wrong is what is calculated, not how.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import combinations
from typing import Any, Literal, get_args

from socratic.answers import MAX_DIGITS, sub_answer_value
from socratic.calculator import Mark, calculate, format_result, holds, marks, miscalculates
from socratic.curate import CONSTANTS
from socratic.numerals import NUMBER, WORD, WORDS, digits, values
from socratic.prompts import render_problem
from socratic.tasks import in_dev
from socratic.tasks.equations import SENTENCE_END
from socratic.types import CalculatorError, Chain, Step, UserError

Kind = Literal["wrong_step", "reordered", "missing", "verbose"]

_TOKEN = re.compile(rf"{NUMBER.pattern}|[-+*/×÷]|(?<![A-Za-z])x(?![A-Za-z])")
_AS_MARKED = str.maketrans({"x": "*", "×": "*", "÷": "/", ",": ""})
_OTHERS = {"+": "-*", "-": "+", "*": "+/", "/": "*"}
"""The operations that are taken for another."""
_BEHIND = re.compile(rf"\$?(?P<number>{NUMBER.pattern})")
_OPENINGS = (
    "Let us think about this step by step. We want to find out: {asked} The problem tells us: {told} ",
    "First, let us look at what we know. The problem says: {told} And what we are asked is this: {asked} ",
    "To answer this, we have to read the problem carefully. It says: {told} So the question here is: {asked} ",
)
_CLOSINGS = (
    " Therefore, the result of this step is {value}, and we can go on with that.",
    " So the answer to this question is {value}. Let us keep that in mind.",
    " In other words, what we were looking for is {value}.",
)


class _Impossible(Exception):
    """This chain cannot be spoiled in this way and place."""


@dataclass
class Corrupted:
    """All ``chains``, in their order, and how many were spoiled by each kind."""

    chains: list[Chain]
    counts: Counter[str] = field(default_factory=Counter)


def corrupt(
    chains: Sequence[Chain], share: float, kinds: Sequence[Kind], seed: int = 0, keep_answer: bool = False
) -> Corrupted:
    """``chains`` with ``share`` of them, rounded to a whole number, spoiled by one of ``kinds``; dev stays as it is.

    ``metadata.corrupted`` names the ``kind`` and, where it is one, the number of the ``step``. The same chains, spoiled
    in the same way, are among those of any larger share with the same kinds and seed. With a wrong step, ``answer``
    and ``final_answer`` are wrong too, ``corrupted`` keeps gold's, and the chain, whose problem is then another, gets
    an id of its own; ``keep_answer`` leaves all three as they were. Raises `UserError` where ``kinds`` fit too few,
    and for chains that are spoiled already.
    """
    if keep_answer and "wrong_step" not in kinds:
        raise UserError(f"only a wrong_step changes the answer, not {', '.join(kinds)}; leave keep_answer out")
    kinds = [kind for kind in get_args(Kind) if kind in kinds]  # in whatever order they were given
    order = []
    for place, chain in enumerate(chains):
        if not in_dev(chain.question) or "made_from" in chain.metadata:
            # a second spoiling may undo the first, and its share would be no longer exact
            if "corrupted" in chain.metadata:
                raise UserError(
                    f"the chain of {chain.problem_id} is spoiled already; give the chains as they were before"
                )
            rng = random.Random(f"{seed}|{chain.problem_id}|{chain.source}|{chain.sample}")
            order.append((rng.random(), place, rng))
    wanted = int(share * len(order) + 0.5)
    done = Corrupted(list(chains))
    for _, place, rng in sorted(order, key=lambda entry: entry[:2]):
        if done.counts.total() == wanted:
            break
        for kind in rng.sample(kinds, len(kinds)):
            made = _spoiled(chains[place], kind, rng, keep_answer)
            if made is not None:
                done.chains[place] = made
                done.counts[kind] += 1
                break
    if done.counts.total() < wanted:
        raise UserError(
            f"only {done.counts.total()} of {len(order)} chains can be spoiled by {', '.join(kinds)}, not the {wanted} "
            f"that --share {share} asks for; lower it, or add a kind"
        )
    return done


def _spoiled(chain: Chain, kind: Kind, rng: random.Random, keep_answer: bool) -> Chain | None:
    """``chain`` spoiled by ``kind``, None where that cannot be."""
    note: dict[str, Any] = {"kind": kind}
    if kind == "wrong_step":
        found = _wrong_step(chain, rng)
        if found is None:
            return None
        steps, note["step"], answer = found
        if not keep_answer:
            note["answer"] = chain.answer
            id = f"{chain.problem_id}/answered-{answer}"
            chain = replace(chain, problem_id=id, answer=answer, final_answer=answer)
    elif kind == "verbose":
        if "<<" in chain.question:  # it would be taken for the calculator's
            return None
        steps = tuple(_wordy(step, chain.question, rng) for step in chain.steps)
    else:
        pairs = [*_dependent(chain, kind)]
        if not pairs:
            return None
        first, second = rng.choice(pairs)
        note["step"] = first + 1
        steps = chain.steps[:first] + chain.steps[first + 1 :]
        if kind == "reordered":
            between = chain.steps[first + 1 : second]
            after = chain.steps[second + 1 :]
            steps = (*chain.steps[:first], chain.steps[second], *between, chain.steps[first], *after)
    return replace(chain, steps=tuple(steps), metadata={**chain.metadata, "corrupted": note})


def _dependent(chain: Chain, kind: Kind) -> Iterator[tuple[int, int]]:
    """Pairs of steps of which the later one calculates with a result of the earlier, which nothing else gives.

    Where answers are no numbers, nobody knows what needs what: all pairs that differ, but none ``reordered`` with the
    last step, which has the answer.
    """
    told = values(render_problem(chain.problem()))
    for first, second in combinations(range(len(chain.steps)), 2):
        if chain.answer_type != "number":
            if kind == "reordered" and second == len(chain.steps) - 1:
                continue
            if chain.steps[first] != chain.steps[second]:
                yield first, second
            continue
        given = [values(step.answer) for place, step in enumerate(chain.steps[:second]) if place != first]
        results = {value for mark in marks(chain.steps[first].answer) for value in values(mark.result)}
        read = {value for mark in marks(chain.steps[second].answer) for value in values(mark.expr)}
        if results & read - told.union(*given):
            yield first, second


def _wordy(step: Step, question: str, rng: random.Random) -> Step:
    """The step with what is told and asked before its answer, and the result behind it."""
    words = set(re.findall(r"\w+", f"{step.question} {step.answer}".lower()))
    sentences = SENTENCE_END.split(question.strip())
    told = [sentence for sentence in sentences if values(sentence) or not sentence.endswith("?")] or sentences
    nearest = max(told, key=lambda sentence: len(words.intersection(re.findall(r"\w+", sentence.lower()))))
    answer = step.answer.strip()
    value = sub_answer_value(step.answer)
    opening = rng.choice(_OPENINGS).format(asked=step.question.strip() or sentences[-1], told=nearest)
    closing = rng.choice(_CLOSINGS).format(value=format_result(Fraction(value))) if value is not None else ""
    return replace(step, answer=f"{opening}{answer}{'' if answer.endswith(('.', '!')) else '.'}{closing}")


def _wrong_step(chain: Chain, rng: random.Random) -> tuple[tuple[Step, ...], int, str] | None:
    """The steps with an error in one calculation and all that follows from it, its step's number, the wrong answer."""
    gold = values(chain.answer)
    if chain.answer_type != "number" or len(gold) != 1:
        return None
    places = [(number, mark) for number, step in enumerate(chain.steps) for mark in marks(step.answer)]
    for number, mark in rng.sample(places, len(places)):
        edits = [*_edits(chain, number, mark)]
        for token, written in rng.sample(edits, len(edits)):
            try:
                carried = _Carried(chain, number, mark, token, written)
                answer = carried.changed[next(iter(gold))]
            except (_Impossible, KeyError):  # the latter where the answer does not depend on it
                continue
            return tuple(carried.steps), number + 1, _as_written(chain.answer, answer)
    return None


def _edits(chain: Chain, number: int, mark: Mark) -> Iterator[tuple[int, str]]:
    """Ways to get ``mark`` of step ``number`` wrong: which token of its expression is replaced by what.

    An operation by one that is easily taken for it, a number by another that is told, or was calculated before, in
    digits.
    """
    tokens = [*_TOKEN.finditer(mark.expr)]
    told = {value for text in (chain.question, *(s.answer for s in chain.steps[:number])) for _, value in digits(text)}
    others = sorted(told - values(mark.expr) - values(mark.result) - {0, 1})
    for place, token in enumerate(tokens):
        is_binary = place > 0 and tokens[place - 1][0] not in _OTHERS
        if token[0] in _OTHERS and is_binary:
            yield from ((place, other) for other in _OTHERS[token[0]])
        elif token[0] not in _OTHERS:
            yield from ((place, format_result(other)) for other in others)


class _Carried:
    """``steps`` of a chain from an error on: what was calculated from it is calculated anew, in ``changed`` by value.

    A number is known by its value alone, so `_Impossible` is raised wherever one may mean two things, and where a new
    value is unlike the old one.
    """

    def __init__(self, chain: Chain, number: int, mark: Mark, token: int, written: str) -> None:
        answer = chain.steps[number].answer
        self.changed: dict[Fraction, Fraction] = {}
        self.new: dict[Fraction, Fraction] = {}
        earlier = chain.steps[:number]
        self.known = CONSTANTS | values(render_problem(chain.problem())) | values(answer[: mark.start])
        self.known |= {value for step in earlier for value in values(f"{step.question} {step.answer}")}
        later = chain.steps[number + 1 :]
        self.rest = "\n".join([answer[mark.end :], *(f"{step.question}\n{step.answer}" for step in later)])
        before = _with_token(answer[: mark.start], mark.expr, token, written)
        head, place = self._replaced(answer, mark, _put(mark.expr, [*_TOKEN.finditer(mark.expr)][token], written))
        made = f"{before}{head}{self._on(answer[place:])}"
        self.steps = [*earlier, Step(chain.steps[number].question, made)]
        for step in later:
            self.steps.append(Step(self._text(step.question), self._on(step.answer)))
        if any(miscalculates(step.answer) for step in self.steps):
            raise _Impossible

    def _on(self, text: str) -> str:
        """``text``, from behind the error, with its marks calculated anew."""
        parts, place = [], 0
        for mark in marks(text):
            expr = self._text(mark.expr)
            if mark.start < place:
                raise _Impossible
            parts.append(self._text(text[place : mark.start]))
            if any(100 * value in self.changed for value in values(mark.expr)):  # .2 of what was 20 %
                raise _Impossible
            if expr == mark.expr:
                if not self.changed.keys().isdisjoint(values(mark.result)):
                    raise _Impossible
                parts.append(text[mark.start : mark.end])
                place = mark.end
            else:
                head, place = self._replaced(text, mark, expr)
                parts.append(head)
        return "".join([*parts, self._text(text[place:])])

    def _replaced(self, text: str, mark: Mark, expr: str) -> tuple[str, int]:
        """The mark with ``expr`` in it, the number behind it included, and where what follows begins in ``text``."""
        if not holds(mark):
            raise _Impossible
        old = calculate(mark.expr)
        try:
            value = calculate(expr)
        except CalculatorError:
            raise _Impossible from None
        if values(mark.result) != {old} or not _is_like(old, value):
            raise _Impossible
        if self.changed.setdefault(old, value) != value:
            raise _Impossible
        written = f"<<{expr}={format_result(value)}>>"
        behind, end = _BEHIND.match(text, mark.end), mark.end
        if behind and values(behind["number"]) == {old}:
            written += text[mark.end : behind.start("number")] + _as_written(behind["number"], value)
            end = behind.end()
        place = self.rest.index(text[end:]) if text[end:] else 0
        if old not in self.known:
            self.new[old] = value
        elif old in values(self.rest[place:]):
            raise _Impossible
        return written, end

    def _text(self, text: str) -> str:
        """``text`` with the new numbers in the place of the old ones."""
        if any(WORDS[word[0].lower()] in self.new for word in WORD.finditer(text)):
            raise _Impossible
        for number in reversed([*NUMBER.finditer(text)]):
            value = self.new.get(Fraction(number[0].replace(",", "")[:MAX_DIGITS]))
            if value is not None:
                text = _put(text, number, _as_written(number[0], value))
        return text


def _with_token(before: str, expr: str, token: int, written: str) -> str:
    """The text before a mark: where it spells the mark's expression out, with the same token replaced."""
    spelt, tokens = [*_TOKEN.finditer(before)], _TOKEN.findall(expr)
    spelt = spelt[-len(tokens) :]
    if [*map(_plain, tokens)] == [_plain(found[0]) for found in spelt] and "=" in before[spelt[-1].end() :]:
        return _put(before, spelt[token], written)
    if re.search(r"=\s*\$?$", before):
        raise _Impossible
    return before


def _plain(token: str) -> str | Fraction:
    token = token.translate(_AS_MARKED)
    return token if token in _OTHERS else Fraction(token)


def _put(text: str, found: re.Match[str], written: str) -> str:
    return f"{text[: found.start()]}{written}{text[found.end() :]}"


def _as_written(old: str, value: Fraction) -> str:
    return f"{value.numerator:,}" if "," in old and value.denominator == 1 else format_result(value)


def _is_like(old: Fraction, value: Fraction) -> bool:
    """Whether a wrong result is not wrong at first sight: another, of the old one's sign, kind and order of size."""
    ends = value.denominator == 1 if old.denominator == 1 else (100 * value).denominator == 1
    return ends and value != old and min(abs(old), abs(value)) > 0 and Fraction(1, 10) <= value / old <= 10
