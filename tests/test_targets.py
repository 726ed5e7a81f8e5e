from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_trainer import CHAINS as PRICES
from test_trainer import save_tiny
from tiny import CHAINS, byte_tokenizer, chain, metaspace_tokenizer

from socratic.calculator import canonicalise
from socratic.examples import build_examples, causal_example, slot_examples
from socratic.prompts import MARKERS, learned_text, render_chain
from socratic.targets import TOKENS, TeacherText, kept_tokens
from socratic.tokens import Codec
from socratic.train import fit
from socratic.types import Chain, UserError


def taught(made: Chain, tokens: list[Any]) -> Chain:
    return replace(made, metadata={**made.metadata, TOKENS: tokens})


def said_by(made: Chain, codec: Codec) -> list[str]:
    """The unified transcript behind the problem, as a teacher with this tokenizer would have said it."""
    pieces = []
    for slot in render_chain(made, "unified")[1]:
        pieces.append(MARKERS[slot.kind])
        pieces += [codec.piece(i) for i in codec.text(learned_text(canonicalise(slot.text)))]
    return pieces


@pytest.mark.parametrize("made", [CHAINS[0], CHAINS[2]], ids=lambda made: made.problem_id)
def test_a_teacher_with_the_students_tokenizer_gives_a_target_at_every_place(made: Chain, exact: Codec) -> None:
    other = {piece: token for piece, token in exact.ids_of_pieces.items() if piece != "x"}
    tokens = [[piece, [[piece, 0.6], ["x", 0.2], ["no token", 0.1]]] for piece in said_by(made, exact)]
    example = causal_example(taught(made, tokens), "unified", exact)
    assert example.ids == causal_example(made, "unified", exact).ids
    rendered = render_chain(made, "unified")[1]
    said = [exact.slot(learned_text(canonicalise(s.text))) for s in rendered if s.kind in ("question", "answer")]
    places = [t for t, learned in zip(example.targets, example.learned, strict=True) if learned]
    assert not any(t for t, learned in zip(example.targets, example.learned, strict=True) if not learned)
    for ids in said:
        for token in ids:
            found = places.pop(0)
            if token == exact.end_id or exact.piece(token) not in other:
                assert found == () or dict(found).keys() == {exact.ids_of_pieces["x"]}
            elif exact.piece(token) != "x":
                assert dict(found) == pytest.approx({token: 0.75, exact.ids_of_pieces["x"]: 0.25})
    assert not any(places), "the final slot is the program's"


def test_the_same_in_an_encoder_decoder(exact: Codec) -> None:
    tokens = [[piece, [[piece, 1.0]]] for piece in said_by(CHAINS[0], exact)]
    made = [taught(CHAINS[0], tokens), *CHAINS[1:]]
    whole = causal_example(made[0], "qa", exact)
    slots = list(slot_examples(made[0], "qa", exact))
    learned = [t for t, is_learned in zip(whole.targets, whole.learned, strict=True) if is_learned]
    assert [t for slot in slots for t in slot.targets or ((),) * len(slot.ids)] == learned
    for seq2seq in (True, False):
        examples = build_examples(made, "qa", exact, encoder_decoder=seq2seq)
        assert any(e.targets for e in examples)


def test_other_tokens_and_other_forms_of_reply_give_targets_where_strings_agree() -> None:
    codec = Codec(byte_tokenizer("qwen2"))
    made = chain("c", "P", [("Who?", "Bo: 24 <<2*12=24>>24.")], "24")
    cut = ['{"steps": [{"question": "', "W", "ho", '?", "answer": "', "B", "o", ":", " ", "24", " ", "<<", "2", "*"]
    cut += ["1", "2", "=", "24", ">>", "24", '."}], "answer": "24"}']
    example = causal_example(taught(made, [[t, [[t, 0.5]]] for t in cut]), "unified", codec)
    soft = [codec.piece(i) for i, t in zip(example.ids, example.targets, strict=True) if t]
    assert soft == ["o", ":", " ", "24", " ", "<<", "2", "*", "1", "2", "=", "24", ">>", "24"]
    for token, found in zip(example.ids, example.targets, strict=True):
        assert found in ((), ((token, 1.0),))


@given(
    pieces=st.lists(st.text("ab 12=<>.\n½", max_size=3), max_size=30),
    text=st.text("ab 12=<>.\n½", min_size=1, max_size=20),
    mess=st.booleans(),
)
def test_any_teacher_gives_targets_of_the_right_shape(pieces: list[str], text: str, mess: bool) -> None:
    if mess:
        pieces = [*pieces[:7], *text, *pieces[7:]]
    for codec in (BYTES, METASPACE):
        ids = codec.text(learned_text(text))
        reader = TeacherText(taught(CHAINS[0], [[p, [[p, 0.4], ["a", 0.2]]] for p in pieces]))
        found = reader.targets(learned_text(text), ids, codec)
        assert len(found) == len(ids)
        for candidates in found:
            assert not candidates or math.fsum(p for _, p in candidates) == pytest.approx(1)
            assert all(0 <= token < len(codec.tokenizer) for token, _ in candidates)


BYTES, METASPACE = Codec(byte_tokenizer("llama")), Codec(metaspace_tokenizer())


def test_the_pieces_of_a_tokenizer_are_its_text() -> None:
    assert METASPACE.piece(METASPACE.ids_of_pieces[" clips"]) == " clips"
    assert BYTES.end_id not in BYTES.ids_of_pieces.values()
    assert BYTES.ids_of_pieces["<<"] in BYTES.text("<<")


@pytest.mark.parametrize("tokens", [7, [1], [["a"]], [["a", [["b"]]]], [["a", [["b", "x"]]]], [["a", [["b", 7.0]]]]])
def test_tokens_that_are_none_are_refused(tokens: Any) -> None:
    with pytest.raises(UserError, match="the chain of clips has teacher_tokens"):
        TeacherText(taught(CHAINS[0], tokens))


def test_only_likely_candidates_are_kept() -> None:
    kept = kept_tokens([("a", [("a", math.log(0.9)), ("b", math.log(0.00001))]), ("c", [])])
    assert kept == [["a", [["a", 0.9]]], ["c", []]]
    assert json.loads(json.dumps(kept)) == kept


def test_a_student_learns_from_a_teachers_probabilities(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model")
    with pytest.raises(UserError, match="loss=kl needs chains with a teacher's token probabilities"):
        fit("qa", PRICES, model, tmp_path / "none", loss="kl", max_steps=1, on_note=print)
    tokens = [[word, [[word, 0.5], [" How", 0.5]]] for step in PRICES[0].steps for word in f" {step.answer}\n"]
    chains = [taught(PRICES[0], tokens), *PRICES[1:]]
    notes: list[str] = []
    fit("qa", chains, model, tmp_path / "kl", loss="kl", max_steps=1, warmup=0.0, on_note=notes.append)
    [share] = [note for note in notes if note.startswith("a teacher's probabilities are known at")]
    assert 0 < float(share.split("known at ")[1].split("%")[0]) < 100
    fit("qa", chains, model, tmp_path / "nll", max_steps=1, warmup=0.0, on_note=print)
    fit("qa", PRICES, model, tmp_path / "plain", max_steps=1, warmup=0.0, on_note=print)
    kl, nll, plain = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("kl", "nll", "plain"))
    assert nll == plain
    assert kl != plain
