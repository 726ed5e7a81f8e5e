"""Date understanding: infer a date from context. BIG-bench (Srivastava et al. 2022).

A record of ``task.json``::

    {"input": "Yesterday was April 30, 2021. What is the date today in MM/DD/YYYY?",
     "target_scores": {"05/01/2021": 1, "02/23/2021": 0, "03/11/2021": 0, "05/09/2021": 0, "06/12/2021": 0, …}}

The answer is the date itself, as text; the other dates are kept in the metadata and not shown, unlike in Fine-tune-CoT,
which asks for one of six letters. Ids name the row of the file, ``date_understanding/all/00017``; the split is
Fine-tune-CoT's (258 / 111), under either scheme.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from socratic.tasks.base import Task
from socratic.tasks.bigbench import load_examples, targets
from socratic.tasks.files import Row


def _fields(row: Row) -> dict[str, Any]:
    dates, right = targets(row)
    shown = {"question": row.text("input"), "answer": dates[right], "answer_type": "text"}
    return {**shown, "metadata": {"dates": dates}}


TASK = Task(
    "date_understanding",
    "a date inferred from context",
    "text",
    False,
    "google/BIG-bench",
    "Apache-2.0",
    partial(
        load_examples,
        name="date_understanding",
        file="task.json",
        split_name="date_understanding",
        fields=_fields,
    ),
)
