"""Solvers that only prompt: zero-shot and few-shot, through the loops of trained students."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from tiny import CHAINS, Replay, byte_tokenizer, causal_model, narrow, problems, solved

from socratic.interventions import intervene
from socratic.lm.base import LM, Decoding, Request, TokenSession
from socratic.lm.causal import CausalLM
from socratic.lm.engine import EngineLM
from socratic.lm.plain import PlainLM
from socratic.lm.scripted import Script, ScriptedLM
from socratic.prompts import Format, load_prompt, prompt_format, prompt_hash
from socratic.solving import SolveSettings, Solving
from socratic.tokens import Codec
from socratic.types import Problem, Solver, UserError

PROBLEM = Problem("p", "tiny", "test", "How many?", "7")


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(byte_tokenizer("gpt2"))


class Rambling(ScriptedLM):
    """Says its texts as they stand, white space included, and goes on where it is not stopped; keeps its sessions."""

    def __init__(self, codec: Codec, script: Script) -> None:
        super().__init__(codec, script)
        self.kept: list[TokenSession] = []

    def session(self) -> TokenSession:
        self.kept.append(super().session())
        return self.kept[-1]

    def _say(self, decoding: Decoding, text: str) -> None:
        for token in [*(i for letter in text for i in self.codec.text(letter)), self.codec.end_id]:
            while decoding.forced and not decoding.ended:
                decoding.push(-1)
            if not decoding.ended:
                decoding.push(token)


def solver_of(solver: Solver, **models: LM) -> Solving:
    return Solving(SolveSettings.parse({"solver": solver}), **models)


def by_kind(**said: str) -> Script:
    return lambda transcript, kind: said[kind]


def test_few_shot_socratic_reads_on_where_the_examples_left_off(codec: Codec) -> None:
    rest = iter([" What is 3+4?\nA: no", " 3+4=7\nQ:\n#### 7", "\n#### 7", " 7\n\nProblem: Another?"])
    lm = Rambling(codec, lambda transcript, kind: next(rest))
    [trace] = solved([PROBLEM], "few-shot-socratic", lm=lm)
    assert (trace.solver, trace.stop_reason, trace.answer) == ("few-shot-socratic", "finished", "7")
    assert trace.raw == "What is 3+4?\n3+4=7\n#### 7"
    shown = prompt_format("few-shot-socratic", "tiny").opening
    own = "\nProblem: How many?\nQ: What is 3+4?\nA: 3+4=7\nQ:\n#### 7"
    assert codec.decode(lm.kept[0].ids) == shown + own
    assert codec.end_id not in lm.kept[0].ids
    assert f"\n\n{shown}".count("\n\nProblem: ") == shown.count("\nQ:\n#### ") == 4


def test_few_shot_cot_shows_the_examples_of_the_data_set(codec: Codec) -> None:
    lm = Rambling(codec, by_kind(answer=" It is\n3+4=<<3+4=7.\n#### 7\n\nProblem:", final=" 7\nso there"))
    [trace] = solved([Problem("p", "svamp", "test", "How many?", "7")], "few-shot-cot", lm=lm)
    assert trace.raw == "It is\n3+4=<<3+4=7>>7.\n#### 7", "the calculator wrote the first 7"
    text = codec.decode(lm.kept[0].ids)
    examples = load_prompt("cot", "svamp").examples
    assert text.startswith(f"Problem: {examples[0].question}\nA: {examples[0].steps[0].answer}\n#### 19\n\nProblem: ")
    assert text.endswith("#### 14\n\nProblem: How many?\nA: It is\n3+4=<<3+4=7>>7.\n#### 7")


def test_zero_shot_cot_asks_twice_and_keeps_a_rationale_that_is_cut_off(codec: Codec) -> None:
    choice = Problem("p", "tiny", "test", "What glows?", "B", "choice", ("stone", "bulb"))
    lm = Rambling(codec, by_kind(answer="x" * 50, final=" (B).\nQ: And what else?"))
    [trace] = solved([choice], "zero-shot-cot", lm=lm, max_rationale_tokens=8)
    assert (trace.stop_reason, trace.answer, trace.raw) == ("overlong", "(B).", f"{'x' * 8}\n#### (B).")
    opening = "Q: What glows?\n(A) stone\n(B) bulb\nA: Let's think step by step."
    assert codec.decode(lm.kept[0].ids) == f"{opening}{'x' * 8}\nTherefore, the answer is (B)."


@pytest.mark.parametrize("solver", ["zero-shot-cot", "few-shot-cot", "few-shot-socratic"])
def test_a_model_that_says_nothing_ends_with_a_named_reason(solver: Solver, codec: Codec) -> None:
    [trace] = solved([PROBLEM], solver, lm=Rambling(codec, lambda transcript, kind: ""))
    assert (trace.stop_reason, trace.answer, trace.raw) == ("empty_output", None, "")


def test_what_was_trained_is_not_prompted_and_a_prompt_needs_its_one_model(codec: Codec) -> None:
    lm = Replay(codec, [])
    lm.role = "cot"
    with pytest.raises(UserError, match="was trained as 'cot', and solver 'few-shot-cot' is for untrained models"):
        solver_of("few-shot-cot", lm=lm)
    with pytest.raises(UserError, match="needs the one student lm"):
        solver_of("zero-shot-cot", qg=lm, qa=lm)


def test_only_a_prompt_with_sub_questions_can_be_given_others(codec: Codec) -> None:
    gold, history = (intervene(kind, CHAINS[:1]) for kind in ("questions", "history"))
    lm = Rambling(codec, lambda transcript, kind: " 7\n")
    with pytest.raises(UserError, match="asks no sub-questions"):
        solver_of("few-shot-cot", lm=lm).with_intervention(gold)
    solving = solver_of("few-shot-socratic", lm=lm)
    [trace] = solving.with_intervention(gold).run([(CHAINS[0].problem(), 0)])
    assert [step.question for step in trace.steps] == [step.question.strip() for step in CHAINS[0].steps]
    [trace] = solving.with_intervention(history).run([(CHAINS[0].problem(), 0)])
    assert [step.answer for step in trace.steps] == ["7", "7"]
    shown = prompt_format("few-shot-socratic", "tiny").opening
    assert all(codec.decode(session.ids).startswith(shown) for session in lm.kept)
    assert not any(codec.end_id in session.ids for session in lm.kept)


def test_a_run_records_its_prompt(codec: Codec) -> None:
    record = solver_of("few-shot-cot", lm=Rambling(codec, by_kind())).record()
    assert record["prompt"] == prompt_hash("few-shot-cot") != prompt_hash("few-shot-socratic")


@pytest.mark.parametrize("kind", [PlainLM, CausalLM, EngineLM])
def test_examples_are_read_once_and_change_nothing(kind: Any, codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    model = narrow(causal_model("gpt2", codec.tokenizer, positions=4096), codec)
    how: dict[str, Any] = {"max_tokens": 6, "max_rationale_tokens": 6, "temperature": 1.0, "batch_size": 1}
    lm = kind(model, codec, "lm")
    once = solved(problems(2), "few-shot-cot", lm=lm, **how)
    assert len(lm.open(prompt_format("few-shot-cot", "tiny")).ids) > 500
    monkeypatch.setattr(kind, "open", lambda self, format: self.session())
    afresh = solved(problems(2), "few-shot-cot", lm=kind(model, codec, "lm"), **how)
    assert [replace(t, seconds=0.0) for t in once] == [replace(t, seconds=0.0) for t in afresh]
    assert len({trace.raw for trace in once}) == 2


def test_examples_longer_than_the_model_reads_are_overlong(codec: Codec) -> None:
    lm = EngineLM(causal_model("gpt2", codec.tokenizer, positions=256), codec, "short")
    for trace in solved(problems(2), "few-shot-cot", lm=lm):
        assert (trace.stop_reason, trace.answer) == ("overlong", None)


# ---- A slot that a text ends, in every backend

STOPPING = Format("stopping", ends=False, stops={"answer": ("4a", "aa"), "final": ("b",)})


def two_slots(lm: Any, count: int) -> list[tuple[str, str, list[int]]]:
    """The texts of an answer and a final slot of ``count`` problems solved together, and what the sessions hold."""
    sessions = [lm.session() for _ in range(count)]
    texts: list[list[str]] = [[] for _ in sessions]
    for number, session in enumerate(sessions):
        session.write_problem(f"{'b' * number}?", STOPPING)
    for kind in ("answer", "final"):
        requests = []
        for number, session in enumerate(sessions):
            session.write_marker(kind)
            requests.append(Request(lm, session, kind, 40, False, 1.0, random.Random(f"{kind}{number}")))
            lm.submit(requests[-1])
        while lm.waiting:
            lm.step(5)
        for number, request in enumerate(requests):
            assert request.completion is not None
            assert not any(stop in request.completion.text for stop in STOPPING.stops[kind])
            texts[number].append(request.completion.text)
    return [(*text, session.ids) for text, session in zip(texts, sessions, strict=True)]


def test_every_backend_cuts_a_slot_at_its_stop_and_goes_on_from_there() -> None:
    import torch

    codec = Codec(byte_tokenizer("qwen2"))
    model = causal_model("qwen2", codec.tokenizer)
    bias = torch.full((model.get_output_embeddings().weight.shape[0],), -1e4)
    [joined] = codec.text("24")  # one token, in the middle of which a stop begins
    bias[[*codec.text("a"), *codec.text("b"), *codec.text("2"), joined]] = 0.0
    model.get_output_embeddings().bias = torch.nn.Parameter(bias)
    kinds: tuple[type[LM], ...] = (PlainLM, CausalLM, EngineLM)
    first, *others = [two_slots(kind(model, codec, kind.__name__), 12) for kind in kinds]  # type: ignore[call-arg]
    assert all(other == first for other in others)
    assert any(answer.endswith("2") for answer, _, _ in first), "a token was cut in two"
    assert any(final for _, final, _ in first)
    for answer, final, ids in first:
        assert codec.decode(ids).endswith(f"?\nA:{answer}\n####{final}") or len(answer) >= 40
