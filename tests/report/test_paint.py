from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from socratic.prompts import SlotKind
from socratic.report.paint import Slot, paint, paint_solution, paint_solved
from socratic.solving import Event
from socratic.types import Problem, Score, Step, StopReason, Trace

ANSWER = " It bakes 12*8=<<12 * 8=96>>96 rolls, and 96-70=<<96-70=25>>25 of them are left over."


def terminal(width: int = 40, **how: Any) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, highlight=False, markup=False, **how)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def plain(console: Console) -> str:
    return re.sub("\x1b\\[[0-9;]*m", "", shown(console))


def write(console: Console, text: str, size: int, kind: str = "answer", number: int = 2) -> None:
    slot = Slot(console, kind, number)
    for start in range(0, len(text), size):
        slot.write(text[start : start + size])
    slot.end()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_the_same_is_shown_however_a_text_comes_in(size: int) -> None:
    console = terminal(color_system="standard")
    write(console, ANSWER, size)
    assert plain(console).splitlines() == [
        "   A: It bakes 12*8=<<12 * 8=96>>96",
        "      rolls, and 96-70=<<96-70=25>>25 of",
        "      them are left over. ✗",
        "      96-70 is not 25",
    ]
    assert "\x1b[32m<<12\x1b[0m \x1b[32m*\x1b[0m \x1b[32m8=96>>\x1b[0m96" in shown(console)
    assert "\x1b[31m<<96-70=25>>\x1b[0m" in shown(console)


@pytest.mark.parametrize("how", [{"no_color": True}, {"color_system": None}])
def test_signs_say_the_same_without_colour(how: dict[str, Any]) -> None:
    console = terminal(**how)
    paint(console, "answer", "3 x 4 = 12")
    paint(console, "answer", "<<3*4=12>> and 5-2 = 4")
    paint(console, "answer", "Nothing is calculated.")
    assert plain(console) == (
        "A: 3 x 4 = 12 ✓\nA: <<3*4=12>> and 5-2 = 4 ✗\n   5-2 is not 4\nA: Nothing is calculated.\n"
    )
    assert not re.search("\x1b\\[[0-9;]*3[0-9]", shown(console))


def test_a_pipe_gets_each_piece_at_once_and_no_line_breaks_of_ours() -> None:
    console = Console(file=io.StringIO(), width=20, highlight=False, markup=False)
    slot = Slot(console, "answer")
    slot.write(f" {'word ' * 9}\nnext <<1+1=")
    assert shown(console) == f"A: {'word ' * 8}word\n   next"
    slot.write("2>>2 ")
    slot.write("\n")
    slot.end("[dropped: overlong]")
    assert shown(console).endswith("\n   next <<1+1=2>>2 ✓  [dropped: overlong]\n")


def test_what_is_empty_is_not_shown_unless_it_was_dropped() -> None:
    console = terminal()
    write(console, " \n ", 1)
    assert shown(console) == ""
    slot = Slot(console, "final")
    slot.end("[dropped: model_error]")
    assert plain(console) == "#### [dropped: model_error]\n"


@pytest.mark.parametrize("text", ["<<" * 3000, "x" * 3000, "<<1" + " " * 3000, "\x1b]0;a\x07[red]\u202e" * 300])
def test_hostile_texts_are_shown_while_they_come(text: str) -> None:
    console = terminal(color_system=None)
    write(console, text, 5)
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", shown(console))
    assert len(re.sub(r"\s", "", shown(console))) >= len(text.replace(" ", ""))


