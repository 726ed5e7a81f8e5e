"""Invariants 1 to 4 of ARCHITECTURE: render once, tied weights, the mask, termination."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, get_args

import pytest
from tiny import (
    CHAINS,
    FAMILIES,
    ROLES,
    Planted,
    Recorded,
    Replay,
    byte_tokenizer,
    causal_model,
    narrow,
    problems,
    said,
    solved,
)

from socratic.answers import score
from socratic.calculator import canonicalise
from socratic.examples import causal_example, slot_examples
from socratic.formats import FORMS, Form, mixed
from socratic.lm.base import TokenSession
from socratic.lm.scripted import Script, ScriptedLM
from socratic.prompts import FINE_TUNE_COT, FINE_TUNE_COT_T5, TRANSCRIPT, Format, learned_text, render_chain, render_raw
from socratic.store import as_record
from socratic.tokens import Codec
from socratic.types import Chain, Problem, QGSees, Role, Solver, Step, StopReason, Trace

# ---- 1. Render once

# solver, what QG sees -> the role whose example each session must come to hold, in the order qg, qa or lm
REPLAYS: dict[tuple[Solver, QGSees], list[Role]] = {
    ("socratic", "answers"): ["qg", "qa"],
    ("socratic", "questions"): ["qg", "qa"],
    ("unified", "answers"): ["unified"],
    ("tied", "answers"): ["unified"],
    ("cot", "answers"): ["cot"],
    ("answer", "answers"): ["answer"],
}
ON_GSM8K = [mode for mode in REPLAYS if mode[0] != "tied"]  # one code path with unified, as the tests below show


def replay(
    chains: Sequence[Chain],
    codec: Codec,
    solver: Solver,
    sees: QGSees,
    calculator: bool,
    format: Format = TRANSCRIPT,
    **limits: int,
) -> list[Trace]:
    """Gold chains through the loop; every session must come to hold its role's example, and no trace stop early."""
    roles = REPLAYS[solver, sees]
    texts = [[said(chain, role, qg_sees=sees, format=format) for chain in chains] for role in roles]
    models = [Replay(codec, spoken, sees) for spoken in texts]
    for model in models:
        model.format = format
    students = dict(zip(("qg", "qa") if len(roles) == 2 else ("lm",), models, strict=True))
    traces = solved([c.problem() for c in chains], solver, **students, calculator=calculator, **limits)
    learned = [0] * len(chains)
    for role, model in zip(roles, models, strict=True):
        for place, (chain, session) in enumerate(zip(chains, model.kept, strict=True)):
            example = causal_example(chain, role, codec, sees, format=format)
            assert tuple(session.ids) == example.ids, (role, chain.problem_id)
            learned[place] += sum(example.learned)
    assert Counter(trace.stop_reason for trace in traces) == {"finished": len(chains)}
    if not calculator:
        assert [trace.tokens for trace in traces] == learned
    return traces


@pytest.mark.parametrize("calculator", [True, False], ids=["calculator", "plain"])
@pytest.mark.parametrize(("solver", "sees"), REPLAYS, ids=map("-".join, REPLAYS))
def test_a_gold_chain_replayed_gives_the_training_examples_ids(
    solver: Solver, sees: QGSees, calculator: bool, exact: Codec
) -> None:
    traces = replay(CHAINS, exact, solver, sees, calculator)
    for trace, chain in zip(traces, CHAINS, strict=True):
        assert trace.answer == chain.answer.strip()
        texts = [canonicalise(slot.text) for slot in render_chain(chain, "cot" if solver == "cot" else "unified")[1]]
        asked = [text for text in texts[:-1] if text] if solver != "answer" else []
        assert trace.raw == render_raw(asked, chain.answer)


@pytest.mark.parametrize(("solver", "sees"), REPLAYS, ids=map("-".join, REPLAYS))
def test_the_same_for_a_tokenizer_with_substitutions(solver: Solver, sees: QGSees, inexact: Codec) -> None:
    [trace] = replay(CHAINS[:1], inexact, solver, sees, calculator=False)
    assert (trace.stop_reason, trace.answer) == ("finished", CHAINS[0].answer)


