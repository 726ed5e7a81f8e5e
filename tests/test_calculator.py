from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socratic.calculator import (
    Mark,
    agrees,
    calculate,
    canonicalise,
    checked,
    cut,
    disagreements,
    format_result,
    last_result,
    marks,
    pending,
)
from socratic.types import CalculatorError


@pytest.mark.parametrize(
    ("expr", "value"),
    [
        ("48/2", 24),
        ("1+2*3", 7),
        ("(1+2)*3", 9),
        ("8-4-2", 2),
        ("16/4/2", 2),
        ("8/2*4", 16),
        ("-3+5", 2),
        ("-2*3", -6),
        ("2*-3", -6),
        ("6/-4*2", -3),
        ("--5", 5),
        ("+-+5", -5),
        ("-(2+3)*2", -10),
        (".5*4", 2),
        ("5.*2", 10),
        ("1,000+2,500", 3500),
        (" 3 * ( 4 + 1 ) ", 15),
        ("0.1+0.2", Fraction(3, 10)),
        ("1/3", Fraction(1, 3)),
        ("((((7))))", 7),
        ("007", 7),
    ],
)
def test_calculate_is_exact(expr: str, value: int | Fraction) -> None:
    assert calculate(expr) == value


@pytest.mark.parametrize(
    ("expr", "reason"),
    [
        ("5/0", "division_by_zero"),
        ("1/(2-2)", "division_by_zero"),
        ("9**9**9", "syntax"),
        ("7//2", "syntax"),
        ("", "syntax"),
        (" ", "syntax"),
        (",", "syntax"),
        ("1 2", "syntax"),
        ("2(3)", "syntax"),
        ("(2)3", "syntax"),
        ("(1+2", "syntax"),
        ("1+2)", "syntax"),
        ("()", "syntax"),
        ("3+", "syntax"),
        ("*3", "syntax"),
        ("1.2.3", "syntax"),
        (".", "syntax"),
        ("4.5.", "syntax"),
        ("$5*2", "unsupported"),
        ("50%", "unsupported"),
        ("2x3", "unsupported"),
        ("2^3", "unsupported"),
        ("1e3", "unsupported"),
        ("1\t+1", "unsupported"),
        ("٣+1", "unsupported"),
        ("__import__", "unsupported"),
        ("(" * 100_000 + "1" + ")" * 100_000, "too_long"),
        ("(" * 400 + "1" + ")" * 400, "too_deep"),
        ("9" * 1_000_000, "too_long"),
        ("9" * 101 + "+1", "too_large"),
    ],
)
def test_calculate_refuses_with_a_reason(expr: str, reason: str) -> None:
    with pytest.raises(CalculatorError) as caught:
        calculate(expr)
    assert caught.value.reason == reason
    assert len(str(caught.value)) < 200


def test_the_longest_expressions_are_computed() -> None:
    assert calculate("-" * 999 + "1") == -1
    assert calculate("+".join(["1"] * 500)) == 500
    assert calculate("9" * 100) == 10**100 - 1
    assert calculate("(" * 100 + "1" + ")" * 100) == 1


def _expressions() -> st.SearchStrategy[tuple[str, Fraction | None]]:
    """Expression texts with their values, None where a division by zero stands somewhere."""
    numbers = st.integers(0, 999).map(lambda n: (str(n), Fraction(n)))
    decimals = st.integers(0, 9999).map(lambda n: (f"{n // 100}.{n % 100:02}", Fraction(n, 100)))

    def combine(
        parts: tuple[tuple[str, Fraction | None], str, tuple[str, Fraction | None]],
    ) -> tuple[str, Fraction | None]:
        (left, a), operator, (right, b) = parts
        text = f"({left}) {operator} -({right})"
        if a is None or b is None or (operator == "/" and b == 0):
            return text, None
        return text, {"+": a - b, "-": a + b, "*": a * -b, "/": a / -b if b else None}[operator]

    return st.recursive(
        numbers | decimals, lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(combine), max_leaves=8
    )


@given(_expressions())
def test_calculate_equals_a_tree_walk(case: tuple[str, Fraction | None]) -> None:
    expr, value = case
    if value is None:
        with pytest.raises(CalculatorError, match="divides by zero"):
            calculate(expr)
    else:
        assert calculate(expr) == value


