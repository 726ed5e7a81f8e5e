from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import byte_tokenizer, causal_model, chain, metaspace_tokenizer, t5_model

from socratic.examples import causal_example, slot_examples
from socratic.lm.base import LocalLM
from socratic.lm.causal import CausalLM
from socratic.lm.engine import EngineLM
from socratic.lm.seq2seq import Seq2SeqLM
from socratic.prompts import render_chain, render_raw
from socratic.solving import SolveSettings, Solving
from socratic.tokens import Codec
from socratic.trainer import to_row
from socratic.types import Chain, Problem, Trace, UserError
from socratic.verifier import checked_verifier, judge, verifier_name

STEPWISE = [("How many in May?", "Ann sold 48/2 = <<48/2=24.00>>24."), ("In all?", "48+24=<<48+24=72>>72")]


def judged_chain(steps: list[tuple[str, str]], verdicts: list[bool | None], said: str = "72", **more: Any) -> Chain:
    made = chain("p", "Ann sold 48, then half as many.", steps, "72", verdicts=verdicts, **more)
    return replace(made, final_answer=said)


CHAINS = {
    "stepwise": judged_chain(STEPWISE, [True, False, False], "71"),
    "cot": judged_chain([("", "<<48/2=24>>24\n48+24=72")], [True, True]),
    "answer": judged_chain([], [False], "9"),
}


def trace_of(made: Chain, sample: int = 0) -> Trace:
    raw = render_raw([text for step in made.steps for text in (step.question, step.answer)], made.final_answer)
    return Trace("p", sample, "x", made.steps, raw, made.final_answer, "finished", None, True, 9, 0.1, "1")


def verifier(codec: Codec, kind: str = "layers") -> LocalLM:
    if kind == "t5":
        lm: LocalLM = Seq2SeqLM(t5_model(codec.tokenizer), codec, "t5")
    else:
        model = causal_model("llama", codec.tokenizer)
        lm = EngineLM(model, codec, "v", pages=64) if kind == "engine" else CausalLM(model, codec, "v")
    lm.role, lm.fingerprint = "verifier", "abc"
    return lm


@pytest.mark.parametrize("name", CHAINS)
def test_a_verdict_is_learned_behind_each_sub_answer_and_the_final_one_and_never_read(name: str, exact: Codec) -> None:
    made = CHAINS[name]
    example = causal_example(made, "verifier", exact)
    slots = render_chain(made, "verifier")[1]
    places = [place for place, learned in enumerate(example.learned) if learned]
    assert [example.labels[place] for place in places] == [exact.verdict(v) for v in made.metadata["verdicts"]]
    assert all(example.ids[place - 1] == exact.end_id for place in places), "behind the END of a slot"
    before = [exact.decode(example.ids[:place]) for place in places]
    assert [said.endswith((f"{made.final_answer}{exact.end_text}", f"72{exact.end_text}")) for said in before][-1]
    whole = exact.decode(example.ids[len(exact.bos) : -1])
    assert whole.count("yes") == whole.count("no") == 0
    asked = sum(slot.kind == "question" for slot in slots)
    assert asked == (3 if name == "stepwise" else 0), "a chain of thought has no questions, and no stop"
    row = to_row(example)
    assert [label for label in row["labels"] if label != -100] == [example.labels[place] for place in places]


def test_what_a_verifier_reads_of_a_stepwise_solution_is_what_unified_reads(exact: Codec) -> None:
    made = CHAINS["stepwise"]
    ids = causal_example(replace(made, answer="71"), "unified", exact).ids
    assert causal_example(made, "verifier", exact).ids[:-1] == ids
    of_thought = CHAINS["cot"]
    assert causal_example(of_thought, "verifier", exact).ids[:-1] == causal_example(of_thought, "cot", exact).ids


def test_the_words_are_learned_beside_the_verdicts_where_the_chain_says_so(exact: Codec) -> None:
    made = judged_chain(STEPWISE, [True, None, True], learn_words=True)
    example = causal_example(made, "verifier", exact)
    unified = causal_example(made, "unified", exact)
    verdicts = [place for place, (a, b) in enumerate(zip(example.learned, unified.learned, strict=False)) if a != b]
    assert len(verdicts) == 1, "of the first step; the second has none"
    assert example.labels[verdicts[0]] == exact.verdict(True)
    assert example.learned[-1]
    assert example.labels[:-1] == tuple(
        exact.verdict(True) if place in verdicts else token for place, token in enumerate(unified.ids)
    )


