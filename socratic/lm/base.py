"""The one interface of every model: sessions that are appended to, and slots decoded in batches.

A `Session` is one model's view of one problem's transcript. It only grows, or is cropped to an earlier mark, so a model
may keep its KV cache beside it. A loop writes what others said into a session and then asks for the next slot with a
`Request`; `LM.submit` queues requests of many problems and `LM.step` advances all of them together by a few tokens,
returning those that ended. An engine that keeps rows resident, joins and leaves them at will, fits behind `step`.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Protocol

from socratic.calculator import calculate, format_result, pending
from socratic.prompts import PLAIN, TRANSCRIPT, Format, SlotKind, learned_text
from socratic.tokens import Codec
from socratic.types import CalculatorError, Completion, Guidance, QGSees, Role, UserError


class Session(Protocol):
    """One model's transcript of one problem; ``format`` is how it is written down."""

    format: Format

    def write_problem(self, text: str, format: Format = TRANSCRIPT) -> None:
        """Append the given first segment; what follows is written in the same format."""

    def write_marker(self, kind: SlotKind) -> None:
        """Append a slot's marker."""

    def write_slot(self, text: str) -> None:
        """Append a slot's text, as another model wrote it (unstripped), and its end; ``""`` is QG's stop."""

    def mark(self) -> int:
        """The place reached, for `crop`."""

    def crop(self, mark: int) -> None:
        """Forget everything behind ``mark``."""

    def fork(self) -> Session:
        """Another session with the same transcript, which goes its own way from here."""


@dataclass(eq=False)
class Request:
    """A slot to be written by the session's model, behind a marker already in the session.

    ``temperature`` 0 is greedy; otherwise ``rng`` supplies one uniform number a decoded token, so that a sample depends
    on its seed alone and not on the batch it is decoded in. ``completion`` is set when the slot has ended; only a slot
    that ended in END stays in the session. ``partial`` gives the text so far.
    """

    lm: LM
    session: Session
    kind: SlotKind
    max_tokens: int
    calculator: bool
    temperature: float = 0.0
    rng: random.Random = field(default_factory=random.Random)
    partial: Callable[[], str] = str
    completion: Completion | None = None
    logprob: float | None = None
    """Natural logarithm of the decoded tokens' probability at temperature 1, where a local model samples them."""
    among: tuple[int, ...] = ()
    """The only tokens that may be sampled, if any are named; ``logprob`` is then given that it is one of them."""


class LM(ABC):
    """A model of any role."""

    name: str
    role: Role | None = None
    """What it was trained for; None where any role is as good."""
    qg_sees: QGSees = "answers"
    guidance: Guidance = "none"
    """The plan that it reads as QG, or writes as planner."""
    format: Format = TRANSCRIPT
    """What it was trained in."""
    has_calculator: bool = True
    """Whether slots of this model can be interrupted for the calculator's results."""
    calculator_default: bool = True
    parameters: int | None = None
    training: Mapping[str, Any] | None = None
    """Of a trained student: ``recipe`` (the same for every seed), ``seed``, ``tokens`` read in training, and ``fold``
    where it never saw that one."""
    fingerprint: str | None = None
    """SHA-256 of what decides this model's output, where it is known."""
    dtype: str = ""
    note: str | None = None
    """What the user should know of how it runs, such as that it is slow."""

    def record(self) -> dict[str, Any]:
        """What a run says of this model, as plain values."""
        own = {"name": self.name, "sha256": self.fingerprint, "dtype": self.dtype, "parameters": self.parameters}
        return own if self.training is None else {**own, "training": dict(self.training)}

    @abstractmethod
    def session(self) -> Session:
        """A new, empty session."""

    def open(self, format: Format) -> Session:
        """A new session for a problem in this format, which may have read the opening already."""
        return self.session()

    @abstractmethod
    def submit(self, request: Request) -> None:
        """Queue a request; its session must belong to this model and have no other request under way."""

    @abstractmethod
    def step(self, tokens: int) -> list[Request]:
        """Advance all queued requests by up to ``tokens`` tokens; return those that ended, their completion set."""

    @abstractmethod
    def cancel(self, requests: Collection[Request]) -> None:
        """Forget those of ``requests`` that have not ended; their sessions are not to be used again."""

    @property
    @abstractmethod
    def waiting(self) -> int:
        """How many submitted requests have not ended."""

    def logprobs(self, texts: list[tuple[str, str]]) -> list[float | None]:
        """Of each (given, said) the natural logarithm of the probability of ``said`` behind ``given`` and a space.

        ``given`` is in the format `PLAIN`. None stands for what is longer than the model reads. Raises `UserError` for
        a model that does not say: an encoder-decoder, or one behind an endpoint.
        """
        raise UserError(f"{self.name} does not say how likely a given text is; give a decoder that runs here")


