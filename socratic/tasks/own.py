"""A user's own problems or chains: a ``.jsonl``, ``.json`` (array) or ``.csv`` file.

A record, every field but the first two optional::

    {"question": "…", "answer": "72", "id": "a-17", "answer_type": "number", "choices": ["…", "…"], "context": "…",
     "steps": [{"question": "…", "answer": "…"}]}

``columns`` maps a field to the file's name for it. In CSV ``choices`` and ``steps`` hold JSON; an empty cell is absent.
Without an id, ``FILE/all/00017`` names the record. Without an answer_type, JSON's true and false are a ``yesno``, a
record with choices is a ``choice``, any other a ``number``. The file is all of ``test``; ``train`` and ``dev`` are its
two parts by the dev rule. Lines that this package wrote load as they are: problems (by their split) and chains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from string import ascii_uppercase
from typing import Any, get_args

from socratic import store
from socratic.config import nearest
from socratic.tasks.base import SPLITS, Item, carve, checked, gold_chain
from socratic.tasks.files import Row, clean_text, number_text, parse_json, read_rows
from socratic.types import FORMED, AnswerType, Chain, Problem, Step, UserError

SUFFIXES = (".jsonl", ".json", ".csv")
FIELDS = ("id", "question", "answer", "answer_type", "choices", "context", "steps")


def load(path: Path, split: str, columns: Mapping[str, str] | None = None) -> list[Item]:
    """The items of ``split`` in ``path``; every fault is a `UserError` with file and line."""
    _check_columns(columns)
    rows = read_rows(path)
    _check_named(rows, columns)
    if not columns and _are_records(rows, Chain):
        return carve(_stated_chains(rows, split), split)
    if not columns and _are_records(rows, Problem):
        problems = _stated_problems(rows)
        _refuse_doubles(rows, problems)
        return [(problem, None) for problem in problems if problem.split == split]
    items = [_item(row, number, path.stem, split, columns or {}) for number, row in enumerate(rows)]
    _refuse_doubles(rows, [problem for problem, _ in items])
    return carve(items, split)


def load_questions(path: Path, columns: Mapping[str, str] | None = None) -> list[Problem]:
    """Every problem in ``path``, whether it has an answer or not (then ``""``), and whatever split it names."""
    return questions_of(read_rows(path), path.stem, columns)


def questions_of(rows: list[Row], dataset: str, columns: Mapping[str, str] | None = None) -> list[Problem]:
    """The problems that stand in ``rows``, as `load_questions` has them."""
    _check_columns(columns)
    _check_named(rows, columns)
    if not columns and _are_records(rows, Chain):
        return [*{problem.id: problem for problem, _ in _stated_chains(rows, "test")}.values()]
    problems = [
        _problem(row, number, dataset, "test", columns or {}, answered=False) for number, row in enumerate(rows)
    ]
    _refuse_doubles(rows, problems)
    return problems


def _check_columns(columns: Mapping[str, str] | None) -> None:
    for key in columns or {}:
        if key not in FIELDS:
            raise UserError(f"columns names the unknown field {key!r}; did you mean {nearest(key, FIELDS)!r}?")


def _check_named(rows: list[Row], columns: Mapping[str, str] | None) -> None:
    """Raise `UserError` for a column that no row has; what is optional may be missing in some."""
    for name in (columns or {}).values():
        if not any(name in row.values for row in rows):
            rows[0].get(name)


def _item(row: Row, number: int, dataset: str, split: str, columns: Mapping[str, str]) -> Item:
    problem = checked(_problem(row, number, dataset, split, columns), row.where)
    steps = _steps(row, _field(row, "steps", columns))
    return problem, gold_chain(problem, steps) if steps else None


def _field(row: Row, field: str, columns: Mapping[str, str]) -> Any:
    """An optional field, under the file's name for it; blank is absent."""
    value = row.values.get(columns.get(field, field))
    return None if isinstance(value, str) and not value.strip() else value


