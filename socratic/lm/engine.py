"""Decoder-only students, fast: each session keeps its KV cache in pages, and all tokens of a turn go in one flat batch.

A row that ingests what another model wrote, a row that decodes and a row that takes the calculator's result differ only
in how many tokens they bring. Rows that end leave at once, new ones join at the next turn. Where the pages run out,
sessions that wait for another model lose theirs and are read again later; nothing fails and nothing is cut.
"""

from __future__ import annotations

import random
import resource
import weakref
from collections import deque
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from socratic.lm import kernels
from socratic.lm.backends import Pages, Sequence, TorchBackend, backend, page_bytes
from socratic.lm.base import Decoding, LocalLM, Request, TokenSession
from socratic.lm.dense import PAGE, Dense, FlatBatch
from socratic.lm.device import MOST, DeviceLoop
from socratic.lm.sampling import choose, summed_logprobs
from socratic.tokens import Codec
from socratic.types import UserError

_TOKENS = 512
"""Tokens of one forward pass: more gain nothing on two cores, and their logits and activations take memory."""
_GPU_TOKENS = 1 << 14
_PADDED_SCORES = 1 << 22
"""Rows x tokens x positions of one pass without kernels: with 9 heads and in fp32 150 MB of attention scores."""
_FORCED = -1
"""Stands for the calculator's next token, which a row knows itself."""
_SHARE_OF_MEMORY = 0.3
"""Of the memory that is free when a model is loaded, for its KV pages; a pair loads two."""
_LEAST_POSITIONS = 2048
"""What the pages must hold of one sequence; a longer one than they do hold ends as overlong."""
_CGROUP = Path("/sys/fs/cgroup")
_MOST_PAGES = 1 << 16
"""A million positions: more would only be a longer list of free pages."""


