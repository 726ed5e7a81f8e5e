from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socratic.answers import MAX_CHARACTERS, canonical, extract, score, sub_answer_value
from socratic.types import AnswerType, Chain, UserError

BALLS = ["red ball.", "green ball.", "green ball with dots."]
HUGE = "7" * 400


def test_the_policy_cases(data_dir: Path) -> None:
    path = data_dir.parent / "scoring" / "cases.jsonl"
    if not path.exists():
        pytest.skip(f"{path} does not exist: the scoring policy's own cases are not checked")
    cases = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    decided = [score(c["output"], c["gold"], c["answer_type"], c.get("choices")) for c in cases]
    assert cases
    for case, decision in zip(cases, decided, strict=True):
        for name in ("predicted", "correct", "strict"):
            assert getattr(decision, name) == case[name], case


def test_every_gsm8k_solution_scores_right_and_strict(data_dir: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    files = sorted((data_dir / "gsm8k" / "main").rglob("*.parquet"))
    assert files
    for file in files:
        for text in parquet.read_table(file, columns=["answer"])["answer"].to_pylist():
            assert score(text, text.rpartition("#### ")[2], "number").strict, text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<<4*12=48>>48 more lions after 1 year", "48"),
        ("<<45000/2=22500>>22,500 in 2 years", "22500"),
        ("6*11 = <<6*11=66>>77 rolls", "77"),
        ("There are $1,234.50 left.", "2469/2"),
        ("<<3*3=nine>> 9", "9"),
        ("2*3 = 6*4 = 24", "24"),
        ("None.", None),
    ],
)
def test_what_a_sub_answer_comes_to(text: str, value: str | None) -> None:
    assert sub_answer_value(text) == value


def test_gold_sub_answers_end_at_the_answer(gsm8k: dict[str, Chain]) -> None:
    ends = [sub_answer_value(chain.steps[-1].answer) == canonical(chain.answer, "number") for chain in gsm8k.values()]
    assert (sum(ends), len(ends)) == (8_710, 8_792)


