from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_trainer import CHAINS, save_tiny

from socratic.prepare import TrainingRun, TrainSettings, prepare
from socratic.types import UserError


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
