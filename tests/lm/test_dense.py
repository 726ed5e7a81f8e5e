from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny import byte_tokenizer, causal_model

from socratic.lm.backends import KernelBackend, Pages, TorchBackend
from socratic.lm.dense import PAGE, Dense, FlatBatch, unsupported

hf: Any = transformers
LENGTHS = (5, 75, 1, 17)


def model(kind: str, **changed: Any) -> Any:
    torch.manual_seed(0)
    shared = {"vocab_size": 101, "initializer_range": 0.3, "tie_word_embeddings": False, **changed}
    if kind == "gpt2":
        return hf.GPT2LMHeadModel(hf.GPT2Config(n_embd=48, n_layer=2, n_head=4, n_positions=128, **shared)).eval()
    sizes = {
        "hidden_size": 48,
        "intermediate_size": 70,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    }
    config = {"llama": hf.LlamaConfig, "qwen2": hf.Qwen2Config, "qwen3": hf.Qwen3Config, "mistral": hf.MistralConfig}
    return hf.AutoModelForCausalLM.from_config(config[kind](**{**sizes, **shared})).eval()


def logits(dense: Dense, backend: Any, ids: list[list[int]], cuts: tuple[int, ...]) -> list[torch.Tensor]:
    """Logits at every position of several sequences, read in pieces that end at ``cuts``; pages lie in disorder."""
    order = np.random.default_rng(0).permutation(64).reshape(4, 16).astype(np.int32)
    found: list[list[torch.Tensor]] = [[] for _ in ids]
    start = 0
    for end in (*cuts, max(map(len, ids))):
        rows = [row for row, sequence in enumerate(ids) if len(sequence) > start]
        pieces = [ids[row][start:end] for row in rows]
        run = np.cumsum([0, *map(len, pieces)], dtype=np.int32)
        batch = FlatBatch(
            ids=np.array([i for piece in pieces for i in piece], dtype=np.int32),
            row=np.repeat(np.arange(len(rows), dtype=np.int32), [len(piece) for piece in pieces]),
            position=np.concatenate([np.arange(start, start + len(piece), dtype=np.int32) for piece in pieces]),
            run=run,
            table=np.ascontiguousarray(order[rows]),
            wanted=np.arange(run[-1]),
        )
        for row, piece in zip(rows, torch.split(dense.forward(batch, backend), [len(p) for p in pieces]), strict=True):
            found[row].append(piece)
        start = end
    return [torch.cat(pieces) for pieces in found]


CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {}),
    "llama": ("llama", {}),
    "llama, heads of 64": ("llama", {"head_dim": 64}),
    "llama, heads of 18": ("llama", {"head_dim": 18}),
    "llama, seven heads a group": ("llama", {"hidden_size": 56, "num_attention_heads": 14, "head_dim": 8}),
    "llama, two heads a group": ("llama", {"num_attention_heads": 4}),
    "llama, four heads of 80 a group": ("llama", {"num_attention_heads": 8, "head_dim": 80}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, longer positions": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
    ),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", [KernelBackend, TorchBackend])
@pytest.mark.parametrize("cuts", [(), (1, 2, 16, 33)], ids=["at once", "in pieces"])
def test_logits_are_those_of_transformers(name: str, kind: Any, cuts: tuple[int, ...]) -> None:
    family, changed = CONFIGS[name]
    plain = model(family, **changed)
    generator = np.random.default_rng(1)
    ids = [generator.integers(0, 101, length).tolist() for length in LENGTHS]
    assert unsupported(plain) is None
    dense = Dense(plain)
    pages = Pages(dense, 64)
    pages.kv.fill_(torch.nan)  # what nobody wrote must not matter
    with torch.inference_mode():
        for row, ours in zip(ids, logits(dense, kind(dense, pages), ids, cuts), strict=True):
            torch.testing.assert_close(ours, plain(torch.tensor([row])).logits[0], atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", [KernelBackend, TorchBackend])
def test_bf16_is_as_near_to_fp32_as_transformers_is(name: str, kind: Any) -> None:
    family, changed = CONFIGS[name]
    exact = model(family, **changed)
    generator = np.random.default_rng(1)
    ids = [generator.integers(0, 101, length).tolist() for length in LENGTHS]
    with torch.inference_mode():
        true = [exact(torch.tensor([row])).logits[0] for row in ids]
        rounded = exact.to(torch.bfloat16)
        theirs = [rounded(torch.tensor([row])).logits[0].float() for row in ids]
        dense = Dense(rounded)
        ours = logits(dense, kind(dense, Pages(dense, 64)), ids, (16,))
    ours_off, theirs_off = (
        torch.cat([(a.float() - b).abs().flatten() for a, b in zip(found, true, strict=True)]).mean()
        for found in (ours, theirs)
    )
    assert ours_off < 1.3 * theirs_off


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_activations_of_any_size_are_torchs(name: str, dtype: Any) -> None:
    dense = Dense(model(name))
    dense.dtype = dtype
    x = torch.linspace(-400, 400, 6401)[None].to(dtype)
    given = torch.cat([x, torch.ones_like(x)], 1) if dense.silu else x
    exact = torch.nn.functional.silu if dense.silu else partial(torch.nn.functional.gelu, approximate="tanh")
    found = KernelBackend(dense, Pages(dense, 1)).gate(given)
    rounding = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(found.float(), exact(x.float()), atol=1e-4, rtol=rounding)


def test_the_first_of_equal_logits_is_chosen() -> None:
    dense = Dense(model("llama"))
    for dtype in (torch.float32, torch.bfloat16):
        dense.dtype = dtype
        backend = KernelBackend(dense, Pages(dense, 1))
        for width in (5, 1024, 3000):
            rows = torch.zeros(3, width, dtype=dtype)
            rows[0, -1] = 1
            rows[1, [1, 3]] = 2
            rows[2, :] = -torch.inf
            assert backend.argmax(rows) == [width - 1, 1, 0]


@pytest.mark.parametrize(
    ("kind", "changed", "said"),
    [
        ("mistral", {}, "its type is mistral"),
        ("llama", {"hidden_act": "gelu"}, "its activation is gelu"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "its attention or activation is not GPT-2's own"),
        ("gpt2", {"activation_function": "relu"}, "its attention or activation is not GPT-2's own"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "of type dynamic"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}, "a sliding window"),
    ],
)
def test_what_it_cannot_compute_is_named(kind: str, changed: dict[str, Any], said: str) -> None:
    assert said in str(unsupported(model(kind, **changed)))


def test_weights_stay_as_they_are() -> None:
    """A student that is measured while it is trained keeps its own weights."""
    plain = causal_model("llama", byte_tokenizer("llama"))
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    Dense(plain)
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
    assert PAGE == 16
