"""A decoder's weights laid out for inference, and its forward pass over a flat batch of tokens.

A flat batch holds any number of tokens of any number of sequences, without padding: rows that decode one token and rows
that ingest many go through the same matrix products. Query, key and value projections are one product, as are gate and
up. Where tokens differ by sequence, in attention, a `Backend` reads the paged KV cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn.functional import linear, pad

from socratic.lm import kernels

if TYPE_CHECKING:
    import numpy as np

PAGE = 16
"""Positions of a KV page."""
_KERNELS = {torch.float32: ("fp32", 1), torch.bfloat16: ("bf16", 2)}
"""By dtype the kernel's suffix, and how many inputs it takes at once."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder. ``groups`` of query heads share keys and values; ``positions`` is its longest sequence."""

    layers: int
    heads: int
    groups: int
    size: int
    positions: int


@dataclass(frozen=True)
class Norm:
    """LayerNorm (``centred``) or RMSNorm."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    eps: float
    centred: bool


class Linear:
    """``x @ weight.T + bias``: torch's, or on a CPU that has them the kernels' with a packed weight."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight, self.bias = weight.detach().contiguous(), None if bias is None else bias.detach()
        self.outputs, self.depth = weight.shape
        self._multiply: Any = None
        if weight.device.type == "cpu" and weight.dtype in _KERNELS:
            suffix, beside = _KERNELS[weight.dtype]
            if self.depth % beside == 0:
                self._multiply = getattr(kernels.library(), f"multiply_{suffix}", None)
        if self._multiply:
            self.weight = _packed(self.weight, beside)
            self._places = self.weight.data_ptr(), None if self.bias is None else self.bias.data_ptr()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self._multiply is None:
            return linear(x, self.weight, self.bias)
        out = x.new_empty(len(x), self.outputs)
        self._multiply(x.data_ptr(), *self._places, out.data_ptr(), len(x), self.depth, self.outputs)
        return out


