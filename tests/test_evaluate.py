from __future__ import annotations

import dataclasses
import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from socratic import answers
from socratic.evaluate import evaluate, load_run, measure, rescore, score_trace
from socratic.guidance import PLAN
from socratic.tasks import load_problems
from socratic.types import AnswerType, Problem, Score, Step, StopReason, Trace, UserError

SETTINGS: dict[str, Any] = {"solver": "cot", "lm": {"model": "scripted", "hash": "abc"}, "temperature": 0.0, "seed": 7}
PROBLEMS = [Problem(f"d/test/{i}", "d", "test", f"What is {i} + 1?", str(i + 1)) for i in range(6)]


def answer(problem: Problem, sample: int = 0, said: str | None = None, stop: StopReason = "finished") -> Trace:
    said = problem.answer if said is None else said
    raw = f"It is {said}\n#### {said}"
    return Trace(problem.id, sample, "cot", (Step("", said),), raw, said, stop, None, False, 10, 0.5, "1")


class Script:
    """Answers every problem right, keeps what it was asked, and can stop midway."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.asked: list[tuple[str, int]] = []
        self.stop_after = stop_after

    def __call__(self, pending: list[tuple[Problem, int]]) -> Iterator[Trace]:
        for n, (problem, sample) in enumerate(reversed(pending)):
            if n == self.stop_after:
                raise KeyboardInterrupt
            self.asked.append((problem.id, sample))
            yield answer(problem, sample)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def interrupted(out: Path, after: int = 2, samples: int = 1) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate(PROBLEMS, Script(after), out, SETTINGS, samples)


def test_a_run_leaves_the_whole_folder(tmp_path: Path) -> None:
    seen: list[tuple[str, bool]] = []
    out = tmp_path / "a" / "run"
    metrics = evaluate(PROBLEMS, Script(), out, SETTINGS, on_trace=lambda t, s: seen.append((t.problem_id, s.correct)))
    assert {p.name for p in out.iterdir()} - {".lock"} == {
        "config.yaml",
        "env.json",
        "problems.jsonl",
        "traces.jsonl",
        "scores.jsonl",
        "metrics.json",
    }
    assert seen == [(p.id, True) for p in reversed(PROBLEMS)]
    assert [s["problem_id"] for s in lines(out / "scores.jsonl")] == [p.id for p in PROBLEMS]
    assert metrics == json.loads((out / "metrics.json").read_text())
    assert metrics["correct"]["rate"] == metrics["strict"]["rate"] == 1.0
    assert yaml.safe_load((out / "config.yaml").read_text()) == {**SETTINGS, "samples": 1}
    env = json.loads((out / "env.json").read_text())
    assert env["seed"] == 7
    assert env["packages"]["torch"]
    assert env["processor"]
    run = load_run(out)
    assert run.problems == tuple(PROBLEMS)
    assert len(run.traces) == len(run.scores) == 6
    assert run.metrics == metrics


def test_a_kept_run_is_read_from_its_traces_and_the_data(tmp_path: Path) -> None:
    data, run, kept = tmp_path / "own.jsonl", tmp_path / "run", tmp_path / "kept"
    data.write_text("".join(f"{json.dumps({'question': p.question, 'answer': p.answer})}\n" for p in PROBLEMS))
    problems = load_problems(str(data), "test")
    where = {"data": str(data), "split": "test", "split_scheme": "authors"}
    evaluate(problems[:4], Script(), run, {**SETTINGS, **where}, samples=2)
    kept.mkdir()
    (kept / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    (kept / "traces.jsonl.gz").write_bytes(gzip.compress((run / "traces.jsonl").read_bytes()))
    whole, again = load_run(run), load_run(kept)
    assert dataclasses.replace(again, path=run, traces=whole.traces) == whole
    assert [(t.problem_id, t.sample) for t in again.traces] == [(s.problem_id, s.sample) for s in whole.scores]
    (kept / "traces.jsonl.gz").write_bytes(gzip.compress((run / "traces.jsonl").read_bytes())[:-20])
    with pytest.raises(UserError, match=r"traces.jsonl.gz is damaged"):
        load_run(kept)
    (kept / "traces.jsonl.gz").write_bytes(gzip.compress((run / "traces.jsonl").read_bytes().split(b"\n", 1)[1]))
    with pytest.raises(UserError, match="does not fit the problems"):
        load_run(kept)
    (kept / "traces.jsonl.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(UserError, match="has 0 of 2 traces; restore it"):
        load_run(kept)
    lines = (run / "traces.jsonl").read_bytes().splitlines(keepends=True)
    three = [line for line in lines if problems[3].id.encode() not in line]
    (kept / "traces.jsonl.gz").write_bytes(gzip.compress(b"".join(three)))
    assert len(load_run(kept).problems) == 3
    failed = {**json.loads(three[0]), "stop_reason": "model_error", "error": "it was not there"}
    (kept / "traces.jsonl.gz").write_bytes(gzip.compress(b"".join([json.dumps(failed).encode() + b"\n", *three])))
    assert len(load_run(kept).traces) == 6, "an endpoint was asked again"
    (kept / "traces.jsonl.gz").write_bytes(gzip.compress(b"".join([three[0], *three])))
    with pytest.raises(UserError, match="twice; remove one of the two lines"):
        load_run(kept)
    (kept / "traces.jsonl.gz").write_bytes(gzip.compress(b"".join(three)))
    (kept / "metrics.json").write_bytes((run / "metrics.json").read_bytes())
    with pytest.raises(UserError, match="has 6 of 8 traces; restore it"):
        load_run(kept)
    with pytest.raises(UserError, match="is kept without scores, and scored whenever it is read"):
        rescore(kept)
    before = (kept / "metrics.json").read_bytes()
    with pytest.raises(UserError, match="is a kept run, which is whole; give another --out"):
        evaluate(problems[:4], Script(), kept, {**SETTINGS, **where}, samples=2)
    assert (kept / "metrics.json").read_bytes() == before
    (kept / "config.yaml").write_text("samples: 1\n")
    with pytest.raises(UserError, match="does not name data"):
        load_run(kept)


def test_an_interrupted_run_continues_with_what_is_missing(tmp_path: Path) -> None:
    interrupted(tmp_path)
    assert load_run(tmp_path).metrics is None
    again = Script()
    metrics = evaluate(PROBLEMS, again, tmp_path, SETTINGS)
    assert again.asked == [(p.id, 0) for p in reversed(PROBLEMS[:4])]
    assert metrics["problems"] == 6
    done = Script()
    assert evaluate(PROBLEMS, done, tmp_path, SETTINGS) == metrics
    assert done.asked == []


def test_the_order_of_problems_does_not_matter(tmp_path: Path) -> None:
    interrupted(tmp_path)
    metrics = evaluate(PROBLEMS[::-1], Script(), tmp_path, SETTINGS)
    assert load_run(tmp_path).metrics == metrics


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_torn_last_line_is_solved_again(tmp_path: Path, cut: int) -> None:
    interrupted(tmp_path, after=3)
    path = tmp_path / "traces.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert len(load_run(tmp_path).traces) == 2
    again = Script()
    evaluate(PROBLEMS, again, tmp_path, SETTINGS)
    assert len(again.asked) == 4
    assert sorted(t["problem_id"] for t in lines(path)) == [p.id for p in PROBLEMS]


def test_a_kill_before_the_problems_are_written_does_no_harm(tmp_path: Path) -> None:
    interrupted(tmp_path, after=0)
    for name in ("problems.jsonl", "env.json", "traces.jsonl"):
        (tmp_path / name).unlink()
    assert evaluate(PROBLEMS, Script(), tmp_path, SETTINGS)["problems"] == 6
    assert len(load_run(tmp_path).problems) == 6


def test_another_plan_is_another_problem(tmp_path: Path) -> None:
    first, second = ([dataclasses.replace(p, metadata={PLAN: plan}) for p in PROBLEMS] for plan in "27")
    evaluate(first, Script(), tmp_path, SETTINGS)
    with pytest.raises(UserError, match="of which 6 differ"):
        evaluate(second, Script(), tmp_path, SETTINGS)


def test_a_complete_run_notes_that_it_is_scored_against_other_problems(tmp_path: Path) -> None:
    evaluate(PROBLEMS, Script(), tmp_path, SETTINGS)
    others = [dataclasses.replace(PROBLEMS[0], answer="77"), *PROBLEMS[1:]]
    evaluate(others, Script(), tmp_path, SETTINGS, resume="always")
    [noted] = json.loads((tmp_path / "env.json").read_text())["resumed"]
    assert "of which 1 differ" in noted["differences"][0]


def test_every_changed_setting_is_printed_and_refused(tmp_path: Path) -> None:
    interrupted(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    changed = {"solver": "cot", "lm": {"model": "scripted", "hash": "def"}, "temperature": 0.7, "top": True}
    with pytest.raises(UserError) as caught:
        evaluate(PROBLEMS, Script(), tmp_path, changed, samples=2)
    for part in (
        "lm.hash: 'abc', now 'def'",
        "temperature: 0.0, now 0.7",
        "seed: 7, now not set",
        "top: not set, now True",
        "samples: 1, now 2",
    ):
        assert part in str(caught.value)
    assert "solver" not in str(caught.value)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_changed_problems_are_counted_and_refused(tmp_path: Path) -> None:
    interrupted(tmp_path)
    other = dataclasses.replace(PROBLEMS[0], question="What is 5 - 4?")
    with pytest.raises(UserError, match=r"problems: 6, now 5, of which 2 differ \(d/test/0, d/test/5\)"):
        evaluate([other, *PROBLEMS[1:5]], Script(), tmp_path, SETTINGS)
    renamed = [dataclasses.replace(p, metadata={"row": 3}) for p in PROBLEMS]
    assert evaluate(renamed, Script(), tmp_path, SETTINGS)["problems"] == 6


def test_always_continues_in_spite_of_differences_and_notes_them(tmp_path: Path) -> None:
    evaluate(PROBLEMS[:3], Script(), tmp_path, SETTINGS)
    script = Script()
    metrics = evaluate(PROBLEMS, script, tmp_path, {**SETTINGS, "seed": 8}, resume="always")
    assert metrics["problems"] == 6
    assert len(script.asked) == 3
    env = json.loads((tmp_path / "env.json").read_text())
    assert env["resumed"][0]["differences"][0] == "seed: 7, now 8"
    assert "problems: 3, now 6" in env["resumed"][0]["differences"][1]
    assert load_run(tmp_path).config["seed"] == 8


def test_what_an_endpoint_failed_at_is_asked_for_again(tmp_path: Path) -> None:
    def failing(pending: list[tuple[Problem, int]]) -> Iterator[Trace]:
        for problem, sample in pending:
            yield answer(problem, sample, stop="model_error" if problem in PROBLEMS[2:4] else "finished")

    metrics = evaluate(PROBLEMS, failing, tmp_path, SETTINGS)
    assert metrics["stop_reasons"]["model_error"] == 2

    def gone(pending: list[tuple[Problem, int]]) -> Iterator[Trace]:
        raise UserError("no server answers")
        yield

    with pytest.raises(UserError, match="no server"):
        evaluate(PROBLEMS, gone, tmp_path, SETTINGS)
    assert load_run(tmp_path).metrics == metrics, "what stood still stands"
    assert evaluate(PROBLEMS, failing, tmp_path, SETTINGS) == metrics
    script = Script()
    metrics = evaluate(PROBLEMS, script, tmp_path, {**SETTINGS, "seed": 8}, resume="always")
    assert sorted(id for id, _ in script.asked) == [p.id for p in PROBLEMS[2:4]]
    assert (metrics["stop_reasons"]["model_error"], metrics["correct"]["rate"]) == (0, 1.0)
    assert load_run(tmp_path).config["seed"] == 8


def test_what_an_endpoint_will_never_take_is_not_asked_again(tmp_path: Path) -> None:
    def refused(pending: list[tuple[Problem, int]]) -> Iterator[Trace]:
        for problem, sample in pending:
            made = answer(problem, sample, stop="model_error")
            yield dataclasses.replace(made, error="BadRequestError: too long")

    metrics = evaluate(PROBLEMS, refused, tmp_path, SETTINGS)
    script = Script()
    assert evaluate(PROBLEMS, script, tmp_path, SETTINGS) == metrics
    assert script.asked == []


def test_a_complete_run_keeps_what_it_says_of_itself(tmp_path: Path) -> None:
    metrics = evaluate(PROBLEMS, Script(), tmp_path, SETTINGS, samples=2)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    for problems, samples in ((PROBLEMS[:3], 2), (PROBLEMS, 1)):
        with pytest.raises(UserError, match="which is not among the run's"):
            evaluate(problems, Script(), tmp_path, SETTINGS, samples, resume="always")
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert evaluate(PROBLEMS, Script(), tmp_path, {**SETTINGS, "seed": 8}, samples=2, resume="always") == metrics
    assert load_run(tmp_path).config["seed"] == SETTINGS["seed"], "all of it was made with that seed"


def test_a_larger_run_that_is_interrupted_is_not_taken_for_complete(tmp_path: Path) -> None:
    evaluate(PROBLEMS[:3], Script(), tmp_path, SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        evaluate(PROBLEMS, Script(1), tmp_path, SETTINGS, resume="always")
    assert load_run(tmp_path).metrics is None


def test_never_refuses_a_run_that_stands_there(tmp_path: Path) -> None:
    evaluate(PROBLEMS, Script(), tmp_path / "new", SETTINGS, resume="never")
    with pytest.raises(UserError, match="already holds a run"):
        evaluate(PROBLEMS, Script(), tmp_path / "new", SETTINGS, resume="never")


@pytest.mark.parametrize("name", ["problems.jsonl", "thesis.txt"])
def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}\n")
    with pytest.raises(UserError, match=r"no config\.yaml"):
        evaluate(PROBLEMS, Script(), tmp_path, SETTINGS)
    assert (tmp_path / name).read_text() == "{}\n"


@pytest.mark.parametrize("use", [load_run, rescore])
def test_a_path_without_a_run_is_named(tmp_path: Path, use: Callable[[Path], object]) -> None:
    with pytest.raises(UserError, match="absent holds no run"):
        use(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    (tmp_path / "config.yaml").write_text("[")
    with pytest.raises(UserError, match=r"config\.yaml is not the configuration"):
        use(tmp_path)


@pytest.mark.parametrize(
    ("trace", "said"),
    [
        (answer(PROBLEMS[5]), "'d/test/5' sample 0 twice"),
        (answer(dataclasses.replace(PROBLEMS[0], id="d/train/9")), "'d/train/9' sample 0, which is not among"),
        (answer(PROBLEMS[0], sample=1), "'d/test/0' sample 1, which is not among"),
    ],
)
def test_stored_traces_that_do_not_belong_are_refused_by_name(tmp_path: Path, trace: Trace, said: str) -> None:
    interrupted(tmp_path)
    with (tmp_path / "traces.jsonl").open("a") as file:
        file.write(json.dumps(trace.to_json()) + "\n")
    with pytest.raises(UserError, match=said):
        evaluate(PROBLEMS, Script(), tmp_path, SETTINGS)
    with pytest.raises(UserError, match=said):
        load_run(tmp_path)


def test_a_solver_must_answer_what_it_was_asked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not asked for"):
        evaluate(PROBLEMS[:1], lambda pending: iter([answer(PROBLEMS[1])]), tmp_path / "a", SETTINGS)
    with pytest.raises(ValueError, match="not asked for"):
        evaluate(PROBLEMS[:1], lambda pending: iter([answer(PROBLEMS[0])] * 2), tmp_path / "b", SETTINGS)
    with pytest.raises(ValueError, match="no trace for 1 samples"):
        evaluate(PROBLEMS[:1], lambda pending: iter([]), tmp_path / "c", SETTINGS)


@pytest.mark.parametrize(
    ("problems", "samples", "said"),
    [
        ([dataclasses.replace(PROBLEMS[0], answer="7:30")], 1, "7:30"),
        ([], 1, "no problems"),
        (PROBLEMS[:1] * 2, 1, "'d/test/0' stands 2 times"),
        (PROBLEMS, 0, "samples=0"),
    ],
)
def test_an_impossible_request_is_refused(tmp_path: Path, problems: list[Problem], samples: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        evaluate(problems, Script(), tmp_path / "run", SETTINGS, samples)
    assert not (tmp_path / "run").exists()


def test_rescoring_needs_no_model_and_gives_the_same(tmp_path: Path) -> None:
    metrics = evaluate(PROBLEMS, Script(), tmp_path, SETTINGS, samples=2)
    scores = (tmp_path / "scores.jsonl").read_bytes()
    (tmp_path / "scores.jsonl").write_text("spoilt")
    assert rescore(tmp_path) == metrics
    assert (tmp_path / "scores.jsonl").read_bytes() == scores


def test_rescoring_uses_the_present_scorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate(PROBLEMS, Script(), tmp_path, SETTINGS)

    def harsh(output: str, gold: str, answer_type: str, choices: object, *, truncated: bool) -> Score:
        return Score("", 0, False, False, None, gold, "unparsed")

    monkeypatch.setattr(answers, "score", harsh)
    monkeypatch.setattr(answers, "SCORER_VERSION", "harsh")
    metrics = rescore(tmp_path)
    assert (metrics["correct"]["count"], metrics["unparsed"], metrics["scorer_version"]) == (0, 6, "harsh")
    assert load_run(tmp_path).scores[0].reason == "unparsed"


def test_an_incomplete_run_is_not_scored(tmp_path: Path) -> None:
    interrupted(tmp_path)
    with pytest.raises(UserError, match="2 of 6 traces; complete it with the command that began it"):
        rescore(tmp_path)


def test_a_run_that_has_lost_traces_says_so(tmp_path: Path) -> None:
    evaluate(PROBLEMS, Script(), tmp_path, SETTINGS)
    lines = (tmp_path / "traces.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "traces.jsonl").write_text("".join(lines[:2]))
    with pytest.raises(UserError, match="2 of 6 traces; complete it with the command that began it"):
        load_run(tmp_path)


def test_scores_that_do_not_fit_are_noticed(tmp_path: Path) -> None:
    evaluate(PROBLEMS, Script(), tmp_path, SETTINGS)
    path = tmp_path / "scores.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(UserError, match="socratic score"):
        load_run(tmp_path)


def test_a_score_carries_problem_and_sample() -> None:
    score = score_trace(PROBLEMS[1], answer(PROBLEMS[1], sample=3))
    assert (score.problem_id, score.sample, score.correct, score.strict, score.gold) == ("d/test/1", 3, True, True, "2")


def test_only_a_context_that_ran_out_is_truncated(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def spy(output: str, gold: str, answer_type: str, choices: object, *, truncated: bool) -> Score:
        seen.append(truncated)
        return Score("", 0, False, False, None, gold, "unparsed")

    monkeypatch.setattr(answers, "score", spy)
    score_trace(PROBLEMS[0], answer(PROBLEMS[0], stop="overlong"))
    score_trace(PROBLEMS[0], answer(PROBLEMS[0], stop="max_steps"))
    assert seen == [True, False]


def test_metrics_of_one_sample() -> None:
    traces = [
        answer(PROBLEMS[0]),
        answer(PROBLEMS[1], said="9"),
        dataclasses.replace(answer(PROBLEMS[2], stop="max_steps"), raw="so it is 3"),
        dataclasses.replace(answer(PROBLEMS[3]), raw="", steps=(), answer=None, stop_reason="model_error", tokens=2),
    ]
    metrics = measure(traces, [score_trace(p, t) for p, t in zip(PROBLEMS, traces, strict=False)])
    assert (metrics["problems"], metrics["samples"], metrics["majority"]) == (4, 1, None)
    assert (metrics["correct"]["count"], metrics["correct"]["rate"]) == (2, 0.5)
    assert (metrics["strict"]["count"], metrics["strict"]["rate"]) == (1, 0.25)
    assert (metrics["correct"]["low"], metrics["correct"]["high"]) == pytest.approx((0.15004, 0.84996), abs=1e-5)
    assert metrics["unparsed"] == 1
    assert (metrics["reasons"]["right"], metrics["reasons"]["wrong"], metrics["reasons"]["empty"]) == (2, 1, 1)
    assert metrics["stop_reasons"]["finished"] == 2
    assert metrics["stop_reasons"]["max_steps"] == metrics["stop_reasons"]["model_error"] == 1
    assert sum(metrics["reasons"].values()) == sum(metrics["stop_reasons"].values()) == 4
    assert metrics["mean_steps"] == 0.75
    assert metrics["tokens_per_problem"] == 8.0
    assert metrics["seconds_per_problem"] == 0.5


def test_metrics_of_several_samples_are_over_problems() -> None:
    said = {0: ["1", "1", "8"], 1: ["9", "9", "2"], 2: ["7", "3", "3.0"]}
    traces = [answer(PROBLEMS[i], k, text) for i, texts in said.items() for k, text in enumerate(texts)]
    metrics = measure(traces, [score_trace(PROBLEMS[int(t.problem_id[-1])], t) for t in traces])
    assert (metrics["problems"], metrics["samples"]) == (3, 3)
    assert metrics["correct"]["count"] == 5
    assert metrics["correct"]["rate"] == pytest.approx(5 / 9)
    assert (metrics["majority"]["count"], metrics["majority"]["rate"]) == (2, pytest.approx(2 / 3))
    assert (metrics["majority"]["low"], metrics["majority"]["high"]) == pytest.approx((0.20766, 0.93851), abs=1e-5)
    assert metrics["tokens_per_problem"] == 30.0


KILLED = """
import os, sys, time
from pathlib import Path
from socratic.evaluate import evaluate
sys.path.insert(0, sys.argv[1])
from test_evaluate import PROBLEMS, SETTINGS, answer

