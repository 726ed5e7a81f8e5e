"""The served solver, asked by the real `openai` client."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from test_loops import counting, speaker
from tiny import Planted, byte_tokenizer

from socratic.lm.base import Request, TokenSession
from socratic.lm.scripted import Script, ScriptedLM
from socratic.serve import Service
from socratic.solving import SolveSettings, Solving, solve
from socratic.tokens import Codec
from socratic.types import Problem, UserError

GOOD = {"model": "socratic-iterative", "messages": [{"role": "user", "content": "How many?"}]}
SHORT: dict[str, Any] = {"max_tokens": 20, "max_steps": 3, "calculator": False}


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(byte_tokenizer("qwen2"))


@contextmanager
def serving(solving: Solving, **how: Any) -> Iterator[openai.OpenAI]:
    """A client of the solver, served in another thread."""
    from aiohttp import web

    service = Service(solving, **how)
    loop, ready = asyncio.new_event_loop(), threading.Event()
    runner = web.AppRunner(service.app, handler_cancellation=True, shutdown_timeout=0.1)
    ports: list[int] = []

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ports.append(runner.addresses[0][1])
        ready.set()

    thread = threading.Thread(target=lambda: (loop.run_until_complete(start()), loop.run_forever()))
    thread.start()
    assert ready.wait(10)
    key = how.get("api_key") or "any"
    try:
        with openai.OpenAI(base_url=f"http://127.0.0.1:{ports[0]}/v1", api_key=key, max_retries=0, timeout=30) as asker:
            yield asker
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def scripted(codec: Codec, script: Script, kind: type[ScriptedLM] = ScriptedLM, **settings: Any) -> Solving:
    return Solving(SolveSettings(**settings), qg=kind(codec, script, "asker"), qa=kind(codec, script, "answerer"))


def ask(client: openai.OpenAI, text: str = "How many?", **how: Any) -> Any:
    messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    return client.chat.completions.create(model="socratic-iterative", messages=messages, **how)


def post(client: openai.OpenAI, body: bytes, **headers: str) -> tuple[int, Any]:
    """Status and body of what a client less careful than OpenAI's sends."""
    sent = {"Content-Type": "application/json", "Authorization": f"Bearer {client.api_key}", **headers}
    request = urllib.request.Request(f"{client.base_url}chat/completions", body, sent)
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_reply_is_what_solve_writes(codec: Codec) -> None:
    solving = scripted(codec, counting(2))
    with serving(solving) as client:
        assert [model.id for model in client.models.list()] == ["socratic-iterative"]
        assert client.models.retrieve("socratic-iterative").owned_by == "socratic"
        reply = ask(client)
        problem = Problem("problem", "own", "test", "How many?", "")
        [trace] = solve([problem], qg=ScriptedLM(codec, counting(2)), qa=ScriptedLM(codec, counting(2)))
        assert reply.choices[0].message.content == trace.raw == "q1\na1\nq2\na2\n#### 7"
        assert (reply.choices[0].finish_reason, reply.choices[0].stop_reason) == ("stop", "finished")
        read = len(codec.problem("Problem: How many?"))
        usage = reply.usage
        assert (usage.prompt_tokens, usage.completion_tokens) == (read, trace.tokens)
        assert usage.total_tokens == read + trace.tokens


def test_a_stream_grows_by_the_texts_that_stand(codec: Codec) -> None:
    with serving(scripted(codec, counting(2))) as client:
        chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
        pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
        assert pieces == ["", "q1\na1", "\nq2\na2", "\n#### 7", None]
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-2:] == [None, "stop"]
        assert chunks[-1].usage.completion_tokens == ask(client).usage.completion_tokens
        assert all(chunk.usage is None for chunk in chunks[:-1])


def test_what_the_loop_drops_is_never_sent(codec: Codec) -> None:
    def again(transcript: str, kind: str) -> str:
        return "7" if kind == "final" else "once more"

    with serving(scripted(codec, again)) as client:
        assert (
            "".join(c.choices[0].delta.content or "" for c in ask(client, stream=True))
            == "once more\nonce more\n#### 7"
        )
        assert ask(client).choices[0].stop_reason == "repeated_step"
    with serving(scripted(codec, counting(9), max_steps=2)) as client:
        assert ask(client).choices[0].finish_reason == "length"


