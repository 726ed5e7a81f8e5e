from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from tiny import (
    FAMILIES,
    Recorded,
    RecordedEngine,
    RecordedPlain,
    byte_tokenizer,
    causal_model,
    chain,
    narrow,
    problems,
    solved,
)

from socratic import solving
from socratic.examples import causal_example
from socratic.lm.backends import KernelBackend, TorchBackend
from socratic.lm.base import LM, Request, TokenSession
from socratic.lm.causal import takes_grouped_attention
from socratic.tokens import Codec
from socratic.types import Completion, Problem, Trace

SHORT: dict[str, Any] = {"max_tokens": 20, "max_rationale_tokens": 30, "max_steps": 3, "calculator": False}
_TIE = 1e-4


WAYS = ("layers", "plain", "kernels", "torch")
"""Transformers' own layers, in batches (`CausalLM`) and alone (`PlainLM`); the engine over kernels and over torch."""


class Student:
    """A family's codec and random model; `lm()` is the model behind the interface, `plain` untouched transformers."""

    def __init__(self, family: str, way: str = "layers", **made: Any) -> None:
        self.family, self.way, self.made = family, way, made
        self.codec = Codec(byte_tokenizer(family))
        self.plain = causal_model(family, self.codec.tokenizer, **made)
        self.model = causal_model(family, self.codec.tokenizer, **made)

    def lm(self) -> Recorded | RecordedPlain | RecordedEngine:
        if self.way == "layers":
            return Recorded(self.model, self.codec, self.family)
        if self.way == "plain":
            return RecordedPlain(self.model, self.codec, self.family)
        lm = RecordedEngine(self.model, self.codec, self.family, pages=600)
        assert isinstance(lm.backend, KernelBackend), "this needs a C++ compiler"
        if self.way == "torch":
            lm.backend = TorchBackend(lm.dense, lm.pages)
        return lm

    def logits(self, ids: Sequence[int]) -> Any:
        import torch

        with torch.no_grad():
            return self.plain(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def each_way(families: Sequence[str]) -> list[Any]:
    return [pytest.param((family, way), id=f"{family}-{way}") for family in families for way in WAYS]


@pytest.fixture(scope="module", params=each_way(FAMILIES))
def student(request: pytest.FixtureRequest) -> Student:
    return Student(*request.param)


class Generate(LM):
    """Transformers' own ``generate``, which reads the whole transcript again for every slot."""

    name, has_calculator = "generate", False

    def __init__(self, student: Student) -> None:
        self.student, self.kept, self._queue = student, list[TokenSession](), list[Request]()

    def session(self) -> TokenSession:
        self.kept.append(TokenSession(self.student.codec))
        return self.kept[-1]

    def submit(self, request: Request) -> None:
        self._queue.append(request)

    def cancel(self, requests: Any) -> None:
        self._queue.clear()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def step(self, tokens: int) -> list[Request]:
        import torch

        ended, self._queue = self._queue, []
        codec = self.student.codec
        for request in ended:
            session: Any = request.session
            ids = torch.tensor([session.ids])
            new = self.student.plain.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=request.max_tokens,
                do_sample=False,
                eos_token_id=codec.end_id,
                pad_token_id=codec.end_id,
            )[0, ids.shape[1] :].tolist()
            wrong = next((k for k, token in enumerate(new) if token in codec.special_ids), None)
            if wrong is not None:
                request.completion = Completion(codec.decode(new[:wrong]), "invalid_output", wrong + 1)
            elif new[-1] != codec.end_id:
                request.completion = Completion(codec.decode(new), "overlong", len(new))
            else:
                session.ids += new
                request.completion = Completion(codec.decode(new[:-1]), None, len(new))
        return ended


def assert_same(student: Student, left: Sequence[TokenSession], right: Sequence[TokenSession]) -> int:
    """Every pair of transcripts is the same up to a token at which the model itself is undecided; how many are."""
    ties = 0
    for a, b in zip(left, right, strict=True):
        if a.ids == b.ids:
            continue
        at = next((k for k, pair in enumerate(zip(a.ids, b.ids, strict=False)) if pair[0] != pair[1]), None)
        assert at is not None, "one transcript goes on where the other ends"
        first, second = student.logits(a.ids[:at])[-1].topk(2).values.tolist()
        assert first - second < _TIE, f"the texts part at token {at}, of which the model is sure"
        ties += 1
    assert ties <= len(left) // 8
    return ties


