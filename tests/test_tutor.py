from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tiny import byte_tokenizer, causal_model

from socratic.lm.base import LM
from socratic.lm.load import load_lm
from socratic.lm.scripted import ScriptedLM
from socratic.solving import SolveSettings, Solving
from socratic.tokens import Codec
from socratic.tutor import Tutor
from socratic.types import Problem, Step, UserError

PROBLEM = Problem("p", "d", "test", "Ann has 3 boxes of 4 pens. How many pens?", "12")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LM]:
    """Untrained students, whose words are noise but always the same."""
    tokenizer = byte_tokenizer("llama")
    made = {}
    for seed, place in enumerate(("qg", "qa")):
        folder = tmp_path_factory.mktemp(place)
        causal_model("llama", tokenizer, seed).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        made[place] = load_lm(str(folder), dtype="fp32")
    return made


def solving(pair: dict[str, LM], **settings: Any) -> Solving:
    return Solving(SolveSettings.parse({"max_tokens": 30, "max_steps": 3, **settings}), **pair)


def text(pieces: Any) -> str:
    return "".join(pieces)


def put(tutor: Tutor, question: str, answer: str) -> None:
    tutor.put(question)
    tutor.put_answer(answer)


def say(transcript: str, kind: str) -> str:
    """Two steps with a calculation each, then 12."""
    asked = transcript.count("Q:")
    if kind == "question":
        return ("How many boxes?", "How many pens?", "")[asked - 1]
    return "12" if kind == "final" else f"There are <<{asked}+2=7>>{asked + 2}."


@pytest.mark.parametrize("qg_sees", ["answers", "questions"])
@pytest.mark.parametrize("calculator", [True, False])
def test_hands_off_it_solves_as_the_loop_does(qg_sees: Any, calculator: bool) -> None:
    codec = Codec(byte_tokenizer("llama"))
    pair = {place: ScriptedLM(codec, say, place, qg_sees) for place in ("qg", "qa")}
    whole = Solving(SolveSettings.parse({"calculator": calculator}), **pair)
    [trace] = whole.run([(PROBLEM, 0)])
    tutor = Tutor(PROBLEM, whole)
    while text(tutor.ask()):
        text(tutor.answer())
    text(tutor.conclude())
    made = tutor.trace()
    assert (made.steps, made.answer, made.raw) == (trace.steps, trace.answer, trace.raw)
    assert len(made.steps) == 2
    assert made.tokens == trace.tokens


@pytest.mark.parametrize("qg_sees", ["answers", "questions"])
def test_what_students_read_is_the_path_and_nothing_else(pair: dict[str, LM], qg_sees: str) -> None:
    whole = solving(pair, qg_sees=qg_sees)
    tutor = Tutor(PROBLEM, whole)
    put(tutor, "One?", "1.")
    first = tutor.here
    put(tutor, "Two?", "2.")
    tutor.undo()
    put(tutor, "Other?", "3.")
    text(tutor.ask())  # and not taken
    tutor.go(tutor.root)
    put(tutor, "Elsewhere?", "4.")
    tutor.go(first)
    put(tutor, "Last?", "5.")
    straight = Tutor(PROBLEM, whole)
    put(straight, "One?", "1.")
    put(straight, "Last?", "5.")
    for sessions in ("_ask", "_reply"):
        assert getattr(tutor, sessions).ids == getattr(straight, sessions).ids
    assert text(tutor.ask()) == text(straight.ask())
    assert [child.step.question for child in tutor.root.children] == ["One?", "Elsewhere?"]
    assert [child.step.question for child in first.children] == ["Two?", "Other?", "Last?"]


def test_going_back_reads_nothing_again(pair: dict[str, LM]) -> None:
    tutor = Tutor(PROBLEM, solving(pair))
    put(tutor, "One?", "1.")
    text(tutor.ask())
    read: Any = tutor._ask
    put(tutor, "Two?", "2.")
    tutor.undo()
    assert read.cached >= tutor._marks[1][0] - 1  # the last token is read for its logits


