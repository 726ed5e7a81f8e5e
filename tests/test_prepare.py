from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_trainer import CHAINS, save_tiny

from socratic import prepare as module
from socratic.examples import build_examples
from socratic.prepare import TrainingRun, TrainSettings, prepare
from socratic.types import Role, UserError


def test_ids_are_made_once_and_again_where_anything_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_CACHED", 2)
    made = list[str]()

    def counting(*given: Any) -> Any:
        made.append(given[1])
        return build_examples(*given)

    monkeypatch.setattr(module, "build_examples", counting)
    student = save_tiny(tmp_path / "student", "llama")
    settings = TrainSettings.parse({})

    def examples(role: Role = "qa", count: int = 3) -> Any:
        return prepare(TrainingRun(role, student, CHAINS[:count], [], "here"), settings, print).examples

    first = examples()
    count = len(made)
    assert examples() == first
    assert len(made) == count + 1  # the dev chains, too few to be kept
    assert examples("cot") != first
    assert examples(count=2) == first[:2]
    assert len(made) == count + 5
    for kept in (tmp_path / "cache").rglob("*.npz"):
        kept.write_bytes(kept.read_bytes()[:50])
    assert examples() == first


def test_chains_of_weight_0_are_left_out(tmp_path: Path) -> None:
    chains = [replace(chain, metadata={"weight": weight}) for chain, weight in zip(CHAINS, (0, 0.5, 1), strict=True)]
    run = TrainingRun("qa", save_tiny(tmp_path / "student", "llama"), chains, [], "here")
    assert [(e.problem_id, e.weight) for e in prepare(run, TrainSettings.parse({}), print).examples] == [
        ("tiny/books", 0.5),
        ("tiny/pens", 1.0),
    ]
    nothing = replace(run, chains=chains[:1])
    with pytest.raises(
        UserError, match="no training example is left of 1 chains; all exceed 512 tokens or have weight"
    ):
        prepare(nothing, TrainSettings.parse({}), print)
