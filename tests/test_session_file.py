from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_tutor import PROBLEM, pair, put, say, solving, text
from tiny import byte_tokenizer

from socratic.lm.base import LM
from socratic.lm.scripted import ScriptedLM
from socratic.session_file import load_session, save_session
from socratic.solving import Solving
from socratic.tasks.base import gold_chain
from socratic.tokens import Codec
from socratic.tutor import Tutor
from socratic.types import Step, UserError

__all__ = ["pair"]


@pytest.fixture
def whole() -> Solving:
    codec = Codec(byte_tokenizer("llama"))
    return solving({place: ScriptedLM(codec, say, place) for place in ("qg", "qa")})


def test_a_session_is_kept_whole(pair: dict[str, LM], tmp_path: Path) -> None:
    tutor = Tutor(PROBLEM, solving(pair))
    put(tutor, "One?", "<<1+1=3>>3.")
    first = tutor.here
    put(tutor, "Two?", "2.")
    tutor.go(first)
    put(tutor, "Other?", "Ünï\x1b[31m")
    save_session(tutor, tmp_path / "s.json")
    again = load_session(tmp_path / "s.json", solving(pair))
    assert again.steps == tutor.steps
    assert again.here.parent is not None
    assert [child.step.question for child in again.here.parent.children] == ["Two?", "Other?"]
    assert again.here.asked_by == "person"
    assert text(again.ask()) == text(tutor.ask())
    for other in ('{"problem": 3}', '{"question": "One?"}\n{"question": "Two?"}\n'):
        (tmp_path / "other.json").write_text(other)
        with pytest.raises(UserError, match="is no session that /save wrote"):
            load_session(tmp_path / "other.json", solving(pair))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("problem", None),
        ("problem.question", 5),
        ("problem.question", " "),
        ("problem.context", 7),
        ("problem.choices", [1, 2]),
        ("problem.answer", 45),
        ("steps", None),
        ("steps", [{"question": "One?", "answer": "1.", "parent": 7, "by": ["student", "student"]}]),
        ("steps", [{"question": "One?", "answer": "1.", "parent": 0, "by": ["cat", "student"]}]),
        ("steps", [{"question": "One?", "answer": None, "parent": 0, "by": ["student", "student"]}]),
        ("steps", [{"question": "One?", "answer": "1.", "parent": -1, "by": ["student", "student"]}]),
        ("here", 3),
        ("here", -1),
        ("here", "x"),
        ("trace", {"answer": 1}),
        ("tokens", -5),
        ("tokens", True),
        ("problem.choices", "abc"),
        ("problem.answer_type", "frob"),
        ("problem.metadata", 5),
        ("gold", {"problem_id": "p"}),
        ("gold.steps", [{"question": "One?", "answer": 5}]),
    ],
)
def test_a_file_that_holds_no_session_is_refused(whole: Solving, tmp_path: Path, place: str, value: Any) -> None:
    file = tmp_path / "s.json"
    save_session(Tutor(PROBLEM, whole, gold_chain(PROBLEM, [Step("One?", "1.")])), file)
    held = json.loads(file.read_text())
    outer, _, inner = place.partition(".")
    if inner:
        held[outer][inner] = value
    else:
        held[outer] = value
    file.write_text(json.dumps(held))
    with pytest.raises(UserError, match=r"s\.json is no session that /save wrote"):
        load_session(file, whole)


@pytest.mark.parametrize(("place", "value"), [("steps", []), ("stop_reason", "frob")])
def test_a_trace_of_another_path_is_refused(whole: Solving, tmp_path: Path, place: str, value: Any) -> None:
    tutor = Tutor(PROBLEM, whole)
    put(tutor, "One?", "<<1+1=2>>2.")
    text(tutor.conclude())
    save_session(tutor, tmp_path / "s.json")
    assert load_session(tmp_path / "s.json", whole).concluded
    held = json.loads((tmp_path / "s.json").read_text())
    held["trace"][place] = value
    (tmp_path / "s.json").write_text(json.dumps(held))
    with pytest.raises(UserError, match=r"s\.json is no session that /save wrote"):
        load_session(tmp_path / "s.json", whole)


def test_a_long_session_is_kept(whole: Solving, tmp_path: Path) -> None:
    tutor = Tutor(PROBLEM, whole)
    for number in range(1500):
        put(tutor, f"{number}?", f"{number}.")
    save_session(tutor, tmp_path / "s.json")
    assert load_session(tmp_path / "s.json", whole).steps == tutor.steps