def solve(pending):
    for n, (problem, sample) in enumerate(pending):
        if n == int(sys.argv[3]):
            print("ready", flush=True)
            time.sleep(60)
        yield answer(problem, sample)

evaluate(PROBLEMS, solve, Path(sys.argv[2]), SETTINGS, samples=2)
"""


def start(out: Path, stop_after: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(out), str(stop_after)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_killed_run_continues_without_missing_or_doubled_samples(tmp_path: Path) -> None:
    kill(start(tmp_path, 3))
    assert len(load_run(tmp_path).traces) == 3
    kill(start(tmp_path, 4))
    assert len(load_run(tmp_path).traces) == 7
    script = Script()
    evaluate(PROBLEMS, script, tmp_path, SETTINGS, samples=2)
    assert len(script.asked) == 5
    stored = [(t["problem_id"], t["sample"]) for t in lines(tmp_path / "traces.jsonl")]
    assert sorted(stored) == [(p.id, k) for p in PROBLEMS for k in range(2)]


def test_a_folder_in_use_is_refused_naming_the_process(tmp_path: Path) -> None:
    process = start(tmp_path, 1)
    try:
        script = Script()
        with pytest.raises(UserError, match=f"in use by process {process.pid}"):
            evaluate(PROBLEMS, script, tmp_path, SETTINGS, samples=2)
        with pytest.raises(UserError, match=f"in use by process {process.pid}"):
            rescore(tmp_path)
        assert script.asked == []
        assert len(load_run(tmp_path).traces) == 1
    finally:
        kill(process)


@pytest.mark.parametrize(
    ("raw", "answer", "gold", "kind"),
    [
        ("#### Step 1: think\nIce is cold.\n#### yes", "yes", "yes", "yesno"),
        ("#### 1. Count\nThere are 42.\n#### 42", "42", "42", "number"),
    ],
)
def test_the_final_slot_counts_whatever_markers_stand_before_it(
    raw: str, answer: str, gold: str, kind: AnswerType
) -> None:
    problem = Problem("p", "d", "test", "How many?", gold, kind)
    assert score_trace(problem, Trace("p", 0, "cot", (), raw, answer, "finished", None, True, 3, 0.1, "1")).strict
