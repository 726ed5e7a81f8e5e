from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_cli import CONTROL, PAIR, Cli, Result, cli, say

from socratic.cli.shared import newest_students
from socratic.lm.checkpoint import CARD, Base, Card
from socratic.lm.scripted import Script
from socratic.store import MANIFEST, write_json
from socratic.tasks import load_problems
from socratic.types import UserError

__all__ = ["cli", "say"]

TEXT = "Ann has 3 boxes of 4 pens and gives 5 away. How many pens are left?"


def script(transcript: str, kind: str) -> str:
    """Two steps; an answer depends on how the question begins."""
    asked = transcript.count("Q:")
    if kind == "question":
        return ("How many pens?", "How many are left?", "")[min(asked, 3) - 1]
    if kind == "final":
        return "7"
    return "<<3*4=12>>12 pens." if "pens?" in transcript.rpartition("Q:")[2] else "<<12-5=7>>7 are left."


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
    assert ("step", "   1   Q: (you) Are there pens? A: <<3*4=12>>12 pens.") in found
    assert ("step", "*  2   Q: How many pens? A: <<3*4=12>>12 pens.") in found
    assert ("error", "/go 7 is none of 0 to 2; /tree lists") in found


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
    assert ("step", "*  1 Q: How many pens? A: <<3*4=12>>12 pens.") in found
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
        ("/alt 3", "there is no list of alternatives for this step yet; /alt shows one"),
        ("/go ²", "/go ² is none of 0 to 0; /tree lists"),
        ("/go", "/go  is none of 0 to 0; /tree lists"),
        ("/edit 99", "/edit 99: there are 0 steps; give the number of one"),
        ("/save .", ". cannot be written"),
        ("/save " + "x" * 300, "x" * 300 + " cannot be written (File name too long); choose another place"),
        ("/save " + "x" * 300 + "/s.json", "the folder " + "x" * 300 + " does not exist; choose another place"),
        ("/load " + "x" * 300, "x" * 300 + " cannot be read (File name too long); check the path"),
        ("/save ~nobody-here/s.json", "~nobody-here/s.json begins with a user's name that is not known here"),
        ("/save /nosuch/dir/s.json", "the folder /nosuch/dir does not exist; choose another place"),
        ("/draw stories/test/x", "stories has no problem stories/test/x; socratic data show stories lists some"),
        ("caf\udce9", "the line is not UTF-8; convert it"),
    ],
)
def test_a_mistake_is_one_sentence_and_the_session_goes_on(tutor: Callable[..., Result], line: str, said: str) -> None:
    result = tutor(line, "", more=("--json",))
    assert any(event == "error" and text.startswith(said) for event, text in events(result))
    assert ("answer", "<<3*4=12>>12 pens.") in events(result)


def test_a_student_that_cannot_be_asked_is_not_asked_for_ever(cli: Cli, say: Callable[[Script], None]) -> None:
    asked: list[str] = []

    def gone(transcript: str, kind: str) -> str:
        asked.append(kind)
        raise UserError("no server answers")

    say(gone)
    result = cli("tutor", TEXT, *PAIR, "--json", stdin="/tree\n")
    assert ("error", "no server answers") in events(result)
    assert asked == ["question"]


