"""Coin flip: is a coin still heads up after some people flip it? Wei et al. 2022, as Kojima et al. 2022 generated it.

A record of ``coin_flip.json``::

    {"question": "A coin is heads up. Whitney flips the coin. Erika does not flip the coin. Tj does not flip the coin.
     Benito flips the coin. Is the coin still heads up? Note that \\"flip\\" here means \\"reverse\\".",
     "answer": "yes"}

Ids name the row of the file, ``coin_flip/all/00017``; the split is Fine-tune-CoT's (350 / 150), under either scheme.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from socratic.tasks.base import Task
from socratic.tasks.bigbench import load_examples
from socratic.tasks.files import Row


def _fields(row: Row) -> dict[str, Any]:
    return {"question": row.text("question"), "answer": row.text("answer"), "answer_type": "yesno"}


TASK = Task(
    "coin_flip",
    "is the coin still heads up?",
    "yesno",
    False,
    "kojima-takeshi188/zero_shot_cot",
    "unstated",
    partial(load_examples, name="coin_flip", file="coin_flip.json", split_name="coin_flip", fields=_fields),
)