@pytest.mark.parametrize("codec", [Codec(byte_tokenizer("qwen2")), Codec(metaspace_tokenizer())], ids=["exact", "t5"])
def test_an_encoder_decoder_reads_no_earlier_verdict_either(codec: Codec) -> None:
    made = CHAINS["stepwise"]
    whole = causal_example(made, "verifier", codec)
    slots = list(slot_examples(made, "verifier", codec))
    assert [slot.ids for slot in slots] == [(codec.verdict(v),) for v in made.metadata["verdicts"]]
    assert all(slot.source == whole.ids[: len(slot.source)] for slot in slots)
    assert codec.verdict(True) != codec.verdict(False)


@pytest.mark.parametrize("verdicts", [None, [True], [True] * 4])
def test_a_chain_without_as_many_verdicts_is_refused(verdicts: Any) -> None:
    with pytest.raises(UserError, match=r"chain of p has no verdicts.*socratic verdicts"):
        render_chain(judged_chain(STEPWISE, verdicts), "verifier")


@pytest.mark.parametrize("kind", ["layers", "engine", "t5"])
def test_a_judgement_is_the_probability_of_yes_given_yes_or_no_at_the_places_of_training(kind: str) -> None:
    codec = Codec(metaspace_tokenizer() if kind == "t5" else byte_tokenizer("llama"))
    lm = verifier(codec, kind)
    problem = CHAINS["cot"].problem()
    # What a run keeps of a solution, unstripped results and all, is read as it was trained on.
    solutions = [(problem, trace_of(made, sample)) for sample, made in enumerate(CHAINS.values())]
    found = {one.sample: one for one in judge(solutions, lm, batch_size=2)}
    assert len(found) == len(solutions)
    words = [codec.verdict(True), codec.verdict(False)]
    for sample, made in enumerate(CHAINS.values()):
        assert found[sample].verifier == verifier_name(lm) == f"abc {lm.dtype}"
        if kind == "t5":
            continue
        example = causal_example(made, "verifier", codec)
        assert found[sample].tokens == len(example.ids) - 1
        model = causal_model("llama", codec.tokenizer)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([example.ids])).logits[0].double()
        places = [place - 1 for place, learned in enumerate(example.learned) if learned]
        expected = logits[places][:, words].softmax(-1)[:, 0].tolist()
        assert found[sample].right == pytest.approx(expected, rel=1e-3)
    assert all(0 < p < 1 for one in found.values() for p in one.right)


def test_what_cannot_be_judged_has_no_probability() -> None:
    codec = Codec(byte_tokenizer("llama"))
    lm = verifier(codec)
    long = judged_chain([("", "x" * 3000)], [True, True])
    none = replace(trace_of(CHAINS["cot"], 1), answer=None, steps=())
    problem = Problem("p", "tiny", "test", "How many?", "72")
    found = {one.sample: (one.right, one.tokens) for one in judge([(problem, trace_of(long)), (problem, none)], lm)}
    assert found == {0: ((), 0), 1: ((), 0)}


def test_judging_that_is_left_early_leaves_the_model_idle() -> None:
    lm = verifier(Codec(byte_tokenizer("llama")))
    found: Iterator[Any] = judge([(CHAINS["cot"].problem(), trace_of(CHAINS["cot"], k)) for k in range(9)], lm, 3)
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert lm.waiting == 0


def test_only_a_verifier_judges_and_a_verifier_solves_nothing() -> None:
    lm = verifier(Codec(byte_tokenizer("llama")))
    assert checked_verifier(lm) is lm
    with pytest.raises(UserError, match="v was trained as 'verifier' and cannot be the lm"):
        Solving(SolveSettings.parse({"solver": "cot"}), lm=lm)
    lm.role = "cot"
    with pytest.raises(UserError, match="v was trained as 'cot' and is no verifier"):
        checked_verifier(lm)
    lm.role = None
    with pytest.raises(UserError, match="v was not trained here and is no verifier"):
        checked_verifier(lm)
