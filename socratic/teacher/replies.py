"""From a teacher's raw reply to a chain, or to the name of what is wrong with it; pure, so it can be done again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from socratic.prompts import Style
from socratic.targets import kept_tokens
from socratic.types import Step

ReplyFault = Literal[
    "truncated",
    "refused",
    "empty",
    "malformed",
    "wrong_types",
    "no_steps",
    "no_answer",
    "other_steps",
]
"""Why a reply that was received is no chain. ``other_steps``: what was given was not left as it is."""

_THOUGHT = re.compile(r"\A(?:\s*<think>.*?(?:</think>|\Z)|(?!\s*[{`]).*?</think>)", re.DOTALL)
"""It may be cut off; its opening tag may be missing, as many chat templates write it themselves."""
_FENCE = re.compile(r"\A```[a-z]*\n(.*?)\n?```\Z", re.DOTALL)
_LINE = re.compile(
    r"^[ \t]*(?:[-*] +|\d+[.)] +)?(?:\*\*)?(Q|A|Question|Answer)(?: ?\d+)?(?:\*\*)?:(?:\*\*)?[ \t]*", re.M
)


class BadReplyError(Exception):
    """A reply that is no chain; ``fault`` names why."""

    def __init__(self, fault: ReplyFault, detail: str = "") -> None:
        super().__init__(detail or fault)
        self.fault: ReplyFault = fault


@dataclass(frozen=True)
class Reply:
    """What a reply says: the steps (one without a question in a chain of thought) and the final answer; `likeliest`."""

    steps: tuple[Step, ...]
    answer: str
    tokens: Sequence[Any] = ()


def content(raw: Mapping[str, Any], cut_stands: bool = False) -> str:
    """The text of a Chat Completions reply; raises `BadReplyError` for one that was refused, is empty, or was cut off.

    ``cut_stands``: one that was cut off is taken as it is.
    """
    choice = raw["choices"][0]
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    if choice.get("finish_reason") == "content_filter" or message.get("refusal"):
        raise BadReplyError("refused", str(message.get("refusal") or "content filter")[:200])
    if choice.get("finish_reason") == "length" and not cut_stands:
        raise BadReplyError("truncated")
    text = message.get("content")
    text = _THOUGHT.sub("", text) if isinstance(text, str) else ""
    if not text.strip():
        raise BadReplyError("empty")
    return text.encode("utf-8", "replace").decode()  # a lone surrogate cannot be sent, nor written


def likeliest(raw: Mapping[str, Any]) -> list[Any]:
    """The reply's tokens with the likeliest in their places, as a chain's metadata hold them; [] where it has none.

    An endpoint gives them where a request asks for ``logprobs`` and ``top_logprobs``.
    """
    try:
        said = raw["choices"][0]["logprobs"]["content"] or []
        return kept_tokens(
            [(str(t["token"]), [(str(o["token"]), float(o["logprob"])) for o in t["top_logprobs"]]) for t in said]
        )
    except (KeyError, TypeError, ValueError):
        return []


def parse_reply(text: str, style: Style, given: Sequence[Step] = ()) -> Reply:
    """Read a reply in either form; ``given`` as in `TeacherPrompt.messages`. Raises `BadReplyError`."""
    text = _THOUGHT.sub("", text).strip()
    if fenced := _FENCE.fullmatch(text):
        text = fenced[1].strip()
    reply = _from_json(text, style) if text.startswith("{") else _from_text(text, style)
    if style in ("answers", "questions"):
        reply = Reply(_with_given(reply.steps, style, given), reply.answer)
    return reply


def _from_json(text: str, style: Style) -> Reply:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadReplyError("malformed", str(error)[:200]) from None
    answer = said.get("answer")
    if isinstance(answer, bool | int | float):
        answer = str(answer).lower()
    if answer is None or answer == "":
        raise BadReplyError("no_answer")
    steps = [{"question": "", "answer": said.get("reasoning")}] if style == "cot" else said.get("steps")
    if not isinstance(answer, str) or not isinstance(steps, list):
        raise BadReplyError("wrong_types")
    if not steps:
        raise BadReplyError("no_steps")
    read = []
    for step in steps:
        if not isinstance(step, dict) or not all(isinstance(step.get(name), str) for name in ("question", "answer")):
            raise BadReplyError("wrong_types", str(step)[:200])
        if "####" in step["question"] + step["answer"]:
            raise BadReplyError("malformed", "#### stands in a step")
        read.append(Step(step["question"].strip(), step["answer"].strip()))
    return Reply(tuple(read), answer.strip())


def _from_text(text: str, style: Style) -> Reply:
    body, marker, answer = text.rpartition("####")
    if not marker or not answer.strip():
        raise BadReplyError("no_answer")
    answer = answer.strip().splitlines()[0].strip()
    if "####" in body:
        raise BadReplyError("malformed", "#### stands before the final answer")
    if style == "cot":
        if not body.strip():
            raise BadReplyError("no_steps")
        return Reply((Step("", body.strip()),), answer)
    questions: list[str] = []
    answers: list[str] = []
    pieces = _LINE.split(body)
    for kind, said in zip(pieces[1::2], pieces[2::2], strict=True):
        (questions if kind.startswith("Q") else answers).append(" ".join(said.split()))
        if not len(answers) <= len(questions) <= len(answers) + 1:
            raise BadReplyError("malformed", "questions and answers do not alternate")
    if len(questions) != len(answers):
        raise BadReplyError("malformed", "the last question has no answer")
    if not questions:
        raise BadReplyError("no_steps")
    return Reply(tuple(map(Step, questions, answers)), answer)


def _with_given(steps: Sequence[Step], style: Style, given: Sequence[Step]) -> tuple[Step, ...]:
    """The steps with what was given exactly as it was given."""
    if len(steps) != len(given):
        raise BadReplyError("other_steps", f"{len(steps)} steps for {len(given)}")
    made = []
    for said, known in zip(steps, given, strict=True):
        mine, its = (said.question, known.question) if style == "answers" else (said.answer, known.answer)
        if mine.split() != its.split():
            raise BadReplyError("other_steps", mine[:200])
        made.append(Step(known.question, said.answer) if style == "answers" else Step(said.question, known.answer))
    return tuple(made)