def test_alternatives_come_with_the_probability_of_their_words(pair: dict[str, LM]) -> None:
    tutor = Tutor(PROBLEM, solving(pair, max_tokens=2))
    tutor.put("One?")
    found = tutor.alternatives(200)
    assert tutor.question == " One?"
    assert [p for _, p in found] == sorted((p for _, p in found), reverse=True)
    assert all(0 < p <= 1 for _, p in found)
    assert sum(p for _, p in found) <= 1
    assert text(tutor.ask()) == text(Tutor(PROBLEM, solving(pair, max_tokens=2)).ask())  # nothing is left behind


def test_qgs_own_question_is_among_the_alternatives(pair: dict[str, LM]) -> None:
    for seed in range(20):  # noise, of which some ends in time
        tutor = Tutor(replace(PROBLEM, question=f"{PROBLEM.question} {seed}"), solving(pair, max_tokens=6))
        if text(tutor.ask()) and tutor.question is not None:
            break
    assert tutor.question is not None
    assert tutor.question.strip() in dict(tutor.alternatives(1))
    asked = ScriptedLM(Codec(byte_tokenizer("llama")), say, "qg")
    scripted = Tutor(PROBLEM, solving({"qg": asked, "qa": ScriptedLM(asked.codec, say, "qa")}))
    assert scripted.alternatives(3) == [("How many boxes?", 1.0)]


def test_a_peek_joins_nothing(pair: dict[str, LM]) -> None:
    tutor = Tutor(PROBLEM, solving(pair))
    tutor.put("One?")
    tutor.peek()
    assert (tutor.question, tutor.steps) == (" One?", [])
    straight = Tutor(PROBLEM, solving(pair))
    straight.put("One?")
    assert text(tutor.answer()) == text(straight.answer())


def test_what_is_not_usable_is_named_and_changes_nothing(pair: dict[str, LM]) -> None:
    tutor = Tutor(PROBLEM, solving(pair, max_tokens=1))
    tutor.put("One?")
    text(tutor.answer())
    assert (tutor.fault, tutor.question, tutor.steps) == ("overlong", " One?", [])
    text(tutor.ask())
    assert (tutor.fault, tutor.question) == ("overlong", None)
    text(tutor.conclude())
    assert (tutor.concluded, tutor.final_answer, tutor.stop_reason) == (True, None, "overlong")


def test_a_final_answer_is_of_its_path_alone(pair: dict[str, LM]) -> None:
    codec = Codec(byte_tokenizer("llama"))
    tutor = Tutor(PROBLEM, solving({place: ScriptedLM(codec, say, place) for place in ("qg", "qa")}))
    changes: list[Callable[[], object]] = [
        lambda: tutor.put("More?"),
        lambda: text(tutor.ask()),
        lambda: tutor.go(tutor.root),
    ]
    for change in changes:
        text(tutor.conclude())
        found = tutor.final_answer, tutor.concluded
        change()
        assert [found, (tutor.final_answer, tutor.concluded)] == [("12", True), (None, False)]


def test_a_generation_broken_off_leaves_the_path_as_it_was(pair: dict[str, LM]) -> None:
    tutor = Tutor(PROBLEM, solving(pair))
    put(tutor, "One?", "1.")
    straight, greedy = text(Tutor.ask(tutor)), dict(tutor.alternatives(0))
    for _ in tutor.ask():
        break
    assert tutor.question is None
    assert dict(tutor.alternatives(0)) == pytest.approx(greedy, rel=1e-3)
    assert text(tutor.ask()) == straight
    assert tutor.steps == [Step("One?", "1.")]


def test_the_final_answer_is_scored(pair: dict[str, LM]) -> None:
    tutor = Tutor(PROBLEM, solving(pair))
    assert tutor.score() is None
    tutor.final_answer = "12.0"
    score = tutor.score()
    assert score is not None
    assert score.correct
    assert tutor.trace().answer == "12.0"
    put(tutor, "One?", "5. #### 5")
    tutor.final_answer = "12.0"
    score = tutor.score()
    assert score is not None
    assert score.correct, "a run is read by its final slot, and so is this"


def test_what_cannot_be_done_is_said(pair: dict[str, LM]) -> None:
    tutor = Tutor(PROBLEM, solving(pair))
    with pytest.raises(UserError, match="no question to answer"):
        tutor.put_answer("1")
    with pytest.raises(UserError, match="no step to take back"):
        tutor.undo()
    with pytest.raises(UserError, match="asks no sub-questions"):
        Tutor(PROBLEM, Solving(SolveSettings.parse({"solver": "cot"}), lm=pair["qa"]))
