from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from socratic.calculator import calculate
from socratic.tasks import SPLITS, load_chains, load_problems
from socratic.tasks.equations import asking_sentence, solve_equation
from socratic.types import CalculatorError, Problem, Step, UserError

WORD_PROBLEMS = ("svamp", "multiarith", "addsub", "singleeq")


def all_problems(name: str, data_dir: Path) -> list[Problem]:
    return [problem for split in SPLITS for problem in load_problems(name, split, data_dir)]


@pytest.mark.parametrize(
    ("equation", "expr", "value"),
    [
        ("( 76.0 - 25.0 )", "76-25", "51"),
        ("8.0", "8", "8"),
        ("( 6.0 - ( 3.0 + 2.0 ) )", "6-(3+2)", "1"),
        ("X=((32.0+42.0)-35.0)", "32+42-35", "39"),
        ("X = 70 - 27", "70-27", "43"),
        ("70-x=27", "70-27", "43"),
        ("x-3=4", "4+3", "7"),
        ("9=x+1", "9-1", "8"),
        ("3*x=12", "12/3", "4"),
        ("12/x=4", "12/4", "3"),
        ("(x+2)/5=3", "3*5-2", "13"),
        ("5+(2*x)=27", "(27-5)/2", "11"),
        ("0.2*x-4.0=6.0", "(6+4)/0.2", "50"),
        ("-x=3", "-3", "-3"),
        ("0.16666666666666666 + 0.5 = x", "1/6+0.5", "2/3"),
    ],
)
def test_an_equation_is_solved_for_its_unknown(equation: str, expr: str, value: str) -> None:
    assert solve_equation(equation) == (expr, Fraction(value))
    assert calculate(expr) == Fraction(value)


@pytest.mark.parametrize(
    "equation",
    [
        "9=3+6",
        "X = 0.32 = 0.21",
        "x+x=4",
        "x=x",
        "x",
        "0*x=5",
        "2**3=x",
        "y=3",
        "xx=3",
        "x(3)=3",
        "",
        "=",
        "(" * 150,
        "[1]=x",
        "1 2=x",
        "__import__('os')=x",
        None,
        7,
    ],
)
def test_an_equation_without_one_unknown_has_no_solution(equation: object) -> None:
    with pytest.raises(ValueError, match="equation"):
        solve_equation(equation)


EXPRESSIONS = st.recursive(
    st.integers(1, 20).map(str) | st.sampled_from(["0.5", "2.25"]),
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]}{t[1]}{t[2]})"),
    max_leaves=4,
)


@given(data=st.data(), unknown=st.integers(1, 50), expression=EXPRESSIONS)
def test_the_solution_satisfies_the_equation(data: st.DataObject, unknown: int, expression: str) -> None:
    # Puts the unknown beside a number, wraps it in further operations, and solves for it again.
    side = f"(x{data.draw(st.sampled_from('+-*/'))}{expression})"
    if data.draw(st.booleans()):
        side = f"(3{data.draw(st.sampled_from('+-*/'))}{side})"
    try:
        right = calculate(side.replace("x", str(unknown)))
        _, value = solve_equation(f"{side}={right.numerator}/{right.denominator}")
    except (CalculatorError, ValueError) as error:
        assume("divides by zero" not in str(error))
        raise
    assert value == unknown


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("A has 3.5 kg. How much is left ? ", "How much is left ?"),
        ("What is it? And now? Tell.", "And now?"),
        ("How many did Mrs. Hilt read?", "How many did Mrs. Hilt read?"),
        ("Find the number.", "Find the number."),
    ],
)
def test_the_asking_sentence(question: str, asked: str) -> None:
    assert asking_sentence(question.strip()) == asked


