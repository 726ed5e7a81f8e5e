"""GGUF export: our loader, transformers' and llama.cpp read the student that was written."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import pytest
import transformers
from test_load import save
from tiny import byte_tokenizer, causal_model, metaspace_tokenizer, t5_model

from socratic.lm.export import export_gguf
from socratic.lm.load import load_lm, load_pretrained
from socratic.lm.scratch import build, train_tokenizer
from socratic.prompts import render_chain, render_problem
from socratic.tasks import load_chains
from socratic.tokens import Codec
from socratic.types import UserError


def splitting(tokenizer: Any, steps: list[Any]) -> Any:
    """The tokenizer with another way to split a text before its merges."""
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return tokenizer


def known_tokenizer(family: str) -> Any:
    """A byte-level tokenizer that splits as a family of llama.cpp's does."""
    from tokenizers import Regex, pre_tokenizers

    from socratic.lm.export import _LLAMA3_SPLIT

    level, plain = (pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex) for regex in (True, False))
    digits: Any = pre_tokenizers.Digits(individual_digits=True)
    pattern = _LLAMA3_SPLIT if family == "llama" else _LLAMA3_SPLIT.replace("{1,3}", "")
    split: Any = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    steps = {"gpt2": [level], "smollm": [digits, level], "llama": [split, plain], "qwen2": [split, plain]}[family]
    return splitting(byte_tokenizer({"smollm": "qwen2"}.get(family, family)), steps)


def scratch_student(folder: Path, name: str = "llama-micro", **card: Any) -> Path:
    """A student as ``scratch:NAME`` begins, with a tokenizer of its own."""
    import torch

    torch.manual_seed(0)
    tokenizer = train_tokenizer([render_problem(c.problem()) for c in load_chains("stories", "dev")], 400)
    return save(folder, sharpened(build(name, tokenizer), tokenizer), tokenizer, **card)


def sharpened(model: Any, tokenizer: Any) -> Any:
    """Random weights large enough that the likeliest tokens are far apart, END among them."""
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data *= 8
    model.get_output_embeddings().weight.data[tokenizer.eos_token_id] *= 2
    return model.eval()


ROPE = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def family_student(folder: Path, family: str, **config: Any) -> Path:
    tokenizer = known_tokenizer({"llama3": "llama", "qwen3": "qwen2"}.get(family, family))
    kind = {"smollm": "llama", "llama3": "llama", "qwen3": "qwen2"}.get(family, family)
    model = causal_model(kind, tokenizer)
    if family == "llama3":
        config = {"rope_parameters": ROPE}
    if family == "qwen3":  # whose heads have a size and norms of their own
        sizes = {**model.config.to_dict(), "head_dim": 16, "layer_types": None, "max_window_layers": 0}
        hf: Any = transformers
        model = hf.Qwen3ForCausalLM(hf.Qwen3Config(**{**sizes, "model_type": "qwen3"})).eval()
    if config:
        model = type(model)(type(model.config)(**{**model.config.to_dict(), **config})).eval()
    return save(folder, model, tokenizer)


def logits(model: Any, count: int = 40) -> Any:
    import torch

    with torch.no_grad():
        return model(input_ids=torch.arange(count)[None] % model.config.vocab_size).logits


@pytest.mark.parametrize("student", ["llama-micro", "gpt2-tiny", "gpt2", "llama", "llama3", "smollm", "qwen2", "qwen3"])
def test_our_loader_reads_back_what_was_written(student: str, tmp_path: Path) -> None:
    import torch

    if "-" in student:
        folder = scratch_student(tmp_path / student, student, role="qg", qg_sees="questions", calculator=False)
    else:
        folder = family_student(tmp_path / student, student)
    path = tmp_path / "out" / "student.gguf"
    export_gguf(folder, path, "f32")
    before, after = (load_pretrained(str(place), torch.float32) for place in (folder, path))
    assert torch.equal(logits(before.model), logits(after.model))
    first, second = Codec(before.tokenizer), Codec(after.tokenizer)
    for name in ("end_id", "end_text", "bos", "special_ids", "exact"):
        assert getattr(first, name) == getattr(second, name), name
    text = "Problem: Zoë  sells 1234 clips\n\n at 3.50 <|im_end|> </s>."
    assert first.problem(text) == second.problem(text)
    lms = [load_lm(str(place), device="cpu", dtype="fp32") for place in (folder, path)]
    assert len({(lm.role, lm.qg_sees, lm.calculator_default) for lm in lms}) == 1


