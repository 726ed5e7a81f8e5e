"""Numbers as texts write them, in digits and in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from socratic.answers import MAX_DIGITS

NUMBER = re.compile(r"[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?|\.[0-9]+")
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
WORDS = {name: Fraction(n) for n, names in _NAMES.items() for name in names.split()}
WORDS |= {
    f"{_NAMES[tens]}-{_NAMES[unit].split()[0]}": Fraction(tens + unit)
    for tens in range(20, 100, 10)
    for unit in range(1, 10)
}
_LONGEST_FIRST = sorted(WORDS, key=len, reverse=True)
_ENDINGS = {first: "|".join(word[1:] for word in _LONGEST_FIRST if word[0] == first) for first in {w[0] for w in WORDS}}
WORD = re.compile(rf"\b(?:{'|'.join(f'[{x}{x.upper()}](?i:{ends})' for x, ends in _ENDINGS.items())})\b")
"""In either case; grouped by the first letter, so that most places of a text are passed at a glance."""


def values(text: str) -> set[Fraction]:
    """The numbers that a text states, in digits or words."""
    return {number for _, number in stated(text)}


def stated(text: str) -> Iterator[tuple[int, Fraction]]:
    """Place and value of each number in digits or words."""
    yield from digits(text)
    yield from ((match.start(), WORDS[match[0].lower()]) for match in WORD.finditer(text))


def digits(text: str) -> Iterator[tuple[int, Fraction]]:
    """Place and value of each number in digits, of which no more are read than an answer may have."""
    for match in NUMBER.finditer(text):
        number = match[0].replace(",", "")[:MAX_DIGITS]
        yield match.start(), Fraction(number) if "." in number else Fraction(int(number))  # which is much faster