def test_rejected_equations_of_the_real_data(data_dir: Path) -> None:
    rejected = {
        name: [p for p in all_problems(name, data_dir) if "chain_rejected" in p.metadata] for name in WORD_PROBLEMS
    }
    assert {name: len(problems) for name, problems in rejected.items()} == {
        "svamp": 1,
        "multiarith": 0,
        "addsub": 1,
        "singleeq": 12,
    }
    [svamp] = rejected["svamp"]
    assert svamp.metadata["source_id"] == "chal-680"
    assert svamp.metadata["chain_rejected"] == "the equation gives 5, the answer says 1"


@pytest.mark.parametrize("name", ["addsub", "singleeq"])
def test_29_golds_are_fractions(name: str, data_dir: Path) -> None:
    golds = [problem.answer for problem in all_problems(name, data_dir)]
    assert sum("/" in gold for gold in golds) == 29
    assert all(Fraction(gold).denominator <= 1000 for gold in golds)
    assert not [gold for gold in golds if len(gold) > 7]


@pytest.mark.parametrize("name", WORD_PROBLEMS)
def test_real_chains_arrive_at_the_gold(name: str, data_dir: Path) -> None:
    for split in SPLITS:
        for chain in load_chains(name, split, data_dir):
            [step] = chain.steps
            expr, result = step.answer.removeprefix("<<").split("=")
            assert calculate(expr) == Fraction(chain.answer)
            result, written = result.split(">>")
            assert result == written
            assert " " not in step.answer
            assert chain.question.endswith(step.question) or chain.question == step.question


def test_a_question_in_train_and_test_is_left_out_of_train(data_dir: Path) -> None:
    assert Counter(p.split == "test" for p in all_problems("multiarith", data_dir)) == {False: 415, True: 180}


RECORD: dict[str, Any] = {
    "ID": "chal-1",
    "Body": "A pen costs 3 dollars ",
    "Question": "How much are 2 pens?",
    "Equation": "( 3.0 * 2.0 )",
    "Answer": 6.0,
}


def write(folder: Path, records: Any, split: Any) -> None:
    for path, value in (("svamp/SVAMP.json", records), ("splits/svamp__default.json", split)):
        (folder / path).parent.mkdir()
        (folder / path).write_text(json.dumps(value))


def test_svamp_joins_body_and_question(tmp_path: Path) -> None:
    write(tmp_path, [RECORD], {"train": [], "test": [0]})
    [problem] = load_problems("svamp", "test", tmp_path)
    assert (problem.id, problem.question) == ("svamp/all/00000", "A pen costs 3 dollars How much are 2 pens?")
    assert problem.answer == "6"
    [chain] = load_chains("svamp", "test", tmp_path)
    assert chain.steps == (Step("How much are 2 pens?", "<<3*2=6>>6"),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Answer": float("nan")}, r"record 1: 'Answer' is nan, not a finite number"),
        ({"Answer": float("inf")}, "not a finite number"),
        ({"Answer": "1e999999999"}, "not a finite number"),
        ({"Answer": True}, "not a finite number"),
        ({"Answer": None}, "'Answer' is empty"),
        ({"Question": " "}, "'Question' is empty"),
        ({"Body": 3}, "'Body' is 3, not text"),
        ({"Body": "\ud800"}, "half a surrogate pair"),
    ],
)
def test_a_malformed_record_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    write(tmp_path, [RECORD, {**RECORD, **change}], {"train": [0], "test": [1]})
    with pytest.raises(UserError, match=message):
        load_problems("svamp", "train", tmp_path)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"train": [0]}, "is not a split"),
        ([0, 1], "is not a split"),
        ({"train": [0], "test": [2]}, "test lists 2, not one of the data's 2 rows"),
        ({"train": [0], "test": [0]}, "test lists 0, .* listed twice"),
        ({"train": [0], "test": [True]}, "test lists True"),
        ({"train": [0], "test": [[1]]}, r"test lists \[1\]"),
    ],
)
def test_a_malformed_split_is_named(split: Any, message: str, tmp_path: Path) -> None:
    write(tmp_path, [RECORD, RECORD], split)
    with pytest.raises(UserError, match=message):
        load_problems("svamp", "train", tmp_path)
