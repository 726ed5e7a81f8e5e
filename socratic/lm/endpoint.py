"""An OpenAI-compatible chat endpoint as the model of any role.

It reads the transcript as text under a short instruction for the slot that is wanted (``prompts/roles``). Sessions hold
text, so nothing is cached here; the calculator cannot interrupt a reply and is off.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from socratic.lm.base import LM, Request
from socratic.prompts import PROMPTS_DIR, TRANSCRIPT, ZERO_SHOT_COT, Format, SlotKind, learned_text
from socratic.store import hash_json
from socratic.types import Completion, UserError

_IN_FLIGHT = 8
_DONE = "DONE"
_WRITES: tuple[SlotKind, ...] = ("question", "answer", "final")


def role_instructions() -> dict[SlotKind, str]:
    """What an endpoint is told to write into each kind of slot."""
    return {kind: (PROMPTS_DIR / "roles" / f"{kind}.txt").read_text("utf-8") for kind in _WRITES}


class TextSession:
    """The transcript as pieces of text."""

    def __init__(self) -> None:
        self.format = TRANSCRIPT
        self.pieces: list[str] = []

    def write_problem(self, text: str, format: Format = TRANSCRIPT) -> None:
        self.format = format
        self.pieces.append(format.opening + text)

    def write_marker(self, kind: SlotKind) -> None:
        self.pieces.append(self.format.markers[kind])

    def write_slot(self, text: str) -> None:
        self.pieces.append(learned_text(text))

    def mark(self) -> int:
        return len(self.pieces)

    def crop(self, mark: int) -> None:
        del self.pieces[mark:]

    def fork(self) -> TextSession:
        made = TextSession()
        made.format = self.format
        made.pieces = list(self.pieces)
        return made


class EndpointLM(LM):
    """Chat Completions at ``base_url`` (the SDK's own default and ``OPENAI_BASE_URL`` where None).

    The key comes from ``OPENAI_API_KEY``. A refused key, an unknown model, a quota that is used up, an address that is
    none, or nobody listening raises `UserError`; any other failure that outlives the SDK's retries is the fault
    ``model_error`` on that slot.
    """

    has_calculator = False
    calculator_default = False

    def __init__(self, model: str, base_url: str | None = None) -> None:
        import openai

        try:
            self._client = openai.OpenAI(base_url=base_url, timeout=120)
        except openai.OpenAIError:
            raise UserError(
                f"the endpoint of {model!r} needs a key: set OPENAI_API_KEY (any text for a local server)"
            ) from None
        self.name = model
        self._queue: list[Request] = []
        self._instructions = role_instructions()
        self.fingerprint = hash_json([model, str(self._client.base_url), self._instructions])

    def session(self) -> TextSession:
        return TextSession()

    def submit(self, request: Request) -> None:
        self._queue.append(request)

    def cancel(self, requests: Collection[Request]) -> None:
        self._queue = [request for request in self._queue if request not in requests]

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def step(self, tokens: int) -> list[Request]:
        """All queued requests to their ends, several in flight at once."""
        requests, self._queue = self._queue, []
        with ThreadPoolExecutor(_IN_FLIGHT) as pool:
            for request, completion in zip(requests, pool.map(self._complete, requests), strict=True):
                request.completion = completion
                if completion.fault is None:
                    request.session.write_slot(completion.text)
        return requests

    def _complete(self, request: Request) -> Completion:
        import httpx2
        import openai

        assert isinstance(request.session, TextSession)
        format = request.session.format
        messages: Any = [{"role": "user", "content": "".join(request.session.pieces)}]
        if format is not ZERO_SHOT_COT:
            messages = [{"role": "system", "content": self._instructions[request.kind]}, *messages]
        try:
            reply = self._client.chat.completions.create(
                model=self.name,
                messages=messages,
                max_completion_tokens=request.max_tokens,
                temperature=request.temperature,
                seed=request.rng.getrandbits(31),
            )
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise UserError(
                f"the endpoint refuses model {self.name!r} ({error.status_code}); check key, URL and name"
            ) from None
        except (openai.OpenAIError, ValueError) as error:  # ValueError: a body that is not JSON
            if isinstance(error, openai.RateLimitError) and "insufficient_quota" in (error.code, error.type):
                raise UserError(
                    f"{self._client.base_url} has no quota left for {self.name!r}; call this again when it has"
                ) from None
            if isinstance(error.__cause__, httpx2.UnsupportedProtocol):
                raise UserError(f"{self._client.base_url} is no address; write it with http:// or https://") from None
            if isinstance(error.__cause__, httpx2.ConnectError):
                raise UserError(f"no server answers at {self._client.base_url}; start it or correct the URL") from None
            return Completion("", "model_error", 0, f"{type(error).__name__}: {error}"[:300])
        choice = (getattr(reply, "choices", None) or [None])[0]  # the SDK hands on whatever a server sends
        content = getattr(getattr(choice, "message", None), "content", None)
        if choice is None or not isinstance(content, str):
            return Completion("", "model_error", 0, "the reply holds no text")
        used = (reply.usage.completion_tokens or 0) if reply.usage else 0
        for stop in format.stops.get(request.kind, ()):
            content = content.strip().partition(stop)[0]
        text = learned_text(content)  # as a student that learned the slot writes it
        if choice.finish_reason == "length":
            return Completion(text, "overlong", used)
        if request.kind == "question":
            # a one-line slot stays one line, so that it cannot pose as the next marker
            text = "" if text.strip(" .!*`\"'").upper() == _DONE else learned_text(" ".join(text.split())) or " "
        return Completion(text, None, used)
