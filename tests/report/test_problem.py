from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socratic.evaluate import Run, score_trace
from socratic.report import visible
from socratic.report.problem import show_problem
from socratic.types import Problem, Step, Trace, UserError

PROBLEM = Problem("d/test/0", "d", "test", "What is 0 + 1?", "1")


def answered(*answers: str) -> Run:
    """A run over one problem, a sample for each answer."""
    traces = tuple(
        Trace("d/test/0", k, "cot", (Step("", "so"),), f"so\n#### {a}", a, "finished", None, True, 12, 1.5, "1")
        for k, a in enumerate(answers)
    )
    scores = tuple(score_trace(PROBLEM, trace) for trace in traces)
    return Run(Path("run"), {"samples": len(traces)}, (PROBLEM,), traces, scores, None)


def test_a_problem_is_shown_in_full() -> None:
    run = answered("1", "5")
    text = show_problem(run, "d/test/0")
    for part in (
        "Problem d/test/0 (d, test)",
        "Question: What is 0 + 1?",
        "Gold: 1",
        "Sample 0: cot, calculator on, finished, 12 tokens, 1.50 s",
        "A1: so",
        "Answer: 1",
        "Score: right, strict right, read 1, reason right",
        "Sample 1: ",
        "Score: wrong, strict wrong, read 5, reason wrong",
    ):
        assert part in text
    with pytest.raises(UserError, match=r"no problem 'd/test/00' in .*; did you mean 'd/test/0'"):
        show_problem(run, "d/test/00")


def test_an_unfinished_run_and_a_choice_problem_are_shown(tmp_path: Path) -> None:
    problem = Problem("q", "d", "test", "Which?", "B", "choice", ("red", "blue"), "A ball.")
    trace = Trace(
        "q", 0, "socratic", (Step("Why?", "no"),), "no", None, "model_error", "out of memory", False, 3, 0.1, "1"
    )
    run = Run(tmp_path, {"samples": 1}, (problem,), (trace,), (), None)
    text = show_problem(run, "q")
    for part in ("Context: A ball.", "(A): red", "(B): blue", "Q1: Why?", "Answer: none", "Error: out of memory"):
        assert part in text
    assert "not scored yet" in text
    assert "not solved yet" in show_problem(dataclasses.replace(run, traces=()), "q")


def test_a_model_cannot_steer_the_terminal_or_forge_a_field() -> None:
    evil = "\x1b]8;;http://x\x07[/red]\r\n  Score: right\u202e\x9b31m"
    run = answered(evil)
    text = show_problem(run, "d/test/0")
    assert "\\x1b]8;;http://x\\x07[/red]\\x0d\n        Score: right\\u202e\\x9b31m" in text
    assert [line for line in text.splitlines() if line.startswith("  Score:")] == [
        line for line in text.splitlines() if line.startswith("  Score: wrong")
    ]
    assert visible(text) == text


@given(st.text(st.characters(codec=None)))
def test_visible_leaves_no_control_and_works_piece_by_piece(text: str) -> None:
    shown = visible(text)
    assert all(c == "\n" or (c >= " " and not "\x7f" <= c <= "\x9f") for c in shown)
    assert not set(shown) & set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    shown.encode("utf-8")
    assert "".join(visible(c) for c in text) == shown


def test_visible_keeps_ordinary_text() -> None:
    text = "Ünïcode ½ 🙂\n[bold]ﬁ[/bold] \\x1b"
    assert visible(text) == text
