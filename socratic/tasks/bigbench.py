"""Files in BIG-bench's layout, one object whose ``examples`` is the list of records: what five data sets share.

These data sets have no split of their authors': it is Fine-tune-CoT's, under either scheme, so the examples of
BIG-bench, whose files ask not to be trained on, are trained on only where that paper did.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from socratic.tasks.base import Item, Part, SplitScheme, checked, take_part
from socratic.tasks.files import Row, read_json, records
from socratic.types import Problem, UserError

Fields = Callable[[Row], dict[str, Any]]
"""What a record says of its `Problem`: question, answer, and whatever else."""


def examples(path: Path) -> list[Row]:
    """The records of a file in this layout."""
    task = read_json(path)
    return records(path, task.get("examples") if isinstance(task, dict) else None)


def load_examples(
    data_dir: Path | None, part: Part, scheme: SplitScheme, *, name: str, file: str, split_name: str, fields: Fields
) -> list[Item]:
    """The items of ``part`` of ``NAME/FILE`` by ``splits/SPLIT_NAME__default.json``; none has a gold chain."""
    if data_dir is None:
        raise UserError(f"{name} is not on the Hub as its authors published it; pass --data-dir or set SOCRATIC_DATA")
    items: list[Item] = []
    for number, row in enumerate(examples(data_dir / name / file)):
        problem = Problem(id=f"{name}/all/{number:05d}", dataset=name, split=part, **fields(row))
        items.append((checked(problem, row.where), None))
    return take_part(items, part, data_dir / "splits" / f"{split_name}__default.json")


def targets(row: Row) -> tuple[list[str], int]:
    """The answers that ``target_scores`` offers and the place of the right one, which alone has the score 1.

    Raises `UserError` where that is not so.
    """
    scores = row.get("target_scores")
    values = list(scores.values()) if isinstance(scores, dict) else []
    if any(value not in (0, 1) for value in values) or values.count(1) != 1:
        raise UserError(f"{row.where}: the target_scores are {scores!r:.60}, not 1 for one answer and 0 for the others")
    return list(scores), values.index(1)
