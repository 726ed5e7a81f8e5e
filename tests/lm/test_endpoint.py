from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from tiny import Replay, byte_tokenizer, problems, solved

from socratic.lm.endpoint import EndpointLM
from socratic.lm.load import load_lm
from socratic.solving import stream
from socratic.tokens import Codec
from socratic.types import Problem, Step, UserError

Reply = tuple[int, Any]
PROBLEM = Problem("p", "tiny", "test", "How many clips?", "72")


def says(text: str | None, finish: str = "stop") -> Reply:
    message = {"role": "assistant", "content": text}
    return 200, {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    }


class Server(ThreadingHTTPServer):
    """A chat endpoint on this machine; ``answer`` makes the reply to a request's body, ``seen`` keeps the bodies."""

    answer: Callable[[dict[str, Any]], Reply]

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.paths: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Server)
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append(body)
        self.server.paths.append(self.path)
        status, reply = self.server.answer(body)
        data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("content-type", "text/html" if data.startswith(b"<") else "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def lm(server: Server, monkeypatch: pytest.MonkeyPatch) -> EndpointLM:
    from openai import _base_client

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_base_client.BaseClient, "_calculate_retry_timeout", lambda *args, **kwargs: 0.0)
    made = load_lm(f"openai:m@{server.url}")
    assert isinstance(made, EndpointLM)
    return made


def script(replies: list[Reply]) -> Callable[[dict[str, Any]], Reply]:
    left = iter(replies)
    return lambda body: next(left)


def test_a_teacher_solves_in_the_two_role_loop(server: Server, lm: EndpointLM) -> None:
    answers = script([says(" How many\nin May? "), says("48/2=24 clips"), says("DONE."), says(" 72\n")])
    server.answer = answers
    trace = solved([PROBLEM], "tied", lm=lm, temperature=0.5)[0]
    assert trace.steps == (Step("How many in May?", "48/2=24 clips"),)
    assert (trace.stop_reason, trace.answer, trace.error) == ("finished", "72", None)
    assert trace.raw == "How many in May?\n48/2=24 clips\n#### 72"
    assert trace.tokens == 12
    assert trace.calculator is False
    texts = [body["messages"][-1]["content"] for body in server.seen]
    start = "Problem: How many clips?\nQ:"
    assert texts == [
        start,
        f"{start} How many in May?\nA:",
        f"{start} How many in May?\nA: 48/2=24 clips\nQ:",
        f"{start} How many in May?\nA: 48/2=24 clips\nQ:\n####",
    ]
    assert {path for path in server.paths} == {"/v1/chat/completions"}
    assert {body["model"] for body in server.seen} == {"m"}
    assert {body["temperature"] for body in server.seen} == {0.5}
    assert [body["max_completion_tokens"] for body in server.seen] == [256] * 4
    assert len({body["messages"][0]["content"] for body in server.seen}) == 3, "each kind of slot has its instruction"


def test_a_local_student_reads_the_endpoints_text_as_it_was_trained_to(server: Server, lm: EndpointLM) -> None:
    server.answer = script([says("How many in May?"), says("DONE")])
    codec = Codec(byte_tokenizer("qwen2"))
    qa = Replay(codec, [["24", "72"]])
    trace = solved([PROBLEM], qg=lm, qa=qa)[0]
    assert trace.answer == "72"
    end = codec.end_text
    assert codec.decode(qa.kept[0].ids) == (
        f"Problem: How many clips?{end}\nQ: How many in May?{end}\nA: 24{end}\nQ:{end}\n#### 72{end}"
    )


def test_many_problems_are_in_flight_and_come_back_in_place(server: Server, lm: EndpointLM) -> None:
    server.answer = lambda body: says(body["messages"][-1]["content"].split("Count ")[1].split(":")[0])
    traces = solved(problems(20), "answer", lm=lm)
    assert [t.answer for t in traces] == [str(i) for i in range(20)]


def test_a_seed_gives_the_same_requests(server: Server, lm: EndpointLM) -> None:
    server.answer = lambda body: says("7")
    for seed in (1, 1, 2):
        solved([PROBLEM], "answer", lm=lm, seed=seed, temperature=1.0)
    one, again, other = (body["seed"] for body in server.seen)
    assert one == again != other


@pytest.mark.parametrize("text", ["DONE", " DONE. ", "DONE.\n"])
def test_done_is_the_stop(server: Server, lm: EndpointLM, text: str) -> None:
    server.answer = script([says(text), says("7")])
    trace = solved([PROBLEM], "unified", lm=lm)[0]
    assert (trace.stop_reason, trace.steps, trace.answer) == ("finished", (), "7")


@pytest.mark.parametrize("text", ["", "  \n"])
def test_nothing_instead_of_a_question_is_empty_output(server: Server, lm: EndpointLM, text: str) -> None:
    server.answer = script([says(text), says("7")])
    trace = solved([PROBLEM], "unified", lm=lm)[0]
    assert (trace.stop_reason, trace.answer) == ("empty_output", "7")


def test_a_reply_that_was_cut_off_is_overlong(server: Server, lm: EndpointLM) -> None:
    server.answer = script([says("How many in", "length"), says("7")])
    trace = solved([PROBLEM], "unified", lm=lm)[0]
    assert (trace.stop_reason, trace.steps, trace.answer) == ("overlong", (), "7")
    assert "How many in" not in server.seen[-1]["messages"][-1]["content"]