@cache
def generated(family: str, solver: Any) -> tuple[list[TokenSession], list[Trace]]:
    """The transcripts and traces of ``generate``, which are the same whatever way another goes."""
    lm = Generate(Student(family))
    return lm.kept, solved(problems(20), solver, lm=lm, **SHORT)


@cache
def generated_in_turn(family: str, sees: Any) -> tuple[list[TokenSession], list[TokenSession]]:
    """The transcripts of QG and QA."""
    qg, qa = Generate(Student(family)), Generate(Student(family, seed=1))
    solved(problems(12), qg=qg, qa=qa, qg_sees=sees, **SHORT)
    return qg.kept, qa.kept


@pytest.mark.parametrize("solver", ["unified", "cot"])
def test_greedy_text_does_not_depend_on_the_batch_and_is_generates(student: Student, solver: Any) -> None:
    asked = problems(20)
    single, batch = student.lm(), student.lm()
    kept, by_generate = generated(student.family, solver)
    traces = [
        solved(asked, solver, lm=single, batch_size=1, **SHORT),
        solved(asked, solver, lm=batch, batch_size=64, **SHORT),
        by_generate,
    ]
    ties = assert_same(student, single.kept, batch.kept) + assert_same(student, single.kept, kept)
    if not ties:
        told = [[(t.raw, t.stop_reason, t.tokens, t.steps) for t in run] for run in traces]
        assert told[0] == told[1] == told[2]
    assert len({t.raw for t in traces[0]}) > 5, "a model that says the same to all shows nothing"


def test_two_students_in_turn_are_generates_too(student: Student) -> None:
    other = Student(student.family, student.way, seed=1)
    asked = problems(12)
    for sees in ("answers", "questions"):
        qg, qa = student.lm(), other.lm()
        solved(asked, qg=qg, qa=qa, qg_sees=sees, **SHORT)
        asking, answering = generated_in_turn(student.family, sees)
        assert_same(student, qg.kept, asking)
        assert_same(other, qa.kept, answering)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cache_is_what_reading_the_transcript_again_gives(family: str) -> None:
    """Also after slots were dropped, the stop written in their place, and batches joined and left."""
    import torch

    student = Student(family)
    lm = student.lm()
    traces = solved(problems(12), "unified", lm=lm, batch_size=5, **SHORT)
    assert len({t.stop_reason for t in traces}) > 1
    for session in lm.kept:
        assert 0 < session.cached <= len(session.ids)
        assert session.cache.shape[3] >= session.cached
        with torch.no_grad():
            again = student.plain(input_ids=torch.tensor([session.ids[: session.cached]])).past_key_values
        for layer, kv in enumerate(session.cache):
            torch.testing.assert_close(kv[0, :, : session.cached], again.layers[layer].keys[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(kv[1, :, : session.cached], again.layers[layer].values[0], atol=1e-4, rtol=1e-4)


def decode(lm: LM, session: TokenSession, tokens: int = 12, chunk: int = 5) -> Completion:
    request = Request(lm, session, "question", tokens, calculator=False)
    lm.submit(request)
    while request.completion is None:
        lm.step(chunk)
    return request.completion


def test_cropping_and_appending_leaves_no_trace_of_what_was_cropped(student: Student) -> None:
    lm = student.lm()
    used, fresh = lm.session(), lm.session()
    used.write_problem("Problem: Some text")
    mark = used.mark()
    used.write_marker("question")
    decode(lm, used)
    used.write_slot(" what another wrote")
    used.write_marker("answer")
    decode(lm, used)
    used.crop(mark)
    fresh.write_problem("Problem: Some text")
    for session in (used, fresh):
        session.write_marker("question")
        session.write_slot(" Is it?")
        session.write_marker("answer")
    assert used.ids == fresh.ids
    assert decode(lm, used) == decode(lm, fresh)


def test_what_was_decoded_is_decoded_again_from_the_same_mark(student: Student) -> None:
    lm = student.lm()
    session = lm.session()
    session.write_problem("Problem: Some text")
    session.write_marker("question")
    mark = session.mark()
    first = decode(lm, session)
    session.crop(mark)
    assert decode(lm, session) == first


def gpt_neo(codec: Codec) -> Any:
    """Its attention cannot be exchanged, and every second layer looks back 8 positions only."""
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    shape: dict[str, Any] = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "window_size": 8}
    shape["attention_types"] = [[["global", "local"], 1]]
    return GPTNeoForCausalLM(GPTNeoConfig(vocab_size=len(codec.tokenizer), max_position_embeddings=512, **shape))


def mistral(codec: Codec) -> Any:
    """With a sliding window."""
    from transformers import MistralConfig, MistralForCausalLM

    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "sliding_window": 16}
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return MistralForCausalLM(MistralConfig(vocab_size=len(codec.tokenizer), **shape, **heads))