def test_what_stands_in_the_file(tmp_path: Path) -> None:
    folder = scratch_student(tmp_path / "s")
    for dtype, kind in (("f32", 0), ("f16", 1), ("bf16", 30)):
        export_gguf(folder, tmp_path / "s.gguf", dtype)
        reader = gguf.GGUFReader(str(tmp_path / "s.gguf"))
        types = {tensor.name: int(tensor.tensor_type) for tensor in reader.tensors}
        assert {types.pop(name) for name in list(types) if "norm" in name} == {0}
        assert set(types.values()) == {kind}
    said = {key: field.contents() for key, field in reader.fields.items()}
    assert (said["general.architecture"], said["llama.attention.head_count_kv"]) == ("llama", 1)
    assert (said["tokenizer.ggml.model"], said["tokenizer.ggml.eos_token_id"]) == ("llama", 1)
    assert said["tokenizer.ggml.add_bos_token"] is False
    assert json.loads(said["socratic.card"])["role"] == "unified"
    tokens, kinds = said["tokenizer.ggml.tokens"], said["tokenizer.ggml.token_type"]
    assert [kinds[tokens.index(token)] for token in ("</s>", "\nQ:", "<0x0A>", "e")] == [3, 4, 6, 1]


def test_plain_transformers_reads_the_file(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    for family in ("llama", "qwen2"):
        folder = family_student(tmp_path / family, family)
        export_gguf(folder, tmp_path / f"{family}.gguf", "f32")
        before = load_pretrained(str(folder), torch.float32).model
        after = auto.from_pretrained(str(tmp_path), gguf_file=f"{family}.gguf", dtype=torch.float32)
        assert torch.allclose(logits(before), logits(after), atol=1e-5)


def test_what_gguf_cannot_say_is_refused(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer("llama")  # which does not split at all
    unsplit = save(tmp_path / "unsplit", causal_model("llama", tokenizer), tokenizer)
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, "rope_theta": 1e4}
    t5 = metaspace_tokenizer()
    refused = {
        "no name for how its tokenizer splits": unsplit,
        "rotary embedding of type yarn": family_student(tmp_path / "yarn", "llama", rope_parameters=yarn),
        "its type is t5": save(tmp_path / "t5", t5_model(t5), t5),
        "no trained student": tmp_path,
    }
    for reason, folder in refused.items():
        with pytest.raises(UserError, match=reason):
            export_gguf(folder, tmp_path / "x.gguf")
    with pytest.raises(UserError, match="unknown dtype 'q4'"):
        export_gguf(unsplit, tmp_path / "x.gguf", "q4")
    with pytest.raises(UserError, match=r"ends in \.gguf"):
        export_gguf(unsplit, tmp_path / "x.bin")
    assert not list(tmp_path.glob("*.gguf")) + list(tmp_path.glob("*.tmp"))


def test_a_damaged_card_is_refused(tmp_path: Path) -> None:
    export_gguf(scratch_student(tmp_path / "s", end_id=1), tmp_path / "s.gguf", "f32")
    whole = (tmp_path / "s.gguf").read_bytes()
    for old, new in (
        (b'"transcript":"1"', b'"transcript":"7"'),
        (b'"end_id":1', b'"end_id":5'),
        (b'{"role', b'["role'),
    ):
        assert old in whole
        (tmp_path / "s.gguf").write_bytes(whole.replace(old, new))
        with pytest.raises(UserError, match=r"s\.gguf"):
            load_lm(str(tmp_path / "s.gguf"), device="cpu", dtype="fp32")


@contextmanager
def llama_cpp(path: Path) -> Iterator[Any]:
    """llama.cpp's server with the file, asked by ``post(path, body)``."""
    llama = pytest.importorskip("xllamacpp", reason="install xllamacpp to hold exports against llama.cpp")
    settings = llama.CommonParams()
    settings.model.path = str(path)
    settings.n_ctx, settings.n_parallel, settings.port, settings.verbosity = 1024, 1, 0, -1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    server = llama.Server(settings)

    def post(where: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(server.listening_address + where, json.dumps(body).encode())
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    yield post


@pytest.mark.parametrize("family", ["scratch", "gpt2", "llama", "llama3", "smollm", "qwen2", "qwen3"])
def test_llama_cpp_reads_the_same(family: str, tmp_path: Path) -> None:
    import torch

    folder = scratch_student(tmp_path / "s") if family == "scratch" else family_student(tmp_path / "s", family)
    path = tmp_path / "s.gguf"
    export_gguf(folder, path, "f32")
    pretrained = load_pretrained(str(folder), torch.float32)
    codec = Codec(pretrained.tokenizer)
    compared = 0
    with llama_cpp(path) as post:
        for chain in load_chains("stories", "test", limit=6):
            text, slots = render_chain(chain, "unified")
            ids = codec.problem(text)
            for slot in slots:
                ids += [*codec.marker(slot.kind), *codec.slot(slot.text and f" {slot.text}")]
            written = codec.decode(ids[len(codec.bos) :])
            asked = {"content": written, "add_special": True, "parse_special": True}
            assert post("/tokenize", asked)["tokens"] == ids
            with torch.no_grad():
                likely = pretrained.model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            told = post("/completion", {"prompt": ids, "n_predict": 1, "temperature": 0, "n_probs": 5})
            told = told.get("completion_probabilities", [])  # none of END, and of half a character
            for token in told[0]["top_logprobs"] if told else ():
                compared += 1
                assert token["logprob"] == pytest.approx(float(likely[token["id"]]), abs=0.05)
    assert compared >= 5
