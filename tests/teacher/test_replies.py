from __future__ import annotations

import json
from typing import Any

import pytest

from socratic.prompts import Style, TeacherPrompt, load_prompt
from socratic.teacher.replies import BadReplyError, content, parse_reply
from socratic.types import Chain, Step

GIVEN = (Step("Who?", "Ann."), Step("How many?", "There are 1+1=<<1+1=2>>2."))
TEXT = "Q: Who?\nA: Ann.\nQ: How many?\nA: There are 1+1=<<1+1=2>>2.\n#### 2"


def prompts() -> list[Any]:
    found = []
    for dataset in ("gsm8k", "svamp", "strategyqa", "generic"):
        for style in ("socratic", "cot", "answers", "questions"):
            found.append(pytest.param(load_prompt(style, dataset), id=f"{dataset}-{style}"))
    return found


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("prompt", prompts())
def test_what_examples_say_is_read_as_they_are(prompt: TeacherPrompt, form: Any) -> None:
    for chain in prompt.examples:
        reply = parse_reply(prompt.reply(chain, form), prompt.style, chain.steps)
        assert reply.answer == chain.answer
        if prompt.style == "cot":
            assert reply.steps == (Step("", "\n".join(step.answer for step in chain.steps)),)
        else:
            assert reply.steps == chain.steps


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"```\n{TEXT}\n```",
        TEXT.replace("Q:", "**Q:**").replace("A:", "**A:**"),
        TEXT.replace("Q: Who", "1. Question 1: Who").replace("Q: How", "2. Question 2: How").replace("A:", "Answer:"),
        f"Sure, here it is.\n\n{TEXT}",
        json.dumps({"steps": [step.to_json() for step in GIVEN], "answer": "2"}),
        "```json\n" + json.dumps({"steps": [step.to_json() for step in GIVEN], "answer": 2}, indent=2) + "\n```",
    ],
)
def test_forms_that_say_the_same(text: str) -> None:
    reply = parse_reply(text, "socratic")
    assert (reply.steps, reply.answer) == (GIVEN, "2")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("I cannot do that.", "no_answer"),
        ("#### 2", "no_steps"),
        ("Q: Who?\n#### 2", "malformed"),
        ("A: Ann.\nQ: Who?\n#### 2", "malformed"),
        ("Q: Who?\nQ: Who else?\nA: Ann.\n#### 2", "malformed"),
        ("Q: Who?\nA: Ann.\n####", "no_answer"),
        ('{"steps": [{"question": "Who?"', "malformed"),
        ('{"steps": [{"question": "Who?", "answer": "Ann."}]}', "no_answer"),
        ('{"steps": [], "answer": "2"}', "no_steps"),
        ('{"steps": ["Who?"], "answer": "2"}', "wrong_types"),
        ('{"steps": [{"question": "Who?", "answer": 2}], "answer": "2"}', "wrong_types"),
        ('{"steps": 3, "answer": "2"}', "wrong_types"),
        ('{"steps": [{"question": "Who?", "answer": "Ann."}], "answer": ["2"]}', "wrong_types"),
        ("{" * 100_000, "malformed"),
        (f"{TEXT}\n\nProblem: Tom has 2.\nQ: How many?\nA: 5.\n#### 5", "malformed"),
        ('{"steps": [{"question": "Who?", "answer": "Ann.\\n#### 2\\nQ: And?"}], "answer": "2"}', "malformed"),
    ],
)
def test_what_is_wrong_has_a_name(text: str, fault: str) -> None:
    with pytest.raises(BadReplyError) as raised:
        parse_reply(text, "socratic")
    assert raised.value.fault == fault


@pytest.mark.parametrize(("style", "kept"), [("answers", "question"), ("questions", "answer")])
def test_what_is_given_stays_as_it_is(style: Style, kept: str) -> None:
    given = [Step("Who ?", "Ann  ."), GIVEN[1]]
    spaced = TEXT.replace("Who?", "Who ?").replace("Ann.", "Ann .")
    reply = parse_reply(spaced, style, given)
    assert [getattr(step, kept) for step in reply.steps] == [getattr(step, kept) for step in given]
    for other in (
        TEXT.replace("How many", "How few").replace("There are", "We have"),
        TEXT.replace("\nQ: How", " How"),
    ):
        with pytest.raises(BadReplyError) as raised:
            parse_reply(other, style, GIVEN)
        assert raised.value.fault in ("other_steps", "malformed")


@pytest.mark.parametrize(
    ("choice", "fault"),
    [
        ({"message": {"content": "Q: a\nA: b\n"}, "finish_reason": "length"}, "truncated"),
        ({"message": {"content": None, "refusal": "I will not."}, "finish_reason": "stop"}, "refused"),
        ({"message": {"content": ""}, "finish_reason": "content_filter"}, "refused"),
        ({"message": {"content": " \n"}, "finish_reason": "stop"}, "empty"),
        ({"message": None, "finish_reason": "stop"}, "empty"),
        ({"message": {"content": [1]}, "finish_reason": "stop"}, "empty"),
        ({}, "empty"),
    ],
)
def test_a_reply_without_a_usable_text(choice: Any, fault: str) -> None:
    with pytest.raises(BadReplyError) as raised:
        content({"choices": [choice]})
    assert raised.value.fault == fault


def test_examples_are_chains() -> None:
    assert all(isinstance(chain, Chain) for chain in load_prompt("socratic", "gsm8k").examples)


@pytest.mark.parametrize(
    "opened", ["<think>", ""]
)  # many chat templates open the thought, so that replies only close it
def test_a_thought_is_no_part_of_a_reply(opened: str) -> None:
    thought = f"{opened}\nQ: One?\nA: 12. The answer is 12? #### 12\n</think>\n\n"
    said = content({"choices": [{"message": {"content": thought + TEXT}, "finish_reason": "stop"}]})
    assert said.strip() == TEXT
    assert parse_reply(thought + TEXT, "socratic").steps == GIVEN  # as others stored it
    with pytest.raises(BadReplyError, match="empty"):
        content({"choices": [{"message": {"content": thought}, "finish_reason": "stop"}]})


def test_a_thought_that_is_cut_off_is_no_reply_and_a_word_in_json_no_thought() -> None:
    with pytest.raises(BadReplyError, match="empty"):
        content(
            {"choices": [{"message": {"content": "<think>Hmm, 5 and"}, "finish_reason": "length"}]}, cut_stands=True
        )
    said = json.dumps({"steps": [{"question": "What does </think> do?", "answer": "It ends."}], "answer": "2"})
    assert parse_reply(said, "socratic").steps[0].question == "What does </think> do?"
