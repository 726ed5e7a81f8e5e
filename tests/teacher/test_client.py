from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from socratic.teacher.client import Endpoint, Received
from socratic.types import UserError

KEY = "sk-proj-Kx7Qw2Zr9Tb4Lm6NpVd8"
BODY: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "How many, Zoë?"}],
    "max_completion_tokens": 7,
    "seed": 1,
    "top_k": 40,
}
GOOD: dict[str, Any] = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "2 €"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3},
}

Answer = Callable[[asyncio.StreamWriter, str], Awaitable[None]]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@dataclass
class Asked:
    """What came back, and the heads and bodies of the requests that arrived."""

    got: Received
    url: str
    heads: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)


def ask(answer: Answer, timeout: float = 20.0, login: str = "") -> Asked:
    """Send `BODY` once to a server that lets ``answer`` write what follows a request."""

    async def run() -> Asked:
        heads: list[str] = []
        bodies: list[Any] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.lower().partition("content-length:")[2].split()[0])
            bodies.append(json.loads(await reader.readexactly(length)))
            heads.append(head)
            try:
                await answer(writer, head)
            except ConnectionError:
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        endpoint = Endpoint(f"http://{login}127.0.0.1:{port}/v1", 4, timeout)
        try:
            got = await endpoint.send(BODY, 0)
        finally:
            await endpoint.close()
            server.close()
        return Asked(got, endpoint.url, heads, bodies)

    return asyncio.run(asyncio.wait_for(run(), 30))


def says(status: int, body: Any, **headers: str) -> Answer:
    async def answer(writer: asyncio.StreamWriter, head: str) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(raw)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + raw)
        await writer.drain()

    return answer


def test_a_reply_is_kept_as_it_came() -> None:
    asked = ask(says(200, GOOD, x_ratelimit_remaining_requests="9"))
    assert asked.got.outcome == "reply"
    assert json.loads(asked.got.raw) == GOOD
    assert asked.got.tokens == (9, 3)
    assert asked.got.headers["x-ratelimit-remaining-requests"] == "9"
    assert asked.bodies == [BODY]
    assert asked.heads[0].startswith("POST /v1/chat/completions ")
    assert f"authorization: Bearer {KEY}\r\n" in asked.heads[0].replace("Authorization", "authorization")


@pytest.mark.parametrize(
    ("status", "error", "outcome", "reason"),
    [
        (400, {"message": "no"}, "refused", "status_400"),
        (413, {"message": "no"}, "refused", "status_413"),
        (422, {"message": "no"}, "refused", "status_422"),
        (401, {"message": "no"}, "stop", "refuses the key"),
        (402, {"message": "no"}, "denied", "status_402"),
        (403, {"message": "no"}, "denied", "status_403"),
        (404, {"message": "no"}, "denied", "status_404"),
        (405, {"message": "no"}, "denied", "status_405"),
        (302, {"message": "no"}, "denied", "status_302"),
        (408, {"message": "no"}, "retry", "status_408"),
        (409, {"message": "no"}, "retry", "status_409"),
        (429, {"message": "no"}, "overloaded", "status_429"),
        (429, {"message": "no", "code": "insufficient_quota"}, "stop", "has no quota left"),
        (429, {"message": "no", "type": "insufficient_quota"}, "stop", "has no quota left"),
        (500, {"message": "no"}, "retry", "status_500"),
        (502, {"message": "no"}, "retry", "status_502"),
        (503, {"message": "no"}, "overloaded", "status_503"),
        (504, {"message": "no"}, "retry", "status_504"),
        (529, {"message": "no"}, "retry", "status_529"),
        (500, None, "retry", "status_500"),
        (429, "busy", "overloaded", "status_429"),
        (400, [1], "refused", "status_400"),
        (400, {"message": None, "code": {"a": 1}, "type": 3}, "refused", "status_400"),
    ],
)
def test_every_status_has_its_outcome_and_is_sent_once(status: int, error: Any, outcome: str, reason: str) -> None:
    asked = ask(says(status, {"error": error}, retry_after="7"))
    assert (asked.got.outcome, asked.got.reason) == (outcome, reason)
    assert asked.got.detail.startswith(f"{status}: ")
    assert len(asked.bodies) == 1
    if outcome == "overloaded":
        assert asked.got.headers["retry-after"] == "7"


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"", b"\xff\xfe", b"[1]", b'"no"', b"null"])
def test_a_failure_with_an_odd_body_is_one_too(body: bytes) -> None:
    asked = ask(says(502, body))
    assert (asked.got.outcome, asked.got.reason) == ("retry", "status_502")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"error": {"message": "overloaded", "code": 502}}, "error_body"),
        ({**GOOD, "error": "overloaded"}, "error_body"),
        ([GOOD], "error_body"),
        (None, "error_body"),
        (3, "error_body"),
        ({}, "no_choices"),
        ({"choices": None}, "no_choices"),
        ({"choices": []}, "no_choices"),
        ({"choices": [None]}, "no_choices"),
        ({"choices": {"0": {}}}, "no_choices"),
        ({"choices": "no"}, "no_choices"),
        ({"choices": [{"message": {"content": ""}, "finish_reason": "error"}]}, "broken_off"),
        ({"choices": [{"message": {"content": "#### 1"}, "finish_reason": "abort"}]}, "broken_off"),
        (b"<html>Bad gateway</html>", "not_json"),
        (b"", "not_json"),
        (b"[" * 200_000, "not_json"),
        (b'{"choices": [{"message": {"content": "\xff', "not_json"),
        (b'{"n": ' + b"9" * 5000 + b"}", "not_json"),
    ],
)
def test_what_is_called_a_reply_and_is_none(body: Any, reason: str) -> None:
    asked = ask(says(200, body))
    assert (asked.got.outcome, asked.got.reason) == ("retry", reason)
    assert len(asked.got.detail) <= 300