def _packed(weight: torch.Tensor, beside: int) -> torch.Tensor:
    """[outputs, depth] -> [blocks, depth / beside, block, beside]: inputs of a block of outputs side by side."""
    outputs, depth = weight.shape
    block = kernels.library().block()
    blocks = -(-outputs // block)
    padded = pad(weight, (0, 0, 0, blocks * block - outputs)) if outputs % block else weight
    out = kernels.large_empty((blocks, depth // beside, block, beside), weight.dtype, weight.device)
    return out.copy_(padded.view(blocks, block, depth // beside, beside).transpose(1, 2))


@dataclass(frozen=True)
class Layer:
    """One block: norm, attention, norm, feed-forward. ``up`` holds gate and up where ``Dense.silu``."""

    norm1: Norm
    qkv: Linear
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    out: Linear
    norm2: Norm
    up: Linear
    down: Linear


@dataclass(frozen=True)
class FlatBatch:
    """Tokens of several sequences, each a run of consecutive positions.

    ``ids``, ``row`` and ``position`` [tokens] int32: a token, the sequence (line of ``table``) it belongs to, and its
    position there. ``run`` [sequences + 1]: where each sequence's tokens begin. ``table`` [sequences, pages]: the pages
    of each sequence. ``wanted`` [n]: the tokens whose logits are asked for.
    """

    ids: np.ndarray
    row: np.ndarray
    position: np.ndarray
    run: np.ndarray
    table: np.ndarray
    wanted: np.ndarray


class Backend(Protocol):
    """The operations that have no single fast torch call. ``norm`` adds ``y`` to ``x`` in place first."""

    def begin(self, batch: FlatBatch) -> None: ...

    def norm(self, x: torch.Tensor, y: torch.Tensor | None, norm: Norm) -> torch.Tensor: ...

    def gate(self, x: torch.Tensor) -> torch.Tensor: ...

    def attention(self, index: int, layer: Layer, qkv: torch.Tensor) -> torch.Tensor: ...

    def argmax(self, logits: torch.Tensor) -> list[int]: ...


class Dense:
    """The weights of a GPT-2-, Llama- or Qwen-type model; `unsupported` says which those are."""

    def __init__(self, model: Any) -> None:
        config = model.config
        self.dtype, self.device = model.dtype, model.device
        if config.model_type == "gpt2":
            body = model.transformer
            self.embedding, self.positions = body.wte.weight.detach(), body.wpe.weight.detach()
            self.cosine = self.sine = None
            heads = groups = config.n_head
            size = config.n_embd // heads
            self.silu = False
            self.layers = [_gpt2_layer(layer) for layer in body.h]
            final = body.ln_f
        else:
            body = model.model
            self.embedding, self.positions = body.embed_tokens.weight.detach(), None
            heads, groups = config.num_attention_heads, config.num_key_value_heads
            size = getattr(config, "head_dim", None) or config.hidden_size // heads
            rotary = body.rotary_emb
            angles = torch.arange(config.max_position_embeddings, device=self.device)[:, None] * rotary.inv_freq.float()
            self.cosine = (angles.cos() * rotary.attention_scaling).contiguous()
            self.sine = (angles.sin() * rotary.attention_scaling).contiguous()
            self.silu = True
            self.layers = [_llama_layer(layer) for layer in body.layers]
            final = body.norm
        self.shape = Shape(len(self.layers), heads, groups, size, config.max_position_embeddings)
        self.final, self.head = _norm(final), Linear(model.lm_head.weight, model.lm_head.bias)
        self.scale = 1 / math.sqrt(size)

    def forward(self, batch: FlatBatch, backend: Backend) -> torch.Tensor:
        """Write the batch's keys and values into the cache; logits of the wanted tokens, [n, vocabulary]."""
        ids, position = (torch.from_numpy(array).to(self.device) for array in (batch.ids, batch.position))
        backend.begin(batch)
        x, y = self.hidden(ids, position, backend)
        if len(batch.wanted) < len(x):
            wanted = torch.from_numpy(batch.wanted).to(self.device)
            x, y = x[wanted], y[wanted]
        return self.head(backend.norm(x, y, self.final))

    def hidden(self, ids: torch.Tensor, position: torch.Tensor, backend: Backend) -> tuple[torch.Tensor, torch.Tensor]:
        """All layers over ``ids`` at ``position`` [tokens]; their sum [tokens, width] is what the last norm takes."""
        x = self.embedding[ids]
        if self.positions is not None:
            x += self.positions[position]
        y = None
        for index, layer in enumerate(self.layers):
            qkv = layer.qkv(backend.norm(x, y, layer.norm1))
            y = layer.out(backend.attention(index, layer, qkv))
            up = layer.up(backend.norm(x, y, layer.norm2))
            y = layer.down(backend.gate(up))
        assert y is not None
        return x, y


def unsupported(model: Any) -> str | None:
    """Why `Dense` cannot compute this model, or None where it can."""
    config = model.config
    if config.model_type not in ("gpt2", "llama", "qwen2", "qwen3"):
        return f"its type is {config.model_type}"
    if config.model_type == "gpt2":
        plain = config.scale_attn_weights and not config.scale_attn_by_inverse_layer_idx
        known = plain and config.activation_function in ("gelu_new", "gelu_pytorch_tanh")
        return None if known else "its attention or activation is not GPT-2's own"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}"
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        return "its attention has a sliding window"
    kind = model.model.rotary_emb.rope_type
    return None if kind in ("default", "linear", "llama3", "yarn") else f"its rotary embedding is of type {kind}"


def _norm(module: Any) -> Norm:
    bias = getattr(module, "bias", None)
    eps = module.eps if bias is not None else module.variance_epsilon
    return Norm(module.weight.detach(), None if bias is None else bias.detach(), eps, centred=bias is not None)


def _joined(*modules: Any) -> Linear:
    """Several projections of the same input as one."""
    biases = [module.bias for module in modules]
    bias = torch.cat(biases) if biases[0] is not None else None
    return Linear(torch.cat([module.weight for module in modules]), bias)


def _gpt2_layer(layer: Any) -> Layer:
    def turned(conv: Any) -> Linear:  # Conv1D keeps its weight the other way round
        return Linear(conv.weight.T, conv.bias)

    attention, mlp = layer.attn, layer.mlp
    return Layer(
        norm1=_norm(layer.ln_1),
        qkv=turned(attention.c_attn),
        q_norm=None,
        k_norm=None,
        out=turned(attention.c_proj),
        norm2=_norm(layer.ln_2),
        up=turned(mlp.c_fc),
        down=turned(mlp.c_proj),
    )


def _llama_layer(layer: Any) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    q_norm, k_norm = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
    return Layer(
        norm1=_norm(layer.input_layernorm),
        qkv=_joined(attention.q_proj, attention.k_proj, attention.v_proj),
        q_norm=None if q_norm is None else q_norm.weight.detach(),
        k_norm=None if k_norm is None else k_norm.weight.detach(),
        out=Linear(attention.o_proj.weight, attention.o_proj.bias),
        norm2=_norm(layer.post_attention_layernorm),
        up=_joined(mlp.gate_proj, mlp.up_proj),
        down=Linear(mlp.down_proj.weight, mlp.down_proj.bias),
    )