def test_piped_lines_are_decoded_one_by_one(
    cli: Cli, say: Callable[[Script], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    say(script)
    lines = io.TextIOWrapper(io.BytesIO(b"caf\xe9\n\r\n/tree\ncaf\xc3"), encoding="utf-8")
    monkeypatch.setattr("test_cli.io.StringIO", lambda text: lines)
    found = events(cli("tutor", TEXT, *PAIR, "--json"))
    assert [text for event, text in found if event == "error"] == ["the line is not UTF-8; convert it"] * 2
    assert ("answer", "<<3*4=12>>12 pens.") in found
    assert any(event == "step" for event, _ in found)


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
    assert "no pair of students below runs/" in result.err
    assert cli("tutor", TEXT, "--qg", "x").code == 2


def test_a_problem_that_is_typed_is_begun_at_once(cli: Cli, say: Callable[[Script], None]) -> None:
    say(script)
    for end in ("\n\n", "\n", ""):
        result = cli("tutor", *PAIR, "--json", stdin=f"{TEXT}{end}")
        assert events(result)[1:] == [("problem", TEXT), ("question", "How many pens?")]
    assert events(cli("tutor", *PAIR, "--json", stdin="Ann has\n3 pens.\n\n\n"))[1] == ("problem", "Ann has\n3 pens.")
    assert cli("tutor", *PAIR, stdin="").code == 0
    assert cli("tutor", *PAIR, stdin="/undo\n/quit\n").code == 0


def test_auto_ends_as_the_loop_does(cli: Cli, say: Callable[[Script], None], tmp_path: Path) -> None:
    def again(transcript: str, kind: str) -> str:
        return {"question": "How many?", "answer": "3.", "final": "3"}[kind]

    for talk, more, steps, why in (
        (again, (), 1, "repeated_step"),
        (script, ("--set", "max_steps=1"), 1, "max_steps"),
        (script, ("--set", "max_tokens=3"), 0, "overlong"),
        (script, (), 2, "finished"),
    ):
        say(talk)
        file = tmp_path / f"{why}.json"
        cli("tutor", TEXT, *PAIR, *more, stdin=f"/auto\n/save {file}\n")
        solved = cli("solve", TEXT, *PAIR, *more, "--json").json
        solved.pop("rejected", None)  # the tutor keeps what stands in the tree
        kept = json.loads(file.read_text())["trace"]
        assert {**kept, "seconds": 0, "tokens": 0} == {**solved, "seconds": 0, "tokens": 0}
        assert (len(kept["steps"]), kept["stop_reason"]) == (steps, why)


def test_a_session_that_is_not_concluded_has_no_trace(tutor: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    tutor("", f"/save {file}")
    assert json.loads(file.read_text())["trace"] is None


def test_a_question_is_edited(tutor: Callable[..., Result]) -> None:
    found = events(tutor("", "/edit 1", "Are there pens?", "/tree", "/edit And pens?", more=("--json",)))
    assert ("step", "*  2   Q: (you) Are there pens? A: <<3*4=12>>12 pens.") in found
    assert ("step", "   1   Q: How many pens? A: <<3*4=12>>12 pens.") in found
    kept = events(tutor("", "/edit 1", "", "/tree", more=("--json",)))
    assert ("step", "*  1 Q: How many pens? A: <<3*4=12>>12 pens.") in kept  # an empty line changes nothing


def test_what_can_be_typed_besides(cli: Cli, say: Callable[[Script], None]) -> None:
    say(script)
    lines = ("/ask Are there pens?", "/reanswer", "/again", "/final", "/new", "Bob has 3 pens.", "", "/learn", "12")
    found = events(cli("tutor", TEXT, *PAIR, "--json", stdin="".join(f"{line}\n" for line in lines)))
    kinds = [event for event, _ in found]
    assert [text for event, text in found if event == "answer"][:2] == ["<<3*4=12>>12 pens."] * 2
    assert [text for event, text in found if event == "question"][1:3] == ["How many are left?"] * 2
    assert ("final", "7") in found
    assert [text for event, text in found if event == "problem"] == [TEXT, "Bob has 3 pens."]
    assert ("judgement", "right: QA says so too") in found
    assert "error" not in kinds


def test_what_holds_something_else_is_not_written_over(tutor: Callable[..., Result], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert ("error", f"{pipe} cannot be written (no ordinary file); choose another place") in events(
        tutor(f"/save {pipe}", more=("--json",))
    )
    assert pipe.is_fifo()
    notes = tmp_path / "notes.txt"
    notes.write_text("precious")
    found = events(tutor(f"/save {notes}", more=("--json",)))
    assert ("error", f"{notes} holds something else; choose another name") in found
    assert notes.read_text() == "precious"
    again = tutor(f"/save {tmp_path / 's.json'}", f"/save {tmp_path / 's.json'}", more=("--json",))
    assert not [event for event, _ in events(again) if event == "error"]
    other = tutor("/new", "Bob has 3 pens.", "", f"/save {tmp_path / 's.json'}", more=("--json",))
    assert ("error", f"{tmp_path / 's.json'} holds something else; choose another name") in events(other)


def test_students_that_write_nothing_usable_are_asked_once(cli: Cli, say: Callable[[Script], None]) -> None:
    say(lambda transcript, kind: " ")
    result = cli("tutor", TEXT, *PAIR, "--json", stdin="/tree\n/help\n/nosuch\n")
    assert [event for event, _ in events(result)].count("question") == 1


def test_cot_is_shown_with_its_answer(cli: Cli, say: Callable[[Script], None], tmp_path: Path) -> None:
    say(script)
    result = cli("tutor", *PAIR, "--cot", "scripted:cot", "--data", "stories", "--json", stdin="/cot\n/gold\n")
    found = events(result)
    assert any(event == "cot" and text.endswith("\n#### 7") for event, text in found)
    assert any(event == "score" and text.startswith("CoT: ") for event, text in found)
    gold = [(line["kind"], line["number"], line["text"]) for line in result.lines if line["event"] == "gold"]
    assert gold[-1][:2] == ("final", None)
    assert [(kind, number) for kind, number, _ in gold[:2]] == [("question", 1), ("answer", 1)]


def test_a_chain_of_thought_that_was_cut_says_so(cli: Cli, say: Callable[[Script], None]) -> None:
    say(lambda transcript, kind: "" if kind == "question" else "It is 2 and " * 2000)
    result = cli("tutor", *PAIR, "--cot", "scripted:cot", "--data", "stories", "--json", stdin="/cot\n")
    assert [line["stop_reason"] for line in result.lines if str(line.get("text")).startswith("CoT: stopped")] == [
        "overlong"
    ]


@pytest.mark.usefixtures("few_bundled")
def test_a_problem_is_drawn_by_its_id(cli: Cli, say: Callable[[Script], None], tmp_path: Path) -> None:
    say(script)
    wanted, other = load_problems("stories", "dev")[5], load_problems("stories", "longer")[5]
    result = cli("tutor", *PAIR, "--data", wanted.id, "--json", stdin=f"/draw {other.id}\n")
    assert [text for event, text in events(result) if event == "problem"] == [wanted.question, other.question]
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps({"question": "How many?", "answer": "3", "context": "There are 3 pens."}) + "\n")
    assert ("problem", "There are 3 pens.\nHow many?") in events(cli("tutor", *PAIR, "--data", own, "--json"))
    for wrong in ("stories/test/nosuch", "stories/nosuch/1", "nosuch"):
        assert cli("tutor", *PAIR, "--data", wrong).code == 2
    assert cli("tutor", TEXT, *PAIR, "--data", "stories").code == 2
    assert cli("tutor", TEXT, *PAIR, "--set", "temperature=1").code == 2


def write_card(folder: Path, role: Any, **fields: Any) -> None:
    base = Base(location="x", sha256=None)
    empty: dict[str, Any] = {"data": {}, "settings": {}, "metrics": {}, "versions": {}}
    card = Card(role=role, calculator=True, end_id=0, end_text="", base=base, adapter=False, parameters=1, **empty)
    write_json(folder / CARD, card.model_copy(update=fields).model_dump())


def test_a_guided_qg_is_refused_in_one_sentence(cli: Cli, tmp_path: Path) -> None:
    write_card(tmp_path, "qg", guidance="count")
    write_json(tmp_path / MANIFEST, {})
    result = cli("tutor", TEXT, "--qg", str(tmp_path), "--qa", str(tmp_path))
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "reads a plan (count), which the tutor has no way to give; take a QG without" in result.err


def test_the_newest_pair_that_stands_together_is_taken(tmp_path: Path) -> None:
    def student(name: str, role: Any, when: float, whole: bool = True) -> str:
        folder = tmp_path / name
        write_card(folder, role)
        os.utime(folder / CARD, (when, when))
        if whole:
            write_json(folder / MANIFEST, {})
        return str(folder)

    with pytest.raises(UserError, match="no pair of students below"):
        newest_students(tmp_path)
    lone = student("a/tied", "unified", 1)
    assert newest_students(tmp_path) == {"qg": lone, "qa": lone}
    older = {"qg": student("b/qg", "qg", 2), "qa": student("b/qa", "qa", 3)}
    assert newest_students(tmp_path) == older
    cot = student("c/cot", "cot", 4)
    student("c/qg", "qg", 5)
    student("d/qa", "qa", 6, whole=False)
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / CARD).write_text("[1]")
    (tmp_path / "e" / MANIFEST).write_text("{}")
    assert newest_students(tmp_path) == {**older, "cot": cot}
    newer = {"qg": student("f/qg", "qg", 7), "qa": student("f/qa", "qa", 8)}
    last = student("b/cot", "cot", 9)
    assert newest_students(tmp_path) == {**newer, "cot": last}
    student("f/cot", "cot", 6)
    assert newest_students(tmp_path) == {**newer, "cot": last}