@pytest.mark.parametrize("body", [{"choices": []}, {"error": "late"}, {"choices": [{"finish_reason": "error"}]}])
def test_what_is_no_reply_may_have_to_be_paid(body: dict[str, Any]) -> None:
    assert ask(says(200, {**body, "usage": GOOD["usage"]})).got.tokens == (9, 3)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 3}, (9, 3)),
        ({"prompt_tokens": 9}, (9, 0)),
        ({"prompt_tokens": -9, "completion_tokens": 2**31}, (0, 0)),
        ({"prompt_tokens": 10**30, "completion_tokens": 2**31 - 1}, (0, 2**31 - 1)),
        ({"prompt_tokens": "9", "completion_tokens": 3.5}, (0, 0)),
        ({"prompt_tokens": None, "completion_tokens": [3]}, (0, 0)),
        ({"prompt_tokens": True, "completion_tokens": False}, (0, 0)),
        (None, (0, 0)),
        ([9, 3], (0, 0)),
        ("many", (0, 0)),
    ],
)
def test_odd_usage_counts_nothing(usage: Any, tokens: tuple[int, int]) -> None:
    got = ask(says(200, {**GOOD, "usage": usage})).got
    assert (got.outcome, got.tokens) == ("reply", tokens)
    assert [type(count) for count in got.tokens] == [int, int]


