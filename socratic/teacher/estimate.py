"""What an annotation will read and write, before anything is asked."""

from __future__ import annotations

import json
from collections.abc import Sequence

from socratic.prompts import TeacherPrompt
from socratic.teacher.teach import Job, Lesson

_CHARACTERS = 3.3
"""A token of such texts: English, digits and marks in JSON."""
_ZERO_SHOT_TOKENS = 150


def estimate(jobs: Sequence[Job], lesson: Lesson) -> tuple[int, int]:
    """Tokens of prompts and of replies, from the texts' lengths; replies are taken to be as long as the examples'.

    Each job is counted once, without what fails or a hinted second try. Zero-shot chain of thought has two turns, of
    which the second reads the first one's reply.
    """
    prompts = sum(len(json.dumps(next(lesson.conversation(job))["messages"])) for job in jobs) / _CHARACTERS
    replies = len(jobs) * _reply_tokens(lesson.prompt)
    return round(prompts if lesson.prompt else 2 * prompts + replies), round(replies)


def _reply_tokens(prompt: TeacherPrompt | None) -> float:
    if prompt is None or not prompt.examples:
        return _ZERO_SHOT_TOKENS
    return sum(len(prompt.reply(chain, "json")) for chain in prompt.examples) / len(prompt.examples) / _CHARACTERS
