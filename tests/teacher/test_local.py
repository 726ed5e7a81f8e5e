from __future__ import annotations

import asyncio
import gc
import json
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tiny import byte_tokenizer, causal_model, metaspace_tokenizer, t5_model

from socratic.lm.base import LM, Request, TokenSession
from socratic.lm.causal import CausalLM
from socratic.lm.engine import EngineLM
from socratic.lm.scripted import ScriptedLM
from socratic.lm.seq2seq import Seq2SeqLM
from socratic.teacher.client import Received
from socratic.teacher.local import LocalTeacher
from socratic.tokens import Codec
from socratic.types import UserError

TEMPLATE = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYSTEM = {"role": "system", "content": "Split the problem into sub-questions, and answer each of them in turn."}


class Counting(CausalLM):
    """Counts the tokens that it has to read, and keeps an eye on the sessions that it makes."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.read = 0
        self.made: list[weakref.ref[TokenSession]] = []

    def session(self) -> TokenSession:
        session = super().session()
        self.made.append(weakref.ref(session))
        return session

    def submit(self, request: Request) -> None:
        assert isinstance(request.session, TokenSession)
        self.read += len(request.session.ids) - request.session.cached
        super().submit(request)


@pytest.fixture(scope="module")
def parts() -> tuple[Any, Codec]:
    """A model and the codec of a tokenizer with a chat template."""
    tokenizer = byte_tokenizer("qwen2")
    tokenizer.chat_template = TEMPLATE
    return causal_model("qwen2", tokenizer), Codec(tokenizer)


@pytest.fixture(params=[Counting, EngineLM])
def make(request: pytest.FixtureRequest, parts: tuple[Any, Codec]) -> Callable[[], Any]:
    """A fresh model behind the interface, each time the same."""
    more = {"pages": 300} if request.param is EngineLM else {}
    return lambda: request.param(*parts, "tiny", **more)


def body(question: str, temperature: float = 0.0, opening: Sequence[dict[str, str]] = (SYSTEM,)) -> dict[str, Any]:
    messages = [*opening, {"role": "user", "content": question}]
    return {"model": "tiny", "messages": messages, "max_completion_tokens": 40, "temperature": temperature}


def text(got: Received) -> str:
    assert got.outcome == "reply"
    choice = json.loads(got.raw)["choices"][0]
    return f"{choice['message']['content']}|{choice['finish_reason']}"


def ask(lm: LM, *asked: tuple[dict[str, Any], int], together: bool = True) -> list[str]:
    """What one teacher replies."""

    async def run() -> list[Received]:
        teacher = LocalTeacher(lm)
        try:
            if together:
                return await asyncio.wait_for(asyncio.gather(*(teacher.send(*one) for one in asked)), 60)
            return [await asyncio.wait_for(teacher.send(*one), 60) for one in asked]
        finally:
            await teacher.close()

    return [text(got) for got in asyncio.run(run())]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_reply_depends_on_its_request_alone(make: Callable[[], Any], temperature: float) -> None:
    asked = [(body(f"How many {'pens ' * (i % 4)}?", temperature), i // 4) for i in range(8)]
    alone = [ask(make(), one)[0] for one in asked]
    assert ask(make(), *asked) == alone
    assert ask(make(), *asked[::-1]) == alone[::-1]
    assert ask(make(), *asked, together=False) == alone
    assert len(set(alone)) == (4 if temperature == 0 else 8)


def test_chats_with_other_openings_keep_apart(make: Callable[[], Any]) -> None:
    other = {**SYSTEM, "content": "Solve it."}
    asked = [(body("How many?", 0, opening), 0) for opening in [(SYSTEM,), (other,), (), (other, SYSTEM), (SYSTEM,)]]
    assert ask(make(), *asked) == [ask(make(), one)[0] for one in asked]


@pytest.mark.parametrize("first", ["?", "?!", "", "\n", "How many?", "How many pens?"])
def test_what_is_shared_is_no_more_than_what_is_the_same(make: Callable[[], Any], first: str) -> None:
    asked = [(body(question), 0) for question in (first, "How many?", "\n?", "?? pens", "? pens")]
    assert ask(make(), *asked, together=False) == [ask(make(), one)[0] for one in asked]


def test_instruction_and_examples_are_read_once(parts: tuple[Any, Codec]) -> None:
    lm = Counting(*parts, "tiny")
    opening = [SYSTEM, {"role": "user", "content": "1+1? " * 60}, {"role": "assistant", "content": "2. " * 60}]
    ask(lm, *((body(f"Ann has {i} pens.", 0, opening), 0) for i in range(20)))
    alone = Counting(*parts, "tiny")
    ask(alone, (body("Ann has 0 pens.", 0, opening), 0))
    assert alone.read > 500
    assert alone.read <= lm.read < alone.read + 20 * 50


def test_openings_are_forgotten_in_the_end(parts: tuple[Any, Codec]) -> None:
    lm = Counting(*parts, "tiny")

    async def run() -> int:
        teacher = LocalTeacher(lm)
        for i in range(20):
            first = {"role": "user", "content": f"Q: {i}"}
            await teacher.send(body("Therefore, the answer is", 0, [first]), 0)
        gc.collect()
        alive = sum(made() is not None for made in lm.made)
        await teacher.close()
        return alive

    assert asyncio.run(run()) < 8
    assert len(lm.made) >= 20


def test_tokens_and_the_end_are_told(parts: tuple[Any, Codec]) -> None:
    async def run() -> list[Received]:
        teacher = LocalTeacher(CausalLM(*parts, "tiny"))
        return [
            await teacher.send({**body(f"{i}?"), "max_completion_tokens": most}, 0)
            for i in range(6)
            for most in (1, 500)
        ]

    for short, long in zip(*[iter(asyncio.run(run()))] * 2, strict=True):
        assert short.tokens == (long.tokens[0], 1)
        said = json.loads(long.raw)
        assert said["usage"] == {"prompt_tokens": long.tokens[0], "completion_tokens": long.tokens[1]}
        assert json.loads(short.raw)["choices"][0]["finish_reason"] == ("length" if long.tokens[1] > 1 else "stop")
        assert (said["choices"][0]["finish_reason"] == "length") is (long.tokens[1] == 500)


def test_a_chat_that_does_not_fit_is_refused(make: Callable[[], Any]) -> None:
    async def run() -> Received:
        return await LocalTeacher(make()).send(body("pens " * 400), 0)

    got = asyncio.run(run())
    assert (got.outcome, got.reason) == ("refused", "too_long")
    assert "1024" in got.detail


def lm_without_template() -> LM:
    tokenizer = byte_tokenizer("gpt2")
    return CausalLM(causal_model("gpt2", tokenizer), Codec(tokenizer), "plain-model")


def encoder_decoder() -> LM:
    tokenizer = metaspace_tokenizer()
    return Seq2SeqLM(t5_model(tokenizer), Codec(tokenizer), "plain-model")


def script() -> LM:
    return ScriptedLM(Codec(byte_tokenizer("gpt2")), lambda transcript, kind: "", name="plain-model")


@pytest.mark.parametrize("lm", [lm_without_template, encoder_decoder, script])
def test_a_model_without_a_chat_template_is_refused(lm: Callable[[], LM]) -> None:
    with pytest.raises(UserError, match=r"plain-model has no chat template, .+ instruction-tuned"):
        LocalTeacher(lm())


def test_a_template_that_refuses_the_chat_stops_the_run() -> None:
    tokenizer = byte_tokenizer("qwen2")
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TEMPLATE
    )
    lm = CausalLM(causal_model("qwen2", tokenizer), Codec(tokenizer), "tiny")

    async def run() -> tuple[Received, Received]:
        teacher = LocalTeacher(lm)
        return await teacher.send(body("How many?"), 0), await teacher.send(body("How many?", opening=()), 0)

    refused, replied = asyncio.run(run())
    assert (refused.outcome, refused.detail) == ("stop", "System role not supported")
    assert replied.outcome == "reply"


def test_closing_in_the_middle_leaves_the_model_as_it_was(make: Callable[[], Any]) -> None:
    lm = make()
    step = lm.step
    go, computing = threading.Event(), threading.Event()

    def held(tokens: int) -> Any:
        if lm.waiting > 1:
            computing.set()
            assert go.wait(30)
        ended = step(tokens)
        computing.clear()
        return ended

    lm.step = held

    async def run() -> None:
        teacher = LocalTeacher(lm)
        chats = [{**body(f"{i}?", 1.0), "max_completion_tokens": 900} for i in range(9)]
        sending = [asyncio.create_task(teacher.send(chat, 0)) for chat in chats]
        while not computing.is_set():
            await asyncio.sleep(0.001)
        for one in sending:
            one.cancel()
        asyncio.get_running_loop().call_later(0.01, go.set)
        await asyncio.wait_for(teacher.close(), 30)
        assert not computing.is_set()
        assert lm.waiting == 0

    asyncio.run(run())
    asked = (body("How many?", 1.0), 0)
    assert ask(lm, asked) == ask(make(), asked)


class Failing(CausalLM):
    """Fails once where it is told to."""

    fails = False

    def step(self, tokens: int) -> list[Request]:
        if self.fails:
            self.fails = False
            raise RuntimeError("out of memory")
        return super().step(tokens)


def test_an_error_of_the_model_reaches_all_who_wait(parts: tuple[Any, Codec]) -> None:
    lm = Failing(*parts, "tiny")
    asked = [(body(f"{i}?"), 0) for i in range(4)]

    async def run() -> tuple[list[Any], list[Received]]:
        teacher = LocalTeacher(lm)
        await teacher.send(*asked[0])  # by which the opening is read
        lm.fails = True
        sending = asyncio.gather(*(teacher.send(*one) for one in asked), return_exceptions=True)
        failed = await asyncio.wait_for(sending, 30)
        replied = await asyncio.wait_for(asyncio.gather(*(teacher.send(*one) for one in asked)), 30)
        await teacher.close()
        return failed, replied

    failed, replied = asyncio.run(run())
    assert [str(one) for one in failed] == ["out of memory"] * 4
    assert [text(got) for got in replied] == ask(CausalLM(*parts, "tiny"), *asked)


def test_an_error_while_the_opening_is_read_reaches_all_who_wait(parts: tuple[Any, Codec]) -> None:
    async def run() -> list[Any]:
        lm = Failing(*parts, "tiny")
        lm.fails = True
        teacher = LocalTeacher(lm)
        asked = (teacher.send(body(f"{i}?"), 0) for i in range(3))
        return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 30)

    assert [type(one) for one in asyncio.run(run())] == [RuntimeError] * 3


def test_nothing_touches_the_caches_while_the_model_computes(
    parts: tuple[Any, Codec], monkeypatch: pytest.MonkeyPatch
) -> None:
    go, computing = threading.Event(), threading.Event()
    forked: list[bool] = []
    fork = TokenSession.fork

    def noted(self: TokenSession) -> TokenSession:
        forked.append(computing.is_set())
        return fork(self)

    monkeypatch.setattr(TokenSession, "fork", noted)

    class Slow(CausalLM):
        def step(self, tokens: int) -> list[Request]:
            computing.set()
            assert go.wait(30)
            ended = super().step(tokens)
            computing.clear()
            return ended

    async def run() -> None:
        teacher = LocalTeacher(Slow(*parts, "tiny"))
        go.set()
        await teacher.send(body("0?"), 0)  # the opening is known from here on
        go.clear()
        first = asyncio.create_task(teacher.send(body("1?"), 0))
        while not computing.is_set():
            await asyncio.sleep(0.001)
        second = asyncio.create_task(teacher.send(body("2?"), 0))
        await asyncio.sleep(0.01)
        go.set()
        await asyncio.wait_for(asyncio.gather(first, second), 30)
        await teacher.close()

    asyncio.run(run())
    assert forked == [False] * 3
