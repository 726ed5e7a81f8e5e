"""A solver as one model behind OpenAI's chat API: ``GET /v1/models`` and ``POST /v1/chat/completions``.

The last user message is the problem, and the reply is the trace's ``raw``: sub-questions and answers, one a line, and
``#### answer``. One thread owns the students and advances all requests together; a streamed reply grows by every text
that stands, so that nothing is sent that the loop drops later.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from socratic.prompts import render_raw
from socratic.solving import Board, Job, Solving
from socratic.types import Problem, Trace, UserError

_MOST_BYTES = 1 << 20
"""Of a request."""
_LENGTH = ("max_steps", "overlong")
"""Stop reasons that OpenAI calls ``length``."""
_TAKEN = {
    "content": "only text is read, alone or in parts of type text",
    "tools": "no tools are called; leave it out",
    "n": "a request has one reply; leave it out",
    "logprobs": "none are given; leave it out",
    "response_format": "replies are text; leave it out",
}
"""What to say of a field that `ChatRequest` refuses, by the field's name."""


class _Checked(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class _Part(_Checked):
    type: Literal["text"]
    text: str


class _Message(_Checked):
    role: str
    content: str | list[_Part] | None = None


class _StreamOptions(_Checked):
    include_usage: bool | None = None


class _Format(_Checked):
    type: Literal["text"]


class ChatRequest(_Checked):
    """What is read of a request; the rest, such as ``max_tokens`` and ``stop``, the solver's settings decide."""

    model: str
    messages: list[_Message]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    seed: int | None = None
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    response_format: _Format | None = None
    tools: list[Any] | None = Field(None, max_length=0)

    @property
    def problem(self) -> str:
        """The text of the last user message; ``""`` without one."""
        content = next((m.content for m in reversed(self.messages) if m.role == "user"), None) or ""
        return (content if isinstance(content, str) else "\n".join(part.text for part in content)).strip()


@dataclass(eq=False)
class _Call:
    """One request between the web and the students: what it wants, and what came of it so far."""

    solving: Solving
    problem: Problem
    loop: asyncio.AbstractEventLoop
    told: asyncio.Queue[tuple[str, Trace | Exception | None]] = field(default_factory=asyncio.Queue)
    """New text, and at the end the trace, or what went wrong."""
    shown: int = 0

    def tell(self, text: str, end: Trace | Exception | None) -> None:
        """Hand ``text`` on, called by the students' thread; nobody may be there to hear it."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.told.put_nowait, (text, end))


class Students:
    """The thread that owns a solver's models: at most ``batch_size`` calls are under way, the others wait in turn."""

    def __init__(self, solving: Solving, batch_size: int) -> None:
        self.solving, self.batch_size = solving, batch_size
        self._asked: queue.SimpleQueue[tuple[Literal["add", "drop", "end"], _Call | None]] = queue.SimpleQueue()
        self._board = Board(solving.models)
        self._waiting: deque[_Call] = deque()
        self._jobs: dict[Job, _Call] = {}
        self._thread = threading.Thread(target=self._run, name="students", daemon=True)
        self._thread.start()

    def add(self, call: _Call) -> None:
        """Have a call solved."""
        self._asked.put(("add", call))

    def drop(self, call: _Call) -> None:
        """Forget a call, whether or not it has ended."""
        self._asked.put(("drop", call))

    def end(self) -> None:
        """Stop working; a step under way is waited for, but not a slow endpoint."""
        self._asked.put(("end", None))
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while self._take_orders():
            try:
                while self._waiting and len(self._board.under_way) < self.batch_size:
                    self._admit(self._waiting.popleft())
                for job in self._board.step() if self._board.under_way else ():
                    self._hand_on(job)
            except Exception as error:  # out of memory, or an endpoint's refusal: the calls fail, the server does not
                self._board.close()
                for call in self._jobs.values():
                    call.tell("", error)
                self._jobs.clear()
        self._board.close()

    def _take_orders(self) -> bool:
        """Do what was asked for meanwhile, and wait for it where nothing else is to be done; False at the end."""
        while not self._asked.empty() or not (self._board.under_way or self._waiting):
            order, call = self._asked.get()
            if call is None:
                return False
            if order == "add":
                self._waiting.append(call)
                continue
            if call in self._waiting:
                self._waiting.remove(call)
            dropped = {job for job, other in self._jobs.items() if other is call}
            self._board.remove(dropped)
            for job in dropped:
                del self._jobs[job]
        return True

    def _admit(self, call: _Call) -> None:
        try:
            self._jobs[self._board.add(call.solving, call.problem)] = call
        except Exception as error:  # of this problem alone, such as a text that the tokenizer cannot take
            call.tell("", error)

    def _hand_on(self, job: Job) -> None:
        call = self._jobs[job]
        text = render_raw(job.out.slots, job.out.answer)
        call.tell(text[call.shown :], job.trace)
        call.shown = len(text)
        if job.trace is not None:
            del self._jobs[job]


class _Refusal(Exception):
    """An error as OpenAI words it."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class Service:
    """The web side: ``app`` answers with what `Students` say. ``name`` is the model's id.

    Raises `UserError` for a solver that writes nothing.
    """

    def __init__(self, solving: Solving, batch_size: int = 64, api_key: str | None = None) -> None:
        if solving.settings.solver == "likelihood":
            raise UserError("solver 'likelihood' chooses an answer and writes none; serve another")
        self.solving, self.api_key = solving, api_key
        self.name = f"socratic-{solving.name}"
        self.started = int(time.time())
        self.app = web.Application(client_max_size=_MOST_BYTES, middlewares=[self._guard])
        self.app.router.add_get("/v1/models", self._list)
        self.app.router.add_get("/v1/models/{name}", self._show)
        self.app.router.add_post("/v1/chat/completions", self._complete)
        self.students = Students(solving, batch_size)
        self.app.on_shutdown.append(self._end)

    async def _end(self, app: web.Application) -> None:
        await asyncio.to_thread(self.students.end)

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Ask for the key, and word every error as OpenAI does."""
        try:
            given, wanted = request.headers.get("Authorization", ""), f"Bearer {self.api_key}".encode()
            if self.api_key and not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted):
                raise _Refusal(401, "this server wants another API key", "invalid_api_key")
            return await handler(request)
        except _Refusal as refusal:
            return web.json_response(refusal.body, status=refusal.status)
        except ConnectionResetError:  # the client has hung up
            return web.Response()
        except web.HTTPException as error:
            if error.status < 400:
                raise
            too_large = error.status == web.HTTPRequestEntityTooLarge.status_code
            why = f"the body is over {_MOST_BYTES:,} bytes; send less" if too_large else error.reason
            worded = _Refusal(error.status, f"{request.method} {request.path}: {why}")
            return web.json_response(worded.body, status=error.status)

    @property
    def _model(self) -> dict[str, Any]:
        return {"id": self.name, "object": "model", "created": self.started, "owned_by": "socratic"}

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [self._model]})

    async def _show(self, request: web.Request) -> web.Response:
        self._check_name(request.match_info["name"])
        return web.json_response(self._model)

    def _check_name(self, name: str) -> None:
        if name != self.name:
            raise _Refusal(
                404, f"there is no model {name[:100]!r} here, only {self.name!r}", "model_not_found", "model"
            )

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        if request.content_type != "application/json":  # which another site's page cannot send unasked
            raise _Refusal(415, "the body must be of type application/json")
        asked = _parsed(await request.read())
        self._check_name(asked.model)
        call = _Call(self._solving(asked), _problem(asked), asyncio.get_running_loop())
        self.students.add(call)
        try:
            head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": self.name}
            return await (self._stream(request, asked, call, head) if asked.stream else self._whole(call, head))
        finally:
            self.students.drop(call)  # where the client has hung up

    def _solving(self, asked: ChatRequest) -> Solving:
        """The solver, with the request's own temperature and seed."""
        given = {"temperature": asked.temperature, "seed": asked.seed}
        made = copy(self.solving)
        made.settings = made.settings.model_copy(update={k: v for k, v in given.items() if v is not None})
        return made

    async def _whole(self, call: _Call, head: dict[str, Any]) -> web.Response:
        end: Trace | Exception | None = None
        while end is None:
            _, end = await call.told.get()
        trace = _solved(end)
        message = {"role": "assistant", "content": trace.raw, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, **_finish(trace)}
        return web.json_response(
            {**head, "object": "chat.completion", "choices": [choice], "usage": self._usage(call, trace)}
        )

    async def _stream(
        self, request: web.Request, asked: ChatRequest, call: _Call, head: dict[str, Any]
    ) -> web.StreamResponse:
        """The reply as server-sent events: a chunk for each text that stands."""
        wants_usage = bool(asked.stream_options and asked.stream_options.include_usage)
        chunk = {**head, "object": "chat.completion.chunk", **({"usage": None} if wants_usage else {})}
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)

        async def send(delta: dict[str, Any], finish: dict[str, Any]) -> None:
            await _send(response, {**chunk, "choices": [{"index": 0, "delta": delta, "logprobs": None, **finish}]})

        await send({"role": "assistant", "content": ""}, {"finish_reason": None})
        end: Trace | Exception | None = None
        while end is None:
            text, end = await call.told.get()
            if text:
                await send({"content": text}, {"finish_reason": None})
        try:
            trace = _solved(end)
        except _Refusal as refusal:
            await _send(response, refusal.body)
            return response
        await send({}, _finish(trace))
        if wants_usage:
            await _send(response, {**chunk, "choices": [], "usage": self._usage(call, trace)})
        await response.write(b"data: [DONE]\n\n")
        return response

    def _usage(self, call: _Call, trace: Trace) -> dict[str, int]:
        """Tokens of the problem, as the first student reads it, and those that the students decoded."""
        codec = getattr(self.solving.models[0], "codec", None)  # an endpoint has none
        format = self.solving.format(call.problem)
        read = len(codec.problem(format.problem(call.problem), format)) if codec else 0
        return {"prompt_tokens": read, "completion_tokens": trace.tokens, "total_tokens": read + trace.tokens}