@pytest.mark.parametrize("make", [gpt_neo, mistral])
def test_models_of_another_kind_write_what_they_write_alone(make: Any) -> None:
    import torch

    torch.manual_seed(0)
    codec = Codec(byte_tokenizer("gpt2"))
    model = make(codec).eval()
    assert not takes_grouped_attention(model)
    lm = RecordedPlain(model, codec, "other")
    solved(problems(4), "unified", lm=lm, **SHORT)
    for session in list(lm.kept):
        ids = torch.tensor([session.ids[: len(session.ids) // 2]])
        found = lm.session()
        found.ids = ids[0].tolist()
        request = Request(lm, found, "answer", 12, calculator=False)
        lm.submit(request)
        while request.completion is None:
            lm.step(5)
        written = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=codec.end_id
        )[0, ids.shape[1] :].tolist()
        end = written.index(codec.end_id) if codec.end_id in written else len(written)
        assert request.completion.text == codec.decode(written[:end])


def test_a_wrapped_model_still_looks_only_back() -> None:
    """A model that is evaluated in the loop is trained on afterwards: its plain forward pass stays causal."""
    import torch

    for family in FAMILIES:
        student = Student(family)
        ids = torch.randint(3, 200, (2, 17), generator=torch.Generator().manual_seed(0))
        student.lm()
        with torch.no_grad():
            plain, wrapped = (m(input_ids=ids, use_cache=False).logits for m in (student.plain, student.model))
        torch.testing.assert_close(plain, wrapped, atol=1e-4, rtol=1e-4)


# ---- The calculator


@pytest.fixture(scope="module", params=WAYS)
def parrot(request: pytest.FixtureRequest) -> Student:
    """A model that has learned one chain by heart, with a wrong result in it."""
    student = Student("llama", request.param)
    for model in (student.plain, student.model):
        model.load_state_dict(learned_by_heart())
    return student


@cache
def learned_by_heart() -> Any:
    import torch

    student = Student("llama")
    example = causal_example(WRONG, "unified", student.codec)
    ids = torch.tensor([example.ids])
    labels = torch.where(torch.tensor([example.learned]), ids, -100)
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(student.plain.parameters(), lr=1e-2)
    for _ in range(400):
        loss = student.plain(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss < 0.01:
            break
    return student.plain.state_dict()


WRONG = chain("w", "A P", [("Half of 48?", "<<48/2=29>>2 a")], "2")


def test_what_the_calculator_forces_is_its_result(parrot: Student) -> None:
    off, on = parrot.lm(), parrot.lm()
    asked = [WRONG.problem()]
    plain = solved(asked, "unified", lm=off, calculator=False)[0]
    assert plain.steps == WRONG.steps
    assert plain.stop_reason == "finished"
    assert plain.tokens == sum(causal_example(WRONG, "unified", parrot.codec).learned)

    trace = solved(asked, "unified", lm=on, calculator=True, max_tokens=60)[0]
    forced = parrot.codec.text("<<48/2=") + parrot.codec.text("24>>")
    at = next(k for k in range(len(on.kept[0].ids)) if on.kept[0].ids[k : k + len(forced)] == forced)
    assert on.kept[0].ids[:at] == off.kept[0].ids[:at]
    assert trace.steps[0].answer.startswith("<<48/2=24>>")


@pytest.mark.parametrize("chunk", [1, 2, 3, 8])
def test_forced_results_do_not_depend_on_the_chunk(parrot: Student, chunk: int) -> None:
    lm = parrot.lm()
    session = lm.session()
    session.write_problem("Problem: A P")
    session.write_marker("question")
    session.write_slot(" Half of 48?")
    session.write_marker("answer")
    start = session.mark()
    request = Request(lm, session, "answer", 60, calculator=True)
    lm.submit(request)
    while request.completion is None:
        lm.step(chunk)
    assert request.completion.text.startswith(" <<48/2=24>>")
    forced = len(parrot.codec.text("24>>"))
    assert request.completion.fault is None
    assert request.completion.tokens == len(session.ids) - start - forced
    at = start + len(parrot.codec.text(" <<48/2=24>>"))  # what follows is what the model says behind the result
    assert session.ids[at:] == parrot.logits(session.ids)[at - 1 : -1].argmax(-1).tolist()


# ---- Sampling


@pytest.fixture(scope="module", params=[*each_way(["llama"]), ("gpt2", "kernels"), ("qwen2", "torch")])
def speaker(request: pytest.FixtureRequest) -> Student:
    """A student that is confined to few tokens, so that its samples end."""
    student = Student(*request.param)
    narrow(student.model, student.codec)
    return student


def raws(student: Student, **how: Any) -> list[str]:
    how = {"temperature": 1.0, **how}
    return [t.raw for t in solved(problems(8), "unified", lm=student.lm(), samples=2, **SHORT, **how)]


def test_a_sample_depends_on_seed_problem_and_index_alone(speaker: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    first = raws(speaker, seed=3)
    assert raws(speaker, seed=3, batch_size=1) == first
    assert raws(speaker, seed=3, batch_size=3) == first
    for chunk in (1, 5):
        monkeypatch.setattr(solving, "_CHUNK", chunk)
        assert raws(speaker, seed=3) == first
    reversed_order = solved(problems(8)[::-1], "unified", lm=speaker.lm(), samples=2, temperature=1.0, seed=3, **SHORT)
    assert Counter(t.raw for t in reversed_order) == Counter(first)


def test_seeds_and_samples_differ(speaker: Student) -> None:
    one, two = raws(speaker, seed=1), raws(speaker, seed=2)
    assert len(set(one) | set(two)) > len(one)
    single = solved(problems(8), "unified", lm=speaker.lm(), temperature=1.0, seed=1, **SHORT)
    assert [t.raw for t in single] == one[::2], "sample 0 is the same however many are drawn"
    assert one[::2] != one[1::2]


def test_a_low_temperature_is_nearly_greedy(student: Student) -> None:
    greedy = [t.raw for t in solved(problems(8), "unified", lm=student.lm(), **SHORT)]
    for temperature in (1e-4, 1e-300):
        cold = [t.raw for t in solved(problems(8), "unified", lm=student.lm(), temperature=temperature, **SHORT)]
        assert cold == greedy


# ---- Positions


@pytest.mark.parametrize(
    ("family", "way"), [("gpt2", "layers"), ("llama", "layers"), ("gpt2", "kernels"), ("qwen2", "torch")]
)
@pytest.mark.parametrize("solver", ["unified", "cot", "answer"])
def test_positions_that_run_out_are_overlong(family: str, way: str, solver: Any) -> None:
    student = Student(family, way, positions=48)
    asked = [Problem(f"p{n}", "tiny", "test", "x" * n, "1") for n in range(0, 60, 3)]
    generous = {"max_tokens": 200, "max_rationale_tokens": 200, "max_steps": 9, "calculator": False}
    lm, one = student.lm(), student.lm()
    traces = solved(asked, solver, lm=lm, **generous)
    assert traces[-1].stop_reason == "overlong"
    assert (traces[-1].tokens, traces[-1].answer) == (0, None)
    assert f"tokens stand before the final, and {family} takes 48 at most" in str(traces[-1].error)
    for session, trace in zip(lm.kept, traces, strict=True):
        assert session.cached <= 48
        if trace.answer is not None:
            assert len(session.ids) <= 48
    assert [t.raw for t in solved(asked, solver, lm=one, batch_size=1, **generous)] == [t.raw for t in traces]


def test_a_slot_may_fill_the_last_position(parrot: Student) -> None:
    ids = causal_example(WRONG, "unified", parrot.codec).ids
    tight, tighter = parrot.lm(), parrot.lm()
    tight.positions, tighter.positions = len(ids), len(ids) - 1
    assert solved([WRONG.problem()], "unified", lm=tight, calculator=False)[0].answer == "2"
    cut = solved([WRONG.problem()], "unified", lm=tighter, calculator=False)[0]
    assert (cut.answer, cut.stop_reason) == (None, "overlong")


def test_a_model_reports_its_size(student: Student) -> None:
    lm = student.lm()
    assert lm.parameters == sum(p.numel() for p in student.plain.parameters())
    assert lm.positions == 1024
    assert lm.waiting == 0
    assert lm.step(8) == []
