"""Exact arithmetic for calculator marks, and everything the package knows about their syntax.

A mark is ``<<expr=result>>`` inside a sub-answer, as in ``48/2 = <<48/2=24>>24 clips`` (Cobbe et al. 2021).
The calculator reads digits, ``. + - * / ( )``, signs, spaces between tokens and commas (dropped); it has no power, no
names and no functions, so a value never has more digits than a small multiple of the expression's length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from socratic.types import CalculatorError

MAX_LENGTH = 1_000
MAX_DEPTH = 100
MAX_DIGITS = 100
_EXACT_PLACES = 10

_TOKEN = re.compile(r" *([0-9]+(?:\.[0-9]*)?|\.[0-9]+|[-+*/()])")
_DECIMAL = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
_FRACTION = re.compile(r"[-+]?[0-9]+/0*[1-9][0-9]*")
_OPEN = re.compile(r"<<([^<>=]*)=")
_MARK = re.compile(r"<<([^<>=]*)=([^<>=]*)>>")
_CUT = re.compile(r"(<<[^<>=]*=)([^<>=]*>>)?")
_MARKED = "\0"
_LOOK_BACK = 20  # characters
_OPERAND = r"\(?\$?\d+(?:,\d{3})*(?:\.\d+)?%?\)?"
# Atomic groups and no possessive quantifiers: before Python 3.11.5 the latter match wrongly (python/cpython#106052).
_CHAIN = re.compile(rf"(?:(?=[($])|(?<![\d$])(?<!\d[.,])){_OPERAND}(?>(?: *[-+*/x×÷] *{_OPERAND})+)")
_EQUALS = re.compile(rf" *= *\$?(\d+(?:,\d{{3}})*(?:\.\d+)?|{_MARKED}+)")
_AS_TYPED = str.maketrans({"x": "*", "×": "*", "÷": "/", "$": "", ",": ""})
_BEFORE = re.compile(r"[\d.)%–:] ?$|[A-Za-z]$|[-+*/x×÷=] *$|[-+*/x×÷] *\d{1,9} and $")
_AFTER = re.compile(r" *[-+*/x×÷%=(\d]|[A-Za-z:.,]\d|[A-Z]| and \(?\d+/\d+\)?(?! *[=\d])")
_CENTS = re.compile(r" *(?:cents?\b|¢)")
_BY_FRACTION = re.compile(r"/ +(\d+/\d+)(?![\d.]| */)")
_BEHIND = re.compile(r"\$?((?>\d+(?:,\d{3})*(?:\.\d+)?|\.\d+))(?![/:\d])")
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "pos": 3}


@dataclass(frozen=True)
class Mark:
    """A complete calculator mark, ``text[start:end]`` being ``<<expr=result>>``, or a calculation in prose."""

    expr: str
    result: str
    start: int
    end: int


def calculate(expr: str) -> Fraction:
    """Exact value of ``expr``, in time linear in its length.

    Raises `CalculatorError` whose ``reason`` is ``too_long``, ``too_deep``, ``too_large`` (a number of over 100
    digits), ``division_by_zero``, ``unsupported`` (a character the calculator does not know) or ``syntax``.
    """
    if len(expr) > MAX_LENGTH:
        raise CalculatorError("too_long", f"an expression of {len(expr)} characters is over the cap of {MAX_LENGTH}")
    values: list[Fraction] = []
    operators: list[str] = []
    depth = 0
    after_value = False
    for token in _tokens(expr.replace(",", "")):
        if token[0] in ".0123456789":
            _require(not after_value, expr)
            values.append(_number(token))
            after_value = True
        elif token == "(":
            _require(not after_value, expr)
            depth += 1
            if depth > MAX_DEPTH:
                raise CalculatorError("too_deep", f"{_shown(expr)} nests brackets over {MAX_DEPTH} deep")
            operators.append(token)
        elif token == ")":
            _require(after_value and depth > 0, expr)
            depth -= 1
            _reduce(values, operators, 1)
            operators.pop()
        elif after_value:
            _reduce(values, operators, _PRECEDENCE[token])
            operators.append(token)
            after_value = False
        else:
            _require(token in "+-", expr)
            operators.append("neg" if token == "-" else "pos")
    _require(after_value and depth == 0, expr)
    _reduce(values, operators, 1)
    return values[0]


def format_result(value: Fraction) -> str:
    """Canonical text of a result: a decimal that ends within 10 places exactly, anything else rounded to 2 places.

    No trailing zeros, no bare point (``24``, ``0.5``). Half up means away from zero, for negative values too.
    """
    places = _EXACT_PLACES if (value * 10**_EXACT_PLACES).denominator == 1 else 2
    scaled = _round_half_up(value * 10**places)
    digits = str(abs(scaled)).rjust(places + 1, "0")
    text = f"{digits[:-places]}.{digits[-places:]}".rstrip("0").rstrip(".")
    return f"-{text}" if scaled < 0 else text


def agrees(result: str, value: Fraction) -> bool:
    """Whether a written result is ``value``, exactly or rounded half up to the decimal places it shows.

    Commas and surrounding spaces are dropped; ``a/b`` must be exact, and anything but a decimal or ``a/b`` does not
    agree.
    """
    text = result.strip(" ").replace(",", "")
    if len(text) > MAX_LENGTH:
        return False
    if _FRACTION.fullmatch(text):
        return Fraction(text) == value
    if not _DECIMAL.fullmatch(text):
        return False
    scale: int = 10 ** len(text.partition(".")[2])
    return Fraction(text) * scale == _round_half_up(value * scale)


def pending(text: str) -> str | None:
    """The expression whose result is due where ``text`` ends in ``<<expr=``, else None.

    Looks at no more of the text than the longest expression `calculate` takes.
    """
    if not text.endswith("="):
        return None
    start = text.rfind("<<", max(0, len(text) - MAX_LENGTH - len("<<=")))
    if start < 0:
        return None
    match = _OPEN.fullmatch(text, start)
    return match[1] if match else None


def cut(text: str) -> list[str]:
    """Pieces to tokenise alone: cut behind every ``<<expr=`` and behind the ``result>>`` that directly follows it.

    ``"".join(cut(text)) == text``; no piece is empty.
    """
    pieces: list[str] = []
    end = 0
    for match in _CUT.finditer(text):
        pieces.append(text[end : match.end(1)])
        if match[2] is not None:
            pieces.append(match[2])
        end = match.end()
    if end < len(text):
        pieces.append(text[end:])
    return pieces


def marks(text: str) -> Iterator[Mark]:
    """The complete marks of ``text``, in order."""
    for match in _MARK.finditer(text):
        yield Mark(match[1], match[2], match.start(), match.end())


def prose(text: str) -> Iterator[Mark]:
    """Each calculation written without a mark, as in ``2 x 3 = 6`` or ``$9 / $27 = 33%``.

    The expression is in the calculator's own signs; one with a per cent sign cannot be computed. Where the result is
    written as a mark, the calculation is that mark's.
    """
    text, place = _MARK.sub(lambda mark: _MARKED * len(mark[0]), text), 0
    while chain := _CHAIN.search(text, place):
        equals = _EQUALS.match(text, chain.end())
        place = (equals or chain).end()
        if equals and _MARKED not in equals[1]:
            yield Mark(chain[0].translate(_AS_TYPED), equals[1].replace(",", ""), chain.start(), place)


def without_marks(text: str) -> str:
    """``text`` as a person would write it: ``2*3=<<2*3=6>>6`` is ``2*3=6``."""
    return _MARK.sub("", text)


def holds(calculation: Mark) -> bool:
    """Whether the expression can be computed, and the written result is its value."""
    value = _value(calculation.expr)
    return value is not None and agrees(calculation.result, value)


def canonicalise(text: str) -> str:
    """``text`` with every result that agrees with its expression's value in the form of `format_result`.

    A wrong result, and one whose expression cannot be computed, stays as written.
    """
    return _MARK.sub(_canonical_mark, text)


def checked(text: str) -> Iterator[tuple[Mark, bool]]:
    """The calculations that can be computed, and whether each result is right: first the marks, then those in prose.

    A mark is wrong too where the number directly behind it is not its value, as in ``<<6*11=66>>77``; that number is
    then its result, and its end. Of prose, those are left out that another sign, a number, ``and 2/3`` or another unit
    goes on, as in ``1/2 * 1/2 = 1/4`` and ``$1 / 2 = 50 cents``, and ``3 / 1/4`` may be 3 quarters or 12.
    """
    for mark in marks(text):
        value = _value(mark.expr)
        if value is not None:
            behind = _BEHIND.match(text, mark.end)
            if behind and agrees(mark.result, value) and not agrees(behind[1], value):
                yield Mark(mark.expr, behind[1], mark.start, behind.end()), False
            else:
                yield mark, agrees(mark.result, value)
    for found in prose(text):
        before = text[max(0, found.start - _LOOK_BACK) : found.start]
        value = _value(found.expr)
        if value is not None and not _BEFORE.search(before) and not result_continues(text, found):
            yield found, agrees(found.result, value) or holds(_by_fraction(found))


def disagreements(text: str) -> list[Mark]:
    """What `checked` finds wrong, in the order of the text."""
    return sorted((mark for mark, is_right in checked(text) if not is_right), key=lambda mark: mark.start)


def miscalculates(text: str) -> bool:
    """Whether a calculation is wrong, marked or not, or is not its mark's, as in ``20 x 2 = <<10=10>>10``."""
    return bool(disagreements(text) or disagreements(without_marks(text)))


