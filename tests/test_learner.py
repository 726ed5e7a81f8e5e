from __future__ import annotations

import pytest
from tiny import byte_tokenizer

from socratic.learner import Learner
from socratic.lm.scripted import ScriptedLM
from socratic.solving import SolveSettings, Solving
from socratic.tokens import Codec
from socratic.tutor import Tutor
from socratic.types import Chain, Problem, Step

PROBLEM = Problem("p", "d", "test", "Ann has 3 boxes of 4 pens. How many pens?", "12")


def learner(said_by_qa: str, gold: str | None = None, question: str = "How many?") -> Learner:
    codec = Codec(byte_tokenizer("llama"))
    qg, qa = (
        ScriptedLM(codec, lambda _, kind: said_by_qa if kind == "answer" else "How many?", r) for r in ("qg", "qa")
    )
    steps = (Step("How many?", gold),) if gold is not None else ()
    chain = Chain("p", "d", PROBLEM.question, "12", "number", steps) if steps else None
    tutor = Tutor(PROBLEM, Solving(SolveSettings.parse({}), qg=qg, qa=qa), chain)
    tutor.put(question)
    return Learner(tutor)


@pytest.mark.parametrize(
    ("said", "qa", "right"),
    [
        ("12", "There are <<3*4=12>>12 pens in 3 boxes.", True),
        ("3*4 = 12.0 pens", "There are <<3*4=12>>12.", True),
        ("3", "There are <<3*4=12>>12 pens in 3 boxes.", False),
        ("3*4", "<<3*4=12>>12", True),
        ("twelve.", "12", True),
        ("eleven", "12", False),
        ("Yes, it is.", "yes", True),
        ("no", "Yes.", False),
        ("no", "No, 30 metres is more than 23.8 metres.", True),
        ("23.8", "No, 30 metres is more than 23.8 metres.", False),
        ("5", "No, 5 are left.", True),
        ("6", "No, 5 are left.", False),
        ("Paris.", "paris", True),
        ("Rome", "Paris", False),
        ("", "12", False),
    ],
)
def test_a_sub_answer_is_held_against_qas(said: str, qa: str, right: bool) -> None:
    assert learner(qa).judge(said).answer == (qa if right else None)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("12", "right"),
        ("15", "that is not the data set's answer, though QA says so too"),
        ("14", "that is not the data set's answer"),
    ],
)
def test_gold_decides_where_it_asks_the_same(said: str, why: str) -> None:
    assert learner("<<3*5=15>>15", "3*4=<<3*4=12>>12").judge(said).why == why


def test_gold_that_asks_something_else_decides_nothing() -> None:
    assert learner("13", "12", "How many boxes?").judge("13").answer == "13"


def test_qa_may_have_no_answer() -> None:
    verdict = learner(" ").judge("12")
    assert verdict.answer is None
    assert "QA has no answer" in verdict.why


def test_judging_and_hints_leave_the_tree_alone() -> None:
    found = learner("<<3*4=12>>12")
    found.judge("1")
    found.hint()
    assert not found.tutor.root.children
    assert found.tutor.question == " How many?"
    found.tutor.put_answer("12")
    assert found.tutor.steps == [Step("How many?", "12")]


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        ("There are 3*4=<<3*4=12>>12 pens.", "There are 3*4=? pens."),
        ("<<3*4=12>>12, less 2 is <<12-2=10>>10.", "3*4=?, less 2 is 12-2=?."),
        ("It costs $3 x 4 = $12.", "It costs $3 x 4 = $?."),
        ("It costs 3*$4=$<<3*4=12>>12 for all.", "It costs 3*$4=$? for all."),
        ("They are as many as before.", "They are as …"),
        ("Their total is 105 because 60 + 30 + 15 = 105.", "Their total is ? because 60 + 30 + 15 = ?."),
        ("Half of 4 is 4/2=<<4/2=2>>2.", "Half of 4 is 4/2=?."),
        ("12 pens", "? pens"),
        ("Yes, the flame uses it up and goes out.", "the flame uses it …"),
        ("Yes.", None),
    ],
)
def test_a_hint_says_how_but_not_what(answer: str, hint: str | None) -> None:
    assert learner(answer).hint() == hint
