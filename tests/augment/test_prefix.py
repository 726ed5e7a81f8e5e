from __future__ import annotations

from dataclasses import replace

import pytest
from test_make import PENS

from socratic.augment.make import augment
from socratic.augment.prefix import prefixes
from socratic.augment.vary import Impossible
from socratic.types import Chain, Step


def with_step(question: str, answer: str) -> Chain:
    return replace(PENS, steps=(Step(question, answer), PENS.steps[1]))


def only_made(chain: Chain) -> Chain:
    (made,) = prefixes(chain)
    assert isinstance(made, Chain)
    return made


def test_a_prefix_problem_keeps_what_is_told_and_asks_a_sub_question() -> None:
    made = only_made(PENS)
    assert made.question == "Ann has 3 boxes of 12 pens. If she gives 5 pens to Ben, how many pens does Ann have?"
    assert (made.answer, made.final_answer, made.steps) == ("36", "36", PENS.steps[:1])
    made = augment([PENS], ["prefix"], []).chains[1]
    assert (made.problem_id, made.source) == ("d/train/1/prefix-1", "augmented:prefix-1")
    assert made.metadata["made_from"] == "d/train/1"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("Ann has 36 pens.", "unclear_result"),
        ("Ann has <<3*12=36>>36 pens in 3 boxes.", "unclear_result"),
        ("Ann has <<3*12=36>>37 pens.", "unclear_result"),
        ("Ann has <<3*12=35>>35 pens.", "unclear_result"),
        ("Ann has <<x=36>>36 pens.", "unclear_result"),
        ("Ann has <<+36=36>>36 pens.", "unclear_result"),
        ("Ann has <<3+12=15>>15 and <<3*12=36>>36 pens.", "unclear_result"),
        ("That is <<3*12=36>>36, since 12 pens are in a box.", "unclear_result"),
        ("Ann has <<3*12=36>>36 pens more than Ben.", "unfit_answer"),
        ("Ann has <<3*12=36>>36 pens in each.", "unfit_answer"),
        ("Ann has <<3*12=36>>36 dozen pens.", "unfit_answer"),
        ("Ann has $<<3*12=36>>36.", "unfit_answer"),
        ("The difference is <<3*12=36>>36 pens.", "unfit_answer"),
        ("Ann writes <<3*12=36>>36 letters.", "unfit_answer"),
    ],
)
def test_a_step_whose_result_is_in_doubt_gives_no_problem(answer: str, reason: str) -> None:
    assert [*prefixes(with_step(PENS.steps[0].question, answer))] == [reason]


def test_only_what_is_told_of_a_final_question_stays() -> None:
    made = only_made(replace(PENS, question="Ann has 3 boxes of 12 pens. After giving 5 away, how many are left?"))
    assert made.question == "Ann has 3 boxes of 12 pens. How many pens does Ann have?"


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        (replace(PENS, question="Ann has 3 boxes of 12 pens. Say how many she keeps."), "no_final_question"),
        (replace(PENS, steps=tuple(Step("", step.answer) for step in PENS.steps)), "no_sub_questions"),
        (replace(PENS, question="Ann has 3 boxes of 12. How many are left if she gives away 5?"), "condition_lost"),
    ],
)
def test_chains_without_prefix_problems_say_why(chain: Chain, reason: str) -> None:
    with pytest.raises(Impossible, match=reason):
        list(prefixes(chain))


@pytest.mark.parametrize(
    ("question", "answer", "fits"),
    [
        ("How many pairs of socks are there?", "There are <<3*12=36>>36 socks.", False),
        ("How many pairs of socks are there?", "There are <<3*12=36>>36 pairs.", True),
        ("How many pens are in each box?", "There are <<3*12=36>>36 pens.", False),
        ("How many pens are in each box?", "A box has <<3*12=36>>36 pens.", True),
        ("How many pens does she write with a month?", "She needs <<3*12=36>>36 pens/month.", False),
        ("How much does she earn each month?", "She earns $<<3*12=36>>36/month.", True),
        ("How many dollars has she?", "She has $<<3*12=36>>36 dollars.", True),
        ("How much less is it?", "It is <<3*12=36>>36 less.", True),
    ],
)
def test_question_and_answer_have_to_fit(question: str, answer: str, fits: bool) -> None:
    (made,) = prefixes(with_step(question, answer))
    assert isinstance(made, Chain) if fits else made == "unfit_answer"


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("How many pens are the 36 pens?", "result_told"),
        ("Count the pens.", "no_question"),
        ("How many pens does she keep?", "asked_already"),
    ],
)
def test_a_question_that_makes_no_problem_is_counted(question: str, reason: str) -> None:
    chain = with_step(question, PENS.steps[0].answer)
    assert [*prefixes(chain)] == [reason]
    assert augment([chain], ["prefix"], []).counts["prefix"] == {reason: 1}


def test_a_sentence_does_not_end_behind_a_title() -> None:
    made = only_made(replace(PENS, question="Ann has 3 boxes of 12 pens. How many will Mrs. Bell get?"))
    assert made.question == "Ann has 3 boxes of 12 pens. How many pens does Ann have?"
