"""All text rendering: the transcript that students are trained on and solve with, and where the prompt files lie.

Training and solving both go through this module, so that what a student sees at test time is what it was trained on
(teacher forcing, Shridhar et al. 2212.00193, section 3). A transcript is append-only:

    Problem: P END          given
    \\nQ: q END             a sub-question, written by QG
    \\nA: s END             a sub-answer, written by QA
    \\nQ: END               QG stops: END directly behind the marker
    \\n#### answer END      the final slot
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from socratic.store import shipped
from socratic.types import Chain, Problem, QGSees, Role, UserError

TRANSCRIPT_VERSION = "1"

SlotKind = Literal["question", "answer", "final"]
MARKERS: dict[SlotKind, str] = {"question": "\nQ:", "answer": "\nA:", "final": "\n####"}

PROMPTS_DIR: Path = shipped("prompts")


@dataclass(frozen=True)
class Slot:
    """One marker and the text behind it up to END; the text ``""`` is QG's stop. ``learned`` covers text and END."""

    kind: SlotKind
    text: str
    learned: bool


def problem_text(question: str, context: str | None = None, choices: Sequence[str] | None = None) -> str:
    """The transcript's first segment: context before the question, choices after it as ``(A) text`` lines.

    Raises `UserError` for more choices than there are letters.
    """
    if len(choices or ()) > len(string.ascii_uppercase):
        raise UserError(f"{len(choices or ())} choices are more than the letters A to Z can name; give at most 26")
    lines = [context.strip()] if context and context.strip() else []
    lines.append(question.strip())
    lines += [f"({letter}) {text.strip()}" for letter, text in zip(string.ascii_uppercase, choices or (), strict=False)]
    return "Problem: " + "\n".join(lines)


def render_problem(problem: Problem) -> str:
    """`problem_text` of a problem."""
    return problem_text(problem.question, problem.context, problem.choices)


def render_chain(chain: Chain, role: Role, qg_sees: QGSees = "answers") -> tuple[str, list[Slot]]:
    """The problem text and the slots of one training sample: what ``role`` sees, and which of it is learned.

    Raises `UserError` where the role needs sub-questions (or any step) that the chain does not have, or a step's answer
    is blank.
    """
    text = problem_text(chain.question, chain.metadata.get("context"), chain.metadata.get("choices"))
    final = Slot("final", chain.answer.strip(), learned=True)
    if role == "answer":
        return text, [final]
    if not chain.steps or (role != "cot" and not all(step.question.strip() for step in chain.steps)):
        missing = "sub-questions" if chain.steps else "steps"
        raise UserError(f"the chain of {chain.problem_id} has no {missing}, which role {role!r} is trained on")
    if blank := [i for i, step in enumerate(chain.steps) if not step.answer.strip()]:
        raise UserError(f"step {blank[0]} of the chain of {chain.problem_id} has an empty answer; fill it in")
    if role == "cot":
        return text, [Slot("answer", join_rationale([s.answer for s in chain.steps]), learned=True), final]

    asks, answers = role in ("qg", "unified"), role in ("qa", "unified")
    slots = []
    for step in chain.steps:
        slots.append(Slot("question", step.question.strip(), learned=asks))
        if role != "qg" or qg_sees == "answers":
            slots.append(Slot("answer", step.answer.strip(), learned=answers))
    slots.append(Slot("question", "", learned=asks))
    if answers:
        slots.append(final)
    return text, slots


def learned_text(text: str) -> str:
    """A slot's text as it is learned: stripped, behind one space; the stop stays empty."""
    return f" {text.strip()}" if text.strip() else ""


def join_rationale(answers: Sequence[str]) -> str:
    """The chain of thought of a stepwise solution: its sub-answers, one a line (GSM8K main's own text)."""
    return "\n".join(answer.strip() for answer in answers)


def render_raw(slots: Sequence[str], answer: str | None) -> str:
    """A trace's ``raw``: the texts of all committed slots, one a line, and the final slot behind its marker."""
    body = "\n".join(text.strip() for text in slots)
    return body if answer is None else f"{body}{MARKERS['final']} {answer.strip()}"
