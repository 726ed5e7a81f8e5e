"""A tutor's session as a file: the problem, its gold chain, the tree of steps, and the place in it."""

from __future__ import annotations

from os.path import isdir, isfile  # which say no, not raise, of a name that is too long
from pathlib import Path
from typing import Any

from socratic import store
from socratic.solving import Solving
from socratic.tasks.base import checked
from socratic.tasks.files import clean_text
from socratic.tutor import Node, Tutor, Writer
from socratic.types import Chain, Problem, Step, Trace, UserError

_WRITERS: dict[str, Writer] = {"student": "student", "person": "person"}


def save_session(tutor: Tutor, path: Path) -> None:
    """Write problem, gold, tree and place to ``path``.

    Raises `UserError` where something else than a session of this problem stands there, or nothing can be written.
    """
    if isfile(path) and not _is_session(path, tutor.problem):
        raise UserError(f"{path} holds something else; choose another name")
    if not isdir(path.parent):
        raise UserError(f"the folder {path.parent} does not exist; choose another place")
    places = {node: place for place, node in enumerate(tutor.root.walk())}
    rows = [
        {**node.step.to_json(), "parent": places[node.parent], "by": [node.asked_by, node.answered_by]}
        for node in places
        if node.parent
    ]
    held = {
        "problem": tutor.problem.to_json(),
        "gold": tutor.gold and tutor.gold.to_json(),
        "steps": rows,
        "here": places[tutor.here],
        "tokens": tutor.tokens,
        "trace": tutor.trace().to_json() if tutor.concluded else None,
    }
    try:
        store.write_json(path, held)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be written ({error}); choose another place") from None


def load_session(path: Path, solving: Solving) -> Tutor:
    """What `save_session` wrote, with whatever students; raises `UserError` for another file."""
    try:
        value = store.read_json(path)
        gold = store.as_record("the session", value["gold"], Chain) if value["gold"] else None
        tutor = Tutor(_checked_problem(value["problem"]), solving, gold)
        nodes = [tutor.root]
        for row in value["steps"]:
            step = Step(clean_text(row["question"], "question"), clean_text(row["answer"], "answer"))
            asked_by, answered_by = (_WRITERS[by] for by in row["by"])
            parent = nodes[_count(row["parent"])]
            nodes.append(Node(step, parent, asked_by, answered_by))
            parent.children.append(nodes[-1])
        tutor.go(nodes[_count(value["here"])])
        tutor.tokens = _count(value["tokens"])
        if value["trace"]:
            trace = store.as_record("the session", value["trace"], Trace)
            if len(trace.steps) != len(tutor.steps):
                raise ValueError(trace)
            tutor.final_answer = None if trace.answer is None else clean_text(trace.answer, "answer")
            tutor.concluded, tutor.stop_reason = True, trace.stop_reason
    except (TypeError, KeyError, IndexError, ValueError, AttributeError, UserError):
        if not isfile(path):
            raise
        raise UserError(f"{path} is no session that /save wrote; give one") from None
    return tutor


def _checked_problem(value: Any) -> Problem:
    """A problem as `save_session` wrote it; raises `UserError` or `ValueError` where it is none."""
    problem = store.as_record("the session", value, Problem)
    if problem.answer:
        return checked(problem, "problem")
    for text in (problem.question, *filter(None, [problem.context]), *(problem.choices or ())):
        clean_text(text, "problem")
    return problem


def _count(value: Any) -> int:
    """A number of tokens, or a place among a session's nodes, where -1 would count from the end.

    Raises `ValueError` where it is none.
    """
    if type(value) is not int or value < 0:
        raise ValueError(value)
    return value


def _is_session(path: Path, problem: Problem) -> bool:
    """Whether ``path`` holds a session, and of ``problem``."""
    try:
        held = store.read_json(path)
        return {"steps", "here"} <= set(held) and held["problem"]["question"] == problem.question
    except (UserError, TypeError, KeyError):
        return False