def _parsed(body: bytes) -> ChatRequest:
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        param = ".".join(map(str, first["loc"])) or None
        said = next((_TAKEN[part] for part in first["loc"] if part in _TAKEN), first["msg"])
        raise _Refusal(400, f"{param or 'body'}: {said}"[:300], param=param) from None


def _problem(asked: ChatRequest) -> Problem:
    """As `socratic solve` makes one of a text, so that both write the same."""
    if not asked.problem:
        raise _Refusal(
            400, "messages: there is no user message with a text, which would be the problem", None, "messages"
        )
    return Problem("problem", "own", "test", asked.problem, "")


def _solved(end: Trace | Exception) -> Trace:
    if isinstance(end, Exception):
        text = str(end) if isinstance(end, UserError) else f"{type(end).__name__} while solving"
        raise _Refusal(500, text)
    if end.stop_reason == "model_error":
        raise _Refusal(502, f"a student failed: {end.error}")
    return end


def _finish(trace: Trace) -> dict[str, Any]:
    reason = "length" if trace.stop_reason in _LENGTH else "stop"
    return {"finish_reason": reason, "stop_reason": trace.stop_reason}


async def _send(response: web.StreamResponse, event: dict[str, Any]) -> None:
    await response.write(f"data: {json.dumps(event)}\n\n".encode())


def serve(service: Service, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C; ``on_ready`` gets the base URL. Raises `UserError` for an address that cannot be taken."""

    def ready(_: str) -> None:
        on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/v1")

    try:
        web.run_app(
            service.app,
            host=host,
            port=port,
            print=ready,
            access_log=None,
            shutdown_timeout=1.0,
            handler_cancellation=True,
        )
    except OSError as error:
        raise UserError(
            f"{host}:{port} cannot be listened at ({error.strerror}); give another --host or --port"
        ) from None