@given(st.text(alphabet="0123456789.,+-*/() x$", max_size=40) | st.text())
def test_calculate_returns_a_value_or_a_typed_error(expr: str) -> None:
    try:
        value = calculate(expr)
    except CalculatorError:
        return
    assert isinstance(value, Fraction)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(24), "24"),
        (Fraction(0), "0"),
        (Fraction(-5), "-5"),
        (Fraction(100), "100"),
        (Fraction(1, 2), "0.5"),
        (Fraction(-1, 4), "-0.25"),
        (Fraction(1, 10**10), "0.0000000001"),
        (Fraction(1, 3), "0.33"),
        (Fraction(2, 3), "0.67"),
        (Fraction(-2, 3), "-0.67"),
        (Fraction(8, 3), "2.67"),
        (Fraction(299, 300), "1"),
        (Fraction(3, 10) + Fraction(1, 3000), "0.3"),
        (Fraction(1, 300), "0"),
        (Fraction(-1, 300), "0"),
        (Fraction(1, 10**11), "0"),
        (Fraction(5, 1000) + Fraction(1, 10**11), "0.01"),
    ],
)
def test_format_result(value: Fraction, text: str) -> None:
    assert format_result(value) == text


@pytest.mark.parametrize(
    ("result", "value", "expected"),
    [
        ("144.00", Fraction(144), True),
        (".4", Fraction(2, 5), True),
        ("22,500", Fraction(22500), True),
        (" 24", Fraction(24), True),
        ("+24", Fraction(24), True),
        ("33", Fraction(100, 3), True),
        ("33.3", Fraction(100, 3), True),
        ("33.33", Fraction(100, 3), True),
        ("33.34", Fraction(100, 3), False),
        ("66", Fraction(200, 3), False),
        ("0.13", Fraction(1, 8), True),
        ("0.12", Fraction(1, 8), False),
        ("-0.13", Fraction(-1, 8), True),
        ("3/4", Fraction(3, 4), True),
        ("6/8", Fraction(3, 4), True),
        ("1/3", Fraction(33, 100), False),
        ("1/0", Fraction(1), False),
        ("24 clips", Fraction(24), False),
        ("$24", Fraction(24), False),
        ("", Fraction(0), False),
        (".", Fraction(0), False),
        ("2٤", Fraction(24), False),
        ("9" * 100_000, Fraction(9), False),
    ],
)
def test_agrees(result: str, value: Fraction, expected: bool) -> None:
    assert agrees(result, value) is expected


@given(st.fractions())
def test_a_formatted_result_agrees(value: Fraction) -> None:
    assert agrees(format_result(value), value)


@pytest.mark.parametrize(
    ("text", "expr"),
    [
        ("so 48/2 = <<48/2=", "48/2"),
        ("<<=", ""),
        ("<<<1+1=", "1+1"),
        ("<<1<<2=", "2"),
        ("<<1=1>><<2*2=", "2*2"),
        ("<<48/2=2", None),
        ("<<48/2=24=", None),
        ("<<48/2=24>>=", None),
        ("<48/2=", None),
        ("x=", None),
        ("", None),
        ("<<" + "1" * 1000 + "=", "1" * 1000),
        ("<<" + "1" * 1001 + "=", None),
    ],
)
def test_pending(text: str, expr: str | None) -> None:
    assert pending(text) == expr


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("no mark", ["no mark"]),
        ("a <<1+1=2>>2 b", ["a <<1+1=", "2>>", "2 b"]),
        ("<<1+1=2>><<2=", ["<<1+1=", "2>>", "<<2="]),
        ("<<1+1=>>", ["<<1+1=", ">>"]),
        ("<<1=1=2>>", ["<<1=", "1=2>>"]),
        ("<<a<<b=3>>", ["<<a<<b=", "3>>"]),
        ("<<$5*2=x", ["<<$5*2=", "x"]),
        ("1+1=2>>", ["1+1=2>>"]),
    ],
)
def test_cut(text: str, pieces: list[str]) -> None:
    assert cut(text) == pieces


@given(st.text(alphabet="<>=12+ \n"))
def test_cut_loses_nothing(text: str) -> None:
    pieces = cut(text)
    assert "".join(pieces) == text
    assert "" not in pieces
    assert all(pending(piece) is None for piece in pieces if not piece.endswith("="))


@given(st.text(alphabet="<>=12+ \n"))
def test_every_pending_expression_is_cut_there(text: str) -> None:
    if pending(text) is not None:
        rest = "7>> is it"
        assert cut(text + rest)[-2:] == ["7>>", " is it"]


