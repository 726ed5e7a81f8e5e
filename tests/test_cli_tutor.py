from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_cli import CONTROL, PAIR, Cli, Result, cli, say

from socratic.lm.scripted import Script

__all__ = ["cli", "say"]

TEXT = "Ann has 3 boxes of 4 pens and gives 5 away. How many pens are left?"


def script(transcript: str, kind: str) -> str:
    """Two steps; an answer depends on how the question begins."""
    asked = transcript.count("Q:")
    if kind == "question":
        return ("How many pens?", "How many are left?", "")[min(asked, 3) - 1]
    if kind == "final":
        return "7"
    return "<<3*4=12>>12 pens." if "pens?" in transcript.rsplit("Q:", 1)[1] else "<<12-5=7>>7 are left."


@pytest.fixture
def tutor(cli: Cli, say: Callable[[Script], None]) -> Callable[..., Result]:
    """A session in which these lines are typed."""
    say(script)

    def run(*lines: str, more: tuple[Any, ...] = ()) -> Result:
        return cli("tutor", TEXT, *PAIR, *more, stdin="".join(f"{line}\n" for line in lines))

    return run


def events(result: Result) -> list[tuple[str, str]]:
    return [(line["event"], line["text"]) for line in result.lines]


def test_enter_takes_one_step_after_the_other(tutor: Callable[..., Result]) -> None:
    result = tutor("", "", more=("--json",))
    assert result.code == 0
    assert events(result) == [
        ("problem", TEXT),
        ("question", "How many pens?"),
        ("answer", "<<3*4=12>>12 pens."),
        ("question", "How many are left?"),
        ("answer", "<<12-5=7>>7 are left."),
        ("question", ""),
        ("final", "7"),
    ]


def test_a_persons_question_undo_and_the_tree(tutor: Callable[..., Result]) -> None:
    result = tutor("Are there pens?", "/undo", "", "/tree", "/go 1", "/go 7", more=("--json",))
    found = events(result)
    assert ("step", "   1   Are there pens? <<3*4=12>>12 pens.") in found
    assert ("step", "*  2   How many pens? <<3*4=12>>12 pens.") in found
    assert ("error", "/go 7 is none of the 2 steps; /tree lists them, 0 is the beginning") in found


def test_it_finishes_by_itself(tutor: Callable[..., Result]) -> None:
    result = tutor("/auto")
    assert result.out.splitlines()[-1] == "#### 7"
    assert result.out.count("Q: ") == 2


def test_a_learner_is_judged_and_helped(tutor: Callable[..., Result]) -> None:
    found = events(tutor("11", "/hint", "It is 12", "5", "", "/quit", more=("--json", "--learn")))
    assert [text for event, text in found if event in ("judgement", "hint")] == [
        "that is not what QA says; try again, /hint, or Enter for QA's",
        "3*4=? pens.",
        "right: QA says so too",
        "that is not what QA says; try again, /hint, or Enter for QA's",
    ]
    assert found[-1] == ("final", "7")


def test_wrong_arithmetic_is_marked(tutor: Callable[..., Result]) -> None:
    assert ("wrong", "3*4 is not 13") in events(tutor("/answer It is <<3*4=13>>13.", more=("--json",)))


def test_sessions_are_kept(tutor: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    tutor("", f"/save {file}")
    assert len(json.loads(file.read_text())["steps"]) == 1
    found = events(tutor(f"/load {file}", "", more=("--json",)))
    assert ("step", "*  1 How many pens? <<3*4=12>>12 pens.") in found
    assert found[-1] == ("final", "7")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/nothing", "/nothing is unknown; /help lists what can be typed"),
        ("/undo", "there is no step to take back"),
        ("/gold", "this problem has no gold answer; /draw takes one that has"),
        ("/cot", "there is no chain-of-thought student; give --cot MODEL"),
        ("/save", "/save FILE needs a file's name"),
        ("/load nowhere.json", "nowhere.json cannot be read (No such file or directory); check the path"),
        ("/draw nothing", "unknown data set 'nothing'; did you mean"),
        ("/alt 3", "/alt 3 is none of the 0 alternatives; /alt lists them"),
    ],
)
def test_a_mistake_is_one_sentence_and_the_session_goes_on(tutor: Callable[..., Result], line: str, said: str) -> None:
    result = tutor(line, "", more=("--json",))
    assert any(event == "error" and text.startswith(said) for event, text in events(result))
    assert ("answer", "<<3*4=12>>12 pens.") in events(result)


def test_nothing_steers_the_terminal(cli: Cli, say: Callable[[Script], None]) -> None:
    def hostile(transcript: str, kind: str) -> str:
        return "\x1b]52;c;eA==\x07[red]\u202e" if transcript.count("Q:") < 2 else ""

    say(hostile)
    result = cli("tutor", "P\x1b[31m", *PAIR, stdin="\n/tree\n")
    assert not CONTROL.search(result.out)
    assert "[red]" in result.out


def test_the_newest_students_are_found(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli("tutor", TEXT)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "no students below runs/" in result.err
    assert cli("tutor", TEXT, "--qg", "x").code == 2
