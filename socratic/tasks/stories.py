"""Stories: the bundled word problems, made for this project by ``data/stories/generate.py``, gold steps included.

A record (shortened)::

    {"id": "stories/test/00000", "family": "bakery", "question": "Hugo bakes 9 trays … how many rolls are there?",
     "answer": "54", "steps": [{"question": "How many rolls does Hugo have at first?", "answer": "At first, …"}, …]}

Two to four steps; the further tests are ``longer`` (five and six) and ``unseen`` (families of stories that train does
not have). No sentence of a test, numbers, names and nouns masked, occurs in train. Needs no data folder.
"""

from __future__ import annotations

from pathlib import Path

from socratic.store import shipped
from socratic.tasks.base import SPLITS, Item, Part, SplitScheme, Task, checked, gold_chain
from socratic.tasks.files import read_rows
from socratic.types import Problem, Step


def load(data_dir: Path | None, part: Part, scheme: SplitScheme) -> list[Item]:
    """All rows of ``part``; they come with the package, wherever ``data_dir`` is."""
    items: list[Item] = []
    for row in read_rows(shipped("data") / "stories" / f"{part}.jsonl"):
        id, question, answer = (row.text(field) for field in ("id", "question", "answer"))
        problem = Problem(id, "stories", part, question, answer, metadata={"family": row.text("family")})
        steps = [Step(step["question"], step["answer"]) for step in row.values["steps"]]
        items.append((checked(problem, row.where), gold_chain(problem, steps)))
    return items


TASK = Task(
    name="stories",
    description="bundled multi-step word problems with gold sub-questions; also the splits longer and unseen",
    answer_type="number",
    gold_chains=True,
    upstream="made for this project",
    licence="Apache-2.0",
    load=load,
    splits=(*SPLITS, "longer", "unseen"),
)
