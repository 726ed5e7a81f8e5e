from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from tiny import CHAINS, ROLES, byte_tokenizer, chain, metaspace_tokenizer

import socratic
from socratic.examples import build_examples, causal_example, slot_examples
from socratic.prompts import render_chain
from socratic.tokens import Codec
from socratic.types import Chain, QGSees, Role, UserError

MODES: list[tuple[Role, QGSees]] = [(role, "answers") for role in ROLES] + [("qg", "questions")]
MODE_IDS = [f"{role}-{sees}" for role, sees in MODES]


@pytest.mark.parametrize(("role", "sees"), MODES, ids=MODE_IDS)
def test_an_example_is_the_transcript(role: Role, sees: QGSees, exact: Codec) -> None:
    made = chain("c", " P ", [("q1 ", "s1"), ("q2", "<<1+1=2>>2")], "7")
    end = exact.end_text
    steps = {
        "qg": f"\nQ: q1{end}\nA: s1{end}\nQ: q2{end}\nA: <<1+1=2>>2{end}\nQ:{end}",
        "cot": f"\nA: s1\n<<1+1=2>>2{end}\n#### 7{end}",
        "answer": f"\n#### 7{end}",
    }
    whole = f"{steps['qg']}\n#### 7{end}"
    text = f"\nQ: q1{end}\nQ: q2{end}\nQ:{end}" if sees == "questions" else steps.get(role, whole)
    example = causal_example(made, role, exact, sees)
    assert exact.decode(example.ids[len(exact.bos) :]) == f"Problem: P{end}{text}"
    assert (list(example.ids), list(example.learned)) == socratic.encode(made, role, exact.tokenizer, sees)


@pytest.mark.parametrize("made", CHAINS, ids=lambda made: made.problem_id)
def test_results_are_canonical_in_examples_alone(made: Chain, exact: Codec) -> None:
    text = exact.decode(causal_example(made, "unified", exact).ids)
    if made.problem_id == "clips":
        assert "<<48/2=24>>24 clips" in text
        assert "=24.00>>" in made.steps[0].answer
        assert "=24.00>>" in render_chain(made, "unified")[1][1].text
    if made.problem_id == "tax":
        assert "<<2*35,000=70000>>70,000" in text
        assert "<<7//2=3>>3, <<1/3=0.33>>" in text


def test_a_wrong_result_is_not_mended(exact: Codec) -> None:
    wrong = chain("c", "P", [("q", "<<48/2=25>>25")], "25")
    assert "<<48/2=25>>25" in exact.decode(causal_example(wrong, "qa", exact).ids)


def test_marks_in_the_problem_are_neither_cut_nor_rewritten(exact: Codec) -> None:
    made = chain("c", "P <<48/2=24.00>>24", [("q", "s")], "1")
    problem = exact.problem("Problem: P <<48/2=24.00>>24")
    assert list(causal_example(made, "answer", exact).ids[: len(problem)]) == problem


@pytest.mark.parametrize(("role", "sees"), MODES, ids=MODE_IDS)
@pytest.mark.parametrize("codec", [Codec(byte_tokenizer("qwen2")), Codec(metaspace_tokenizer())], ids=["exact", "t5"])
def test_encoder_decoders_get_one_example_a_learned_slot(role: Role, sees: QGSees, codec: Codec) -> None:
    for made in CHAINS:
        whole = causal_example(made, role, codec, sees)
        slots = list(slot_examples(made, role, codec, sees))
        assert len(slots) == sum(slot.learned for slot in render_chain(made, role, sees)[1])
        for slot in slots:
            before = slot.source
            assert whole.ids[: len(before)] == before, "the encoder reads everything so far, the marker included"
            assert whole.ids[len(before) : len(before) + len(slot.ids)] == slot.ids
            assert slot.ids[-1] == codec.end_id
            assert all(slot.learned)
            assert len(slot.learned) == len(slot.ids)
        learned = [i for i, is_learned in zip(whole.ids, whole.learned, strict=True) if is_learned]
        assert [i for slot in slots for i in slot.ids] == learned


def test_build_examples_keeps_the_order(exact: Codec) -> None:
    assert [e.problem_id for e in build_examples(CHAINS, "cot", exact)] == ["clips", "tax", "bulb"]
    slots = build_examples(CHAINS, "cot", exact, encoder_decoder=True)
    assert [e.problem_id for e in slots] == ["clips", "clips", "tax", "tax", "bulb", "bulb"]


def test_a_chain_without_sub_questions_is_refused(exact: Codec) -> None:
    with pytest.raises(UserError, match="chain of c has no sub-questions"):
        socratic.encode(chain("c", "P", [("", "s")], "1"), "unified", exact.tokenizer)
    with pytest.raises(UserError, match="chain of c has no steps"):
        socratic.encode(replace(CHAINS[0], problem_id="c", steps=()), "cot", exact.tokenizer)


def golden() -> list[dict[str, Any]]:
    import os

    file = Path(os.environ.get("SOCRATIC_DATA", "")) / "../transcript/golden.jsonl"
    if not os.environ.get("SOCRATIC_DATA") or not file.is_file():
        pytest.skip("set SOCRATIC_DATA to a folder with ../transcript/golden.jsonl to run this")
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_the_golden_samples(gsm8k: dict[str, Chain], smollm2_tokenizer: Any) -> None:
    samples = golden()
    assert len(samples) == 36
    modes = set()
    for sample in samples:
        sees: QGSees = sample.get("qg_sees") or "answers"
        ids, learned = socratic.encode(gsm8k[sample["id"]], sample["role"], smollm2_tokenizer, sees)
        assert ids == sample["ids"], sample["id"]
        assert learned == [bool(flag) for flag in sample["learned"]], sample["id"]
        modes.add((sample["role"], sees))
    assert modes == set(MODES)
    assert set(get_args(QGSees)) == {sees for _, sees in modes}


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf"), "2", True, None])
def test_a_weight_that_is_none_is_refused(weight: Any, exact: Codec) -> None:
    heavy = replace(CHAINS[0], metadata={"weight": weight})
    with pytest.raises(UserError, match="the chain of clips has the weight"):
        causal_example(heavy, "qa", exact)
