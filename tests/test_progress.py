"""Trainings side by side in processes of their own, and a bar over what is solved."""

from __future__ import annotations

import io
import multiprocessing
import multiprocessing.connection
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tiny import problems

from socratic.lm.checkpoint import is_checkpoint, read_card
from socratic.lm.scripted import ScriptedLM
from socratic.prepare import TrainingRun, TrainSettings
from socratic.progress import Training, solve_with_bar, train_with_bars
from socratic.solving import SolveSettings, Solving
from socratic.tasks import load_chains
from socratic.tokens import Codec
from socratic.types import Role, Trace, UserError


def training(role: Role, student: str, out: Path) -> Training:
    settings = TrainSettings.parse({"max_steps": 1, "batch_size": 2, "limit": 4, "dev_limit": 0, "compile": False})
    return Training(
        out.name, TrainingRun(role, student, load_chains("stories", "test", limit=4), [], "x"), settings, out
    )


def test_one_that_starts_from_another_waits_for_it(tmp_path: Path) -> None:
    text = io.StringIO()
    base, other = tmp_path / "base", tmp_path / "other"
    todo = [
        training("qg", str(base), tmp_path / "qg"),
        training("unified", "scratch:llama-micro", base),
        training("cot", "scratch:llama-micro", other),
    ]
    train_with_bars(todo, 2, Console(file=text, width=100))
    assert all(is_checkpoint(t.out) for t in todo)
    assert read_card(tmp_path / "qg").base.location == str(base)
    lines = [line for line in text.getvalue().splitlines() if line.endswith(": done")]
    assert sorted(lines) == ["base: done", "other: done", "qg: done"]
    assert lines.index("base: done") < lines.index("qg: done")


def test_a_mistake_in_one_ends_all_with_its_sentence(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letter.txt").touch()
    todo = [training("cot", "scratch:llama-micro", tmp_path / name) for name in ("foreign", "fine")]
    with pytest.raises(UserError, match=r"foreign holds letter\.txt but no training run"):
        train_with_bars(todo, 2, Console(file=io.StringIO()))
    assert multiprocessing.active_children() == []


def test_an_interruption_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(ends: Any) -> Any:
        assert len(multiprocessing.active_children()) == 2
        raise KeyboardInterrupt

    monkeypatch.setattr("multiprocessing.connection.wait", interrupted)
    todo = [training("cot", "scratch:llama-micro", tmp_path / name) for name in ("a", "b")]
    with pytest.raises(KeyboardInterrupt):
        train_with_bars(todo, 2, Console(file=io.StringIO()))
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_a_training_says_is_said_with_its_name(tmp_path: Path, jobs: int) -> None:
    said = io.StringIO()
    todo = [training("cot", "scratch:llama-micro", tmp_path / name) for name in ("a", "b")]
    train_with_bars(todo, 1, Console(file=io.StringIO()))
    train_with_bars(todo, jobs, Console(file=said, width=200))
    for name in ("a", "b"):
        assert f"{name}: {tmp_path / name} is already trained" in said.getvalue()


def test_one_that_is_killed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = multiprocessing.connection.wait

    def kill_first(ends: Any) -> Any:
        for child in multiprocessing.active_children():
            child.kill()
        return real(ends)

    monkeypatch.setattr("multiprocessing.connection.wait", kill_first)
    todo = [training("cot", "scratch:llama-micro", tmp_path / name) for name in ("a", "b")]
    with pytest.raises(UserError, match=r"the training of .* was killed \(signal 9\), .*the same command continues it"):
        train_with_bars(todo, 2, Console(file=io.StringIO()))


def test_a_bar_counts_what_is_solved_where_there_is_a_terminal(exact: Codec) -> None:
    solving = Solving(SolveSettings.parse({"solver": "answer"}), lm=ScriptedLM(exact, lambda transcript, kind: "7"))
    for is_terminal in (True, False):
        found: list[Trace] = []
        console = Console(file=io.StringIO(), force_terminal=is_terminal, width=80)
        solve_with_bar(problems(3), 2, solving, 1, found.append, console)
        assert [trace.sample for trace in found] == [0, 1] * 3
        assert isinstance(console.file, io.StringIO)
        assert ("100%" in console.file.getvalue()) is is_terminal


def test_without_a_console_no_bar_is_shown(exact: Codec, capsys: pytest.CaptureFixture[str]) -> None:
    solving = Solving(SolveSettings.parse({"solver": "answer"}), lm=ScriptedLM(exact, lambda transcript, kind: "7"))
    found: list[Trace] = []
    solve_with_bar(problems(2), 1, solving, 1, found.append, None)
    assert len(found) == 2
    assert capsys.readouterr() == ("", "")
