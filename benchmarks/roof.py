"""What this machine can do at most: products and bytes read per second, and the time that a mix of both must take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from socratic.lm.dense import Dense, FlatBatch

_SECONDS = 0.5


@dataclass(frozen=True)
class Roof:
    """``flops``: floating-point operations a second in the best matrix product; ``bandwidth``: bytes read a second."""

    flops: float
    bandwidth: float

    def seconds(self, dense: Dense, batch: FlatBatch) -> float:
        """The least time of one forward pass: its operations or its bytes, whichever takes longer.

        Weights and each sequence's keys and values are read once; activations are taken to stay in the cache.
        """
        shape, item = dense.shape, torch.empty(0, dtype=dense.dtype).element_size()
        head = dense.head.outputs * dense.head.depth
        body = sum(
            part.outputs * part.depth for layer in dense.layers for part in (layer.qkv, layer.out, layer.up, layer.down)
        )
        attended = int(batch.position.sum()) + len(batch.position)
        held = int(batch.position[batch.run[1:] - 1].sum()) + len(batch.run) - 1
        flops = 2 * body * len(batch.ids) + 2 * head * len(batch.wanted)
        flops += 4 * shape.layers * shape.heads * shape.size * attended
        read = item * (body + head * bool(len(batch.wanted)) + 2 * shape.layers * shape.groups * shape.size * held)
        return max(flops / self.flops, read / self.bandwidth)


def measure(dtype: torch.dtype) -> Roof:
    """Measure both here and now, with torch's own operations, on all threads."""
    a, b = torch.randn(1024, 1024).to(dtype), torch.randn(4096, 1024).to(dtype)
    product = _median(lambda: torch.nn.functional.linear(a, b))
    block = torch.ones(256 * 2**20 // 4)
    read = _median(lambda: block.sum())
    return Roof(flops=2 * 1024 * 1024 * 4096 / product, bandwidth=block.numel() * 4 / read)


def _median(call: Callable[[], object]) -> float:
    call()
    times: list[float] = []
    while sum(times) < _SECONDS or len(times) < 5:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
