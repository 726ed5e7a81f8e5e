"""CommonsenseQA: common knowledge, one of five choices. Talmor et al. 2019.

A record of ``train_rand_split.jsonl`` (shortened)::

    {"answerKey": "A", "id": "075e483d21c29a511267ef62bedc0461", "question": {"question_concept": "punishing",
     "choices": [{"label": "A", "text": "ignore"}, {"label": "B", "text": "enforce"}, …],
     "stem": "The sanctions against the school were a punishing blow, and they seemed to what the efforts …"}}

``test`` is the authors' dev file (they publish no golds for their test), as in Fine-tune-CoT, whose split is this one.
Ids name the row of the file, ``commonsenseqa/train/00017``, ``commonsenseqa/dev/00003``; the Hub's copy has the same
rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from socratic.tasks.base import Item, Part, SplitScheme, Task, checked
from socratic.tasks.files import Hub, Row, hub_rows, read_rows
from socratic.types import Problem, UserError

HUB = Hub("tau/commonsense_qa")


def load(data_dir: Path | None, part: Part, scheme: SplitScheme) -> list[Item]:
    """The rows of ``part``; both split schemes are the same."""
    file = "dev" if part == "test" else "train"
    if data_dir is None:
        rows = hub_rows(HUB, "validation" if part == "test" else "train")
    else:
        rows = read_rows(data_dir / "commonsenseqa" / f"{file}_rand_split.jsonl")
    return [(_problem(row, f"commonsenseqa/{file}/{number:05d}", part), None) for number, row in enumerate(rows)]


def _problem(row: Row, id: str, part: Part) -> Problem:
    question: Any = row.get("question")
    try:
        if isinstance(question, str):  # the Hub's copy
            asked, choices = question, row.get("choices")
            offered = list(zip(choices["label"], choices["text"], strict=True))
        else:
            asked, offered = question["stem"], [(choice["label"], choice["text"]) for choice in question["choices"]]
    except (TypeError, KeyError, ValueError):
        raise UserError(
            f"{row.where}: 'question' is not a stem with choices, but {question!r:.60}; correct it"
        ) from None
    inner = Row(row.where, {"question": asked, "choices": [text for _, text in offered]})
    if "".join(str(label) for label, _ in offered) != "ABCDE":
        raise UserError(f"{row.where}: the choices are not A to E in order; correct them")
    problem = Problem(
        id=id,
        dataset="commonsenseqa",
        split=part,
        question=inner.text("question"),
        answer=row.text("answerKey"),
        answer_type="choice",
        choices=tuple(inner.texts("choices")),
        metadata={"source_id": row.text("id")},
    )
    return checked(problem, row.where)


TASK = Task(
    "commonsenseqa",
    "common knowledge, one of five",
    "choice",
    False,
    "jonathanherzig/commonsenseqa",
    "MIT",
    load,
)
