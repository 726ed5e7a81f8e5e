"""A model that runs here as the teacher: the same requests and replies, written by an `LM`."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from socratic.lm.base import LM, Request, TokenSession
from socratic.store import hash_json
from socratic.teacher.client import Received
from socratic.types import Completion, UserError

_CHUNK = 16
_MOST_OPENINGS = 4
"""Whose caches are kept: one is enough for all problems, but the second turn of zero-shot prompts has its own."""


class LocalTeacher:
    """Answers chats in the model's own chat template, all that are under way in one batch.

    What the chats have in common (instruction and examples) is read once. A sample depends on the request and on which
    sample it is, not on the batch. Raises `UserError` for a model without a chat template.
    """

    def __init__(self, lm: LM) -> None:
        session = lm.session()
        tokenizer: Any = session.codec.tokenizer if isinstance(session, TokenSession) else None
        if getattr(tokenizer, "chat_template", None) is None:
            raise UserError(f"{lm.name} has no chat template, which a teacher needs; use an instruction-tuned model")
        self.url = lm.name
        self._lm, self._tokenizer = lm, tokenizer
        self._openings: dict[str, asyncio.Task[TokenSession]] = {}
        self._new: list[tuple[Callable[[], Request], asyncio.Future[Completion]]] = []
        self._waiting: dict[Request, asyncio.Future[Completion]] = {}
        self._driver: asyncio.Task[None] | None = None
        self._closed = False

    async def send(self, body: Mapping[str, Any], sample: int) -> Received:
        """Write one reply."""
        from jinja2 import TemplateError

        chat = body["messages"]
        try:
            ids = self._ids(chat)
            opened = await asyncio.shield(self._opening(chat, ids))
        except TemplateError as error:  # as where a template knows no system role
            return Received("stop", reason="cannot take such a chat", detail=str(error))
        rng = random.Random(hash_json([body, sample]))
        heat = body.get("temperature", 1.0)

        def begin() -> Request:
            session = _continued(opened, ids)
            return Request(self._lm, session, "answer", body["max_completion_tokens"], False, heat, rng)

        done = await self._write(begin)
        if done.fault == "model_error":
            return Received("retry", reason="model_error", detail=done.error or "")
        if done.error:
            return Received("refused", reason="too_long", detail=done.error)
        finish = "length" if done.fault == "overlong" else "stop"
        message = {"role": "assistant", "content": done.text}
        raw = {
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {"prompt_tokens": len(ids), "completion_tokens": done.tokens},
        }
        return Received("reply", raw=json.dumps(raw), tokens=(len(ids), done.tokens))

    async def close(self) -> None:
        """Forget what is under way."""
        self._closed = True
        if self._driver is not None:
            await self._driver  # a step of the model cannot be broken off
        self._lm.cancel(self._waiting)

    def _opening(self, chat: list[dict[str, str]], ids: list[int]) -> asyncio.Task[TokenSession]:
        """What stands before the last turn, read once for all such chats."""
        key = hash_json(chat[:-1])
        reading = self._openings.pop(key, None)
        if reading is None:
            other = self._ids([*chat[:-1], {**chat[-1], "content": "?"}])
            reading = asyncio.create_task(self._read(ids[: max(1, _shared(ids, other))]))
            if len(self._openings) == _MOST_OPENINGS:
                del self._openings[next(iter(self._openings))]
        self._openings[key] = reading
        return reading

    async def _read(self, ids: list[int]) -> TokenSession:
        session = self._lm.session()
        assert isinstance(session, TokenSession)
        session.ids = list(ids)
        await self._write(lambda: Request(self._lm, session, "answer", 1, calculator=False))  # no text; the cache stays
        session.crop(len(ids))
        return session

    def _ids(self, chat: list[dict[str, str]]) -> list[int]:
        text = self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    async def _write(self, begin: Callable[[], Request]) -> Completion:
        """Have the request that ``begin`` makes completed; it is made while the model rests, whose caches it shares."""
        done: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._new.append((begin, done))
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._drive())
        return await done

    async def _drive(self) -> None:
        """Step the model in a thread until nothing is under way; what is new joins between steps."""
        while (self._new or self._waiting) and not self._closed:
            try:
                self._begin()
                ended = await asyncio.to_thread(self._lm.step, _CHUNK)
            except Exception as error:  # which must reach those who wait
                for done in [*self._waiting.values(), *(done for _, done in self._new)]:
                    if not done.done():
                        done.set_exception(error)
                self._new.clear()
                return
            for request in ended:
                done = self._waiting.pop(request)
                assert request.completion is not None
                if not done.done():
                    done.set_result(request.completion)

    def _begin(self) -> None:
        for begin, done in self._new:
            if not done.done():
                request = begin()
                self._waiting[request] = done
                self._lm.submit(request)
        self._new.clear()


def _continued(opened: TokenSession, ids: list[int]) -> TokenSession:
    """A session of ``ids`` that keeps what it shares with ``opened``."""
    session = opened.fork()
    session.crop(_shared(opened.ids, ids))
    session.ids = list(ids)
    return session


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many ids both begin with."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