@pytest.mark.parametrize("calculator", [True, False], ids=["calculator", "plain"])
@pytest.mark.parametrize("solver", ["cot", "answer"])
@pytest.mark.parametrize("format", [FINE_TUNE_COT, FINE_TUNE_COT_T5], ids=lambda format: format.name)
def test_the_same_in_the_format_of_fine_tune_cot(
    format: Format, solver: Solver, calculator: bool, exact: Codec
) -> None:
    traces = replay(CHAINS, exact, solver, "answers", calculator, format)
    for trace, chain in zip(traces, CHAINS, strict=True):
        assert trace.answer == chain.answer.strip()
        rationale = [canonicalise(render_chain(chain, "cot")[1][0].text)] if solver == "cot" else []
        assert trace.raw == render_raw(rationale, chain.answer)


@pytest.mark.parametrize("calculator", [True, False], ids=["calculator", "plain"])
@pytest.mark.parametrize("form", FORMS)
def test_the_same_in_every_form(form: Form, calculator: bool, exact: Codec) -> None:
    chains = mixed(CHAINS, {form: 1}, CHAINS, shots=2, instruction="Reason.")
    traces = replay(chains, exact, "cot", "answers", calculator)
    assert [trace.answer for trace in traces] == [chain.answer.strip() for chain in chains]
    assert all(bool(trace.steps) == form.endswith("cot") for trace in traces)


def test_the_same_for_an_encoder_decoder_in_that_format(inexact: Codec) -> None:
    [example] = slot_examples(CHAINS[0], "cot", inexact, format=FINE_TUNE_COT_T5)
    lm = Replay(inexact, [said(CHAINS[0], "cot", format=FINE_TUNE_COT_T5)])
    lm.format = FINE_TUNE_COT_T5
    [trace] = solved([CHAINS[0].problem()], "cot", lm=lm)
    assert tuple(lm.kept[0].ids) == example.source + example.ids
    assert (trace.stop_reason, trace.answer) == ("finished", CHAINS[0].answer)


@pytest.mark.parametrize("calculator", [True, False], ids=["calculator", "plain"])
@pytest.mark.parametrize("solver", ["cot", "answer"])
def test_gold_chains_of_gsm8k_in_that_format(
    solver: Solver, calculator: bool, gsm8k: dict[str, Chain], real_codec: Codec
) -> None:
    chains = list(gsm8k.values())[::20]
    limits = {"max_tokens": 2000, "max_rationale_tokens": 4000}
    traces = replay(chains, real_codec, solver, "answers", calculator, FINE_TUNE_COT, **limits)
    scores = [score(t.raw, c.answer, c.answer_type) for t, c in zip(traces, chains, strict=True)]
    assert all(s.correct and s.strict for s in scores)


@pytest.mark.parametrize("calculator", [True, False], ids=["calculator", "plain"])
@pytest.mark.parametrize(("solver", "sees"), ON_GSM8K, ids=map("-".join, ON_GSM8K))
def test_all_gold_chains_of_gsm8k(
    solver: Solver, sees: QGSees, calculator: bool, gsm8k: dict[str, Chain], real_codec: Codec
) -> None:
    chains = list(gsm8k.values())
    assert len(chains) == 8792
    small = real_codec.tokenizer.vocab_size > 1000
    limits = {} if small else {"max_tokens": 2000, "max_rationale_tokens": 4000}
    traces = replay(chains, real_codec, solver, sees, calculator, TRANSCRIPT, **limits)
    scores = [score(t.raw, c.answer, c.answer_type) for t, c in zip(traces, chains, strict=True)]
    assert [c.problem_id for c, s in zip(chains, scores, strict=True) if not (s.correct and s.strict)] == []