def test_many_at_once_get_what_each_gets_alone(codec: Codec) -> None:
    texts = [f"Count {i}: {'ab' * (i * 7 % 23)}?" for i in range(12)]
    problems = [Problem("problem", "own", "test", text, "") for text in texts]
    alone = [
        next(solve([p], qg=speaker(codec, 0), qa=speaker(codec, 1), temperature=t, seed=5, **SHORT)).raw
        for p, t in zip(problems, [0.0, 0.7] * 6, strict=True)
    ]
    solving = Solving(SolveSettings(**SHORT), qg=speaker(codec, 0), qa=speaker(codec, 1))
    with serving(solving, batch_size=5) as client, ThreadPoolExecutor(12) as pool:

        def say(index: int) -> str:
            how: dict[str, Any] = {"temperature": 0.7, "seed": 5} if index % 2 else {}
            if index % 3:
                return str(ask(client, texts[index], **how).choices[0].message.content)
            return "".join(c.choices[0].delta.content or "" for c in ask(client, texts[index], stream=True, **how))

        assert list(pool.map(say, range(12))) == alone


def transcript(request: Request) -> str:
    assert isinstance(request.session, TokenSession)
    return request.session.codec.decode(request.session.ids)


class Stalling(ScriptedLM):
    """Never answers a problem that says ``Slow``."""

    def step(self, tokens: int) -> list[Request]:
        time.sleep(0.01)
        held = [request for request in self._queue if "Slow" in transcript(request)]
        self._queue = [request for request in self._queue if request not in held]
        ended = super().step(tokens)
        self._queue = held
        return ended


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def asking(client: openai.OpenAI, asked: dict[str, Any]) -> socket.socket:
    """A connection over which the request is sent, and nothing read yet."""
    connection, body = socket.create_connection((client.base_url.host, client.base_url.port or 0)), json.dumps(asked)
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    return connection


@pytest.mark.parametrize("stream", [True, False])
def test_hanging_up_cancels_the_work(codec: Codec, stream: bool) -> None:
    solving = scripted(codec, counting(2), Stalling)
    with serving(solving, batch_size=1) as client:
        with asking(client, {**GOOD, "messages": [{"role": "user", "content": "Slow"}], "stream": stream}):
            until(lambda: solving.models[0].waiting == 1)
        until(lambda: solving.models[0].waiting == 0)
        assert ask(client, "Quick").choices[0].stop_reason == "finished"


def test_hanging_up_before_the_reply_is_no_error(codec: Codec, caplog: pytest.LogCaptureFixture) -> None:
    with serving(scripted(codec, counting(2))) as client:
        for _ in range(5):
            with asking(client, {**GOOD, "stream": True}) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset, not closed
        assert ask(client).choices[0].stop_reason == "finished"
    assert "Error handling request" not in caplog.text


def test_the_key_is_asked_for(codec: Codec) -> None:
    with serving(scripted(codec, counting(1)), api_key="sesame") as client:
        assert ask(client).choices[0].message.content
        for key in ("open", "sesame2", "säsame", ""):
            code, body = post(client, b"{}", Authorization=f"Bearer {key}".encode().decode("latin-1"))
            assert (code, body["error"]["code"]) == (401, "invalid_api_key")
        with pytest.raises(openai.AuthenticationError, match="another API key"):
            client.with_options(api_key="wrong").models.list()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "JSON"),
        (b"{", 400, "JSON"),
        (b"[" * 100_000, 400, "JSON"),
        (b'"\xff"', 400, "JSON"),
        (b"[]", 400, "body"),
        (b"{}", 400, "model"),
        (b'{"model": "socratic-iterative"}', 400, "messages"),
        ({"messages": []}, 400, "no user message"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "no user message"),
        ({"messages": [{"role": "user", "content": "  "}]}, 400, "no user message"),
        ({"messages": [{"role": "user", "content": 5}]}, 400, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "only text is read"),
        ({"messages": "hello"}, 400, "messages"),
        ({"n": 2}, 400, "n:"),
        ({"stream": "yes"}, 400, "stream"),
        ({"temperature": -1}, 400, "temperature"),
        ({"temperature": True}, 400, "temperature"),
        ({"logprobs": True}, 400, "logprobs"),
        ({"tools": [{}]}, 400, "tools: no tools are called; leave it out"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format"),
        ({"model": "gpt-4"}, 404, "socratic-iterative"),
        (json.dumps(GOOD).replace("How many?", "\\ud800").encode(), 400, "JSON"),
        (b" " * (1 << 20) + b"{}", 413, "over 1,048,576 bytes"),
    ],
)
def test_hostile_and_mistaken_requests_are_refused_in_openais_words(
    served: openai.OpenAI, body: Any, status: int, said: str
) -> None:
    if isinstance(body, dict):
        body = json.dumps({**GOOD, **body}).encode()
    code, reply = post(served, body)
    assert (code, set(reply["error"])) == (status, {"message", "type", "param", "code"})
    assert said in reply["error"]["message"]
    assert ask(served).choices[0].message.content  # and the server goes on


