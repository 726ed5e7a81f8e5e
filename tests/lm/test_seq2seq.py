from __future__ import annotations

import re
from typing import Any

import pytest
from tiny import CHAINS, RecordedSeq2Seq, byte_tokenizer, metaspace_tokenizer, problems, said, solved, t5_model

from socratic.examples import slot_examples
from socratic.lm import seq2seq
from socratic.lm.base import Request, TokenSession
from socratic.lm.seq2seq import pad
from socratic.tokens import Codec
from socratic.types import Problem, UserError

SHORT: dict[str, Any] = {"max_tokens": 16, "max_rationale_tokens": 24, "max_steps": 3}


@pytest.fixture(scope="module", params=["t5", "bytes"])
def codec(request: pytest.FixtureRequest) -> Codec:
    """T5's kind of tokenizer, and an exact one."""
    return Codec(metaspace_tokenizer() if request.param == "t5" else byte_tokenizer("qwen2"))


@pytest.fixture(scope="module")
def models(codec: Codec) -> list[Any]:
    """Several, since a random encoder-decoder says little, and each something else."""
    return [t5_model(codec.tokenizer, seed) for seed in range(6)]


@pytest.mark.parametrize("solver", ["unified", "cot"])
def test_text_does_not_depend_on_the_batch(models: list[Any], codec: Codec, solver: Any) -> None:
    stops = set()
    for number, model in enumerate(models):
        for how in ({}, {"temperature": 1.0, "seed": 5})[: 2 if number < 2 else 1]:
            one, many = RecordedSeq2Seq(model, codec, "one"), RecordedSeq2Seq(model, codec, "many")
            first = solved(problems(6), solver, lm=one, batch_size=1, **SHORT, **how)
            second = solved(problems(6), solver, lm=many, batch_size=64, **SHORT, **how)
            assert [s.ids for s in one.kept] == [s.ids for s in many.kept]
            assert [(t.raw, t.stop_reason, t.tokens) for t in first] == [
                (t.raw, t.stop_reason, t.tokens) for t in second
            ]
            stops |= {t.stop_reason for t in first}
    assert len(stops) > 2


def test_long_transcripts_are_read_a_few_at_a_time(
    models: list[Any], codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raws() -> list[str]:
        return [t.raw for t in solved(problems(6), "unified", lm=RecordedSeq2Seq(models[0], codec, "t5"), **SHORT)]

    whole, rows = raws(), list[int]()
    decode = RecordedSeq2Seq._decode

    def counting(self: Any, batch: list[Any]) -> None:
        rows.append(len(batch))
        decode(self, batch)

    monkeypatch.setattr(RecordedSeq2Seq, "_decode", counting)
    monkeypatch.setattr(seq2seq, "_SCORES", 20_000)
    assert raws() == whole
    assert 1 <= max(rows) < 6


def test_what_is_too_long_for_memory_is_overlong(models: list[Any], codec: Codec) -> None:
    lm = RecordedSeq2Seq(models[0], codec, "t5")
    lm.positions = 60
    problem = Problem("p", "d", "test", "x" * 100, "1")
    trace = solved([problem], "answer", lm=lm, **SHORT)[0]
    assert (trace.stop_reason, trace.answer) == ("overlong", None)
    assert re.fullmatch(r"\d{3} tokens stand before the final, and t5 takes 60 at most", trace.error or "")


def test_a_slot_is_what_generate_writes(models: list[Any], codec: Codec) -> None:
    """From the whole transcript so far, the end tokens in it included."""
    faults = [compare_to_generate(model, codec) for model in models]
    assert len({fault for row in faults for fault in row}) > 1
    assert None in {fault for row in faults for fault in row}


def compare_to_generate(model: Any, codec: Codec) -> list[str | None]:
    import torch

    lm = RecordedSeq2Seq(model, codec, "t5")
    requests = []
    for problem in problems(6):
        session = lm.session()
        session.write_problem(f"Problem: {problem.question}")
        session.write_marker("question")
        session.write_slot(" Is it so?")
        session.write_marker("answer")
        requests.append(Request(lm, session, "answer", 16, calculator=False))
        lm.submit(requests[-1])
    sources = [torch.tensor([session.ids]) for session in lm.kept]
    assert lm.waiting == 6
    assert lm.step(8) == requests
    assert lm.waiting == 0
    for request, session, source in zip(requests, lm.kept, sources, strict=True):
        written = model.generate(
            source, attention_mask=torch.ones_like(source), max_new_tokens=16, do_sample=False, pad_token_id=0
        )[0, 1:].tolist()
        special = next((k for k, token in enumerate(written) if token in codec.special_ids), None)
        assert request.completion is not None
        expected: tuple[str, str | None]
        if special is not None:
            expected = (codec.decode(written[:special]), "invalid_output")
        elif written[-1] != codec.end_id:
            expected = (codec.decode(written), "overlong")
        else:
            expected = (codec.decode(written[:-1]), None)
            assert session.ids == source[0].tolist() + written
        assert (request.completion.text, request.completion.fault) == expected
    return [request.completion.fault for request in requests if request.completion]


def test_training_and_solving_give_the_encoder_the_same(codec: Codec) -> None:
    """Solving with the gold texts, the ids before each slot are the training example's source."""
    for chain in CHAINS[:1]:
        session = TokenSession(codec)
        session.write_problem(f"Problem: {chain.question.strip()}")
        examples = list(slot_examples(chain, "unified", codec))
        kinds = ["question", "answer"] * len(chain.steps) + ["question", "final"]
        for example, kind, text in zip(examples, kinds, said(chain, "unified"), strict=True):
            session.write_marker(kind)  # type: ignore[arg-type]
            assert tuple(session.ids) == example.source
            session.write_slot(f" {text}" if text else "")


def test_a_student_that_forgets_texts_has_no_calculator() -> None:
    codec = Codec(metaspace_tokenizer())
    lm = RecordedSeq2Seq(t5_model(codec.tokenizer), codec, "small-t5")
    assert not lm.has_calculator
    with pytest.raises(UserError, match="calculator cannot interrupt small-t5"):
        solved(problems(1), "unified", lm=lm, calculator=True)
    assert solved(problems(1), "unified", lm=lm, **SHORT)[0].calculator is False


def test_padding_is_masked_by_length_where_its_id_is_a_text_token() -> None:
    ids, mask = pad([[5, 0, 7], [0]])
    assert ids.tolist() == [[5, 0, 7], [0, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
