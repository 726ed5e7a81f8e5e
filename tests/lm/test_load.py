from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import fit
from test_trainer import save_tiny
from tiny import byte_tokenizer, causal_model, metaspace_tokenizer, problems, solved, t5_model

from socratic.lm.causal import CausalLM
from socratic.lm.checkpoint import CARD, Base, Card, check_end, is_checkpoint, read_card, save_student
from socratic.lm.engine import EngineLM
from socratic.lm.load import load_lm, load_pretrained, load_student, load_tokenizer, torch_dtype
from socratic.lm.seq2seq import Seq2SeqLM
from socratic.store import write_manifest
from socratic.tokens import Codec
from socratic.types import UserError
from socratic.versions import package_versions

SHORT: dict[str, Any] = {"max_tokens": 16, "max_steps": 2}


def save(folder: Path, model: Any, tokenizer: Any, **card: Any) -> Path:
    """A student's folder, as training writes it."""
    codec = Codec(tokenizer)
    made = Card(
        **{
            "role": "unified",
            "calculator": codec.exact,
            "end_id": codec.end_id,
            "end_text": codec.end_text,
            "substitutions": codec.substitutions,
            "base": Base(location="scratch:x", sha256=None),
            "adapter": False,
            "parameters": model.num_parameters(),
            "data": {},
            "settings": {},
            "metrics": {},
            "versions": package_versions(),
            **card,
        }
    )
    save_student(folder, model, tokenizer, made)
    return folder


