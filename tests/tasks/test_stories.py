"""The bundled problems: what the generator writes, right in every step, and apart from the tests in wording."""

from __future__ import annotations

import importlib.util
import re
import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import pytest

from socratic.answers import sub_answer_value
from socratic.calculator import calculate, marks
from socratic.store import shipped
from socratic.tasks import load_chains, load_problems
from socratic.types import Chain

SPLITS = ("train", "dev", "test", "longer", "unseen")
FOLDER = shipped("data") / "stories"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def chains() -> dict[str, list[Chain]]:
    return {split: load_chains("stories", split) for split in SPLITS}


def test_the_generator_writes_the_committed_files(
    generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "__file__", str(tmp_path / "generate.py"))
    generator.main()
    for path in sorted(tmp_path.glob("*.jsonl")):
        assert path.read_bytes() == (FOLDER / path.name).read_bytes(), path.name
    assert len(list(tmp_path.glob("*.jsonl"))) == 4


def test_sizes_lengths_and_families(chains: dict[str, list[Chain]]) -> None:
    assert {split: len(rows) for split, rows in chains.items()} | {"train": 0, "dev": 0} == {
        "train": 0, "dev": 0, "test": 300, "longer": 300, "unseen": 300
    }  # fmt: skip
    assert len(chains["train"]) > 5_000
    for split, lengths in {"train": {2, 3, 4}, "test": {2, 3, 4}, "longer": {5, 6}, "unseen": {2, 3, 4}}.items():
        assert {len(chain.steps) for chain in chains[split]} == lengths
    families = {
        split: {p.metadata["family"] for p in load_problems("stories", split)} for split in ("train", "test", "unseen")
    }
    assert families["train"] == families["test"] | {"invented"}
    assert len(families["test"]) >= 12
    assert not families["train"] & families["unseen"]


@pytest.mark.parametrize("split", SPLITS)
def test_every_step_is_right_and_leads_to_the_answer(chains: dict[str, list[Chain]], split: str) -> None:
    for chain in chains[split]:
        known = set(re.findall(r"\d+", chain.question)) | {"2", "3", "4", "5"}  # "half", "a third", …
        for step in chain.steps:
            [mark] = marks(step.answer)
            assert calculate(mark.expr) == Fraction(mark.result) > 0
            assert set(re.findall(r"\d+", mark.expr)) <= known
            known.add(mark.result)
            assert not re.search(r"\d", step.question)
        assert sub_answer_value(chain.steps[-1].answer) == chain.answer
        assert "{" not in chain.question


def test_no_sentence_of_a_test_stands_in_train(generator: ModuleType, chains: dict[str, list[Chain]]) -> None:
    masks: dict[str, str] = dict.fromkeys(generator.NAMES.split(), "Name")
    for family in (*generator.SEEN, *generator.UNSEEN):
        masks |= dict.fromkeys((*family.unit, *family.box, *family.kinds, *family.lose, *family.gain), "word")
        masks |= {family.starts: "verb", family.cost: "word"}
    pattern = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in sorted(masks, key=len, reverse=True)))

    def sentences(split: str) -> set[str]:
        texts = (re.sub(r"\d+", "0", pattern.sub(lambda m: masks[m[0]], chain.question)) for chain in chains[split])
        return {sentence for text in texts for sentence in re.split(r"(?<=[.?]) ", text)}

    trained = sentences("train")
    assert len(trained) > 100
    for split in ("test", "longer", "unseen"):
        assert not sentences(split) & trained
