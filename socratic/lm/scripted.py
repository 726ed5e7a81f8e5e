"""A model that says what a script tells it: for tests, replays of gold chains, and planted behaviour."""

from __future__ import annotations

from collections.abc import Callable, Collection

from socratic.calculator import cut
from socratic.lm.base import LM, Decoding, Request, TokenSession
from socratic.prompts import SlotKind, learned_text
from socratic.tokens import Codec
from socratic.types import QGSees

Script = Callable[[str, SlotKind], str]
"""(transcript so far, kind of the slot) -> what to say, said as a learned text is; ``""`` is an immediate END."""


class ScriptedLM(LM):
    """Says ``script(transcript, kind)`` token by token through the same stop test and calculator as a real model."""

    def __init__(self, codec: Codec, script: Script, name: str = "scripted", qg_sees: QGSees = "answers") -> None:
        self.codec, self.script, self.name, self.qg_sees = codec, script, name, qg_sees
        self.has_calculator = codec.exact
        self._queue: list[Request] = []

    def session(self) -> TokenSession:
        return TokenSession(self.codec)

    def submit(self, request: Request) -> None:
        self._queue.append(request)

    def step(self, tokens: int) -> list[Request]:
        """Every queued request is said to its end at once."""
        ended, self._queue = self._queue, []
        for request in ended:
            assert isinstance(request.session, TokenSession)
            transcript = self.codec.decode(request.session.ids)
            self._say(Decoding(request, request.session), self.script(transcript, request.kind))
        return ended

    def cancel(self, requests: Collection[Request]) -> None:
        self._queue = [request for request in self._queue if request not in requests]

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def _say(self, decoding: Decoding, text: str) -> None:
        text = learned_text(text)
        for piece in cut(text) if self.codec.exact else [text]:
            if decoding.forced:  # the calculator speaks instead of the script's own result
                while decoding.forced and not decoding.ended:
                    decoding.push(-1)
                if piece.endswith(">>"):
                    continue
            for token in self.codec.text(piece):
                if not decoding.ended:
                    decoding.push(token)
        while decoding.forced and not decoding.ended:
            decoding.push(-1)
        if not decoding.ended:
            decoding.push(self.codec.end_id)
