from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_cli import TWO, Cli, cli, say, write_jsonl

from socratic.lm.scripted import Script
from socratic.store import read_records
from socratic.tasks.base import in_fold
from socratic.types import Chain, Problem

__all__ = ["cli", "say"]


def story(number: int) -> dict[str, Any]:
    """A sum of pens with a gold step."""
    steps = [{"question": "How many pens?", "answer": f"<<{number}+2={number + 2}>>{number + 2}"}]
    return {"id": f"p{number}", "question": f"Ann has {number} and 2 pens. Sum?", "answer": number + 2, "steps": steps}


def solves(transcript: str, kind: str) -> str:
    """Adds in a way of its own, and gets the sum with 23 wrong."""
    number = int(transcript.split("Ann has ")[1].split()[0])
    if kind == "question":
        return "" if "\nA:" in transcript else "How many are there?"
    if kind == "answer":
        return f"First <<{number}+1={number + 1}>>{number + 1}, then <<{number + 1}+1={number + 2}>>{number + 2}."
    return "99" if number == 23 else str(number + 2)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_jsonl(Path("mine.jsonl"), *(story(number) for number in range(20, 40)))


def test_runs_over_a_fold_become_chains(cli: Cli, say: Callable[[Script], None], file: Path) -> None:
    say(solves)
    arms = ("--solver", "unified", "--lm", "x")
    fold = next(f"{k}/2" for k in (1, 2) if in_fold(str(story(23)["question"]), f"{k}/2"))
    done = cli("evaluate", file, "--split", "train", "--fold", fold, *arms, *TWO, "--out", "run", "--json")
    assert done.code == 0
    assert yaml.safe_load(Path("run/config.yaml").read_bytes())["fold"] == fold
    problems = [*read_records(Path("run/problems.jsonl"), Problem)]
    assert 0 < len(problems) < 20
    assert all(in_fold(problem.question, fold) for problem in problems)

    refused = cli("harvest", "run", "--out", "own.jsonl")
    assert refused.code == 2
    assert "--trained-on allow" in refused.err
    assert not Path("own.jsonl").exists()
    assert "run, run has a run twice" in cli("harvest", "run", "./run", "--out", "own.jsonl").err
    found = cli("harvest", "run", "--out", "own.jsonl", "--trained-on", "allow", "--json").json
    kept = len(problems) - 1
    assert (found["kept"], found["duplicate"], found["wrong_answer"], found["traces"]) == (kept, kept, 2, 2 * kept + 2)
    assert found["pass_at_1"]["trained_on"]["rate"] == pytest.approx(kept / len(problems))
    chains = [*read_records(Path("own.jsonl"), Chain)]
    assert {chain.source for chain in chains} == {"student:run"}
    assert {chain.problem_id for chain in chains} == {problem.id for problem in problems} - {"p23"}

    shown = cli("harvest", "run", "--out", "qg.jsonl", "--trained-on", "allow", "--for", "qg")
    assert f"{kept} problems keep one or more chains, in qg.jsonl" in shown.out
    assert "pass@1 on problems that one may have been trained on" in shown.out
    given = cli("harvest", "run", "--out", "given.jsonl", "--trained-on", "allow", "--history", "predicted", "--json")
    assert given.json["other_values"] == 2 * len(problems)  # gold has one step, which is always gold's
    assert Path("given.jsonl").read_text() == ""
    assert cli("harvest", "run", "--out", "x", "--for", "qg", "--history", "predicted").code == 2
    assert cli("harvest", "run", "--out", "x", "--by", "answer", "--history", "predicted").code == 2
    assert cli("harvest", "run", "--out", "run/traces.jsonl", "--trained-on", "allow").code == 2  # it is read
    assert len(Path("run/traces.jsonl").read_text().splitlines()) == 2 * len(problems)
    assert cli("evaluate", file, "--fold", "3/2", *arms, "--out", "other").code == 2


def test_chains_are_spoiled(cli: Cli, file: Path) -> None:
    done = cli("corrupt", file, "--share", "0.25", "--kinds", "wrong_step,verbose", "--out", "spoiled.jsonl", "--json")
    chains = [*read_records(Path("spoiled.jsonl"), Chain)]
    spoiled = [chain.metadata["corrupted"]["kind"] for chain in chains if "corrupted" in chain.metadata]
    assert len(chains) == done.json["chains"] == 20
    assert {kind: spoiled.count(kind) for kind in spoiled} == {k: n for k, n in done.json.items() if k != "chains"}
    shown = cli("corrupt", file, "--share", "0.25", "--kinds", "verbose", "--out", "wordy.jsonl")
    assert f"{len(spoiled)} of 20 chains spoiled, in wordy.jsonl" in shown.out


@pytest.mark.parametrize(
    "words",
    [
        ("corrupt", "mine.jsonl", "--share", "0.1", "--kinds", "evil", "--out", "x"),
        ("corrupt", "mine.jsonl", "--share", "1.5", "--out", "x"),
        ("corrupt", "mine.jsonl", "--share", "1", "--kinds", "missing", "--out", "x"),
        ("corrupt", "mine.jsonl", "--share", "0.1", "--out", "mine.jsonl"),
        ("harvest", "absent", "--out", "x"),
        ("harvest", "--out", "x"),
        ("average", "absent", "absent", "--out", "x"),
    ],
)
def test_mistakes_are_one_sentence(cli: Cli, file: Path, words: tuple[str, ...]) -> None:
    before = file.read_bytes()
    result = cli(*words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("socratic: ")
    assert file.read_bytes() == before
    assert not Path("x").exists()
