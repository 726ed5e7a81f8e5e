"""The demo, from training to the last line, with students that are hardly trained."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from socratic.demo import run_demo

SMALL: dict[str, Any] = {
    "jobs": 1,
    "training.max_steps": 2,
    "training.limit": 48,
    "training.dev_limit": 0,
    "limit": 3,
    "solving.max_tokens": 12,
    "solving.max_rationale_tokens": 24,
    "solving.max_steps": 2,
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, few_stories: Path) -> Iterator[tuple[str, dict[str, Any], Path]]:
    out = tmp_path_factory.mktemp("demo") / "demo"
    text = io.StringIO()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("socratic.tasks.stories.shipped", lambda name: few_stories)
        found = run_demo(out, SMALL, Console(file=text, width=80), Console(file=io.StringIO()))
        yield text.getvalue(), found, out


def test_the_comparison_is_headed_by_what_differs_most_from_training(shown: tuple[str, dict[str, Any], Path]) -> None:
    text, found, _ = shown
    assert list(found["comparisons"]) == [f"{split}, calculator on" for split in ("longer", "unseen", "test")]
    assert text.index("longer:") < text.index("unseen:") < text.index("test:")
    for row in ("cot", "socratic", "tied", "answer"):
        assert row in text
    for word in ("McNemar", "Holm", "parameters", "A failure, and whose: Q", "minutes", "socratic solve"):
        assert word in text
    assert max(map(len, text.split("longer:")[0].splitlines())) <= 80


def test_the_pair_has_as_many_parameters_as_the_others(shown: tuple[str, dict[str, Any], Path]) -> None:
    _, found, _ = shown
    rows = {row["solver"]: row["parameters"] for row in found["comparisons"]["test, calculator on"]["rows"]}
    assert rows["cot"] == rows["tied"] == rows["answer"]
    assert rows["iterative"] == pytest.approx(rows["cot"], rel=0.05)


def test_it_leaves_what_other_commands_can_use_and_is_not_done_twice(
    shown: tuple[str, dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from socratic import load_lm, load_problems, pipeline, solve, stages

    _, found, out = shown
    qg, qa = (load_lm(str(out / name)) for name in ("qg-s0", "qa-s0"))
    [trace] = solve(load_problems("stories", "test", limit=1), qg=qg, qa=qa, max_tokens=4, max_steps=1)
    assert trace.solver == "iterative"
    assert all(Path(folder).is_dir() for folder in found["folders"])

    def refuse(*_: Any) -> None:
        raise AssertionError("all of it is done")

    monkeypatch.setattr(pipeline, "train_with_bars", refuse)
    monkeypatch.setattr(stages, "evaluate_with_bar", refuse)
    again = run_demo(out, SMALL, None, Console(file=io.StringIO()))
    assert again["comparisons"] == found["comparisons"]