class LocalLM(LM):
    """What models that decode here share: the rows under way, and requests that ended before they began."""

    def __init__(self, codec: Codec, name: str, parameters: int) -> None:
        self.codec, self.name, self.parameters = codec, name, parameters
        self.has_calculator = codec.exact
        self._rows: list[Decoding] = []
        self._ended: list[Request] = []
        self._opened: dict[str, Session] = {}

    def session(self) -> TokenSession:
        return TokenSession(self.codec)

    def open(self, format: Format) -> Session:
        """A new session; a format's opening is read once, when the model is idle, for all that follow."""
        if format.opening and format.opening not in self._opened and not self.waiting:
            session = self.session()
            assert isinstance(session, TokenSession)
            session.ids += self.codec.opening(format)
            place = session.mark()
            self.submit(Request(self, session, "answer", 1, calculator=False))
            while self.waiting:
                self.step(1)
            session.crop(place)
            self._opened[format.opening] = session
        opened = self._opened.get(format.opening)
        return opened.fork() if opened else self.session()

    @property
    def waiting(self) -> int:
        return len(self._rows) + len(self._ended)

    def _spelled(self, texts: list[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        """The ids of what `logprobs` is given."""
        given = {text: self.codec.problem(text, PLAIN) for text, _ in texts}
        return [(given[text], self.codec.text(learned_text(said))) for text, said in texts]

    def cancel(self, requests: Collection[Request]) -> None:
        for row in self._rows:
            if row.request in requests:
                row.request.partial = str  # which would keep the session, and its cache, alive
        self._rows = [row for row in self._rows if row.request not in requests]
        self._ended = [request for request in self._ended if request not in requests]

    def _decoding(self, request: Request, most: int | None) -> Decoding:
        """The row of a request whose session may grow to ``most`` ids, its last token to be read for its logits."""
        session = request.session
        assert isinstance(session, TokenSession)
        session.cached = min(session.cached, len(session.ids) - 1)
        return Decoding(request, session, most)

    def _admit(self, row: Decoding) -> None:
        if row.ended:
            self._ended.append(row.request)
        else:
            self._rows.append(row)


class TokenSession:
    """The transcript as token ids; ``cache`` is the model's own, of the first ``cached`` ids."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.format = TRANSCRIPT
        self.ids: list[int] = []
        self.cache: Any = None
        self.cached = 0

    def write_problem(self, text: str, format: Format = TRANSCRIPT) -> None:
        self.format = format
        self.ids += self.codec.problem(text, format)[len(self.ids) :]  # it may hold the opening already

    def write_marker(self, kind: SlotKind) -> None:
        self.ids += self.codec.marker(kind, self.format)

    def write_slot(self, text: str) -> None:
        self.ids += self.codec.text(text) if self.format.stops else self.codec.slot(text)

    def mark(self) -> int:
        return len(self.ids)

    def crop(self, mark: int) -> None:
        del self.ids[mark:]
        self.cached = min(self.cached, mark)

    def fork(self) -> TokenSession:
        """Another session with the same transcript, which goes its own way from here."""
        made = type(self)(self.codec)
        made.format = self.format
        made.ids, made.cache, made.cached = list(self.ids), deepcopy(self.cache), self.cached
        return made


_LATEST = 16
"""Tokens among which a stop that has just been written lies: more than it has characters."""


class Decoding:
    """One slot while it is written: the stop test and the calculator, token by token, whatever the model.

    ``forced`` holds the calculator's result to be ingested next in place of what the model would say. Its tokens go
    through `push` like any other. ``start`` is the session's length before the slot; ``positions`` the model's limit.
    Where the session's format has stops, the first of them ends the slot, as does any special token, and none stays.
    """

    def __init__(self, request: Request, session: TokenSession, positions: int | None = None) -> None:
        self.request, self.session, self.codec = request, session, session.codec
        self.start = len(session.ids)
        self.stops = session.format.stops.get(request.kind, ())
        self.limit = min(request.max_tokens, positions - self.start if positions else request.max_tokens)
        request.partial = self.text
        self.forced: deque[int] = deque()
        self.decoded = 0
        if self.limit < 1:
            most = f"{request.lm.name} takes {positions} at most"
            self._end("overlong", f"{self.start} tokens stand before the {request.kind}, and {most}")

    @property
    def ended(self) -> bool:
        return self.request.completion is not None

    def push(self, token: int) -> None:
        """Take the model's next token, or the next forced one."""
        if self.forced:
            token = self.forced.popleft()
            self.session.ids.append(token)
        else:
            self.decoded += 1
            if self.stops and (token == self.codec.end_id or token in self.codec.special_ids):
                return self._end(None)
            if token == self.codec.end_id:
                self.session.ids.append(token)
                return self._end(None)
            if token in self.codec.special_ids:
                return self._end("invalid_output")
            self.session.ids.append(token)
            if self.request.calculator and self.codec.has_equals(token):
                self._calculate()
        if self.stops and self._cut_at_stop():
            return self._end(None)
        if len(self.session.ids) - self.start >= self.limit:
            self._end("overlong")
        return None

    def text(self) -> str:
        """The slot's text so far."""
        return self.codec.decode([i for i in self.session.ids[self.start :] if i != self.codec.end_id])

    def _cut_at_stop(self) -> bool:
        """Whether the text has come to hold a stop; it is then cut before it.

        Ids that spell the beginning of what is left stay, and with them their cache; the rest is spelled anew, as where
        a token holds the end of a sentence and a line break.
        """
        ids = self.session.ids
        latest = self.codec.decode(ids[max(self.start, len(ids) - _LATEST) :])
        if not any(stop in latest for stop in self.stops):
            return False
        text = self.text()
        text = text[: min(place for stop in self.stops if (place := text.find(stop)) >= 0)]
        kept = len(ids)
        while not text.startswith(spelled := self.codec.decode(ids[self.start : kept])):
            kept -= 1
        self.session.crop(kept)
        self.session.ids += self.codec.text(text[len(spelled) :])
        return True

    def _calculate(self) -> None:
        expression = pending(self.text())
        if expression is None:
            return
        try:
            result = format_result(calculate(expression))
        except CalculatorError:
            return  # left to the model
        self.forced.extend(self.codec.text(f"{result}>>"))

    def _end(self, fault: Any, error: str | None = None) -> None:
        text = self.text()
        self.request.partial = lambda: text  # no longer through this object, which would keep the session alive
        if fault is not None:
            self.session.crop(self.start)
        self.request.completion = Completion(text, fault, self.decoded, error)