async def cut(writer: asyncio.StreamWriter, head: str) -> None:
    writer.write(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{"choices"')


async def reset(writer: asyncio.StreamWriter, head: str) -> None:
    writer.transport.abort()


async def no_http(writer: asyncio.StreamWriter, head: str) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")


async def no_gzip(writer: asyncio.StreamWriter, head: str) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello")


async def drip(writer: asyncio.StreamWriter, head: str) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 90000\r\n\r\n{")
    while not writer.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def stall(writer: asyncio.StreamWriter, head: str) -> None:
    while not writer.is_closing():
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("answer", [cut, reset, no_http, no_gzip])
def test_a_broken_connection_may_work_another_time(answer: Answer) -> None:
    asked = ask(answer)
    assert (asked.got.outcome, asked.got.reason) == ("retry", "connection")
    assert asked.got.detail
    assert len(asked.bodies) == 1


@pytest.mark.parametrize("answer", [drip, stall])
def test_one_deadline_for_the_whole_request(answer: Answer) -> None:
    asked = ask(answer, timeout=0.2)
    assert (asked.got.outcome, asked.got.reason) == ("retry", "deadline")
    assert asked.got.detail == "no whole reply within 0.2 s"
    assert len(asked.bodies) == 1


def test_nobody_there() -> None:
    async def run() -> Received:
        endpoint = Endpoint("http://127.0.0.1:1/v1", 4, 5)
        try:
            return await endpoint.send(BODY, 0)
        finally:
            await endpoint.close()

    got = asyncio.run(run())
    assert (got.outcome, got.reason) == ("retry", "connection")


@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 500])
@pytest.mark.parametrize("wrapped", [False, True])
def test_the_key_is_taken_out_of_all_that_is_kept(status: int, wrapped: bool) -> None:
    async def repeat(writer: asyncio.StreamWriter, head: str) -> None:
        said = head.lower().partition("authorization:")[0]
        secret = head[len(said) :].splitlines()[0] + f" ({KEY[:8]}…)"
        body = {"error": {"message": secret}} if wrapped else {**GOOD, "echo": secret}
        await says(status, body)(writer, head)

    got = ask(repeat).got
    kept = repr((got.raw, got.reason, got.detail))
    assert KEY not in kept
    assert KEY[:8] not in kept
    assert "[key]" in kept
    if status == 200 and not wrapped:
        assert json.loads(got.raw)["choices"] == GOOD["choices"]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"error": {"message": "the model m does not exist"}}, "404: the model m does not exist"),
        ({"detail": "Not Found"}, '404: {"detail": "Not Found"}'),
        (b"<h1>Not Found</h1>", "404: <h1>Not Found</h1>"),
    ],
)
def test_the_detail_is_what_the_server_says(body: Any, detail: str) -> None:
    assert ask(says(404, body)).got.detail == detail


def test_a_short_key_that_stands_in_for_none_does_not_change_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    got = ask(says(200, {**GOOD, "note": "none of them"})).got
    assert json.loads(got.raw)["note"] == "none of them"


@pytest.mark.parametrize(
    ("key", "number", "word"), [("00000000", 12.000000001, "a word"), ("question-me-not-local-server", 1.5, "question")]
)
def test_a_reply_stays_what_it_is_whatever_the_key(
    monkeypatch: pytest.MonkeyPatch, key: str, number: float, word: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    got = json.loads(ask(says(200, {**GOOD, "number": number, "note": f"{word} {key}"})).got.raw)
    assert (got["number"], got["note"], got["choices"]) == (number, f"{word} [key]", GOOD["choices"])


@pytest.mark.parametrize("status", [200, 401, 500])
def test_a_login_in_the_address_is_never_shown(status: int) -> None:
    async def repeat(writer: asyncio.StreamWriter, head: str) -> None:
        await says(status, {"error": {"message": f"{head} ann:hunter2-and-more@here"}})(writer, head)

    asked = ask(repeat, login="ann:hunter2-and-more@")
    kept = repr((asked.url, asked.got))
    assert "hunter2" not in kept
    assert base64.b64encode(b"ann:hunter2-and-more").decode() not in kept
    assert asked.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_key_is_said(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    if value is not None:
        monkeypatch.setenv("OPENAI_API_KEY", value)
    with pytest.raises(UserError, match="set OPENAI_API_KEY"):
        Endpoint("http://127.0.0.1:1/v1", 1, 1)


@pytest.mark.parametrize("spoilt", [f"{KEY}\n", f" {KEY} ", f"{KEY}\r\n"])
def test_blanks_around_the_key_do_not_matter(monkeypatch: pytest.MonkeyPatch, spoilt: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", spoilt)
    asked = ask(says(200, GOOD))
    assert asked.got.outcome == "reply"
    assert f"Bearer {KEY}\r\n" in asked.heads[0]


@pytest.mark.parametrize("spoilt", [f"{KEY[:12]}\n{KEY[12:]}", f"{KEY}é"])
def test_a_key_that_no_header_takes_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, spoilt: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", spoilt)
    with pytest.raises(UserError, match="OPENAI_API_KEY") as raised:
        Endpoint("http://127.0.0.1:1/v1", 1, 1)
    assert KEY[:8] not in str(raised.value)
    assert KEY[12:] not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://host:99999/v1", "host/v1", "file:///v1", "http://", "http://ann:hunter2@host:port"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UserError, match=r"is no address.+--base-url") as raised:
        Endpoint(url, 1, 1)
    assert "hunter2" not in str(raised.value)
