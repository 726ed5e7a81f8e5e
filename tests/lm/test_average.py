from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import fit, saved
from test_trainer import save_tiny

from socratic.lm.average import average
from socratic.lm.checkpoint import read_card
from socratic.lm.load import load_lm, load_pretrained, load_student
from socratic.store import check_manifest
from socratic.types import UserError

BRIEF: dict[str, Any] = {"max_steps": 2, "learning_rate": 0.1}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def students(base: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two trainings of one base, without fold 1/4."""
    folder = tmp_path_factory.mktemp("students")
    for steps in (1, 2):
        fit(base, folder / f"s{steps}", fold="1/4", **{**BRIEF, "max_steps": steps})
    return [folder / "s1", folder / "s2"]


def test_the_weights_are_the_mean(students: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "mean"
    card = average(students, out)
    first, second, mean = (saved(folder) for folder in (*students, out))
    assert first.keys() == mean.keys()
    for name, weight in mean.items():
        torch.testing.assert_close(weight, (first[name] + second[name]) / 2)
    assert any(not torch.equal(first[name], second[name]) for name in mean)
    assert check_manifest(out) is None
    assert card == read_card(out)
    cards = [read_card(student) for student in students]
    assert card.lineage == cards[0].lineage | cards[1].lineage
    assert len(card.lineage) == 2
    assert (card.fold, card.data["chains"], card.settings["averaged"]) == ("1/4", cards[0].data["chains"], ["s1", "s2"])
    lm = load_lm(str(out), dtype="fp32")
    assert lm.training is not None
    assert lm.training["fold"] == "1/4"
    with pytest.raises(UserError, match="mean is not empty"):
        average(students, out)


def test_of_adapters_the_products_are_averaged(base: str, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for seed, folder in enumerate(folders):
        fit(base, folder, seed=seed, lora_rank=2, **BRIEF)
    card = average(folders, tmp_path / "mean")
    assert not card.adapter
    merged = [load_student(folder, torch.float32)[0].model.state_dict() for folder in folders]
    plain = load_pretrained(base, torch.float32).model.state_dict()
    mean = load_student(tmp_path / "mean", torch.float32)[0].model.state_dict()
    for name, weight in mean.items():
        torch.testing.assert_close(weight, (merged[0][name] + merged[1][name]) / 2)
    assert any(not torch.allclose(mean[name], plain[name], atol=1e-4) for name in mean)


def test_only_students_with_a_common_origin_are_averaged(base: str, students: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    other = save_tiny(tmp_path / "other", seed=1)
    fit(other, tmp_path / "elsewhere", **BRIEF)
    fit(base, tmp_path / "cot", "cot", **BRIEF)
    with pytest.raises(UserError, match=r"elsewhere has base .*other, .*s1 has .*average students of one base"):
        average([students[0], tmp_path / "elsewhere"], out)
    with pytest.raises(UserError, match=r"cot has role cot, .*s1 has unified"):
        average([students[0], tmp_path / "cot"], out)
    fit(base, tmp_path / "bare", "cot", format="fine-tune-cot", **BRIEF)
    with pytest.raises(UserError, match=r"bare has format fine-tune-cot, .*cot has transcript"):
        average([tmp_path / "cot", tmp_path / "bare"], out)
    with pytest.raises(UserError, match="give two students or more"):
        average(students[:1], out)
    with pytest.raises(UserError, match="is no trained student"):
        average([Path(base), students[0]], out)
    assert not out.exists()