def one_sentence(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


@pytest.fixture(scope="module", params=["gpt2", "llama", "qwen2"])
def student(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CausalLM]:
    """A student's folder, and the model that was written there."""
    tokenizer = byte_tokenizer(request.param)
    folder = tmp_path_factory.mktemp("students") / request.param
    save(folder, causal_model(request.param, tokenizer), tokenizer, qg_sees="questions", calculator=False)
    return folder, CausalLM(causal_model(request.param, tokenizer), Codec(tokenizer), request.param)


def test_a_folder_comes_back_as_it_was_written(student: tuple[Path, CausalLM]) -> None:
    folder, before = student
    lm = load_lm(str(folder), device="cpu", dtype="fp32")
    assert isinstance(lm, EngineLM)
    assert (lm.name, lm.note) == (folder.name, None)
    assert (lm.qg_sees, lm.calculator_default, lm.dtype) == ("questions", False, "float32")
    assert lm.fingerprint is not None
    assert lm.fingerprint == load_lm(str(folder), device="cpu", dtype="fp32").fingerprint
    for attribute in ("end_id", "end_text", "bos", "special_ids", "exact"):
        assert getattr(lm.codec, attribute) == getattr(before.codec, attribute)
    asked = problems(4)
    told = [[t.raw for t in solved(asked, "unified", lm=model, calculator=False, **SHORT)] for model in (lm, before)]
    assert told[0] == told[1]


def test_bf16(student: tuple[Path, CausalLM]) -> None:
    lm = load_lm(str(student[0]), device="cpu", dtype="bf16")
    assert lm.dtype == "bfloat16"
    assert len(solved(problems(2), "unified", lm=lm, **SHORT)) == 2


def test_a_plain_folder_of_transformers(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer("llama")
    causal_model("llama", tokenizer).save_pretrained(str(tmp_path))
    tokenizer.save_pretrained(str(tmp_path))
    assert not is_checkpoint(tmp_path)
    lm = load_lm(str(tmp_path), device="cpu", dtype="fp32")
    assert (lm.qg_sees, lm.calculator_default, lm.has_calculator) == ("answers", True, True)


def test_an_encoder_decoder_with_substitutions(tmp_path: Path) -> None:
    tokenizer = metaspace_tokenizer()
    save(tmp_path, t5_model(tokenizer), tokenizer)
    lm = load_lm(str(tmp_path), device="cpu", dtype="fp32")
    assert isinstance(lm, Seq2SeqLM)
    assert not lm.has_calculator
    assert read_card(tmp_path).substitutions == lm.codec.substitutions
    assert solved(problems(1), "unified", lm=lm, **SHORT)[0].calculator is False


def test_another_end_token_than_was_learned_is_refused(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer("qwen2")
    for card in ({"end_id": 7}, {"end_text": "<|endoftext|>"}):
        save(tmp_path, causal_model("qwen2", tokenizer), tokenizer, **card)
        with pytest.raises(UserError, match=r"was trained to end at .*, but its tokenizer now ends at") as error:
            load_lm(str(tmp_path), device="cpu", dtype="fp32")
        assert "'<|im_end|>' (2)" in one_sentence(error)
    check_end(read_card(save(tmp_path, causal_model("qwen2", tokenizer), tokenizer)), tokenizer, tmp_path)


def test_a_torn_student_is_refused(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer("qwen2")
    for tear in ("cut", "flip", "lose", "unlist"):
        folder = save(tmp_path / tear, causal_model("qwen2", tokenizer), tokenizer)
        weights = folder / "model.safetensors"
        data = weights.read_bytes()
        if tear == "cut":
            weights.write_bytes(data[:-100])
        elif tear == "flip":
            weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        elif tear == "lose":
            (folder / "tokenizer.json").unlink()
        else:
            (folder / "manifest.json").unlink()
        with pytest.raises(UserError, match=r"is not a whole checkpoint .*; train it again, or resume its training"):
            load_lm(str(folder), device="cpu", dtype="fp32")


def test_another_transcript_version_is_refused(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer("qwen2")
    save(tmp_path, causal_model("qwen2", tokenizer), tokenizer, transcript="0")
    with pytest.raises(UserError, match="was trained on transcript version 0, not 1; train it again"):
        load_lm(str(tmp_path), device="cpu", dtype="fp32")


@pytest.mark.parametrize(("key", "value"), [("role", "teacher"), ("adapter", "maybe"), ("colour", 1), ("base", None)])
def test_an_unusable_card_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    tokenizer = byte_tokenizer("qwen2")
    save(tmp_path, causal_model("qwen2", tokenizer), tokenizer)
    card = json.loads((tmp_path / CARD).read_text("utf-8"))
    (tmp_path / CARD).write_text(json.dumps({**card, key: value}), "utf-8")
    write_manifest(tmp_path)
    with pytest.raises(UserError, match=key) as error:
        load_lm(str(tmp_path), device="cpu", dtype="fp32")
    assert CARD in one_sentence(error)


@pytest.mark.parametrize("dtype", ["fp16", "float32", ""])
def test_an_unknown_dtype_is_refused(student: tuple[Path, CausalLM], dtype: str) -> None:
    with pytest.raises(UserError, match=f"unknown dtype '{dtype}'; use auto, fp32 or bf16"):
        load_lm(str(student[0]), device="cpu", dtype=dtype)


def test_auto_is_a_known_dtype() -> None:

    assert torch_dtype("auto", "cpu") in (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("model", ["no/such-model", "/no/such/folder", "no such model!", "", "x/y/z"])
def test_an_unknown_model_is_refused(model: str) -> None:
    with pytest.raises(UserError, match=r"cannot be loaded|holds no usable") as error:
        load_lm(model, device="cpu", dtype="fp32")
    assert repr(model) in one_sentence(error)


class Canary:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickled_weights_are_refused_and_not_even_opened(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer("llama")
    folder, canary = tmp_path / "pickled", tmp_path / "canary"
    causal_model("llama", tokenizer).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(UserError, match="give a folder with safetensors") as error:
        load_lm(str(folder), device="cpu", dtype="fp32")
    one_sentence(error)
    assert not canary.exists()
    pickle.loads((folder / "pytorch_model.bin").read_bytes())
    assert canary.exists(), "the canary must sing, or this shows nothing"


def test_code_in_a_model_folder_is_not_run(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer("llama")
    folder, canary = tmp_path / "coded", tmp_path / "canary"
    causal_model("llama", tokenizer).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    (folder / "own.py").write_text(f"open({str(canary)!r}, 'w')", "utf-8")
    with pytest.raises(UserError) as error:
        load_lm(str(folder), device="cpu", dtype="fp32")
    one_sentence(error)
    assert not canary.exists()


def test_damaged_plain_folders_are_refused(tmp_path: Path) -> None:
    """Whatever is wrong with a folder that has no manifest is one sentence too."""
    tokenizer = byte_tokenizer("llama")
    damage: dict[str, tuple[str, bytes | None]] = {
        "cut weights": ("model.safetensors", b"\x10\x00\x00\x00"),
        "no weights": ("model.safetensors", None),
        "no config": ("config.json", None),
        "config of no model": ("config.json", b'{"model_type": "nothing"}'),
        "config that is not JSON": ("config.json", b"{"),
        "no tokenizer": ("tokenizer.json", None),
        "tokenizer that is not JSON": ("tokenizer.json", b"{"),
    }
    for name, (file, data) in damage.items():
        folder = tmp_path / name.replace(" ", "-")
        causal_model("llama", tokenizer).save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
        if file == "tokenizer.json":
            (folder / "tokenizer_config.json").unlink()
        if data is None:
            (folder / file).unlink()
        else:
            (folder / file).write_bytes(data)
        with pytest.raises(UserError) as error:
            load_lm(str(folder), device="cpu", dtype="fp32")
        assert str(folder) in one_sentence(error), name


@pytest.mark.parametrize("data", [None, b"", b"GGUF", b"not a model at all" * 100])
def test_what_is_no_gguf_is_refused(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "m.gguf"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError, match=r"there is no file|cannot be read as GGUF") as error:
        load_lm(str(path), device="cpu", dtype="fp32")
    assert str(path) in one_sentence(error)


def test_smollm2s_end_is_the_files_own(smollm2_tokenizer: Any) -> None:
    codec = Codec(smollm2_tokenizer)
    assert (codec.end_id, codec.end_text, codec.exact, codec.bos) == (2, "<|im_end|>", True, ())
    ids = codec.problem("Problem: say <|im_end|>")
    assert ids.count(2) == 1
    assert "<|im_end|>" in codec.decode(ids[:-1])


def test_smollm2_solves(smollm2_gguf: Path, tmp_path: Path) -> None:

    pretrained = load_pretrained(str(smollm2_gguf), torch.float32)
    assert pretrained.model.num_parameters() == 134_515_008
    assert pretrained.model.config.eos_token_id == 2
    assert pretrained.base.sha256
    with torch.no_grad():
        text = "The capital of France is"
        ids = pretrained.tokenizer(text, return_tensors="pt").input_ids
        likeliest = int(pretrained.model(input_ids=ids).logits[0, -1].argmax())
    assert pretrained.tokenizer.decode([likeliest]) == " Paris"


def test_a_tokenizer_alone(student: tuple[Path, CausalLM], tmp_path: Path) -> None:
    assert load_tokenizer(str(student[0])).eos_token_id == student[1].codec.end_id
    with pytest.raises(UserError, match="holds no usable tokenizer"):
        load_tokenizer(str(tmp_path))


def test_a_base_on_the_hub_is_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repo, first, second = tmp_path / "models--owner--name", "a" * 40, "b" * 40
    for seed, commit in enumerate((first, second)):
        save_tiny(repo / "snapshots" / commit, seed=seed)
    newest = repo / "refs" / "main"
    newest.parent.mkdir()
    newest.write_text(first)
    fit("owner/name", tmp_path / "adapter", lora_rank=2, max_steps=1)
    assert read_card(tmp_path / "adapter").base.sha256 == first
    before = load_student(tmp_path / "adapter", torch.float32)[0]
    newest.write_text(second)
    assert load_pretrained("owner/name", torch.float32).base.sha256 == second
    assert load_lm("owner/name").fingerprint == second
    after = load_student(tmp_path / "adapter", torch.float32)[0]
    assert after.base == before.base
    for name, weight in before.model.state_dict().items():
        assert torch.equal(after.model.state_dict()[name], weight), (
            "the adapter stands on the commit that it learned on"
        )
