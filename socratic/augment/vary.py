"""The same problem with other numbers: those that lead to the chain's marks are drawn anew, the rest is calculated.

A number is known by its value alone: wherever the question or the steps state a value that was drawn or calculated
anew, the new value takes its place. So a value must not mean two things; where it might, nothing is made of the chain.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import combinations, combinations_with_replacement
from math import prod

from socratic.answers import MAX_DIGITS
from socratic.calculator import calculate, disagreements, format_result, holds, marks, prose, without_marks
from socratic.numerals import NUMBER, WORD, WORDS
from socratic.types import CalculatorError, Chain, Step

_DRAWS = 200
"""How often numbers are drawn until all that follows from them is plausible."""

_MENTION = re.compile(rf"(?P<digits>{NUMBER.pattern})|{WORD.pattern}", re.IGNORECASE)
_RATIO = re.compile(r"(?<![\d.,])(\d{1,3})/(\d{1,3})(?![\d.,]*\d)")
_EQUALS = re.compile(r"(?<!<)=\s*\$?(?=[\d.])(?![^<>]*>>)")
"""An equals sign before a number, in prose."""
_PER_CENT = re.compile(r" ?(?:%|per ?cent)")
_CARDINALS = {value: name for name, value in reversed(WORDS.items()) if 1 < value < 100}  # the first name of a value
_UNITS = {
    Fraction(value): re.compile(words, re.IGNORECASE | re.DOTALL)
    for value, words in {
        "0": "",
        "1": "",
        "1/100": "%|cent",
        "1/20": "nickel",
        "1/10": "dime|tenth",
        "1/4": "quarter|fourth",
        "1/2": "half|halves",
        "3/4": "quarter|fourth",
        "3/2": "half",
        "2": "half|halves|twice|double|both|pair|couple|average|each way|round.?trip|back|second",
        "3": "third|triple|thrice|yard",
        "4": "quarter|fourth|month|square|season",
        "5": "nickel|weekday|school|work|fifth",
        "7": "week",
        "10": "dime|tenth",
        "12": "dozen|year.*month|month.*year|foot|feet|noon|midnight",
        "16": "ounce|pound",
        "24": "day.*hour|hour.*day",
        "25": "quarter",
        "30": "month|half",
        "36": "yard",
        "52": "year|card",
        "60": "hour|minute",
        "100": "%|cent|meter|metre|hundred",
        "365": "year",
        "1000": "kilo|thousand|liter|litre|gram|ton|meter|metre",
    }.items()
}
"""What a number may mean without being told, and words by which that is seen. They cannot be complete: a told value of
these that marks read more often than it is told is not varied either."""


class Impossible(Exception):
    """A chain that cannot be changed in this way; the message is a short reason."""


class _Implausible(Exception):
    """Numbers that were drawn lead to nonsense; others may not."""


def vary(chain: Chain, draws: Iterable[random.Random]) -> Iterator[Chain]:
    """For each of ``draws``, ``chain`` with other numbers; whole ones stay whole, positive ones positive.

    Raises `Impossible` with the reason: ``untraced_number``, ``nothing_to_vary``, ``answer_not_traced``,
    ``wrong_mark``, or ``implausible`` where no draw came to anything sensible.
    """
    plan = _Plan(chain)
    for rng in draws:
        yield plan.varied(rng)


@dataclass(frozen=True)
class _Mention:
    """A number in a text, at ``text[start:end]``, in digits or in words."""

    value: Fraction
    written: str
    start: int
    end: int


@dataclass(frozen=True)
class _Relation:
    """``whole`` is the sum of ``parts``, or their product."""

    parts: tuple[Fraction, ...]
    whole: Fraction
    is_sum: bool

    def holds_of(self, new: dict[Fraction, Fraction]) -> bool:
        parts = [new[part] for part in self.parts]
        return (sum(parts) if self.is_sum else prod(parts)) == new.get(self.whole, self.whole)


@lru_cache(maxsize=1000)
def _mentions(text: str) -> tuple[_Mention, ...]:
    """The numbers of ``text``; kept, since each text of a chain is read at every draw."""
    return tuple(
        _Mention(
            Fraction(match[0].replace(",", "")[:MAX_DIGITS]) if match["digits"] else WORDS[match[0].lower()],
            match[0],
            match.start(),
            match.end(),
        )
        for match in _MENTION.finditer(text)
    )


class _Plan:
    """What of a chain can be drawn anew, and how the rest follows."""

    def __init__(self, chain: Chain) -> None:
        answers = [step.answer for step in chain.steps]
        if not all(map(_is_calculated, answers)):
            raise Impossible("untraced_number")
        if chain.metadata.get("choices"):  # which would have to be varied too
            raise Impossible("answer_not_traced")
        self.chain = chain
        self.whole = "\n".join([chain.question, *(text for s in chain.steps for text in (s.question, s.answer))])
        self.known = {value for value, words in _UNITS.items() if words.search(self.whole)}
        told = _mentions(chain.question)
        self.told = {m.value: m.value for m in told}
        self.per_cents = {m.value for m in told if _PER_CENT.match(chain.question, m.end)}
        read = Counter(m.value for answer in answers for mark in marks(answer) for m in _mentions(mark.expr))
        self.fixed = self._fixed(Counter(m.value for m in told), read)
        self.free = sorted(
            value
            for value in self.told.keys() - self.fixed
            if value in read or (value in self.per_cents and not read.keys().isdisjoint(_shares(value)))
        )
        if not self.free:
            raise Impossible("nothing_to_vary")
        self.relations = [*self._relations(self.told.keys() - read.keys() - self.per_cents)]

    def _fixed(self, told: Counter[Fraction], read: Counter[Fraction]) -> set[Fraction]:
        """Values that stay what they are."""
        ratios = _RATIO.findall(self.chain.question)
        ratios += [pair for pair in _RATIO.findall(self.whole) if int(pair[0]) < int(pair[1]) <= 10]
        return {
            *(m.value for m in _mentions(self.whole) if not _can_change(self.whole, m)),
            *(Fraction(number) for pair in ratios for number in pair),  # 3/4 of something is no 5/2 of it
            *(m.value for m in _mentions(str(self.chain.metadata.get("context", "")))),  # which is not rewritten
            *self.known,  # 7 where a week is spoken of may be its days
            *(value for value in _UNITS if 0 < told[value] < read[value]),  # a side of 2 in 2*(2+10) is not all its 2s
        }

    def _relations(self, unread: set[Fraction]) -> Iterator[_Relation]:
        """Sums and products that told values are of others.

        ``10 pens, 4 of them red and 6 blue`` says one thing twice, and new numbers have to agree on it. Where marks
        read all of the values, it is taken for chance, but for a sum of three. Per cents may add up to a hundred
        that is not told.
        """
        told = sorted(self.told.keys() - {0, 1})
        for parts in (*combinations_with_replacement(told, 2), *combinations(told, 3)):
            total, product = Fraction(sum(parts)), parts[0] * parts[1]
            adds_up = total in self.told and (len(parts) == 3 or not unread.isdisjoint({*parts, total}))
            if adds_up or (total == 100 and self.per_cents.issuperset(parts)):
                yield _Relation(parts, total, is_sum=True)
            if len(parts) == 2 and product in self.told and not unread.isdisjoint({*parts, product}):
                yield _Relation(parts, product, is_sum=False)

    def varied(self, rng: random.Random) -> Chain:
        """The chain with numbers that ``rng`` draws."""
        for _ in range(_DRAWS):
            try:
                return self.rewritten(self.draw(rng))
            except _Implausible:
                continue
        raise Impossible("implausible")

    def draw(self, rng: random.Random) -> dict[Fraction, Fraction]:
        """New values of what the question tells, in the old order of size; what cannot change stays."""
        new = {value: _drawn(value, value in self.per_cents, rng) for value in self.free}
        told = self.told | new
        inorder = [told[value] for value in sorted(told)]
        if inorder != sorted(set(inorder)) or all(told[value] == value for value in told):
            raise _Implausible
        if not all(relation.holds_of(told) for relation in self.relations):
            raise _Implausible
        return told

    def rewritten(self, new: dict[Fraction, Fraction]) -> Chain:
        """The chain with the values of ``new``, which grows by what is calculated from them."""
        question = self._text(self.chain.question, new)
        steps = []
        for step in self.chain.steps:
            asked = self._text(step.question, new)
            steps.append(Step(asked, self._answer(step.answer, new)))
        gold = next(iter(_mentions(self.chain.answer)), None)
        if gold is None or gold.value not in new or gold.written != self.chain.answer:
            raise Impossible("answer_not_traced")
        answer = _like(gold, new[gold.value])
        return replace(self.chain, question=question, answer=answer, final_answer=answer, steps=tuple(steps))

    def _answer(self, answer: str, new: dict[Fraction, Fraction]) -> str:
        """A sub-answer, its marks calculated anew one after the other."""
        parts: list[str] = []
        place = 0
        results: dict[int, str] = {}
        for mark in marks(answer):
            if not holds(mark):
                raise Impossible("wrong_mark")
            expr = self._expression(mark.expr, new)
            old = calculate(mark.expr)
            try:
                value = calculate(expr)
            except CalculatorError:
                raise _Implausible from None
            self._check(old, value, answer)
            self._learn(old, value, new)
            for written in _mentions(mark.result)[:1]:
                self._learn(written.value, Fraction(format_result(value)), new)
            results[mark.start] = f"<<{expr}={format_result(value)}>>"
        for mark in marks(answer):
            parts += [self._text(answer[place : mark.start], new), results[mark.start]]
            place = mark.end
        made = "".join([*parts, self._text(answer[place:], new)])
        if not _is_calculated(made):
            raise Impossible("untraced_number")
        return made

    def _learn(self, old: Fraction, value: Fraction, new: dict[Fraction, Fraction]) -> None:
        """Let ``value`` take the place of ``old`` from now on; one value must not come to two."""
        if new.setdefault(old, value) != value or (old in self.fixed and value != old):
            raise _Implausible

    def _check(self, old: Fraction, value: Fraction, answer: str) -> None:
        """Raise `_Implausible` for a result unlike the old one."""
        whole = (old.denominator == 1) <= (value.denominator == 1)
        places = max(2, _places(format_result(old)))
        ends = (value * 10**places).denominator == 1 or (old * 10**places).denominator != 1
        sign = (old > 0) == (value > 0) and (old == 0) == (value == 0)
        share = (old < 1) == (value < 1) and (old == 1) == (value == 1)
        per_cent = "%" not in answer or old > 100 or value <= 100
        size = old == 0 or abs(old) / 5 <= abs(value) <= 5 * abs(old)
        if not (whole and ends and sign and share and per_cent and size):
            raise _Implausible

    def _expression(self, expr: str, new: dict[Fraction, Fraction]) -> str:
        """Operands anew; a per cent that is multiplied or divided by, but not as so many of 100, is no per cent."""
        numbers = {mention.value for mention in _mentions(expr)}
        if not self.per_cents.isdisjoint(numbers) and 100 not in numbers and re.search(r"[*/]", expr):
            raise Impossible("untraced_number")
        return self._text(expr, new)

    def _text(self, text: str, new: dict[Fraction, Fraction]) -> str:
        """``text`` with new numbers; every one must be traced: told, calculated, a share, or what everybody knows."""
        parts: list[str] = []
        place = 0
        for mention in _mentions(text):
            value = new.get(mention.value)
            if value is None:
                value = self._share(mention.value, new)
            if value is None:
                if mention.value not in self.fixed:
                    raise Impossible("untraced_number")
                value = mention.value
            parts += [text[place : mention.start], _like(mention, value)]
            place = mention.end
        return "".join([*parts, text[place:]])

    def _share(self, value: Fraction, new: dict[Fraction, Fraction]) -> Fraction | None:
        """What becomes of a share that a per cent is or leaves: of 20 %, .2, .8, 1.2, 80 and 120."""
        found = {
            _shares(new[p])[place] for p in self.per_cents for place, share in enumerate(_shares(p)) if share == value
        }
        if len(found) > 1:
            raise Impossible("untraced_number")
        return next(iter(found), None)


def _is_calculated(answer: str) -> bool:
    """Whether all that an equals sign leads to is calculated: in a mark that does so, or in prose without rounding."""
    if any(NUMBER.fullmatch(mark.expr.strip()) for mark in marks(answer)) or disagreements(without_marks(answer)):
        return False
    exact = [p for p in prose(answer) if holds(p) and calculate(p.expr) == Fraction(p.result)]
    return all(any(p.start < match.start() < p.end for p in exact) for match in _EQUALS.finditer(answer))


def _shares(per_cent: Fraction) -> tuple[Fraction, ...]:
    share = per_cent / 100
    return share, 1 - share, 1 + share, 100 - per_cent, 100 + per_cent


def _can_change(text: str, mention: _Mention) -> bool:
    """Whether the number may be another: no ``2nd``, ``8:00``, ``1999``, ``twice``, and not 0 or 1."""
    if mention.value in (0, 1):
        return False
    if not mention.written[0].isdigit() and not mention.written.startswith("."):
        return _CARDINALS.get(mention.value) == mention.written.lower()
    before, after = text[max(0, mention.start - 1) : mention.start], text[mention.end : mention.end + 1]
    is_year = 1900 <= mention.value <= 2100 and len(mention.written) == 4 and before != "$"
    return not (is_year or before.isalpha() or before in (":", "#") or after.isalpha() or after == ":")


def _drawn(value: Fraction, is_per_cent: bool, rng: random.Random) -> Fraction:
    """Another value of the same kind: as round, with as many decimal places, between half and 1.6 times as large."""
    scale = 10 ** _places(format_result(value))
    number = int(value * scale)
    step = next((s for s in (1000, 500, 100, 50, 10, 5) if number % s == 0 and number // s >= 4), 1)
    if is_per_cent and number % 5 == 0:
        step = 5
    least, most = -(-number // (2 * step)), number * 8 // (5 * step) + 1
    drawn = Fraction(step * rng.randint(max(1, least), most), scale)
    if drawn == 1 or (is_per_cent and value < 100 <= drawn):
        raise _Implausible
    return drawn


def _like(mention: _Mention, value: Fraction) -> str:
    """``value`` written as the number of ``mention`` is: in words, with its commas, its places, its bare point."""
    old = mention.written
    if value == mention.value:
        return old
    if old[0].isalpha():
        word = _CARDINALS.get(value)
        return format_result(value) if word is None else word.capitalize() if old[0].isupper() else word
    text = format_result(value)
    if "." in old and not old.startswith("."):
        text = f"{float(value):.{max(_places(old), _places(text))}f}"
    elif "." in old and 0 < value < 1:
        text = text.removeprefix("0")
    if "," in old:
        whole, point, rest = text.partition(".")
        text = f"{int(whole):,}{point}{rest}"
    return text


def _places(number: str) -> int:
    """Decimal places that are written."""
    return len(number.partition(".")[2])