def last_result(text: str) -> str | None:
    """What ``text`` says that its last calculation comes to: of a mark the number directly behind it, if one is there.

    None where nothing is calculated, or something that is no number of its own follows, as in ``2*3 = 6*4 = 24``.
    """
    last = max((*marks(text), *prose(text)), key=lambda mark: mark.start, default=None)
    if last is None:
        return None
    if text.startswith("<<", last.start):
        behind = _BEHIND.match(text, last.end)
        return behind[1] if behind else last.result
    return None if result_continues(text, last) else last.result


def result_continues(text: str, found: Mark) -> bool:
    """Whether what `prose` found ends in a part of its result, as in ``3/6 = 1/2``, or in cents of dollars."""
    is_in_cents = "$" in text[found.start : found.end] and _CENTS.match(text, found.end)
    return bool(is_in_cents or _AFTER.match(text, found.end))


def _by_fraction(found: Mark) -> Mark:
    """The calculation with what is divided by a fraction so read: ``3 / 1/4`` as ``3 / (1/4)``."""
    return replace(found, expr=_BY_FRACTION.sub(r"/(\1)", found.expr))


def _canonical_mark(match: re.Match[str]) -> str:
    return _canonical(*match.groups())


@lru_cache(maxsize=100_000)  # texts are rendered again for every role
def _canonical(expr: str, result: str) -> str:
    value = _value(expr)
    if value is None or not agrees(result, value):
        return f"<<{expr}={result}>>"
    return f"<<{expr}={format_result(value)}>>"


