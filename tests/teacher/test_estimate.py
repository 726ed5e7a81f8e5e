from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_teach import PENS, PROMPT, STEPS, lesson

from socratic.prompts import TeacherPrompt, load_prompt
from socratic.teacher.estimate import estimate
from socratic.teacher.teach import Job, Lesson


def shown(taught: Lesson, job: Job) -> int:
    """Characters of all turns of the first request."""
    return sum(len(turn["content"]) for turn in next(taught.conversation(job))["messages"])


@pytest.mark.parametrize("form", ["json_schema", "text"])
@pytest.mark.parametrize("style", ["socratic", "cot", "answers", "questions"])
def test_prompts_are_as_long_as_they_are_and_replies_as_the_examples(style: Any, form: Any) -> None:
    prompt = load_prompt(style, "generic")
    taught = lesson(prompt, form)
    jobs = [Job(PENS, 0, STEPS), Job(replace(PENS, question="Why? " * 500), 0, STEPS * 3)]
    read, written = estimate(jobs, taught)
    characters = sum(shown(taught, job) for job in jobs)
    assert characters / 4 < read < characters / 2.5
    examples = [len(prompt.reply(chain, "json")) for chain in prompt.examples]
    assert 2 * min(examples) / 4 < written < 2 * max(examples) / 3


@pytest.mark.parametrize("prompt", [None, replace(PROMPT, examples=())])
def test_without_examples_a_reply_has_a_usual_length(prompt: TeacherPrompt | None) -> None:
    read, written = estimate([Job(PENS, sample) for sample in range(3)], lesson(prompt))
    assert 3 * 20 < read < 3 * 500
    assert written == 450


def test_the_sum_is_over_all_jobs() -> None:
    one = estimate([Job(PENS, 0)], lesson())
    many = estimate([Job(PENS, sample) for sample in range(100)], lesson())
    assert many == pytest.approx([100 * count for count in one], rel=0.01)
    assert estimate([], lesson()) == (0, 0)


def test_a_prompt_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "socratic.txt").write_text("Split it. {format}")
    taught = lesson(load_prompt("socratic", "gsm8k", tmp_path))
    assert estimate([Job(PENS, 0)], taught)[0] < estimate([Job(PENS, 0)], lesson())[0]
