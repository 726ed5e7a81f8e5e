"""The paged KV cache, and the two ways to compute over it: compiled kernels on a CPU, plain torch anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from socratic.lm import kernels
from socratic.lm.dense import PAGE, Dense, FlatBatch, Layer, Norm


class Pages:
    """KV of many sequences in pages of 16 positions, which sequences take and give back.

    ``kv`` [layers, pages, 2, groups, size * 16]: keys as [size, 16], so that a page's 16 scores are computed at once,
    and values as [16, size].
    """

    def __init__(self, dense: Dense, count: int) -> None:
        shape = dense.shape
        sizes = (shape.layers, count, 2, shape.groups, shape.size * PAGE)
        self.kv = kernels.large_empty(sizes, dense.dtype, dense.device)
        self.count = count
        self.free = list(range(count))[::-1]


def page_bytes(dense: Dense) -> int:
    """Memory of one page: 16 positions of keys and values in all layers."""
    shape, item = dense.shape, torch.empty(0, dtype=dense.dtype).element_size()
    return 2 * PAGE * shape.layers * shape.groups * shape.size * item


class Sequence:
    """The pages of one sequence; they go back to the pool with it."""

    def __init__(self, pool: Pages) -> None:
        self.pool = pool
        self.pages: list[int] = []

    def missing(self, length: int) -> int:
        """Pages that are short of ``length`` positions."""
        return max(0, -(-length // PAGE) - len(self.pages))

    def grow(self, length: int) -> None:
        """Take pages from the pool for ``length`` positions."""
        self.pages += [self.pool.free.pop() for _ in range(self.missing(length))]

    def copy(self) -> Sequence:
        """Another sequence with the same keys and values."""
        made = Sequence(self.pool)
        made.grow(len(self.pages) * PAGE)
        self.pool.kv[:, made.pages] = self.pool.kv[:, self.pages]
        return made

    def __del__(self) -> None:
        self.pool.free += self.pages


class KernelBackend:
    """`kernels.cpp` on a CPU."""

    def __init__(self, dense: Dense, pages: Pages) -> None:
        self.shape, self.dense = dense.shape, dense
        suffix = "bf16" if dense.dtype == torch.bfloat16 else "fp32"
        library = kernels.library()
        self._norm, self._gate, self._attention, self._argmax = (
            getattr(library, f"{name}_{suffix}") for name in ("norm", "gate", "attention", "argmax")
        )
        self.pages = pages  # whose memory must stay behind the pointers
        self._kv = [layer.data_ptr() for layer in pages.kv]

    def begin(self, batch: FlatBatch) -> None:
        self._batch = batch  # whose arrays must stay alive behind the pointers
        self._places = tuple(a.ctypes.data for a in (batch.table, batch.row, batch.position, batch.run))
        self._sizes = (len(batch.ids), len(batch.run) - 1, self.shape.heads, self.shape.groups, self.shape.size)

    def norm(self, x: torch.Tensor, y: torch.Tensor | None, norm: Norm) -> torch.Tensor:
        out = torch.empty_like(x)
        rows, width = x.shape
        added, bias = None if y is None else y.data_ptr(), None if norm.bias is None else norm.bias.data_ptr()
        self._norm(
            x.data_ptr(), added, norm.weight.data_ptr(), bias, out.data_ptr(), rows, width, norm.eps, norm.centred
        )
        return out

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        rows, width = x.shape[0], x.shape[1] // (2 if self.dense.silu else 1)
        out = x.new_empty(rows, width)
        self._gate(x.data_ptr(), out.data_ptr(), rows, width, self.dense.silu)
        return out

    def attention(self, index: int, layer: Layer, qkv: torch.Tensor) -> torch.Tensor:
        out = qkv.new_empty(len(qkv), self.shape.heads * self.shape.size)
        optional = (layer.q_norm, layer.k_norm, self.dense.cosine, self.dense.sine)
        self._attention(
            qkv.data_ptr(),
            *(None if tensor is None else tensor.data_ptr() for tensor in optional),
            self._kv[index],
            out.data_ptr(),
            *self._places,
            *self._sizes,
            self._batch.table.shape[1],
            self.dense.scale,
            layer.norm1.eps,
        )
        return out

    def argmax(self, logits: torch.Tensor) -> list[int]:
        out = np.empty(len(logits), dtype=np.int64)
        self._argmax(logits.data_ptr(), out.ctypes.data, *logits.shape)
        return [int(token) for token in out]


class TorchBackend:
    """The same in torch operations: gathers each sequence's pages for every layer, so it is slower."""

    def __init__(self, dense: Dense, pages: Pages) -> None:
        self.shape, self.dense, self.pages = dense.shape, dense, pages

    def begin(self, batch: FlatBatch) -> None:
        def moved(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array).to(self.dense.device, torch.int64)

        self.row, self.position, self.table = moved(batch.row), moved(batch.position), moved(batch.table)
        widths = np.diff(batch.run)
        column = moved(np.concatenate([np.arange(width) for width in widths]))
        self.place = self.row, column  # of each token in a padded [sequences, longest run]
        self.padded = len(widths), int(widths.max())
        reached = self.position.new_zeros(self.padded)
        reached[self.place] = self.position
        positions = torch.arange(self.table.shape[1] * PAGE, device=self.dense.device)
        self.hidden = (positions > reached[:, :, None])[:, None, None]  # [sequences, 1, 1, run, positions]

    def norm(self, x: torch.Tensor, y: torch.Tensor | None, norm: Norm) -> torch.Tensor:
        if y is not None:
            x += y
        return _normed(x, norm.weight, norm.bias, norm.eps, norm.centred)

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        if not self.dense.silu:
            return torch.nn.functional.gelu(x, approximate="tanh")
        gate, up = x.chunk(2, -1)
        return torch.nn.functional.silu(gate) * up

    def store(
        self, index: int, layer: Layer, qkv: torch.Tensor, page: torch.Tensor, slot: torch.Tensor
    ) -> torch.Tensor:
        """Write each token's key and value into ``slot`` of its ``page`` [tokens]; queries [tokens, heads, size]."""
        heads, groups, size = self.shape.heads, self.shape.groups, self.shape.size
        query, key, value = torch.split(qkv.view(len(qkv), -1, size), [heads, groups, groups], dim=1)
        if layer.q_norm is not None and layer.k_norm is not None:
            query = _normed(query, layer.q_norm, None, layer.norm1.eps, centred=False)
            key = _normed(key, layer.k_norm, None, layer.norm1.eps, centred=False)
        query, key = self._turned(query), self._turned(key)
        keys, values = self._cache(index)
        keys[page, :, :, slot] = key
        values[page, :, slot] = value
        return query

    def _cache(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys [pages, groups, size, 16] and values [pages, groups, 16, size] of a layer."""
        groups, size, kv = self.shape.groups, self.shape.size, self.pages.kv[index]
        return kv[:, 0].view(-1, groups, size, PAGE), kv[:, 1].view(-1, groups, PAGE, size)

    def attention(self, index: int, layer: Layer, qkv: torch.Tensor) -> torch.Tensor:
        heads, groups, size = self.shape.heads, self.shape.groups, self.shape.size
        page = self.table[self.row, self.position // PAGE]
        query = self.store(index, layer, qkv, page, self.position % PAGE)
        keys, values = self._cache(index)
        rows, longest = self.padded
        padded = query.new_zeros(rows, longest, heads, size)
        padded[self.place] = query
        # [rows, groups, share of heads, run, size] with keys [rows, groups, 1, size, positions]
        grouped = padded.view(rows, longest, groups, -1, size).permute(0, 2, 3, 1, 4)
        seen_keys = keys[self.table].permute(0, 2, 3, 1, 4).reshape(rows, groups, 1, size, -1)
        seen_values = values[self.table].transpose(1, 2).reshape(rows, groups, 1, -1, size)
        scores = (grouped @ seen_keys).float() * self.dense.scale
        weights = scores.masked_fill(self.hidden, -torch.inf).softmax(-1).to(values.dtype)
        # What no one has written yet may be NaN, which a weight of 0 would not undo.
        written = seen_values.masked_fill(self.hidden.all(-2)[..., None], 0)
        mixed: torch.Tensor = (weights @ written).permute(0, 3, 1, 2, 4).reshape(rows, longest, -1)
        return mixed[self.place]

    def argmax(self, logits: torch.Tensor) -> list[int]:
        return logits.argmax(-1).tolist()

    def _turned(self, x: torch.Tensor) -> torch.Tensor:
        """Rotary embedding of [tokens, heads, size]."""
        if self.dense.cosine is None or self.dense.sine is None:
            return x
        cosine, sine = self.dense.cosine[self.position][:, None], self.dense.sine[self.position][:, None]
        first, second = x.float().chunk(2, -1)
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1).to(x.dtype)


def _normed(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float, centred: bool
) -> torch.Tensor:
    if centred:
        return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps)
    return torch.nn.functional.rms_norm(x, x.shape[-1:], weight, eps)


def backend(dense: Dense, pages: Pages) -> Any:
    """The faster of the two that this machine can run."""
    compiled = dense.device.type == "cpu" and dense.dtype in (torch.float32, torch.bfloat16) and kernels.library()
    return (KernelBackend if compiled else TorchBackend)(dense, pages)