@pytest.fixture(scope="session")
def real_codec(request: pytest.FixtureRequest) -> Codec:
    """SmolLM2's tokenizer where its file is at hand, else a tiny one."""
    try:
        return Codec(request.getfixturevalue("smollm2_tokenizer"))
    except pytest.skip.Exception:
        return Codec(byte_tokenizer("qwen2"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_calculator_that_corrects_a_slip(family: str) -> None:
    """What a model says wrong is replaced, and the ids are those of the right text: result as one piece."""
    codec = Codec(byte_tokenizer(family))
    texts = ["q", "<<48/2=25>>25 and <<1/0=9>>, <<2x=4>>", "", "7"]
    lm = Replay(codec, [texts])
    trace = solved(problems(1), "unified", lm=lm, calculator=True)[0]
    right = " <<48/2=24>>25 and <<1/0=9>>, <<2x=4>>"
    assert trace.steps[0].answer == right.strip()
    ids = lm.kept[0].ids
    assert any(ids[i : i + len(codec.text(right))] == codec.text(right) for i in range(len(ids)))
    off = Replay(codec, [texts])
    plain = solved(problems(1), "unified", lm=off, calculator=False)[0]
    assert plain.steps[0].answer == texts[1]
    assert plain.tokens - trace.tokens == len(codec.text("25>>")), "results are not the student's tokens"


# ---- 2. Tied weights


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_two_roles_with_the_unified_models_weights_write_what_it_writes(family: str, temperature: float) -> None:
    codec = Codec(byte_tokenizer(family))
    model = narrow(causal_model(family, codec.tokenizer), codec)
    asked = problems(12)
    settings: dict[str, Any] = {"max_tokens": 24, "max_steps": 4, "temperature": temperature, "calculator": False}
    qg, qa, lm = (Recorded(model, codec, name) for name in ("qg", "qa", "lm"))
    apart = solved(asked, qg=qg, qa=qa, **settings)
    for solver in ("unified", "tied"):
        together = solved(asked, solver, lm=Recorded(model, codec, "lm"), **settings)
        assert [replace(t, solver=solver, seconds=0.0) for t in apart] == [replace(t, seconds=0.0) for t in together]
    solved(asked, "unified", lm=lm, **settings)
    assert [s.ids for s in qa.kept] == [s.ids for s in lm.kept]
    assert len({t.stop_reason for t in apart}) > 1
    assert max(len(t.steps) for t in apart) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_summed_loss_of_qg_and_qa_is_unifieds(family: str) -> None:
    import torch

    codec = Codec(byte_tokenizer(family))
    model = causal_model(family, codec.tokenizer)

    def summed(chain: Chain, role: Role) -> float:
        example = causal_example(chain, role, codec)
        ids = torch.tensor([example.ids])
        with torch.no_grad():
            log_p = model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
        nll = -log_p.gather(1, ids[0, 1:, None])[:, 0]
        return float(nll[torch.tensor(example.learned[1:])].sum())

    for chain in CHAINS:
        both = summed(chain, "qg") + summed(chain, "qa")
        assert both == pytest.approx(summed(chain, "unified"), rel=1e-5)


def test_qg_and_qa_learn_together_exactly_what_unified_learns(exact: Codec) -> None:
    for chain in CHAINS:
        qg, qa, unified = (causal_example(chain, role, exact) for role in ("qg", "qa", "unified"))
        assert qg.ids == unified.ids[: len(qg.ids)]
        assert qa.ids == unified.ids
        asks = qg.learned + (False,) * (len(qa.learned) - len(qg.learned))
        assert unified.learned == tuple(a != b for a, b in zip(asks, qa.learned, strict=True))


# ---- 3. The mask


@pytest.mark.parametrize("sees", get_args(QGSees))
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("made", CHAINS, ids=lambda made: made.problem_id)
def test_learned_positions_are_the_targets_and_end(made: Chain, role: Role, sees: QGSees, exact: Codec) -> None:
    example = causal_example(made, role, exact, sees)
    pairs = zip(example.learned, example.ids, strict=True)
    runs = [[i for _, i in run] for learned, run in groupby(pairs, key=lambda pair: pair[0]) if learned]
    slots = [slot for slot in render_chain(made, role, sees)[1] if slot.learned]
    assert [exact.decode(run) for run in runs] == [
        learned_text(canonicalise(slot.text)) + exact.end_text for slot in slots
    ]
    for run in runs:
        assert [i for i in run if i == exact.end_id] == run[-1:]


@pytest.mark.parametrize("format", [FINE_TUNE_COT, FINE_TUNE_COT_T5], ids=lambda format: format.name)
@pytest.mark.parametrize("role", ["cot", "answer"])
def test_the_same_mask_in_the_format_of_fine_tune_cot(role: Role, format: Format, exact: Codec) -> None:
    made = CHAINS[0]
    example = causal_example(made, role, exact, format=format)
    given = exact.problem(format.problem(made.problem()), format)
    assert example.learned == (False,) * len(given) + (True,) * (len(example.ids) - len(given))
    rationale = "Ann sold 48/2 = <<48/2=24>>24 clips in May.\n48+24 = <<48+24=72>>72\nso 72 in all --> "
    target = f" {rationale if role == 'cot' else ''}72{exact.end_text}"
    assert exact.decode(example.ids[len(given) :]) == target


# ---- 4. Termination

PROBLEM = Problem("p", "tiny", "test", "How many?", "7")
LONG = "x" * 40
# what QG says, what QA says -> why the trace ends, how many steps it keeps, whether a final answer stands
PLANTED: dict[str, tuple[list[str], list[str], StopReason, int, bool]] = {
    "finished": (["q1", "q2", ""], ["a1", "a2", "7"], "finished", 2, True),
    "finished at once": ([""], ["7"], "finished", 0, True),
    "a question again, another answer": (["q1", "q1", ""], ["a1", "a2", "7"], "finished", 2, True),
    "another question, an answer again": (["q1", "q2", ""], ["a1", "a1", "7"], "finished", 2, True),
    "too many": (["q1", "q2", "q3"], ["a1", "a2", "a3", "7"], "max_steps", 3, True),
    "a pair again": (["q1", " q1 \n"], ["a 1", "a  1", "7"], "repeated_step", 1, True),
    "an earlier pair again": (["q1", "q2", "q1"], ["a1", "a2", "a1", "7"], "repeated_step", 2, True),
    "blank question": (["q1", " \n"], ["a1", "7"], "empty_output", 1, True),
    "blank answer": (["q1", "q2"], ["a1", " ", "7"], "empty_output", 1, True),
    "no answer": (["q1", "q2"], ["a1", "", "7"], "empty_output", 1, True),
    "blank final": (["q1", ""], ["a1", " "], "empty_output", 1, False),
    "no final": (["q1", ""], ["a1", ""], "empty_output", 1, False),
    "long question": (["q1", LONG], ["a1", "7"], "overlong", 1, True),
    "long answer": (["q1", "q2"], ["a1", LONG, "7"], "overlong", 1, True),
    "long final": (["q1", ""], ["a1", LONG], "overlong", 1, False),
    "special in question": (["q1", "q2<special>"], ["a1", "7"], "invalid_output", 1, True),
    "special for question": (["<special>"], ["7"], "invalid_output", 0, True),
    "special in answer": (["q1", "q2"], ["a1", "a2<special>", "7"], "invalid_output", 1, True),
    "special in final": (["q1", ""], ["a1", "7<special>"], "invalid_output", 1, False),
    "no server for question": (["q1", "<error>"], ["a1", "7"], "model_error", 1, True),
    "no server for answer": (["q1", "q2"], ["a1", "<error>", "7"], "model_error", 1, True),
    "no server for final": (["q1", ""], ["a1", "<error>"], "model_error", 1, False),
}


REJECTED = {
    "long question": Step("x" * 29, ""),  # a space stands before it
    "long answer": Step("q2", "x" * 29),
    "long final": Step("", "x" * 29),
    "special in question": Step("q2", ""),
    "special in answer": Step("q2", "a2"),
    "special in final": Step("", "7"),
}


class Keeping(Planted):
    """Says the next text of a list; keeps its sessions."""

    def __init__(self, codec: Codec, texts: list[str]) -> None:
        self.texts, self.kept, self.special = iter(texts), list[TokenSession](), min(codec.special_ids)
        super().__init__(codec, lambda transcript, kind: next(self.texts))

    def session(self) -> TokenSession:
        self.kept.append(super().session())
        return self.kept[-1]


def transcript(codec: Codec, steps: list[tuple[str, str]], sees: QGSees = "answers") -> list[int]:
    """The ids of the problem and of committed steps."""
    ids = codec.problem("Problem: How many?")
    for question, answer in steps:
        ids += codec.marker("question") + codec.slot(f" {question}")
        ids += codec.marker("answer") + codec.slot(f" {answer}") if sees == "answers" else []
    return ids


@pytest.mark.parametrize("sees", [*get_args(QGSees), "unified"])
@pytest.mark.parametrize("name", PLANTED)
def test_every_stop_and_the_final_slot_behind_it(name: str, sees: Any, chatty: Codec) -> None:
    asks, answers, reason, steps, ends = PLANTED[name]
    limits = {"max_steps": 3, "max_tokens": 30}
    if sees == "unified":
        # once QG has failed or stopped, only the final slot is left to QA
        spoken = [t for i in range(len(answers)) for t in [*asks[i : i + 1], *answers[i : i + 1]]]
        lm = Keeping(chatty, spoken)
        trace = solved([PROBLEM], "unified", lm=lm, **limits)[0]
        sessions = lm.kept
    else:
        qg, qa = Keeping(chatty, asks), Keeping(chatty, answers)
        trace = solved([PROBLEM], qg=qg, qa=qa, qg_sees=sees, **limits)[0]
        sessions = [*qg.kept, *qa.kept]

    assert trace.stop_reason == reason
    assert [(s.question, s.answer) for s in trace.steps] == [
        (q.strip(), a) for q, a in zip(asks[:steps], answers[:steps], strict=True)
    ]
    assert trace.answer == ("7" if ends else None)
    assert trace.raw == render_raw([text for s in trace.steps for text in (s.question, s.answer)], trace.answer)
    assert (trace.error == "the server is down") == (reason == "model_error")
    assert trace.rejected == REJECTED.get(name)

    kept = [(s.question, s.answer) for s in trace.steps]
    stop = [*chatty.marker("question"), chatty.end_id]
    expected = transcript(chatty, kept) + stop + chatty.marker("final") + (chatty.slot(" 7") if ends else [])
    assert sessions[-1].ids[: len(expected)] == expected
    if sees != "unified":
        assert sessions[0].ids == transcript(chatty, kept, sees) + (stop if asks[-1] == "" else [])


@pytest.fixture(scope="module")
def chatty() -> Codec:
    return Codec(byte_tokenizer("llama"))


def test_all_stop_reasons_are_planted() -> None:
    assert {reason for _, _, reason, _, _ in PLANTED.values()} == set(get_args(StopReason))


@pytest.mark.parametrize(
    ("rationale", "reason"),
    [
        (" \n", "empty_output"),
        ("", "empty_output"),
        ("x" * 70, "overlong"),
        ("a<special>", "invalid_output"),
        ("<error>", "model_error"),
    ],
)
def test_a_rejected_rationale_is_dropped_and_the_answer_still_taken(
    rationale: str, reason: StopReason, chatty: Codec
) -> None:
    lm = Keeping(chatty, [rationale, "7"])
    trace = solved([PROBLEM], "cot", lm=lm, max_rationale_tokens=60)[0]
    assert (trace.stop_reason, trace.steps, trace.answer, trace.raw) == (reason, (), "7", "\n#### 7")
    dropped = {"overlong": "x" * 59, "invalid_output": "a"}.get(reason)  # a space stands before it
    assert trace.rejected == (Step("", dropped) if dropped else None)
    assert as_record("trace", trace.to_json(), Trace) == trace
    assert lm.kept[0].ids == transcript(chatty, []) + chatty.marker("final") + chatty.slot(" 7")


@pytest.mark.parametrize(
    ("said", "reason", "steps", "answer"),
    [
        ("It is 7 --> 7", "finished", ["It is 7"], "7"),
        ("3 --> 4 --> 7", "finished", ["3 --> 4"], "7"),
        ("It is 7", "empty_output", ["It is 7"], None),
        ("It is 7 --> ", "empty_output", ["It is 7"], None),
        ("--> 7", "finished", [], "7"),
        ("", "empty_output", [], None),
        ("x" * 70, "overlong", [], None),
        ("7 --> 7<special>", "invalid_output", [], None),
    ],
)
def test_rationale_and_answer_of_one_slot(
    said: str, reason: StopReason, steps: list[str], answer: str | None, chatty: Codec
) -> None:
    lm = Keeping(chatty, [said])
    lm.format = FINE_TUNE_COT
    trace = solved([PROBLEM], "cot", lm=lm, max_rationale_tokens=60)[0]
    assert (trace.stop_reason, [step.answer for step in trace.steps], trace.answer) == (reason, steps, answer)
    assert trace.raw == render_raw(steps, answer)


@pytest.mark.parametrize("solver", ["cot", "answer"])
@pytest.mark.parametrize(
    ("final", "reason"),
    [(" ", "empty_output"), (LONG, "overlong"), ("<special>", "invalid_output"), ("<error>", "model_error")],
)
def test_a_rejected_final_slot(solver: Solver, final: str, reason: StopReason, chatty: Codec) -> None:
    texts = ["a", final] if solver == "cot" else [final]
    trace = solved([PROBLEM], solver, lm=Keeping(chatty, texts), max_tokens=20)[0]
    assert (trace.stop_reason, trace.answer) == (reason, None)
    assert "####" not in trace.raw


def always(text: str) -> Script:
    return lambda transcript, kind: text


def test_a_babbling_model_ends_with_a_named_reason(chatty: Codec) -> None:
    """Markers, end tokens and marks in a text are text, and the loop ends."""
    solvers: tuple[Solver, ...] = ("unified", "cot", "answer")
    for text in ("\nQ: q\n#### 7", "</s>", "<<<<1+=", "<<1/0=", "=" * 99, "\ufffd", "<<1+1=<<1+1=", "\x00"):
        for solver in solvers:
            trace = solved([PROBLEM], solver, lm=ScriptedLM(chatty, always(text)))[0]
            assert trace.stop_reason in get_args(StopReason)
            assert trace.answer
