from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socratic.evaluate import Run, score_trace
from socratic.report import visible
from socratic.report.problem import find_problem
from socratic.types import Problem, Step, Trace, UserError

PROBLEM = Problem("d/test/0", "d", "test", "What is 0 + 1?", "1")


def test_a_problem_is_found_with_its_samples_in_order() -> None:
    traces = tuple(
        Trace("d/test/0", k, "cot", (Step("", "so"),), f"so\n#### {k}", f"{k}", "finished", None, True, 12, 1.5, "1")
        for k in (2, 0, 1)
    )
    scores = tuple(score_trace(PROBLEM, trace) for trace in traces[:2])
    run = Run(Path("run"), {"samples": 3}, (PROBLEM,), traces, scores, None)
    problem, found = find_problem(run, "d/test/0")
    assert problem == PROBLEM
    assert [(trace.sample, score and score.sample) for trace, score in found] == [(0, 0), (1, None), (2, 2)]
    with pytest.raises(UserError, match=r"no problem 'd/test/00' in run; did you mean 'd/test/0'"):
        find_problem(run, "d/test/00")


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
