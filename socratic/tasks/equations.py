"""From a gold equation to the expression that gives its unknown: what the four data sets with equations share."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from socratic.calculator import calculate, format_result
from socratic.tasks.base import Item, Part, SplitScheme, checked, gold_chain, take_part
from socratic.tasks.files import Hub, Row, hub_rows, number_text, read_rows, recover_fraction
from socratic.types import CalculatorError, Problem, Step, UserError

_ALLOWED = re.compile(r"[-+*/().0-9xX\s]{1,200}")
SENTENCE_END = re.compile(r"(?<=[.?!])(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)\s+")


def load_rows(data_dir: Path | None, name: str, file: str, hub: Hub | None, part: Part) -> tuple[list[Row], str]:
    """The rows of a data set of one file, and what their ids begin with.

    From files these are all rows, ``NAME/all``, of which `take` keeps a part; from the Hub one part, ``NAME-hub/PART``.
    """
    if data_dir is not None:
        return read_rows(data_dir / name / file), f"{name}/all"
    if hub is None:
        raise UserError(f"{name} is not on the Hub as its authors published it; pass --data-dir or set SOCRATIC_DATA")
    return hub_rows(hub, part), f"{name}-hub/{part}"


def take(items: list[Item], data_dir: Path | None, split_name: str, part: Part) -> list[Item]:
    """The items of ``part`` by ``splits/SPLIT_NAME__default.json``; those from the Hub are that part already."""
    return items if data_dir is None else take_part(items, part, data_dir / "splits" / f"{split_name}__default.json")


def load_word_problems(
    data_dir: Path | None,
    part: Part,
    scheme: SplitScheme,
    *,
    name: str,
    file: str,
    split_name: str,
    hub: Hub | None = None,
) -> list[Item]:
    """The items of a data set in the layout ``sQuestion``, ``lEquations``, ``lSolutions`` (lists of one).

    Both split schemes are the same: these data sets have no split of their authors'.
    """
    rows, prefix = load_rows(data_dir, name, file, hub, part)
    items = []
    for number, row in enumerate(rows):
        question = row.text("sQuestion")
        equation = _only(row, "lEquations") if "lEquations" in row.values else None
        problem = Problem(
            id=f"{prefix}/{number:05d}",
            dataset=name,
            split=part,
            question=question,
            answer=number_text(_only(row, "lSolutions"), f"{row.where}: 'lSolutions'"),
            metadata={} if equation is None else {"equation": equation},
        )
        checked(problem, row.where)
        items.append(with_chain(problem, asking_sentence(question), equation))
    return take(items, data_dir, split_name, part)


def with_chain(problem: Problem, sub_question: str, equation: object) -> Item:
    """``problem`` with its chain of one step, or with the reason in ``metadata["chain_rejected"]`` and no chain."""
    try:
        expr, value = solve_equation(equation)
        if value != Fraction(problem.answer):
            raise ValueError(f"the equation gives {format_result(value)}, the answer says {problem.answer}")
    except ValueError as error:
        problem.metadata["chain_rejected"] = str(error)
        return problem, None
    result = format_result(value)
    return problem, gold_chain(problem, [Step(sub_question, f"<<{expr}={result}>>{result}")])


def asking_sentence(question: str) -> str:
    """The last sentence of ``question`` that ends in a question mark, or all of it where none does."""
    sentences = [sentence for sentence in SENTENCE_END.split(question) if sentence.endswith("?")]
    return sentences[-1] if sentences else question


def solve_equation(equation: object) -> tuple[str, Fraction]:
    """``70-x=27`` -> ``("70-27", 43)``: the expression that gives the unknown, without spaces, and its value.

    An expression without ``=`` (SVAMP's) is its own solution. Numbers are written ``76`` for ``76.0`` and ``1/6`` for
    ``0.16666666666666666``. Raises `ValueError` with the reason where there is not exactly one unknown, once.
    """
    if not isinstance(equation, str):
        raise ValueError("there is no equation")
    sides = [_parse(side, equation) for side in equation.split("=")]
    if len(sides) == 1 and not _unknowns(sides[0]):
        solution = sides[0]
    elif len(sides) == 2 and _unknowns(sides[0]) + _unknowns(sides[1]) == 1:
        left, right = sides if _unknowns(sides[0]) else reversed(sides)
        solution = _isolate(left, right)
    else:
        raise ValueError(f"the equation {equation!r} does not have one unknown that stands in it once")
    expr = ast.unparse(solution).replace(" ", "")
    try:
        return expr, calculate(expr)
    except CalculatorError as error:
        raise ValueError(f"the equation {equation!r} cannot be computed: {error}") from None


def _parse(text: str, equation: str) -> ast.expr:
    try:
        if not _ALLOWED.fullmatch(text):
            raise SyntaxError
        return _Numbers().visit(ast.parse(text.strip().lower(), mode="eval").body)  # type: ignore[no-any-return]
    except (SyntaxError, RecursionError):
        raise ValueError(f"the equation {equation!r} is not made of numbers, x, + - * / and brackets") from None


class _Numbers(ast.NodeTransformer):
    """Writes numbers as `solve_equation` says; anything but arithmetic raises `SyntaxError`."""

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        value = recover_fraction(Fraction(repr(node.value)))
        if value.denominator == 1:
            return ast.Constant(value.numerator)
        if Fraction(format_result(value)) == value:
            return node
        return ast.BinOp(ast.Constant(value.numerator), ast.Div(), ast.Constant(value.denominator))

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if not isinstance(node, _ARITHMETIC) or (isinstance(node, ast.Name) and node.id != "x"):
            raise SyntaxError
        return super().generic_visit(node)


_ARITHMETIC = (ast.BinOp, ast.UnaryOp, ast.Name, ast.Load, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.USub, ast.UAdd)


def _unknowns(node: ast.expr) -> int:
    return sum(isinstance(child, ast.Name) for child in ast.walk(node))


def _isolate(node: ast.expr, value: ast.expr) -> ast.expr:
    """The expression for the unknown in ``node``, where ``node`` equals ``value``: one operation undone at a time."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.UnaryOp):
            value = value if isinstance(node.op, ast.UAdd) else ast.UnaryOp(ast.USub(), value)
            node = node.operand
            continue
        assert isinstance(node, ast.BinOp)
        if _unknowns(node.left):
            value = ast.BinOp(value, _INVERSE[type(node.op)](), node.right)
            node = node.left
        else:
            if isinstance(node.op, ast.Add | ast.Mult):
                value = ast.BinOp(value, _INVERSE[type(node.op)](), node.left)
            else:
                value = ast.BinOp(node.left, node.op, value)
            node = node.right
    return value


_INVERSE: Mapping[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}


def _only(row: Row, column: str) -> object:
    """The one entry of a list column; the Hub's copies hold the entry itself."""
    value = row.get(column)
    if not isinstance(value, list):
        return value
    if len(value) != 1:
        raise UserError(f"{row.where}: {column!r} has {len(value)} entries, not one; correct it")
    return value[0]
