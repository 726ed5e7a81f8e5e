from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_cli import OVERFIT, Cli, cli, write_jsonl
from test_evaluate import SETTINGS
from test_trainer import chain, save_tiny
from test_verdicts import trace

from socratic.evaluate import evaluate
from socratic.types import Problem, Trace

__all__ = ["cli"]

CHAINS = [chain(f"{n}", f"Ann has {n} pens and buys {n} more.", f"{2 * n}", ("How many?", "Some.")) for n in (3, 4, 5)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four samples of three problems: the first and the third are right."""
    folder = tmp_path_factory.mktemp("runs")
    data = write_jsonl(folder / "mine.jsonl", *(c.to_json() for c in CHAINS))

    def solve(pending: list[tuple[Problem, int]]) -> Iterator[Trace]:
        for problem, sample in pending:
            yield trace(problem, sample, sample % 2 == 0)

    config = {**SETTINGS, "data": str(data), "split": "train", "split_scheme": "authors"}
    evaluate([replace(c.problem(), split="train") for c in CHAINS], solve, folder / "run", config, 4)
    return folder / "run"


def test_from_a_run_to_a_verifier_and_its_choice(run: Path, cli: Cli, tmp_path: Path) -> None:
    chains, student = tmp_path / "verdicts.jsonl", save_tiny(tmp_path / "tiny")
    made = cli("verdicts", run, "--out", chains, "--labels", "gold", "--json")
    assert (made.code, made.err) == (0, "")
    assert made.json == {"chains": 12, "problems": 3, "duplicate": 0, "unmatched": 0, "right": 6, "wrong": 6}
    assert "right" in cli("verdicts", run, "--out", chains, "--words", "none").out

    longer = (*OVERFIT, "--set", "max_steps=300")  # by heart, in whatever number format
    trained = cli("train", "verifier", "--chains", chains, "--student", student, "--out", tmp_path / "v", *longer)
    assert trained.code == 0, trained.err
    assert "role **verifier**" in (tmp_path / "v" / "README.md").read_text()
    chosen = cli("select", run, "--verifier", tmp_path / "v", "--k", "1,4", "--out", tmp_path / "best", "--json")
    assert chosen.code == 0, chosen.err
    rows = {row["k"]: row for row in chosen.json["rows"]}
    assert rows[1]["any"]["rate"] == rows[1]["verifier"]["rate"] == 0.5
    assert rows[4]["verifier"]["rate"] == rows[4]["weighted"]["rate"] == rows[4]["any"]["rate"] == 1.0
    assert rows[4]["tokens"] == 36
    assert rows[4]["read"] > rows[4]["tokens"]
    assert json.loads((tmp_path / "best" / "metrics.json").read_text())["correct"]["rate"] == 1.0
    judgements = (run / "verdicts.jsonl").read_bytes()
    again = cli("select", run, "--verifier", tmp_path / "v", "--by", "verifier", "--over", "minimum")
    assert "weighted" in again.out
    assert (run / "verdicts.jsonl").read_bytes() == judgements


def test_as_many_samples_as_fit(run: Path, cli: Cli, tmp_path: Path) -> None:
    assert cli("select", run, "--tokens", 20, "--json").json["rows"][0]["k"] == 2
    cli("select", run, "--k", 3, "--out", tmp_path / "three")
    other = shutil.copytree(run, tmp_path / "other")
    matched = cli("select", run, other, run, "--match", tmp_path / "three", "--json").json
    assert (matched["samples"], matched["rows"][0]["k"], matched["tokens"]) == (8, 3, {"as": "three"})
    shown = cli("select", run).out
    assert "of 3 problems with k samples" in " ".join(shown.split())
    assert shown.count("[") == 1 + 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--by", "weighted"], "--by weighted goes by what a verifier says; name one with --verifier"),
        (["--k", "1", "--tokens", "9"], "give one of them"),
        (["--k", "1;2"], "--k '1;2' is not a list of whole numbers"),
        (["--dtype", "bf16"], "--dtype bf16 is of a verifier, and none is named; leave it out"),
        (["--over", "final"], "--over final is of a verifier"),
        (["--k", "5"], "k=5 is not between 1 and the 4 samples"),
        (["--match", "nowhere"], "nowhere holds no run"),
        (["--verifier", "STUDENT"], "tiny was not trained here and is no verifier"),
    ],
)
def test_mistakes(options: list[str], said: str, run: Path, cli: Cli, tmp_path: Path) -> None:
    student = save_tiny(tmp_path / "tiny") if "STUDENT" in options else ""
    result: Any = cli("select", run, *(student if word == "STUDENT" else word for word in options))
    assert (result.code, result.out) == (2, "")
    assert said in " ".join(result.err.split())


def test_what_cannot_be_told_is_said(run: Path, cli: Cli, tmp_path: Path) -> None:
    text = (run / "config.yaml").read_text()
    try:
        (run / "config.yaml").write_text(f"{text}models: {{lm: {{name: gone, sha256: '1'}}}}\n")
        made = cli("verdicts", run, "--out", tmp_path / "v.jsonl")
    finally:
        (run / "config.yaml").write_text(text)
    assert made.code == 0
    assert "cannot be told which problems a student was trained on: gone: its folder is not" in made.err
