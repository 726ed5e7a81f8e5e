"""SVAMP: word problems that vary one another's wording. Patel et al. 2021.

A record of ``SVAMP.json``::

    {"ID": "chal-1", "Body": "Each pack of dvds costs 76 dollars. If there is a discount of 25 dollars on each pack",
     "Question": "How much do you have to pay to buy each pack?", "Equation": "( 76.0 - 25.0 )", "Answer": 51.0,
     "Type": "Subtraction"}

The problem is body and question joined by one space, as published (a third of the bodies end without punctuation).
Ids name the row of the file, ``svamp/all/00017``; the split is Fine-tune-CoT's (700 / 300), under either scheme.
``chal-680`` keeps its problem but has no chain: its equation gives 5 and its answer says 1
(``metadata["chain_rejected"]``).
"""

from __future__ import annotations

from pathlib import Path

from socratic.tasks.base import Item, Part, SplitScheme, Task, checked
from socratic.tasks.equations import load_rows, take, with_chain
from socratic.tasks.files import Hub, number_text
from socratic.types import Problem


def load(data_dir: Path | None, part: Part, scheme: SplitScheme) -> list[Item]:
    """The rows of ``part``; both split schemes are the same."""
    rows, prefix = load_rows(data_dir, "svamp", "SVAMP.json", Hub("ChilleD/SVAMP"), part)
    items = []
    for number, row in enumerate(rows):
        asked = row.text("Question")
        problem = Problem(
            id=f"{prefix}/{number:05d}",
            dataset="svamp",
            split=part,
            question=f"{row.text('Body')} {asked}",
            answer=number_text(row.get("Answer"), f"{row.where}: 'Answer'"),
            metadata={"source_id": row.text("ID"), "equation": row.text("Equation")},
        )
        checked(problem, row.where)
        items.append(with_chain(problem, asked, row.text("Equation")))
    return take(items, data_dir, "svamp", part)


TASK = Task(
    "svamp", "varied one- and two-step word problems, gold equation", "number", True, "arkilpatel/SVAMP", "MIT", load
)
