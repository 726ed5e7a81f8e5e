from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_evaluate import SETTINGS

from socratic import store
from socratic.choosing import (
    JUDGEMENTS,
    SAMPLES,
    Sample,
    accuracy,
    accuracy_within,
    choose,
    judged,
    pooled,
    weight,
    within,
    write_chosen,
)
from socratic.evaluate import Run, evaluate, load_run, score_trace
from socratic.report.compare import compare
from socratic.types import Judgement, Problem, Step, Trace, UserError

PROBLEMS = [Problem(f"d/test/{i}", "d", "test", f"What is {i} + 1?", str(i + 1)) for i in range(3)]


def trace(problem: Problem, sample: int, said: str, tokens: int = 10) -> Trace:
    raw = f"It is {said}\n#### {said}"
    return Trace(problem.id, sample, "cot", (Step("", said),), raw, said, "finished", None, False, tokens, 0.5, "1")


def run_of(folder: Path, answers: Sequence[str], tokens: int = 10, **settings: Any) -> Run:
    """A run in which every problem's samples say ``answers``; ``=`` is the right one."""

    def solve(pending: list[tuple[Problem, int]]) -> Iterator[Trace]:
        for problem, sample in pending:
            yield trace(problem, sample, answers[sample].replace("=", problem.answer), tokens)

    evaluate(PROBLEMS, solve, folder, {**SETTINGS, **settings}, len(answers))
    return load_run(folder)


def samples(*said: tuple[str, float], tokens: int = 10) -> list[Sample]:
    made = []
    for sample, (answer, given) in enumerate(said):
        one = trace(PROBLEMS[0], sample, answer, tokens)
        made.append(Sample(one, score_trace(PROBLEMS[0], one), given, read=7))
    return made


def judgement(one: Trace, *right: float) -> Judgement:
    return Judgement(one.problem_id, one.sample, "v", right, 20)


def test_the_most_frequent_the_likeliest_and_the_weightiest() -> None:
    own = samples(("2", 0.1), ("2", 0.1), ("3", 0.9), ("4", 0.5), ("4", 0.45), ("nothing", 1.0))
    assert choose(own, "majority") is own[0]
    assert choose(own, "verifier") is own[2]
    assert choose(own, "weighted") is own[3], "0.95 of 4 against 0.9 of 3; of its traces the likeliest"
    unread = samples(("3", 0.0), ("2", 0.0), ("2", 0.0))
    assert [choose(unread, by) for by in ("majority", "verifier", "weighted")] == [unread[1], unread[0], unread[0]]
    blank = samples(("nothing", 0.9), ("none", 1.0))
    assert choose(blank, "weighted") is blank[0]


def test_what_verdicts_come_to() -> None:
    one = judgement(trace(PROBLEMS[0], 0, "1"), 0.5, 0.4, 0.9)
    assert [weight(one, over) for over in ("final", "minimum", "product")] == [0.9, 0.4, pytest.approx(0.18)]
    assert weight(replace(one, right=()), "product") == 0.0


def test_as_many_samples_as_fit_and_at_least_one() -> None:
    own = samples(*[("1", 0.0)] * 4)
    assert [len(within(own, tokens)) for tokens in (0, 9, 10, 29, 30, 40, 1000)] == [1, 1, 1, 2, 3, 4, 4]


def test_runs_are_pooled_sample_by_sample(tmp_path: Path) -> None:
    first, second = run_of(tmp_path / "a", ["=", "0"]), run_of(tmp_path / "b", ["7", "8", "9"])
    pool = pooled([first, second])
    assert [one.trace.answer for one in pool["d/test/1"]] == ["2", "7", "0", "8", "9"]


def test_runs_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a", ["=", "0"])
    with pytest.raises(UserError, match="a is not complete; continue it"):
        pooled([replace(run, metrics=None)])
    with pytest.raises(UserError, match=r"different problems \(1 differ, the first 'd/test/2'\)"):
        pooled([run, replace(run, problems=run.problems[:2])])
    with pytest.raises(UserError, match="scored by another scorer"):
        pooled([run, replace(run, metrics={**(run.metrics or {}), "scorer_version": "0"})])


