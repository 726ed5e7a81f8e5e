"""The equations of steps, and what parts of them come to in any grouping."""

from __future__ import annotations

import ast
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from socratic.calculator import calculate, disagreements, marks, prose
from socratic.numerals import digits
from socratic.types import CalculatorError, Step

_MOST = 6  # numbers in one sum or product, of which all parts are looked at


@dataclass(frozen=True)
class Calculation:
    """What is calculated: the numbers, the signs (sorted), the value, and whether the written result is that."""

    expr: str
    numbers: Counter[Fraction]
    signs: str
    value: Fraction
    holds: bool = True


@dataclass
class _Node:
    """A sum (or a product) of parts; of each, whether it is taken away (or divided by)."""

    is_product: bool
    parts: list[tuple[_Node | Fraction, bool]] = field(default_factory=list)


def calculations(steps: Iterable[Step]) -> Iterator[Calculation]:
    """The calculations of ``steps`` that can be computed, in the order of the text."""
    for step in steps:
        wrong = {mark.start for mark in disagreements(step.answer)}
        for mark in sorted((*marks(step.answer), *prose(step.answer)), key=lambda mark: mark.start):
            try:
                value = calculate(mark.expr)
            except CalculatorError:
                continue
            numbers = Counter(number for _, number in digits(mark.expr))
            signs = "".join(sorted({*re.findall(r"(?<=[\d)])\s*([-+*/])", mark.expr)}))
            if signs:
                yield Calculation(mark.expr, numbers, signs, value, mark.start not in wrong)


def reachable(gold: Sequence[Calculation], stated: set[Fraction]) -> set[Fraction]:
    """The values of gold's equations and of all parts of their sums and products, in any order.

    In a product a number that is the result of a step, and not ``stated`` in the problem, is that step's product.
    """
    made: dict[Fraction, _Node] = {}
    found: set[Fraction] = set()
    for step in gold:
        found.add(step.value)
        try:
            node = _tree(ast.parse(step.expr.replace(",", "").strip(), mode="eval").body, made)
            found |= _parts(node)
        except (SyntaxError, ValueError, ZeroDivisionError):  # such as a leading zero
            continue
        if isinstance(node, _Node) and step.value not in stated:
            made[step.value] = node
    return found


def _tree(expr: ast.expr, made: Mapping[Fraction, _Node]) -> _Node | Fraction:
    """An expression as flat sums and products."""
    if isinstance(expr, ast.Constant):
        return Fraction(str(expr.value))
    if isinstance(expr, ast.UnaryOp):
        return _Node(False, [(_tree(expr.operand, made), isinstance(expr.op, ast.USub))])
    if not isinstance(expr, ast.BinOp):
        raise ValueError("this is no arithmetic")
    node = _Node(isinstance(expr.op, ast.Mult | ast.Div))
    for side, inverse in ((expr.left, False), (expr.right, isinstance(expr.op, ast.Sub | ast.Div))):
        inner = _tree(side, made)
        if node.is_product and isinstance(inner, Fraction):
            inner = made.get(inner, inner)
        if isinstance(inner, _Node) and inner.is_product == node.is_product:
            node.parts += [(part, was != inverse) for part, was in inner.parts]
        else:
            node.parts.append((inner, inverse))
    return node


def _value(node: _Node | Fraction) -> Fraction:
    return node if isinstance(node, Fraction) else _joined(node.is_product, node.parts)


def _joined(is_product: bool, parts: Iterable[tuple[_Node | Fraction, bool]]) -> Fraction:
    """The sum or product of ``parts``."""
    if is_product:
        return math.prod((1 / _value(part) if inverse else _value(part) for part, inverse in parts), start=Fraction(1))
    return sum((-_value(part) if inverse else _value(part) for part, inverse in parts), start=Fraction(0))


def _parts(node: _Node | Fraction) -> set[Fraction]:
    """The values, without signs, of all parts of a sum or product that join at least two numbers."""
    if isinstance(node, Fraction):
        return set()
    found = {value for part, _ in node.parts for value in _parts(part)}
    for size in range(2, len(node.parts) + 1) if len(node.parts) <= _MOST else ():
        found |= {abs(_joined(node.is_product, chosen)) for chosen in itertools.combinations(node.parts, size)}
    return found
