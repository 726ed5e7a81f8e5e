from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_evaluate import SETTINGS
from test_trainer import CHAINS, chain, save_tiny

from socratic import fit, load_chains, store
from socratic.evaluate import Run, evaluate, load_run
from socratic.lm.checkpoint import read_card
from socratic.origin import Schooling, schooling
from socratic.prepare import TrainingRun, TrainSettings
from socratic.prompts import render_raw
from socratic.tasks.base import in_fold
from socratic.train import train
from socratic.types import Problem, Step, StopReason, Trace, UserError
from socratic.verdicts import Verdicts, VerdictSettings, make_verdicts

PROBLEMS = [replace(c.problem(), split="train") for c in CHAINS]
GOLD = {c.problem_id: c for c in CHAINS}


def trace(problem: Problem, sample: int, right: bool, stop: StopReason = "finished", solver: str = "cot") -> Trace:
    said = problem.answer if right else "1"
    steps = (Step("q", f"{problem.answer} it is"), Step("r", f"{sample}+0=<<{sample}+0={sample}>>{sample}"))
    raw = render_raw([text for step in steps for text in (step.question, step.answer)], said)
    return Trace(problem.id, sample, solver, steps, raw, said, stop, None, False, 9, 0.1, "1")


def run_of(folder: Path, right: Mapping[str, list[bool]], **more: Any) -> Run:
    """Samples of the first problems, each right or not."""
    asked = [problem for problem in PROBLEMS if problem.id in right]
    config = {**SETTINGS, "models": {"lm": {"name": "s", "sha256": "1" * 64}}}

    def solve(pending: list[tuple[Problem, int]]) -> Iterator[Trace]:
        for problem, sample in pending:
            yield trace(problem, sample, right[problem.id][sample], **more)

    evaluate(asked, solve, folder, config, len(next(iter(right.values()))))
    return load_run(folder)


def made(run: Run, gold: Any = (), school: Schooling | None = None, **settings: Any) -> Verdicts:
    return make_verdicts([run], VerdictSettings.parse(settings), [school or Schooling()], gold)


A, B, C = (problem.id for problem in PROBLEMS[:3])


def test_as_many_right_as_wrong_solutions_of_each_problem(tmp_path: Path) -> None:
    run = run_of(tmp_path, {A: [True, True, True, False], B: [False] * 4, C: [True, False, True, False]})
    found = made(run)
    kept = [(c.problem_id, c.final_answer == c.answer) for c in found.chains]
    assert Counter(kept) == {(A, True): 1, (A, False): 1, (C, True): 2, (C, False): 2}
    assert found.counts == {"right": 3, "wrong": 3, "unmatched": 6, "duplicate": 0}
    assert made(run).chains == found.chains
    assert made(replace(run, traces=run.traces[::-1])).chains == found.chains, "in whatever order they were solved"
    assert {c.sample for seed in range(9) for c in made(run, seed=seed).chains if c.problem_id == A} == {0, 1, 2, 3}
    assert len(made(run, per_problem=1).chains) == 4
    first = found.chains[0]
    assert first.source == f"student:{tmp_path.name}"
    assert first.metadata["models"] == {"lm": f"s {'1' * 16}"}


def test_they_are_of_one_loop_finished_and_no_two_the_same(tmp_path: Path) -> None:
    right, wrong = (run_of(tmp_path / name, {A: [name == "r"] * 2}, solver=name) for name in "rw")
    with pytest.raises(UserError, match=r"no right and wrong solutions of one problem .*4 unmatched\); sample more"):
        make_verdicts([right, wrong], VerdictSettings.parse({}), [Schooling()] * 2)
    cut = run_of(tmp_path / "cut", {A: [True, False]}, stop="max_steps")
    with pytest.raises(UserError, match="2 unfinished"):
        made(cut)
    twice = run_of(tmp_path / "a", {A: [True, False]}), run_of(tmp_path / "b", {A: [True, False]})
    found = make_verdicts(twice, VerdictSettings.parse({}), [Schooling()] * 2)
    assert (len(found.chains), found.counts["duplicate"]) == (2, 2)
    with pytest.raises(UserError, match="is not complete"):
        made(replace(cut, metrics=None))


def test_steps_are_judged_by_the_outcome_or_by_golds_values(tmp_path: Path) -> None:
    run = run_of(tmp_path, {A: [True, False]})
    assert [c.metadata["verdicts"] for c in made(run).chains] == [[True] * 3, [False] * 3]
    by_gold = made(run, [GOLD], labels="gold").chains
    assert [c.metadata["verdicts"] for c in by_gold] == [[True, False, True], [True, False, False]]
    with pytest.raises(UserError, match=f"{A} has no gold chain to judge its steps by"):
        made(run, [{}], labels="gold")


@pytest.mark.parametrize(("words", "learned"), [("right", [True, False]), ("all", [True] * 2), ("none", [False] * 2)])
def test_whose_words_are_learned(words: str, learned: list[bool], tmp_path: Path) -> None:
    chains = made(run_of(tmp_path, {A: [True, False]}), words=words).chains
    assert [c.metadata["learn_words"] for c in chains] == learned


def test_solutions_of_problems_that_were_learned_from_are_left_out(tmp_path: Path) -> None:
    run = run_of(tmp_path, {A: [True, False], B: [True, False]})
    school = Schooling()
    school.add(replace(GOLD[A], question=f" {GOLD[A].question} "))
    found = made(run, school=school)
    assert {c.problem_id for c in found.chains} == {B}
    assert found.counts["seen"] == 2
    assert len(made(run, school=school, keep_seen=True).chains) == 4
    school.add(GOLD[B])
    with pytest.raises(UserError, match="4 seen\\); give a run over other problems, or --keep-seen"):
        made(run, school=school)