def _problem(
    row: Row, number: int, dataset: str, split: str, columns: Mapping[str, str], answered: bool = True
) -> Problem:
    question, answer = (columns.get(field, field) for field in ("question", "answer"))
    asked = row.text(question)
    raw_answer = row.get(answer) if answered else row.values.get(answer)
    choices = _choices(row, _field(row, "choices", columns))
    default: AnswerType = "yesno" if isinstance(raw_answer, bool) else "choice" if choices else "number"
    answer_type: AnswerType = _field(row, "answer_type", columns) or default
    if answer_type not in get_args(AnswerType):
        known = ", ".join(get_args(AnswerType))
        raise UserError(f"{row.where}: the answer_type {answer_type!r:.60} is unknown; use one of {known}")
    id = _field(row, "id", columns)
    if type(id) is int:
        id = str(id)
    return Problem(
        id=f"{dataset}/all/{number:05d}" if id is None else clean_text(id, f"{row.where}: the id"),
        dataset=dataset,
        split=split,
        question=asked,
        answer=_answer(raw_answer, f"{row.where}: {answer!r}") if answered or raw_answer not in (None, "") else "",
        answer_type=answer_type,
        choices=choices,
        context=_context(row, _field(row, "context", columns)),
    )


def _answer(value: Any, where: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number_text(value, where) if isinstance(value, int | float) else clean_text(value, where)


def _context(row: Row, value: Any) -> str | None:
    return None if value is None else clean_text(value, f"{row.where}: the context")


def _choices(row: Row, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    where = f"{row.where}: the choices"
    value = parse_json(value, where) if isinstance(value, str) else value
    if not isinstance(value, list) or not 2 <= len(value) <= len(ascii_uppercase):
        raise UserError(f"{where} must be a list of two to {len(ascii_uppercase)} texts, not {value!r:.60}")
    return tuple(clean_text(choice, f"{row.where}: choice {number}") for number, choice in enumerate(value))


def _steps(row: Row, value: Any) -> list[Step]:
    if value is None:
        return []
    where = f"{row.where}: the steps"
    value = parse_json(value, where) if isinstance(value, str) else value
    shape = isinstance(value, list) and all(
        isinstance(step, dict) and set(step) == {"question", "answer"} for step in value
    )
    if not shape:
        raise UserError(f'{where} must be a list of {{"question": …, "answer": …}}, not {value!r:.60}')
    steps = []
    for number, step in enumerate(value):
        if not isinstance(step["question"], str):
            raise UserError(f"{where}: the question of step {number} is {step['question']!r:.60}, not text; correct it")
        steps.append(
            Step(step["question"].strip(), clean_text(step["answer"], f"{where}: the answer of step {number}"))
        )
    return steps


def _are_records(rows: list[Row], cls: type[Chain] | type[Problem]) -> bool:
    """Whether this package wrote ``rows`` (by the first), which CSV, where everything is text, never is."""
    values = rows[0].values
    return set(values) >= {field.name for field in fields(cls)} and not isinstance(values["metadata"], str)


def _stated_problems(rows: list[Row]) -> list[Problem]:
    problems = [checked(store.as_record(row.where, row.values, Problem), row.where) for row in rows]
    for row, problem in zip(rows, problems, strict=True):
        if problem.split not in SPLITS:
            raise UserError(f"{row.where}: the split {problem.split!r} is unknown; use one of {', '.join(SPLITS)}")
    return problems


def _stated_chains(rows: list[Row], split: str) -> list[Item]:
    items: list[Item] = []
    first: dict[str, tuple[str, Problem]] = {}
    for row in rows:
        chain = store.as_record(row.where, row.values, Chain)
        problem = Problem(
            id=chain.problem_id,
            dataset=chain.dataset,
            split=split,
            question=chain.question,
            answer=chain.answer,
            answer_type=chain.answer_type,
            choices=_choices(row, chain.metadata.get("choices")),
            context=_context(row, chain.metadata.get("context")),
            metadata={key: chain.metadata[key] for key in ("made_from", *FORMED) if key in chain.metadata},
        )
        where, known = first.setdefault(problem.id, (row.where, checked(problem, row.where).stated))
        if known != problem.stated:
            raise UserError(f"{row.where}: the problem {problem.id!r} reads otherwise at {where}; make ids unique")
        items.append((problem, chain))
    return items


def _refuse_doubles(rows: list[Row], problems: list[Problem]) -> None:
    first: dict[str, str] = {}
    for row, problem in zip(rows, problems, strict=True):
        if problem.id in first:
            raise UserError(
                f"{row.where}: the id {problem.id!r} stands at {first[problem.id]} already; make ids unique"
            )
        first[problem.id] = row.where
