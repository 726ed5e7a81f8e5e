"""Tracking shuffled objects: who has what after three swaps among three? BIG-bench (Srivastava et al. 2022).

A record of ``task.json`` (shortened)::

    {"input": "Alice, Bob, and Claire are playing a game. At the start of the game, they are each holding a ball: Alice
     has a orange ball, … First, Alice and Bob swap balls. … At the end of the game, Alice has the ",
     "target_scores": {"orange ball.": 0, "white ball.": 0, "blue ball.": 1}}

The targets are the choices A, B and C, in the order of the file. Ids name the row of the file,
``tracking_shuffled_objects/all/00017``; the split is Fine-tune-CoT's (525 / 225), under either scheme.
"""

from __future__ import annotations

from functools import partial
from string import ascii_uppercase
from typing import Any

from socratic.tasks.base import Task
from socratic.tasks.bigbench import load_examples, targets
from socratic.tasks.files import Row


def _fields(row: Row) -> dict[str, Any]:
    choices, right = targets(row)
    letter = ascii_uppercase[right : right + 1]
    return {"question": row.text("input"), "answer": letter, "answer_type": "choice", "choices": tuple(choices)}


TASK = Task(
    "tracking_shuffled_objects",
    "who has what after three swaps, one of three",
    "choice",
    False,
    "google/BIG-bench",
    "Apache-2.0",
    partial(
        load_examples,
        name="tracking_shuffled_objects",
        file="task.json",
        split_name="tracking_shuffled_objects",
        fields=_fields,
    ),
)