def test_a_variant_of_what_was_learned_from_counts_as_learned_from() -> None:
    school = Schooling()
    school.add(replace(GOLD[A], problem_id="d/train/7/vary-0", question="varied", metadata={"made_from": "d/train/7"}))
    held = [school.holds(Problem(id, "d", "train", "Another?", "1")) for id in ("d/train/7", "d/train/7/prefix-2")]
    assert held == [True, True]
    assert not school.holds(Problem("d/train/70", "d", "train", "Another?", "1"))


def test_where_a_student_went_to_school(tmp_path: Path) -> None:
    """The data are loaded again by the card's name of them, and count where their hash is the same."""
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    for file, chains in ((first, CHAINS[:2]), (second, CHAINS[2:])):
        store.write_jsonl(file, (c.to_json() for c in chains))
    student = save_tiny(tmp_path / "tiny")

    def trained(file: Path, start: str, name: str) -> dict[str, Any]:
        chains = load_chains(str(file), "train")
        fit("cot", chains, start, tmp_path / name, on_note=lambda note: None, max_steps=1)
        card = store.read_json(tmp_path / name / "socratic.json")
        card["data"]["source"] = str(file)  # as the command line has it
        store.write_json(tmp_path / name / "socratic.json", card)
        store.write_manifest(tmp_path / name)
        files = store.read_json(tmp_path / name / "manifest.json")["files"]
        weights = {file: files[file]["sha256"] for file in files if file.endswith(".safetensors")}
        return {"name": name, "sha256": store.hash_json(weights)}

    base = trained(first, student, "base")
    model = trained(second, str(tmp_path / "base"), "student")
    run = replace(run_of(tmp_path / "runs" / "r", {A: [True]}), config={"models": {"lm": model, "qa": base}})
    found = schooling(run)
    assert found.unknown == []
    assert all(found.holds(problem) for problem in PROBLEMS), "those of the student that it started from, too"
    assert not found.holds(chain("x", "Another question?", "1", ("q", "s")).problem())
    store.write_jsonl(first, [CHAINS[0].to_json()])
    assert {reason.partition(":")[0] for reason in schooling(run).unknown} == {"student", "base"}
    assert schooling(run).holds(PROBLEMS[2])
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    unknown = schooling(run).unknown
    assert any("the student that it started from is not here" in reason for reason in unknown)
    assert any(reason.startswith("base: its folder is not in those above") for reason in unknown)
    assert read_card(tmp_path / "student").role == "cot"


def test_a_fold_and_several_sets_of_chains_are_looked_up_as_they_were_learned(tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    for file, chains in ((first, CHAINS[:2]), (second, CHAINS[2:])):
        store.write_jsonl(file, (c.to_json() for c in chains))
    fold = next(f"{k}/2" for k in (1, 2) if in_fold(CHAINS[0].question, f"{k}/2"))
    learned = [c for c in CHAINS if not in_fold(c.question, fold)]
    run = TrainingRun("cot", save_tiny(tmp_path / "tiny"), CHAINS, [], f"{first}, {second}")
    train(run, TrainSettings.parse({"max_steps": 1, "fold": fold}), tmp_path / "student", lambda note: None)
    files = store.read_json(tmp_path / "student" / "manifest.json")["files"]
    weights = {file: files[file]["sha256"] for file in files if file.endswith(".safetensors")}
    model = {"name": "student", "sha256": store.hash_json(weights)}
    found = schooling(replace(run_of(tmp_path / "r", {A: [True]}), config={"models": {"lm": model}}))
    assert found.unknown == []
    assert [found.holds(problem) for problem in PROBLEMS] == [c in learned for c in CHAINS]


def test_nothing_is_learned_from_test_problems(tmp_path: Path) -> None:
    run = run_of(tmp_path, {A: [True, False]})
    tested = replace(run, problems=tuple(replace(problem, split="test") for problem in run.problems))
    with pytest.raises(UserError, match=f"solves {A}, a problem of test, which nothing may be learned from"):
        made(tested, keep_seen=True)


def test_columns_by_which_a_file_was_read_are_kept(tmp_path: Path) -> None:
    file, columns = tmp_path / "own.jsonl", {"question": "text"}
    asked = ({"id": c.problem_id, "text": c.question, "answer": c.answer} for c in CHAINS)
    steps = ([{"question": step.question, "answer": step.answer} for step in c.steps] for c in CHAINS)
    rows = [{**row, "steps": made} for row, made in zip(asked, steps, strict=True)]
    store.write_jsonl(file, rows)
    chains, dev = (load_chains(file, split, columns=columns) for split in ("train", "dev"))
    run = TrainingRun("cot", save_tiny(tmp_path / "tiny"), chains, dev, str(file), columns=columns)
    train(run, TrainSettings.parse({"max_steps": 1}), tmp_path / "student", lambda note: None)
    files = store.read_json(tmp_path / "student" / "manifest.json")["files"]
    weights = {file: files[file]["sha256"] for file in files if file.endswith(".safetensors")}
    model = {"name": "student", "sha256": store.hash_json(weights)}
    found = schooling(replace(run_of(tmp_path / "r", {A: [True]}), config={"models": {"lm": model}}))
    assert (found.unknown, len(found.questions)) == ([], len(chains))
