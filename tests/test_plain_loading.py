"""A trained student in transformers alone, without this package: it loads, writes the same slot, and stops at END."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from test_train import fit
from test_trainer import CHAINS, tiny_model, tiny_tokenizer

from socratic.lm.export import export_gguf
from socratic.lm.load import load_lm, load_pretrained, merge
from socratic.prompts import MARKERS, render_problem
from socratic.solving import solve

hf: Any = transformers
OVERFIT: dict[str, Any] = {"chains": CHAINS[:1], "trainer": {"save_steps": 1000}}


def ends_elsewhere(model: Any, folder: Path) -> str:
    """The model as a MODEL folder whose configs name another end than its tokenizer, and want sampling."""
    model.config.eos_token_id = model.generation_config.eos_token_id = 2
    model.generation_config.update(do_sample=True, repetition_penalty=2.0)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A student trained whole, one trained as an adapter, and that one merged; of bases that end elsewhere."""
    folder = tmp_path_factory.mktemp(request.param)
    base = ends_elsewhere(tiny_model(request.param), folder / "base")
    fit(base, folder / "full", "cot", learning_rate=0.01, **OVERFIT, max_steps=70)
    able = ends_elsewhere(hf.AutoModelForCausalLM.from_pretrained(folder / "full"), folder / "able")
    fit(able, folder / "adapter", "cot", lora_rank=2, learning_rate=0.01, **OVERFIT, max_steps=5)
    merge(folder / "adapter", folder / "merged")
    return {name: folder / name for name in ("full", "adapter", "merged")}


@pytest.mark.parametrize("kind", ["full", "merged", "adapter"])
def test_transformers_alone_writes_the_same_and_stops(kind: str, folders: dict[str, Path]) -> None:
    problem = CHAINS[0].problem()
    [trace] = solve([problem], "cot", lm=load_lm(str(folders[kind]), device="cpu", dtype="fp32"), calculator=False)
    tokenizer = hf.AutoTokenizer.from_pretrained(folders[kind])
    model = hf.AutoModelForCausalLM.from_pretrained(folders[kind])
    end = tokenizer.eos_token
    how = {}
    if kind == "adapter":  # beside which transformers reads the base's generation config
        how = {"eos_token_id": tokenizer.eos_token_id, "do_sample": False, "repetition_penalty": 1.0}
    text = f"{render_problem(problem)}{end}{MARKERS['answer']}"
    read = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        [ids] = model.generate(**read, max_new_tokens=100, **how).tolist()
    written = ids[read.input_ids.shape[1] :]
    assert written[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(written[:-1]).strip() == trace.steps[0].answer


def test_an_adapter_is_exported_merged(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("adapter", "merged"):
        export_gguf(folders[name], tmp_path / f"{name}.gguf", "f32")
    first, second = (
        load_pretrained(str(tmp_path / f"{name}.gguf"), torch.float32).model.state_dict()
        for name in ("adapter", "merged")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