NO_TEXT = {**says("")[1], "choices": []}


@pytest.mark.parametrize("reply", [says(None), (200, NO_TEXT), (200, {**NO_TEXT, "choices": None})])
def test_a_reply_without_text_is_a_model_error(server: Server, lm: EndpointLM, reply: Reply) -> None:
    server.answer = script([reply, says("7")])
    trace = solved([PROBLEM], "unified", lm=lm)[0]
    assert (trace.stop_reason, trace.error, trace.answer) == ("model_error", "the reply holds no text", "7")


@pytest.mark.parametrize("status", [400, 429, 500])
def test_a_failing_server_is_a_model_error_after_retries(server: Server, lm: EndpointLM, status: int) -> None:
    server.answer = lambda body: (status, {"error": {"message": "on fire"}})
    trace = solved([PROBLEM], "answer", lm=lm)[0]
    assert (trace.stop_reason, trace.answer, trace.tokens) == ("model_error", None, 0)
    assert trace.error is not None
    assert "on fire" in trace.error
    assert len(server.seen) == (1 if status == 400 else 3)


@pytest.mark.parametrize(
    "reply", [b"<html>welcome</html>", b'{"choices": [', b'{"error": "x"}', b"[]", b'{"choices": [{}]}']
)
def test_a_server_that_is_no_chat_endpoint_is_a_model_error(server: Server, lm: EndpointLM, reply: bytes) -> None:
    server.answer = lambda body: (200, reply)
    trace = solved([PROBLEM], "answer", lm=lm)[0]
    assert (trace.stop_reason, trace.answer) == ("model_error", None)
    assert trace.error


def test_a_server_that_recovers_is_not_an_error(server: Server, lm: EndpointLM) -> None:
    server.answer = script([(503, {}), says("7")])
    assert solved([PROBLEM], "answer", lm=lm)[0].answer == "7"


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_model_is_the_users_mistake(server: Server, lm: EndpointLM, status: int) -> None:
    server.answer = lambda body: (status, {"error": {"message": "no"}})
    with pytest.raises(UserError, match=f"refuses model 'm' \\({status}\\); check key, URL and name"):
        solved([PROBLEM], "answer", lm=lm)


def test_a_quota_that_is_used_up_stops_the_run(server: Server, lm: EndpointLM) -> None:
    server.answer = lambda body: (429, {"error": {"message": "no", "code": "insufficient_quota"}})
    with pytest.raises(UserError, match=r"has no quota left for 'm'; call this again when it has"):
        solved([PROBLEM], "answer", lm=lm)


def test_an_address_that_is_none_stops_the_run(lm: EndpointLM) -> None:
    with pytest.raises(UserError, match=r"localhost:8000/v1/ is no address; write it with http:// or https://"):
        solved([PROBLEM], "answer", lm=EndpointLM("m", "localhost:8000/v1"))


def test_a_server_that_is_not_there_stops_the_run(lm: EndpointLM) -> None:
    gone = Server()
    url = gone.url
    gone.server_close()
    with pytest.raises(UserError, match=r"no server answers at .*; start it or correct the URL"):
        solved([PROBLEM], "answer", lm=EndpointLM("m", url))


def test_a_key_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="needs a key: set OPENAI_API_KEY"):
        load_lm("openai:m@http://127.0.0.1:9/v1")


def test_the_calculator_is_refused(lm: EndpointLM) -> None:
    with pytest.raises(UserError, match="calculator cannot interrupt m"):
        solved([PROBLEM], "answer", lm=lm, calculator=True)


def test_stream(server: Server, lm: EndpointLM) -> None:
    server.answer = script([says("Half?"), says("24"), says("DONE"), says("72")])
    events = list(stream(PROBLEM, "unified", lm=lm))
    assert [(e.kind, e.text, e.done) for e in events[:-1]] == [
        ("question", " Half?", True),
        ("answer", " 24", True),
        ("question", "", True),
        ("final", " 72", True),
    ]
    assert events[-1].trace is not None
    assert events[-1].trace.answer == "72"


def test_zero_shot_asks_without_an_instruction(server: Server, lm: EndpointLM) -> None:
    replies = iter(["There are 72.\nQ: And then?", "72"])
    server.answer = lambda body: says(next(replies))
    [trace] = solved([PROBLEM], "zero-shot-cot", lm=lm)
    assert trace.raw == "There are 72.\n#### 72"
    opening = "Q: How many clips?\nA: Let's think step by step."
    assert [body["messages"] for body in server.seen] == [
        [{"role": "user", "content": opening}],
        [{"role": "user", "content": f"{opening} There are 72.\nTherefore, the answer is"}],
    ]


def test_few_shot_shows_examples_and_takes_one_slot_of_a_reply(server: Server, lm: EndpointLM) -> None:
    replies = iter(["How many?\nA: 72\n#### 72", "72 clips.\nQ:\n#### 72", "DONE", "72\n\nProblem: more"])
    server.answer = lambda body: says(next(replies))
    [trace] = solved([PROBLEM], "few-shot-socratic", lm=lm)
    assert (trace.stop_reason, trace.raw) == ("finished", "How many?\n72 clips.\n#### 72")
    system, asked = server.seen[0]["messages"]
    assert system["role"] == "system"
    assert asked["content"].startswith("Problem: ")
    assert asked["content"].count("\nQ:\n#### ") == 4
    assert asked["content"].endswith("\n\nProblem: How many clips?\nQ:")