def test_a_solution_has_numbered_steps_and_an_end() -> None:
    trace = Trace("p", 0, "iterative", (), "", "26", "finished", None, True, 60, 0.25, "1")
    steps: list[tuple[SlotKind, str]] = [
        ("question", " How many?"),
        ("answer", " <<4*2=8>>8"),
        ("question", " And then?"),
        ("answer", " 26"),
    ]
    events = [event for kind, text in steps for event in (Event(kind, text), Event(kind, done=True))]
    end = [Event("question", "", done=True), Event("final", " 26", done=True), Event("trace", trace=trace)]
    console = terminal(60)
    paint_solution(console, Problem("p", "own", "test", "What is left?", ""), [*events, *end])
    assert plain(console) == (
        "Problem: What is left?\n\n"
        "1. Q: How many?\n   A: <<4*2=8>>8 ✓\n2. Q: And then?\n   A: 26\n#### 26\n\n(finished; 60 tokens, 0.2 s)\n"
    )


@pytest.mark.parametrize("reason", ["max_steps", "model_error"])
def test_why_it_stopped_is_said_in_words(reason: StopReason) -> None:
    trace = Trace("p", 0, "cot", (), "", None, reason, "it \x1bis down", True, 6, 1.0, "1")
    console = terminal(100, color_system=None)
    paint_solution(console, Problem("p", "own", "test", "x", ""), [Event("trace", trace=trace)])
    assert f"({reason}); 6 tokens, 1.0 s)\nit \\x1bis down\n" in shown(console)


def test_what_came_of_a_problem_in_a_run_is_painted_the_same_way() -> None:
    problem = Problem("q", "d", "test", "Which?", "B", "choice", ("red", "blue"), "A ball.")
    steps = (Step("Why?", "1+1 = <<1+1=3>>3"), Step("So?", ""))
    pair = Trace("q", 0, "iterative", steps, "", "A", "finished", None, True, 12, 1.5, "1")
    cot = Trace("q", 1, "cot", (Step("", "a\nb"),), "", None, "model_error", "out of\x1b memory", False, 3, 0.1, "1")
    cot = replace(cot, rejected=Step("And\n#### B", "and \x1bso on"))
    score = Score("q", 0, False, False, "A", "B", "wrong")
    console = terminal(80)
    paint_solved(console, problem, [(pair, score), (cot, None)])
    assert plain(console).splitlines() == [
        "q (d, test)",
        "Problem: A ball.",
        "         Which?",
        "         (A) red",
        "         (B) blue",
        "Gold: B",
        "",
        "Sample 0: iterative, calculator on",
        "1. Q: Why?",
        "   A: 1+1 = <<1+1=3>>3 ✗",
        "      1+1 is not 3",
        "2. Q: So?",
        "   A: (nothing)",
        "#### A",
        "",
        "(finished; 12 tokens, 1.5 s)",
        "wrong (read A, reason wrong)",
        "",
        "Sample 1: cot, calculator off",
        "A: a",
        "   b",
        "2. Q: And",
        "      #### B  [dropped]",
        "   A: and \\x1bso on  [dropped]",
        "#### (no answer)",
        "",
        "(stopped since a model failed (model_error); 3 tokens, 0.1 s)",
        "out of\\x1b memory",
        "not scored yet",
    ]
    paint_solved(console, problem, [(replace(pair, answer=None, rejected=Step("", "12")), None)])
    assert "#### 12  [dropped]\n#### (no answer)\n" in plain(console)
    paint_solved(console, problem, [])
    assert plain(console).endswith("not solved yet\n")


def test_a_model_cannot_steer_the_terminal_or_forge_a_line() -> None:
    problem = Problem("p", "d", "test", "x", "1")
    evil = "\x1b]8;;http://x\x07[/red]\r\n#### 1\u202e\x9b31m"
    trace = Trace("p", 0, "cot", (Step("", evil),), evil, evil, "finished", None, True, 12, 1.5, "1")
    console = terminal(100, color_system=None)
    paint_solved(console, problem, [(trace, Score("p", 0, False, False, "5", "1", "wrong"))])
    lines = shown(console).splitlines()
    assert "A: \\x1b]8;;http://x\\x07[/red]\\x0d" in lines
    assert "   #### 1\\u202e\\x9b31m" in lines
    assert [line for line in lines if line.startswith("####")] == ["#### \\x1b]8;;http://x\\x07[/red]\\x0d"]