def test_marks_and_what_is_right_of_them() -> None:
    text = "<<1+1=2>>2 <<2*2=5>>5 <<6//2=3>> <<4= <<3*3=nine>>"
    assert next(marks(text)) == Mark("1+1", "2", 0, 9)
    assert [text[m.start : m.end] for m in marks(text)] == ["<<1+1=2>>", "<<2*2=5>>", "<<6//2=3>>", "<<3*3=nine>>"]
    assert [(m.expr, right) for m, right in checked(text)] == [("1+1", True), ("2*2", False), ("3*3", False)]
    prose = "3 x 4 = 12, 5-2 = 4, $9 / $27 = 33%, 20% * 5 = 1 and 1/0 = 2"
    assert [(m.expr, right) for m, right in checked(prose)] == [("3 * 4", True), ("5-2", False)]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("It is 6*11=<<6*11=66>>77 in all", ["<<6*11=66>>77"]),
        ("<<6*11=66>>$77,000.50 and <<2*2=5>>5", ["<<6*11=66>>$77,000.50", "<<2*2=5>>"]),
        ("<<6*11=66>>77. It is", ["<<6*11=66>>77"]),
        ("<<2*3=6>> 7 boxes hold as many", []),
        ("<<6*11=66>>66", []),
        ("$1 / 2 = 50 cents", []),
        ("25 * 3 = 76 cents", ["25 * 3 = 76"]),
        ("12 x 1 and 1/4 = 15", []),
        ("17/3 = 5 and 2/3 loads", []),
        ("100 / 6= 16 and (2/3)", []),
        ("3+4 = 8 and 8/2 = 5", ["3+4 = 8", "8/2 = 5"]),
        ("3/ 1/4 = 12, 25 / 1/3 = 75", []),
        ("3/ 1/4 = 13, 96/4/2 = 48", ["3/ 1/4 = 13", "96/4/2 = 48"]),
        ("96 / 4 / 2 = 12", []),
    ],
)
def test_people_are_loose_and_may_be(text: str, wrong: list[str]) -> None:
    assert [text[mark.start : mark.end] for mark in disagreements(text)] == wrong


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("<<4*12=48>>48 more lions after 1 year", "48"),
        ("First <<12*2=24>>24, then 24-4=20.", "20"),
        ("<<45000/2=22500>>22,500 in 2 years", "22,500"),
        ("<<6*11=66>>77 rolls", "77"),
        ("<<4*11=44>>44. So", "44"),
        ("<<6*11=66>> rolls on 3 trays", "66"),
        ("2*3 = 6*4 = 24", None),
        ("There are 7.", None),
    ],
)
def test_what_the_last_calculation_comes_to(text: str, result: str | None) -> None:
    assert last_result(text) == result


def test_canonicalise_mends_the_form_and_never_the_value() -> None:
    text = "<<8*18=144.00>>144.00 <<2/5=.4>>.4 <<3/4=3/4>> <<2*2=5>>5 <<6//2=3.0>> <<10/3=3.3>>3.3"
    assert (
        canonicalise(text) == "<<8*18=144>>144.00 <<2/5=0.4>>.4 <<3/4=0.75>> <<2*2=5>>5 <<6//2=3.0>> <<10/3=3.33>>3.3"
    )


@given(st.text(alphabet="<>=12./ "))
def test_canonicalise_is_idempotent(text: str) -> None:
    assert canonicalise(canonicalise(text)) == canonicalise(text)


@pytest.mark.parametrize("unit", ["<", "<<", "<<1", "<<1=", "<<1=2", "<<1=2>", "<<1=2>>", ">>", "=", "1"])
def test_hostile_texts_are_read(unit: str) -> None:
    text = unit * 100_000
    assert "".join(cut(text)) == text
    assert canonicalise(text).count("<<") == text.count("<<")
    pending(text)
    disagreements(text)
    last_result(text)


def _gold_steps(data_dir: Path) -> Iterator[str]:
    parquet = pytest.importorskip("pyarrow.parquet")
    for file in sorted((data_dir / "gsm8k" / "socratic").rglob("*.parquet")):
        for answer in parquet.read_table(file, columns=["answer"])["answer"].to_pylist():
            for line in answer.split("\n"):
                if " ** " in line:
                    yield line.split(" ** ", 1)[1]


def _is_computable(expr: str) -> bool:
    try:
        calculate(expr)
    except CalculatorError:
        return False
    return True


def test_gsm8k_marks(data_dir: Path) -> None:
    seen = rewritten = wrong = uncomputable = in_prose = 0
    for step in _gold_steps(data_dir):
        before, after = list(marks(step)), list(marks(canonicalise(step)))
        seen += len(before)
        rewritten += sum(a != b for a, b in zip((m.result for m in before), (m.result for m in after), strict=True))
        wrong += sum(step.startswith("<<", mark.start) for mark in disagreements(step))
        in_prose += sum(not step.startswith("<<", mark.start) for mark in disagreements(step))
        uncomputable += sum(not _is_computable(mark.expr) for mark in before)
        assert "".join(cut(step)) == step
    assert (seen, rewritten, wrong, uncomputable, in_prose) == (27_998, 823, 0, 2, 15)
