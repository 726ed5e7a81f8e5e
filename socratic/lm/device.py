"""Decoding of many rows without the host in between, for GPUs.

Argmax or sampling, the stop test and the next token's place stay on the device; the host reads one small tensor after
several tokens. Numbers of rows and pages are rounded up to powers of two, so that all shapes are static, and each size
is captured once as a CUDA graph and replayed. Elsewhere than on a GPU the same steps run one by one, which is how they
are tested.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from socratic.lm.backends import Pages, TorchBackend
from socratic.lm.dense import PAGE, Dense, Layer
from socratic.lm.sampling import sample

MOST = 8
"""Tokens of a row between two looks by the host, at most."""
_NONE = -1


class DeviceLoop:
    """Runs rows for a few tokens each; a row stops at the first of ``stops``, which the host then looks at."""

    def __init__(self, dense: Dense, pages: Pages, stops: Sequence[int]) -> None:
        self.dense, self.pages = dense, pages
        self.spare = pages.free.pop()  # where rows write that only fill up the shape
        pages.count -= 1
        pages.kv.zero_()  # what no one has written is read with a weight of 0, and must be finite
        self.stops = torch.zeros(dense.head.outputs, dtype=torch.bool, device=dense.device)
        self.stops[list(stops)] = True
        self._steps: dict[tuple[int, int, bool], tuple[_Rows, Callable[[], None]]] = {}
        self._memory: Any = None  # that all graphs share, since one runs at a time

    def run(
        self,
        ids: Sequence[int],
        positions: Sequence[int],
        tables: Sequence[Sequence[int]],
        tokens: int,
        heat: Sequence[float] = (),
        draws: Sequence[Sequence[float]] = (),
    ) -> list[list[int]]:
        """The next tokens of each row: ``tokens`` of them, or fewer, the last a stop.

        ``ids`` are the rows' last tokens, not in the cache yet, at ``positions``; ``tables`` the pages of each row,
        with room for ``tokens`` more. ``heat`` are the rows' temperatures, 0 for greedy ones, and ``draws`` their
        uniform numbers for each token; without them all rows are greedy.
        """
        size = _power_of_two(len(ids)), _power_of_two(max(map(len, tables))), bool(heat)
        with torch.cuda.device(self.dense.device) if self.dense.device.type == "cuda" else nullcontext():
            if size not in self._steps:
                self._steps[size] = self._prepared(*size)
            rows, advance = self._steps[size]
            rows.load(ids, positions, tables, self.spare)
            if heat:
                rows.load_draws(heat, draws)
            for _ in range(tokens):
                advance()
        written: list[list[int]] = rows.written[: len(ids), :tokens].tolist()
        return [[token for token in row if token != _NONE] for row in written]

    def _prepared(self, count: int, width: int, hot: bool) -> tuple[_Rows, Callable[[], None]]:
        rows = _Rows(self.dense, self.pages, self.stops, count, width, hot)
        if self.dense.device.type != "cuda":
            return rows, rows.advance
        rows.load([], [], [], self.spare)
        stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries choose and allocate what they need before it is captured
            for _ in range(2):
                rows.advance()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory):
            rows.advance()
        self._memory = graph.pool()
        return rows, graph.replay


def _power_of_two(n: int) -> int:
    """The least power of two that is not below ``n``."""
    return 1 << (n - 1).bit_length()


class _Rows(TorchBackend):
    """The static state of so many rows, and one token's step over it."""

    def __init__(self, dense: Dense, pages: Pages, stops: torch.Tensor, count: int, width: int, hot: bool) -> None:
        super().__init__(dense, pages)
        self.stops, self.hot = stops, hot
        places = {"dtype": torch.int64, "device": dense.device}
        self.ids, self.position = torch.zeros(count, **places), torch.zeros(count, **places)
        self.table = torch.zeros(count, width, **places)
        self.active = torch.zeros(count, dtype=torch.bool, device=dense.device)
        self.written, self.column = torch.zeros(count, MOST, **places), torch.zeros(1, **places)
        self.heat = torch.zeros(count, dtype=torch.float64, device=dense.device)
        self.draws = torch.zeros(count, MOST, dtype=torch.float64, device=dense.device)
        self._all_positions = torch.arange(width * PAGE, **places).view(1, width, 1, 1, PAGE)

    def load(self, ids: Sequence[int], positions: Sequence[int], tables: Sequence[Sequence[int]], spare: int) -> None:
        """Take these rows; the others write to the page ``spare``."""
        count, width = self.table.shape
        idle = count - len(ids)
        padded = [[*table, *[spare] * (width - len(table))] for table in tables]
        self.table.copy_(torch.tensor([*padded, *[[spare] * width] * idle]))
        self.ids.copy_(torch.tensor([*ids, *[0] * idle]))
        self.position.copy_(torch.tensor([*positions, *[0] * idle]))
        self.active.copy_(torch.arange(count) < len(ids))
        self.column.zero_()

    def load_draws(self, heat: Sequence[float], draws: Sequence[Sequence[float]]) -> None:
        """The loaded rows' temperatures and uniform numbers."""
        self.heat[: len(heat)].copy_(torch.tensor(heat, dtype=torch.float64))
        self.heat[len(heat) :] = 0
        self.draws[: len(draws), : len(draws[0])].copy_(torch.tensor(draws, dtype=torch.float64))

    def advance(self) -> None:
        """One more token of every active row."""
        x, y = self.dense.hidden(self.ids, self.position, self)
        logits = self.dense.head(self.norm(x, y, self.dense.final))
        token = logits.argmax(-1)
        if self.hot:
            drawn = sample(logits, self.heat.where(self.heat > 0, 1), self.draws.index_select(1, self.column)[:, 0])
            token = drawn.where(self.heat > 0, token)
        self.written.index_copy_(1, self.column, torch.where(self.active, token, _NONE)[:, None])
        self.column += 1
        self.active &= ~self.stops[token]
        self.ids.copy_(torch.where(self.active, token, self.ids))
        self.position += self.active

    def attention(self, index: int, layer: Layer, qkv: torch.Tensor) -> torch.Tensor:
        heads, groups, size = self.shape.heads, self.shape.groups, self.shape.size
        page = self.table.gather(1, (self.position // PAGE)[:, None])[:, 0]
        query = self.store(index, layer, qkv, page, self.position % PAGE)
        count = len(self.table)
        keys, values = (cached[self.table] for cached in self._cache(index))  # [rows, pages, groups, …]
        scores = (query.view(count, 1, groups, heads // groups, size) @ keys).float() * self.dense.scale
        scores = scores.masked_fill(self._all_positions > self.position.view(-1, 1, 1, 1, 1), -torch.inf)
        scores = scores.permute(0, 2, 3, 1, 4)  # [rows, groups, share of heads, pages, positions of a page]
        weights = scores.flatten(3).softmax(-1).view(scores.shape).permute(0, 3, 1, 2, 4).to(values.dtype)
        mixed: torch.Tensor = (weights @ values).sum(1, dtype=torch.float32).to(qkv.dtype)
        return mixed.view(count, -1)