@pytest.fixture(scope="module")
def served(codec: Codec) -> Iterator[openai.OpenAI]:
    with serving(scripted(codec, counting(1))) as client:
        yield client


def test_a_solver_that_writes_nothing_is_refused_before_anyone_asks() -> None:
    class Weighing(ScriptedLM):
        def logprobs(self, texts: list[tuple[str, str]]) -> list[float | None]:
            return [0.0 for _ in texts]

    lm = Weighing(Codec(byte_tokenizer("qwen2")), lambda transcript, kind: "")
    with pytest.raises(UserError, match="chooses an answer and writes none; serve another"):
        Service(Solving(SolveSettings.parse({"solver": "likelihood"}), lm=lm))


def test_another_way_and_another_type_are_refused(served: openai.OpenAI) -> None:
    assert post(served, json.dumps(GOOD).encode(), **{"Content-Type": "text/plain"})[0] == 415
    with pytest.raises(openai.NotFoundError, match="chat/nowhere"):
        served.get("/chat/nowhere", cast_to=object)


def test_parts_of_a_message_are_one_problem(served: openai.OpenAI) -> None:
    parts = [{"type": "text", "text": "How"}, {"type": "text", "text": "many?"}]
    code, reply = post(
        served, json.dumps({**GOOD, "messages": [{"role": "user", "content": parts}], "top_p": 1}).encode()
    )
    assert (code, reply["choices"][0]["finish_reason"]) == (200, "stop")


class Failing(ScriptedLM):
    """Runs out of memory over a problem that says so."""

    def step(self, tokens: int) -> list[Request]:
        if any("huge" in transcript(request) for request in self._queue):
            raise RuntimeError("out of memory at 0x7f")
        return super().step(tokens)


def test_what_fails_is_an_error_of_that_request(codec: Codec) -> None:
    with serving(scripted(codec, counting(1), Failing)) as client:
        with pytest.raises(openai.InternalServerError, match="RuntimeError while solving"):
            ask(client, "huge")
        with pytest.raises(openai.APIError, match="RuntimeError while solving"):
            list(ask(client, "huge", stream=True))
        assert ask(client).choices[0].stop_reason == "finished"

    def broken(transcript: str, kind: str) -> str:
        return "<error>"

    with serving(scripted(codec, broken, Planted)) as client, pytest.raises(openai.APIStatusError) as refused:
        ask(client)
    assert (refused.value.status_code, "the server is down" in refused.value.message) == (502, True)


SERVE = """
import sys
from socratic.lm.scripted import ScriptedLM
from socratic.tokens import Codec
import socratic.lm.load
sys.path.insert(0, "tests")
from tiny import byte_tokenizer
codec = Codec(byte_tokenizer("qwen2"))
socratic.lm.load.load_lm = lambda model, **how: ScriptedLM(codec, lambda transcript, kind: "7", name=model)
from socratic.cli import main
main()
"""


def test_ctrl_c_ends_the_command() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.listen()
        command = [sys.executable, "-c", SERVE, "serve", "--solver", "answer", "--lm", "x", "--port", str(port)]
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert refused.returncode == 2
        assert f"127.0.0.1:{port} cannot be listened at" in refused.stderr
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert f"socratic-answer at http://127.0.0.1:{port}/v1; Ctrl-C ends it" in process.stderr.readline()
        os.kill(process.pid, signal.SIGINT)
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_an_empty_key_is_no_key() -> None:
    from socratic.cli.serve import serve

    with pytest.raises(UserError, match=r"--api-key \(or SOCRATIC_API_KEY\) is empty, which would let everyone in"):
        serve(lm="x", api_key=" ")


def test_a_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from socratic.cli.serve import serve

    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "socratic.serve")
    with pytest.raises(UserError, match=r"pip install '\.\[serve\]'"):
        serve(lm="x")
