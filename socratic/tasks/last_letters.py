"""Last letters: concatenate the last letters of four names. Wei et al. 2022, as Kojima et al. 2022 generated it.

A record of ``last_letters.json``::

    {"question": "Take the last letters of each words in \\"Whitney Erika Tj Benito\\" and concatenate them.",
     "answer": "yajo"}

Ids name the row of the file, ``last_letters/all/00017``; the split is Fine-tune-CoT's (350 / 150), under either scheme.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from socratic.tasks.base import Task
from socratic.tasks.bigbench import load_examples
from socratic.tasks.files import Row


def _fields(row: Row) -> dict[str, Any]:
    return {"question": row.text("question"), "answer": row.text("answer"), "answer_type": "text"}


TASK = Task(
    "last_letters",
    "the last letters of four names, in a row",
    "text",
    False,
    "kojima-takeshi188/zero_shot_cot",
    "unstated",
    partial(
        load_examples,
        name="last_letters",
        file="last_letters.json",
        split_name="last_letter_concatenation",
        fields=_fields,
    ),
)