@lru_cache(maxsize=100_000)  # runs that are compared share their gold, and what is in it
def _value(expr: str) -> Fraction | None:
    try:
        return calculate(expr)
    except CalculatorError:
        return None


def _tokens(expr: str) -> Iterator[str]:
    text = expr.rstrip(" ")
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            character = text[position:].lstrip(" ")[0]
            if character == ".":
                raise _syntax_error(expr)
            raise CalculatorError("unsupported", f"{_shown(expr)} has {character!r}, which is not arithmetic")
        yield match[1]
        position = match.end()


def _number(token: str) -> Fraction:
    digits = len(token.replace(".", ""))
    if digits > MAX_DIGITS:
        raise CalculatorError("too_large", f"a number of {digits} digits is over the cap of {MAX_DIGITS}")
    return Fraction(token)


def _reduce(values: list[Fraction], operators: list[str], precedence: int) -> None:
    """Applies the operators on the stack that bind at least as tightly as ``precedence``."""
    while operators and operators[-1] != "(" and _PRECEDENCE[operators[-1]] >= precedence:
        operator = operators.pop()
        right = values.pop()
        if operator in ("neg", "pos"):
            values.append(-right if operator == "neg" else right)
        else:
            values.append(_apply(operator, values.pop(), right))


def _apply(operator: str, left: Fraction, right: Fraction) -> Fraction:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    if right == 0:
        raise CalculatorError("division_by_zero", "the expression divides by zero")
    return left / right


def _require(condition: bool, expr: str) -> None:
    if not condition:
        raise _syntax_error(expr)


def _syntax_error(expr: str) -> CalculatorError:
    return CalculatorError("syntax", f"{_shown(expr)} is not a complete expression of numbers, + - * / and brackets")


def _shown(expr: str) -> str:
    return repr(expr if len(expr) <= 60 else f"{expr[:57]}...")


def _round_half_up(value: Fraction) -> int:
    size = abs(value)
    rounded = (2 * size.numerator + size.denominator) // (2 * size.denominator)
    return rounded if value >= 0 else -rounded
