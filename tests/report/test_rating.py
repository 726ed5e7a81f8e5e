from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_compare import PROBLEMS, make_run, right
from test_steps import GOLD, PROBLEM, judged, trace

from socratic.evaluate import Run, evaluate, load_run
from socratic.report.rating import Item, agreement, agreement_table, items, rate, read_ratings
from socratic.types import Step, Trace, UserError


def make_asking(folder: Path, question: str) -> Run:
    """A run over eight problems in which one sub-question is asked."""
    steps = (Step(question, "so"),)
    made = (Trace(p.id, 0, "iterative", steps, "1", "1", "finished", None, True, 1, 1.0, "1") for p in PROBLEMS)
    evaluate(PROBLEMS, lambda pending: made, folder, {"solver": "socratic"})
    return load_run(folder)


@pytest.fixture
def runs(tmp_path: Path) -> list[tuple[str, Run]]:
    other = trace(Step("What is left?", GOLD[1].answer))
    return [("a", judged(tmp_path / "a", trace(*GOLD))), ("b", judged(tmp_path / "b", other))]


def test_items_hide_nothing_but_the_system_and_are_the_same_for_every_rater(runs: list[tuple[str, Run]]) -> None:
    found = items(runs, 10, seed=0)
    assert found == items(runs, 10, seed=0)
    assert {item.run for item in found} == {"a", "b"}
    assert all(item.problem == f"Problem: {PROBLEM.question}" for item in found)
    assert {item.questions for item in found} == {tuple(s.question for s in GOLD), ("What is left?",)}


def test_ratings_are_kept_one_by_one_and_go_on_where_they_stopped(runs: list[tuple[str, Run]], tmp_path: Path) -> None:
    out, explained = tmp_path / "ratings.jsonl", list[bool]()
    lines = iter(["nonsense", "2 2 3 2", "2210", "q"])

    def ask(item: Item, left: int) -> str:
        return next(lines)

    def explain() -> None:
        explained.append(True)

    assert rate(items(runs, 10, 0), "eve", out, ask, explain) == 1
    assert len(explained) == 3  # before the first, and where a line was no rating
    lines = iter(["2 2 2 2"])
    assert rate(items(runs, 10, 0), "eve", out, ask, explain) == 1
    assert rate(items(runs, 10, 0), "eve", out, ask, explain) == 0
    assert len(explained) == 4
    first, second = read_ratings([out])
    assert (first.necessary, first.answerable, first.ordered, first.complete) == (2, 2, 1, 0)
    assert first.run != second.run


def test_agreement_over_raters(runs: list[tuple[str, Run]], tmp_path: Path) -> None:
    files = []
    for rater, by_run in {"eve": {"a": "2222", "b": "0001"}, "bob": {"a": "2221", "b": "0002"}}.items():
        files.append(tmp_path / f"{rater}.jsonl")
        said = dict(by_run)
        rate(items(runs, 10, 0), rater, files[-1], lambda item, left: said[item.run], print)  # noqa: B023
    found = agreement(read_ratings(files))
    assert found["raters"] == ["bob", "eve"]
    assert found["runs"]["a"] == {"ratings": 2, "necessary": 2, "answerable": 2, "ordered": 2, "complete": 1.5}
    assert found["alpha"]["necessary"] == 1.0
    assert found["alpha"]["complete"] < 0.5
    assert agreement_table(found).row_count == 3


def test_what_cannot_be_rated_is_said(runs: list[tuple[str, Run]], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="asks no sub-questions"):
        items([("cot", make_run(tmp_path / "cot", right(0)))], 10, 0)
    with pytest.raises(UserError, match="no ratings yet"):
        agreement([])
    with pytest.raises(UserError, match="a stands twice"):
        items([runs[0], runs[0]], 10, 0)
    good = {"problem_id": PROBLEM.id, "run": "a", "questions": [], "rater": "eve", "necessary": 2, "answerable": 2}
    for bad in ({"problem_id": 1}, {**good, "ordered": 7, "complete": 1}):
        (tmp_path / "bad.jsonl").write_text(json.dumps(bad) + "\n")
        with pytest.raises(UserError, match=r"bad.jsonl:1"):
            read_ratings([tmp_path / "bad.jsonl"])


def test_the_system_that_is_shown_first_changes(tmp_path: Path) -> None:
    found = [(name, make_asking(tmp_path / name, name)) for name in ("a", "b")]
    order = [item.run for item in items(found, None, seed=0)][::2]
    assert len(order) == 8
    assert set(order) == {"a", "b"}


def test_the_same_rating_file_given_twice_counts_once(runs: list[tuple[str, Run]], tmp_path: Path) -> None:
    rate(items(runs, 10, 0), "eve", tmp_path / "eve.jsonl", lambda item, left: "2222", print)
    found = agreement(read_ratings([tmp_path / "eve.jsonl"] * 2))
    assert found["runs"]["a"]["ratings"] == 1