MARKED_NUMBERS = [
    # markers
    ("FINAL ANSWER IS 31", "31"),
    ("final answer: 31 of 90", "31"),
    ("The answer is: 31", "31"),
    ("**Final Answer:** 31", "31"),
    ("**Final Answer:**\n\n31 in all", "31"),
    ("I get 4 --> 31", "31"),
    ("[answer] 31 out of 40", "31"),
    (r"so \boxed{31} of 40", "31"),
    (r"so \boxed{\boxed{31}} of 40", "31"),
    (r"so \boxed{x = \frac{-3}{4}} of 40", "-3/4"),
    ("\\boxed{\n31\n}", "31"),
    (r"\boxed{} 4", None),
    ("The answer is 2. No, the answer is 31.", "31"),
    ("The answer is 31.\nThe answer is unclear", None),
    ("The answer is 31.\n####", None),
    ("#### 31\nProblem: more\n#### 5\nThe answer is 6", "31"),
    ("####\n\n   \n31 pens\n#### 6", "31"),
    ("#### Plan\nAdd 2 and 3.\n#### Result\nThe answer is 31.", "31"),
    ("#### The answer is 31", "31"),
    ("#### thirty\n", None),
    ("#### $31\nThanks!", "31"),
    (r"#### \boxed{31}" + "\nThanks 4 that", "31"),
    # what is read
    ("The answer is 20 + 11 = 31 pens, not 4", "31"),
    ("The answer is x = - 31", "-31"),
    ("The answer is (20, then 11)", "20"),
    ("The answer is 40-9", "40"),
    ("The answer is pens - 9", "9"),
    ("#### -\t31", "-31"),
    ("#### -€31", "-31"),
    ("#### £-31", "-31"),
    ("The answer is (-31)", "-31"),
    ("The answer is -(31)", "31"),
    ("The answer is 31 thousand", "31"),
    ("The answer is 3 031 400 people", "3031400"),
    ("The answer is 31 0000", "31"),
    ("The answer is 3\u00a0031", "3031"),
    ("The answer is 3031 400", "3031"),
    ("The answer is -3 1/4", "-13/4"),
    (r"The answer is $3\frac{1}{4}$", "13/4"),
    (r"The answer is 8{,}031", "8031"),
    (r"The answer is \$31\%", "31"),
    ("The answer is 31 <<4*5=20>>", "31"),
    ("The answer is <<20+11=31>>", None),
    ("The answer is <<20+11=", None),
    ("#### 12,34", None),
    ("#### 1,234,56", None),
    ("#### 1,234,567.50", "2469135/2"),
    ("#### 3/0", None),
    ("#### 3/4/5", None),
    ("#### 2e100", "2" + "0" * 100),
    ("#### 2e101", None),
    ("#### 2e-3", "1/500"),
    ("#### 2e99999999999", None),
    (f"#### {HUGE}", HUGE),
    (f"#### {HUGE}7", None),
    ("#### 31KM", None),
    ("#### 31k", None),
    ("#### 31x", None),
    ("#### 3^2", None),
    ("#### 3:10 pm, so 4", None),
    # cleaning
    ("#### \u200b3\u200d1\ufeff", "31"),
    ("\x1b[1mThe answer is \x1b[32m31\x1b[0m", "31"),
    ("The answer is \x1b]8;;http://a/9\x1b\\31\x1b]8;;\x1b\\", "31"),
    ("The answer is 3\x001", "31"),
    ("The answer is 31\r\nBye", "31"),
    ("#### ३१", "31"),
    ("#### 𝟑𝟏", "31"),
    ("#### ³¹", "31"),
    ("The answer is －３１", "-31"),
    ("The answer is −$31", "-31"),
    ("The answer is 3½", "7/2"),
    ("#### 9\n" + "pad " * (MAX_CHARACTERS // 4) + "\nThe answer is 31", "31"),
]

BARE_NUMBERS = [
    ("2 pens, then 31", "31"),
    ("40 - 9", "9"),
    ("40-9", "9"),
    ("40 -9", "9"),
    ("x = -9", "-9"),
    ("* -9", "-9"),
    ("- 9", "9"),
    ("gap--9", "9"),
    ("in 1999 300 came", "300"),
    ("2 1/4 cups", "9/4"),
    ("$.75!", "3/4"),
    ("and so...75", "75"),
    ("Sum:75", "75"),
    ("75.Then", "75"),
    ("a 75-page book", "75"),
    ("_75_", "75"),
    ("75€ off", "75"),
    ("the 3rd", "3"),
    ("at 11AM", "11"),
    ("run 4 or 7.5mi.", "15/2"),
    ("4 and 10.5.2", None),
    ("12 at 9:45", None),
    ("5 in room B12", None),
    ("about 3M", None),
    ("Infinity, NaN", None),
    ("<<3+4=7>>8 left <<1+", "8"),
    ("answers 5", "5"),
]


@pytest.mark.parametrize(("output", "predicted"), MARKED_NUMBERS)
def test_numbers_behind_a_marker(output: str, predicted: str | None) -> None:
    found = extract(output, "number")
    assert (found.predicted, found.marked) == (predicted, True)


@pytest.mark.parametrize(("output", "predicted"), BARE_NUMBERS)
def test_numbers_without_a_marker(output: str, predicted: str | None) -> None:
    found = extract(output, "number")
    assert (found.predicted, found.marked) == (predicted, False)


@pytest.mark.parametrize(
    ("output", "predicted", "marked"),
    [
        ("The answer is: **Yes**.", "yes", True),
        ("#### false\nQ: next\n#### yes", "no", True),
        (r"\boxed{\text{No}}", "no", True),
        ("The answer is no, though some say yes", "no", True),
        ("The answer is unknown. Yes", "yes", True),
        ("yes.\nThe answer is maybe", None, True),
        ("The answer is true or false", None, True),
        ("The answer is yes and true", "yes", True),
        ("'Yes', and then no more", "yes", False),
        ("No! Though yes, once", "no", False),
        ("No fish fly, so yes", "yes", False),
        ("Is it yes or no? Surely yes", "yes", False),
        ("I'd say yes or no", None, False),
        ("(yes) / (no)", None, False),
        ("Nothing is untrue, no-one yessed", None, False),
        ("Ｔｒｕｅ", "yes", False),
        ("n\u200bo", "no", False),
    ],
)
def test_yes_and_no(output: str, predicted: str | None, marked: bool) -> None:
    found = extract(output, "yesno")
    assert (found.predicted, found.marked) == (predicted, marked)


@pytest.mark.parametrize(
    ("output", "choices", "predicted", "marked"),
    [
        ("The answer is **(c)**.", None, "C", True),
        ("The answer is c because", None, None, True),
        ("The answer is A because it fits", None, "A", True),
        ("The answer is A dog", None, None, True),
        ("The answer is C, not D", None, "C", True),
        ("The answer is B) 12 km or so", None, "B", True),
        ("The answer is A, B or C", None, None, True),
        (r"\boxed{\text{D}}", None, "D", True),
        ("#### E\nQ: next\n#### A", None, "E", True),
        ("Answer:\n(B)", None, "B", True),
        ("a", None, "A", False),
        ("[D].", None, "D", False),
        ("(C) it is. A dog can't.", None, "C", False),
        ("A: 3 km, B: 4 km", None, None, False),
        ("A: 3 km, B: 4 km. So A", None, "A", False),
        ("Question: far?\nA: very", None, None, False),
        ("(A) 3 km or (B) 4 km", None, None, False),
        ("Not A or B. C", None, "C", False),
        ("C's and B-cells", None, None, False),
        ("F", None, None, False),
        ("F", ["x"] * 6, "F", False),
        ("I think it is (I)", [str(n) for n in range(9)], "I", False),
        ("D", BALLS, None, False),
        ("He holds the Red  Ball", BALLS, "A", False),
        ("The answer is C: green ball with dots", BALLS, "C", True),
        ("The answer is the green ball, not the red ball", BALLS, "B", True),
        ("the red ball or the green ball", BALLS, None, False),
        ("hundred balls", BALLS, None, False),
        ("it is 7.5", ["7", "7.5", "5"], "B", False),
        ("no", ["yes", "no"], "B", False),
        ("Ⓓ", None, "D", False),
    ],
)
def test_choices(output: str, choices: list[str] | None, predicted: str | None, marked: bool) -> None:
    found = extract(output, "choice", choices)
    assert (found.predicted, found.marked) == (predicted, marked)


@pytest.mark.parametrize(
    ("output", "predicted", "marked"),
    [
        ("thinking\n  `Klno`.  \n", "klno", False),
        ("The answer is “klno”.", "klno", True),
        ('The answer is **"klno"**.', "klno", True),
        ("#### The answer is klno\nQ: next", "klno", True),
        (r"\boxed{\text{klno}}", "klno", True),
        ("The answer is Straße", "strasse", True),
        ("The answer is", None, True),
        ("...", None, False),
        ("The answer is 2/29/2020", "02/29/2020", True),
        ("The answer is 2/29/2021", "2/29/2021", True),
        ("The answer is 3/4/2021 or later", "3/4/2021 or later", True),
        ("3/4/21", "3/4/21", False),
    ],
)
def test_texts(output: str, predicted: str | None, marked: bool) -> None:
    found = extract(output, "text")
    assert (found.predicted, found.marked) == (predicted, marked)


@pytest.mark.parametrize(
    ("output", "answer_type", "truncated", "reason"),
    [
        ("#### 4", "number", False, "right"),
        ("#### 4", "number", True, "right"),
        ("#### 5", "number", True, "wrong"),
        ("no idea", "number", False, "unparsed"),
        ("no idea", "number", True, "truncated"),
        ("so <<1+3=", "number", False, "truncated"),
        ("", "number", False, "empty"),
        (" \n\x1b[0m\u200b", "number", True, "empty"),
        ("yes or no", "yesno", True, "ambiguous"),
    ],
)
def test_reasons(output: str, answer_type: AnswerType, truncated: bool, reason: str) -> None:
    gold = "4" if answer_type == "number" else "yes"
    decision = score(output, gold, answer_type, truncated=truncated)
    assert (decision.reason, decision.correct, decision.gold) == (reason, reason == "right", gold)


def test_strict_needs_a_marker_and_tolerance_must_be_named() -> None:
    assert not score("It is 4", "4", "number").strict
    assert score("The answer is 4", "4.0", "number").strict
    assert not score("#### 0.33", "1/3", "number").correct
    assert score("#### 0.33", "1/3", "number", tolerance=Fraction(1, 100)).strict


@pytest.mark.parametrize(
    ("gold", "answer_type", "expected"),
    [
        ("70,000", "number", "70000"),
        ("-5", "number", "-5"),
        ("18.0", "number", "18"),
        ("8/3", "number", "8/3"),
        ("1e-05", "number", "1/100000"),
        ("True", "yesno", "yes"),
        ("no", "yesno", "no"),
        ("not true", "yesno", "no"),
        ("Not false", "yesno", "yes"),
        ("b", "choice", "B"),
        ("5/1/2021", "text", "05/01/2021"),
    ],
)
def test_canonical_golds(gold: str, answer_type: AnswerType, expected: str) -> None:
    assert canonical(gold, answer_type) == expected


@pytest.mark.parametrize(
    ("gold", "answer_type", "choices"),
    [
        ("", "number", None),
        ("five", "number", None),
        ("5 apples", "number", None),
        ("12,5", "number", None),
        ("1/0", "number", None),
        ("maybe", "yesno", None),
        ("yes.no", "yesno", None),
        ("F", "choice", None),
        ("C", "choice", ["x", "y"]),
        ("", "text", None),
        ("'.'", "text", None),
    ],
)
def test_a_gold_that_cannot_be_read_is_an_error(gold: str, answer_type: AnswerType, choices: list[str] | None) -> None:
    with pytest.raises(UserError, match="gold answer"):
        score("#### 5", gold, answer_type, choices)


def test_an_unknown_answer_type_is_named() -> None:
    with pytest.raises(UserError, match="'numeric'"):
        score("5", "5", "numeric")  # type: ignore[arg-type]


TYPES: list[AnswerType] = ["number", "yesno", "choice", "text"]
PIECES = ["#### ", "The answer is ", "\\boxed{", "}", "<<", ">>", "=", "1", " 2/3", ",000", "1e", "-", "$", "\n", "(A)"]
PIECES += [" or ", "yes", "no", "/", ":", "A ", "½", "\u0301", "\x1b[", "\\frac{", "{", "red ball", ".", "٣", "\ud800"]


@given(st.text() | st.lists(st.sampled_from(PIECES), max_size=30).map("".join), st.sampled_from(TYPES))
def test_extract_never_raises_and_its_answer_is_a_gold(output: str, answer_type: AnswerType) -> None:
    for choices in (None, BALLS):
        found = extract(output, answer_type, choices)
        assert (found.predicted is None) is (found.reason is not None)
        if found.predicted is not None:
            assert canonical(found.predicted, answer_type, choices) == found.predicted


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("answer_type", TYPES)
def test_long_repetitions_are_read(piece: str, answer_type: AnswerType) -> None:
    found = extract(piece * 20_000, answer_type, BALLS)
    assert (found.predicted is None) is (found.reason is not None)


@given(st.fractions(), st.sampled_from(["#### {}", "The answer is {}.", "so 3 \\boxed{{{}}} and 4", "x\n--> {}\n"]))
def test_a_rendered_number_is_right_and_strict(value: Fraction, template: str) -> None:
    assert score(template.format(value), str(value), "number").strict


@given(st.integers(), st.sampled_from(["It is ${:,}.", "{:,} km", "so 3 and {:,}%", "**{:,}.00**"]))
def test_a_bare_number_is_right_but_not_strict(value: int, template: str) -> None:
    decision = score(template.format(value), f"{value:,}", "number")
    assert (decision.correct, decision.strict) == (True, False)


@given(st.sampled_from("ABCDE"), st.sampled_from(["#### {}", "The answer is ({}).", "[ANSWER] {}) 3 km"]))
def test_a_rendered_choice_is_right_and_strict(letter: str, template: str) -> None:
    assert score(template.format(letter), letter, "choice").strict


@given(st.dates())
def test_a_date_is_right_in_either_form(day: object) -> None:
    year, month, date = str(day).split("-")
    assert score(f"The answer is {int(month)}/{int(date)}/{year}.", f"{month}/{date}/{year}", "text").strict


@pytest.mark.parametrize("gold", ["\\boxed{\\frac{1}{2}}", "Answer: blue", "--> x", "blue."])
def test_a_gold_text_is_right_where_it_is_written_as_it_stands(gold: str) -> None:
    assert score(f"#### {gold}", gold, "text").strict


def test_a_gold_text_is_one_line() -> None:
    with pytest.raises(UserError, match="write it as one line"):
        canonical("red\nblue", "text")


@pytest.mark.parametrize(
    ("output", "read"),
    [
        ("#### 10²", None),
        ("#### –5", "-5"),
        ("#### ‑5", "-5"),
        ("#### –$.50", "-1/2"),
        ("#### ³¹", "31"),
        ("it is 3–5", "5"),
        ("the total – 5", "5"),
    ],
)
def test_powers_and_dashes_are_no_other_numbers(output: str, read: str | None) -> None:
    assert extract(output, "number").predicted == read


def test_a_power_is_no_gold_number() -> None:
    with pytest.raises(UserError):
        canonical("10²", "number")
