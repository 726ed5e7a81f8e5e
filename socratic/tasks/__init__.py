"""Data sets: problems and gold chains by name, from the authors' files, the Hub, or a user's own file.

Files come from ``data_dir``, else from the folder in the environment variable ``SOCRATIC_DATA``; without either the Hub
is asked. ``train`` never holds a problem of ``dev``, which is carved out of it by a fixed rule (`in_dev`), nor one of
``test``; of a user's own file, ``test`` is all of it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from socratic.config import nearest
from socratic.store import expanded
from socratic.tasks import (
    addsub,
    aqua,
    coin_flip,
    commonsenseqa,
    date_understanding,
    gsm8k,
    last_letters,
    multiarith,
    own,
    singleeq,
    stories,
    strategyqa,
    svamp,
    tracking_shuffled_objects,
)
from socratic.tasks.base import SPLIT_SCHEMES, SPLITS, Item, Reading, Task, carve, in_dev, normalise, take_fold
from socratic.tasks.files import line_rows
from socratic.types import AnswerType, Chain, Problem, UserError

__all__ = [
    "SPLITS",
    "SPLIT_SCHEMES",
    "TASKS",
    "Reading",
    "Task",
    "draw_problem",
    "in_dev",
    "load_chains",
    "load_problems",
    "normalise",
    "read_lines",
    "read_questions",
]

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        *gsm8k.TASKS,
        strategyqa.TASK,
        svamp.TASK,
        multiarith.TASK,
        addsub.TASK,
        singleeq.TASK,
        aqua.TASK,
        commonsenseqa.TASK,
        date_understanding.TASK,
        tracking_shuffled_objects.TASK,
        coin_flip.TASK,
        last_letters.TASK,
        stories.TASK,
    )
}
"""Every named data set, in the order `socratic data list` shows them."""


def load_problems(
    name: str | Path,
    split: str,
    data_dir: Path | str | None = None,
    limit: int | None = None,
    *,
    split_scheme: str = "authors",
    columns: Mapping[str, str] | None = None,
    fold: str | None = None,
) -> list[Problem]:
    """The first ``limit`` problems of a data set, in file order.

    Args:
        name: one of `TASKS`, or a file of the user's own that ends in .jsonl, .json or .csv (see `own`).
        split: ``train``, ``dev``, ``test``, or a further test split that the data set names.
        split_scheme: ``authors``, or ``fine-tune-cot`` for the split of Ho et al. 2023, which differs for StrategyQA
            and AQuA; data sets whose authors published no split have that one under either scheme.
        columns: for the user's own file, its name for each of our fields, as ``{"question": "q"}``.
        fold: only the problems of this fold, as ``"2/4"``: the second of four.

    Raises `UserError` for whatever the user can mend: a wrong argument, a damaged file, a gold that cannot be read.
    """
    items = _items(name, split, data_dir, limit, split_scheme, columns)
    if fold is not None:
        items = take_fold(items, fold)
    # A file of chains may hold several chains of one problem.
    return list({problem.id: problem for problem, _ in items}.values())[:limit]


def draw_problem(name: str, data_dir: Path | str | None = None) -> tuple[Problem, Chain | None]:
    """A random test problem of the data set ``name``, or the problem of that id, and its gold chain if it has one.

    Raises `UserError` as `load_problems`, and for an id that is none.
    """
    dataset = name.partition("/")[0].removesuffix("-hub")
    if "/" not in name or name.endswith(own.SUFFIXES) or dataset not in TASKS:
        found = [(name, "test", problem) for problem in load_problems(name, "test", data_dir)]
    else:  # an id names the source row, whatever split that is in
        splits = dict.fromkeys(["test", *TASKS[dataset].splits])
        parts = ((split, load_problems(dataset, split, data_dir)) for split in splits)
        found = [(dataset, split, problem) for split, part in parts for problem in part if problem.id == name]
    if not found:
        raise UserError(f"{dataset} has no problem {name}; socratic data show {dataset} lists some")
    source, split, problem = random.choice(found)
    chains: list[Chain] = []
    with suppress(UserError):  # a data set need not have any
        chains = load_chains(source, split, data_dir)
    return problem, next((chain for chain in chains if chain.problem_id == problem.id), None)


def read_questions(name: str, columns: Mapping[str, str] | None = None) -> list[Problem]:
    """The problems of a user's own file, of all splits, to be solved: answers may be missing (``""``)."""
    if not name.endswith(own.SUFFIXES):
        raise UserError(f"{name!r} is not a problem file; give one ending in {', '.join(own.SUFFIXES)}")
    return own.load_questions(expanded(name), columns)


def read_lines(text: str, answer_type: AnswerType, columns: Mapping[str, str] | None = None) -> list[Problem]:
    """The problems of standard input: JSON lines, a JSON array, or else one problem's text a line."""
    return own.questions_of(line_rows("standard input", text, answer_type=answer_type), "stdin", columns)


def load_chains(
    name: str | Path,
    split: str,
    data_dir: Path | str | None = None,
    limit: int | None = None,
    *,
    split_scheme: str = "authors",
    columns: Mapping[str, str] | None = None,
) -> list[Chain]:
    """The first ``limit`` gold chains of a data set; arguments and errors as `load_problems`.

    Problems without a gold chain are passed over; where none in ``train`` or ``test`` has one, `UserError` is raised.
    """
    items = _items(name, split, data_dir, limit, split_scheme, columns)
    chains = [chain for _, chain in items if chain is not None]
    if items and not chains and split != "dev":
        raise UserError(f"{name} has no gold chains in {split!r}; choose another data set, or add steps to your file")
    return chains[:limit]


def _items(
    name: str | Path,
    split: str,
    data_dir: Path | str | None,
    limit: int | None,
    split_scheme: str,
    columns: Mapping[str, str] | None,
) -> list[Item]:
    name = str(name)
    if limit is not None and (type(limit) is not int or limit < 1):
        raise UserError(f"limit must be a whole number of at least 1, not {limit!r}")
    splits = TASKS[name].splits if name in TASKS else SPLITS
    if split not in splits:
        raise UserError(f"unknown split {split!r}; did you mean {nearest(split, splits)!r}?")
    if split_scheme not in SPLIT_SCHEMES:
        raise UserError(
            f"unknown split scheme {split_scheme!r}; did you mean {nearest(split_scheme, SPLIT_SCHEMES)!r}?"
        )
    if name in TASKS:
        if columns:
            raise UserError(f"columns are for a file of your own, and {name!r} is a known data set; leave them out")
        items = TASKS[name].load(data_folder(data_dir), "train" if split == "dev" else split, split_scheme)
        return [(replace(problem, split=split), chain) for problem, chain in carve(items, split)]
    if name.endswith(own.SUFFIXES):
        items = own.load(expanded(name), split, columns)
        if not items and split != "dev":
            raise UserError(f"{name} holds no problems of the split {split!r}; choose another split")
        return items
    suffixes = ", ".join(own.SUFFIXES)
    raise UserError(
        f"unknown data set {name!r}; did you mean {nearest(name, TASKS)!r}, or a file ending in {suffixes}?"
    )


def data_folder(data_dir: Path | str | None) -> Path | None:
    given = data_dir if data_dir is not None else os.environ.get("SOCRATIC_DATA")
    return expanded(given) if given else None