class EngineLM(LocalLM):
    """A GPT-2-, Llama- or Qwen-type model behind the `LM` interface.

    ``pages`` bounds the KV cache, 16 positions a page; by default it is as large as a share of the free memory allows.
    Raises `UserError` where not even one sequence of 2,048 positions fits into it.
    """

    def __init__(self, model: Any, codec: Codec, name: str, pages: int | None = None) -> None:
        super().__init__(codec, name, model.num_parameters())
        self.dense = Dense(model)
        self.positions = self.dense.shape.positions
        self.pages = Pages(self.dense, pages or _affordable(self.dense, name))
        self.backend = backend(self.dense, self.pages)
        self.loop = self.device_loop() if self.dense.device.type == "cuda" else None
        if self.dense.device.type == "cpu" and isinstance(self.backend, TorchBackend):
            self.note = f"{name} runs without compiled kernels, which is slower: {kernels.fault()}"
        self._sessions: weakref.WeakSet[TokenSession] = weakref.WeakSet()

    def device_loop(self) -> DeviceLoop:
        """Greedy decoding that stops for the host only at what a `Decoding` looks at: END, special tokens, ``=``."""
        vocabulary = range(self.dense.head.outputs)
        special = {self.codec.end_id, *self.codec.special_ids}
        return DeviceLoop(self.dense, self.pages, [t for t in vocabulary if t in special or self.codec.has_equals(t)])

    def session(self) -> TokenSession:
        return _PagedSession(self.codec, self._sessions)

    def submit(self, request: Request) -> None:
        self._admit(self._decoding(request, min(self.positions, self.pages.count * PAGE)))

    def step(self, tokens: int) -> list[Request]:
        with torch.inference_mode():
            while tokens > 0 and self._rows and not self._ended:
                tokens -= self._run_on_device(tokens) or self._turn()
        ended, self._ended = self._ended, []
        return ended

    def logprobs(self, texts: list[tuple[str, str]]) -> list[float | None]:
        """As `LM.logprobs`: each pair is read whole, as many in a pass as fit."""
        found: list[float | None] = [None] * len(texts)
        most = min(self.positions, self.pages.count * PAGE)
        rows = [(place, *ids) for place, ids in enumerate(self._spelled(texts))]
        waiting = deque(row for row in rows if len(row[1]) + len(row[2]) <= most)
        room = _TOKENS if self.dense.device.type == "cpu" else _GPU_TOKENS
        while waiting:
            batch: list[tuple[int, list[int], list[int]]] = []
            sessions: list[TokenSession] = []
            while waiting:
                _, given, said = waiting[0]
                session = self.session()
                session.ids, session.cache = given + said[:-1], Sequence(self.pages)
                lengths = [len(other.ids) for other in (*sessions, session)]
                full = sum(lengths) > room or len(lengths) * max(lengths) ** 2 > _PADDED_SCORES
                if (sessions and full) or not self._make_room(session, lengths[-1], sessions):
                    break
                session.cache.grow(lengths[-1])
                sessions.append(session)
                batch.append(waiting.popleft())
            flat = _flat(sessions, [len(session.ids) for session in sessions])
            ends = [start + len(given) - 1 for start, (_, given, _) in zip(flat.run, batch, strict=False)]
            wanted = [end + i for end, (_, _, said) in zip(ends, batch, strict=True) for i in range(len(said))]
            with torch.inference_mode():
                logits = self.dense.forward(replace(flat, wanted=np.array(wanted)), self.backend)
                likely = summed_logprobs(logits, [said for _, _, said in batch])
            for (place, _, _), logprob in zip(batch, likely, strict=True):
                found[place] = logprob
        return found

    def _run_on_device(self, tokens: int) -> int:
        """Several tokens of every row, where all are read to their last token; how many, or 0."""
        rows = self._rows
        sessions = [row.session for row in rows]
        room = min(self.positions, self.pages.count * PAGE) - max(session.cached for session in sessions)
        tokens = min(tokens, MOST, room)  # a row's limit, which the device does not know
        if self.loop is None or tokens < 2:
            return 0
        for session in sessions:
            length = session.cached + tokens
            if session.cache is None or session.cached != len(session.ids) - 1:
                return 0
            if not self._make_room(session, length, sessions):
                return 0
            session.cache.grow(length)
        heat = [row.request.temperature for row in rows]
        said = self.loop.run(
            [session.ids[-1] for session in sessions],
            [session.cached for session in sessions],
            [session.cache.pages for session in sessions],
            tokens,
            *((heat, [_next_draws(row.request.rng, tokens) for row in rows]) if any(heat) else ()),
        )
        for row, written in zip(rows, said, strict=True):
            for token in written:
                if row.request.temperature:
                    row.request.rng.random()  # the one that this token was drawn with
                row.session.cached = len(row.session.ids)  # which a slot that is cut makes smaller
                row.push(token)
                if row.ended:
                    break
            self._settle(row)
        self._rows = [row for row in rows if not row.ended]
        return tokens

    def _settle(self, row: Decoding) -> None:
        """Ingest what the calculator has for a row, and note one that ended."""
        while row.forced and not row.ended:
            row.push(_FORCED)
        if row.ended:
            self._ended.append(row.request)

    def _turn(self) -> int:
        """One forward pass: a token for every row whose session is read to its end, as many rows as fit; 1."""
        aboard = self._board()
        batch = _flat([row.session for row, _ in aboard], [tokens for _, tokens in aboard])
        logits = self.dense.forward(batch, self.backend)
        complete = []
        for row, tokens in aboard:
            row.session.cached += tokens
            if row.session.cached == len(row.session.ids):
                complete.append(row)
        if complete:
            hot = any(row.request.temperature > 0 for row in complete)
            chosen = choose(logits, complete) if hot else self.backend.argmax(logits)
            for row, token in zip(complete, chosen, strict=True):
                row.push(token)
                self._settle(row)
        self._rows = [row for row in self._rows if not row.ended]
        return 1

    def _board(self) -> list[tuple[Decoding, int]]:
        """The rows of this turn and how many tokens each brings; their pages are taken."""
        room = _TOKENS if self.dense.device.type == "cpu" else _GPU_TOKENS
        padded = isinstance(self.backend, TorchBackend)
        waiting = sorted(self._rows, key=_unread)
        if padded:  # to the longest: rows that have much to read go first, and alone
            waiting = [row for row in waiting if 2 * _unread(row) > _unread(waiting[-1])]
        aboard: list[tuple[Decoding, int]] = []
        longest = 0
        for row in waiting:
            session = row.session
            if session.cache is None:
                session.cache, session.cached = Sequence(self.pages), 0
            tokens = min(room, _unread(row))
            longest = max(longest, len(session.ids))
            if padded and (len(aboard) + 1) * tokens * longest > _PADDED_SCORES:
                tokens = 0 if aboard else max(1, _PADDED_SCORES // longest)
            if tokens == 0 or not self._make_room(session, session.cached + tokens, [r.session for r, _ in aboard]):
                break
            session.cache.grow(session.cached + tokens)
            room -= tokens
            aboard.append((row, tokens))
        return aboard

    def _make_room(self, session: TokenSession, length: int, aboard: list[TokenSession]) -> bool:
        """Free pages for ``session`` to hold ``length`` positions, if need be those of sessions not ``aboard``."""
        missing: int = session.cache.missing(length)
        if missing > len(self.pages.free):
            kept = {id(other) for other in (session, *aboard)}
            under_way = {id(row.session) for row in self._rows}
            others = [s for s in self._sessions if s.cache is not None and id(s) not in kept]
            for other in sorted(others, key=lambda other: id(other) in under_way):  # those that wait elsewhere first
                other.cache, other.cached = None, 0
                if missing <= len(self.pages.free):
                    break
        return missing <= len(self.pages.free)


class _PagedSession(TokenSession):
    """A session whose cache is a `Sequence`, and which can be found to take it away."""

    def __init__(self, codec: Codec, known: weakref.WeakSet[TokenSession]) -> None:
        super().__init__(codec)
        self._known = known
        known.add(self)

    def fork(self) -> TokenSession:
        made = _PagedSession(self.codec, self._known)
        made.format = self.format
        made.ids = list(self.ids)
        if self.cache is not None and len(self.cache.pages) <= len(self.cache.pool.free):  # else it is read again
            made.cache, made.cached = self.cache.copy(), self.cached
        return made


def _unread(row: Decoding) -> int:
    """Tokens of a row's session that its cache has not."""
    return len(row.session.ids) - row.session.cached


def _next_draws(rng: random.Random, count: int) -> list[float]:
    """The numbers that ``rng`` will give next; it is left as it was."""
    state = rng.getstate()
    draws = [rng.random() for _ in range(count)]
    rng.setstate(state)
    return draws


def _flat(sessions: list[TokenSession], widths: list[int]) -> FlatBatch:
    """The next tokens of each session, as many as its width; wanted is what follows one that is read to its end."""
    run = np.cumsum([0, *widths], dtype=np.int32)
    table = np.zeros((len(sessions), max(len(session.cache.pages) for session in sessions)), dtype=np.int32)
    ids: list[int] = []
    for line, session, width in zip(table, sessions, widths, strict=True):
        line[: len(session.cache.pages)] = session.cache.pages
        ids += session.ids[session.cached : session.cached + width]
    starts = np.repeat([session.cached for session in sessions] - run[:-1], widths)
    whole = [s.cached + width == len(s.ids) for s, width in zip(sessions, widths, strict=True)]
    return FlatBatch(
        ids=np.array(ids, dtype=np.int32),
        row=np.repeat(np.arange(len(sessions), dtype=np.int32), widths),
        position=(np.arange(len(ids)) + starts).astype(np.int32),
        run=run,
        table=table,
        wanted=(run[1:] - 1)[whole],
    )


def _free_memory() -> int:
    """Bytes that this process may still take: of the machine, its control group, and its address space."""
    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):  # "max" is no number
        limit, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        free = min(free, limit - used)
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        free = min(free, limit - psutil.Process().memory_info().vms)
    return max(0, free)


def _affordable(dense: Dense, name: str) -> int:
    """As many pages as a share of the free memory holds; raises `UserError` where one long sequence does not fit."""
    if dense.device.type == "cuda":
        torch.cuda.empty_cache()  # what torch holds of freed memory would not count as free
        free = torch.cuda.mem_get_info(dense.device)[0]
    else:
        free = _free_memory()
    spare, size = free * _SHARE_OF_MEMORY, page_bytes(dense)
    shortest = min(dense.shape.positions, _LEAST_POSITIONS)
    pages, least = int(spare / size), -(-shortest // PAGE)
    if pages < least:
        raise UserError(
            f"{name} needs {least * size / 2**30:.1f} GiB of KV cache for one sequence of {shortest} "
            f"tokens, and {spare / 2**30:.1f} GiB are to spare; free memory, or use a smaller student"
        )
    return min(pages, _MOST_PAGES)