def test_accuracy_over_disjoint_groups_and_its_cost(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a", ["=", "0", "=", "="], tokens=5)
    rows = accuracy(pooled([run]), [1, 2, 4], ["majority"])
    assert [row["majority"]["rate"] for row in rows] == [0.75, 1.0, 1.0], "of two that differ the earlier"
    assert [row["any"]["rate"] for row in rows] == [0.75, 1.0, 1.0]
    assert [row["tokens"] for row in rows] == [5, 10, 20]
    assert rows[0]["majority"]["low"] < 0.75 < rows[0]["majority"]["high"]
    assert run.metrics
    at_k = {str(row["k"]): row["majority"]["rate"] for row in rows}
    assert at_k == {k: rates["majority"] for k, rates in run.metrics["at_k"].items()}
    for k in (0, 5):
        with pytest.raises(UserError, match=f"k={k} is not between 1 and the 4 samples"):
            accuracy(pooled([run]), [k], ["majority"])
    budget = {problem.id: tokens for problem, tokens in zip(PROBLEMS, (4, 12, 99), strict=True)}
    row = accuracy_within(pooled([run]), budget, ["majority"])
    assert row["k"] == pytest.approx((1 + 2 + 4) / 3)
    assert row["tokens"] == pytest.approx((5 + 10 + 20) / 3)


def test_judgements_are_kept_and_asked_for_once(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a", ["=", "0"])
    asked: list[tuple[str, int]] = []

    def judge(solutions: list[tuple[Problem, Trace]]) -> Iterator[Judgement]:
        for problem, one in solutions:
            assert problem.id == one.problem_id
            if len(asked) == 4:
                raise KeyboardInterrupt
            asked.append((one.problem_id, one.sample))
            yield judgement(one, 0.5, 0.25)

    with pytest.raises(KeyboardInterrupt):
        judged(run, "v", judge)
    with (run.path / JUDGEMENTS).open("ab") as file:
        file.write(b'{"problem_id": "torn')
    again = asked.copy()
    asked.clear()
    found = judged(run, "v", judge)
    assert len(found) == 6
    assert not set(again) & set(asked)
    assert judged(run, "v", judge) == found
    assert judged(run, "other", lambda solutions: []) == {}, "another verifier has said nothing yet"
    pool = pooled([run], [found], "product")
    assert {one.weight for own in pool.values() for one in own} == {0.125}
    assert {one.read for own in pool.values() for one in own} == {20}


def test_what_an_endpoint_failed_at_is_judged_anew(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a", ["="])
    first, *others = run.traces
    failed = replace(first, stop_reason="model_error", error="it was not there", answer=None)

    def judge(solutions: list[tuple[Problem, Trace]]) -> Iterator[Judgement]:
        return (judgement(one, *([0.5] if one.answer else [])) for _, one in solutions)

    key = first.problem_id, first.sample
    assert judged(replace(run, traces=(failed, *others)), "v", judge)[key].right == ()
    assert judged(run, "v", judge)[key].right == (0.5,)


def test_a_chosen_run_is_compared_like_any_other(tmp_path: Path) -> None:
    model = {"name": "s", "sha256": "1", "dtype": "float32", "parameters": 5}
    first = run_of(tmp_path / "a", ["0", "=", "="], models={"lm": model})
    second = run_of(tmp_path / "b", ["0", "9", "8"], models={"lm": {**model, "sha256": "2"}})
    pool = pooled([first, second])
    chosen = {id: (choose(own, "majority"), own) for id, own in pool.items()}
    how = {"by": "majority", "k": 6, "verifier": {**model, "name": "v", "sha256": "3", "parameters": 2}}
    metrics = write_chosen([first, second], chosen, how, tmp_path / "out")
    assert metrics["correct"]["rate"] == 0.0, "two say 0 first, and ties go to the earliest"
    again = write_chosen([first, second], chosen, how, tmp_path / "out")
    assert again == metrics
    run = load_run(tmp_path / "out")
    assert {**run.config["chosen"], SAMPLES: ""} == {"by": "majority", "k": 6, SAMPLES: ""}
    assert list(run.config["models"]) == ["lm", "lm-2", "verifier"]
    assert (run.samples, metrics["tokens_per_problem"], metrics["seconds_per_problem"]) == (1, 60, 3.0)
    rows = compare([first, run]).rows
    assert [row.parameters for row in rows] == [5, 12]
    with pytest.raises(UserError, match=r"other settings .*; give another --out\Z"):
        write_chosen([first, second], chosen, {**how, "k": 3}, tmp_path / "out")
    third = run_of(tmp_path / "c", ["0", "9", "7"], models={"lm": {**model, "sha256": "2"}})
    others = {id: (own[0], own) for id, own in pooled([first, third]).items()}
    with pytest.raises(UserError, match=f"other settings .*{SAMPLES}"):
        write_chosen([first, third], others, how, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == metrics
    assert store.first_file(tmp_path / "out")
