from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import FAMILIES, KINDS, byte_tokenizer, metaspace_tokenizer, prefix_space_tokenizer

from socratic.prompts import MARKERS, learned_text
from socratic.tokens import Codec
from socratic.types import UserError

MARK = " it is <<48/2=24>>24, or <<1+1=2>>"


def pieces_of(codec: Codec, pieces: list[str]) -> list[int]:
    return [i for piece in pieces for i in codec.tokenizer(piece, add_special_tokens=False).input_ids]


def test_end_is_the_tokenizers_own_also_where_it_is_the_padding(exact: Codec) -> None:
    assert exact.exact
    assert exact.substitutions == {}
    assert exact.end_id == exact.tokenizer.eos_token_id
    assert exact.end_text == exact.tokenizer.eos_token
    assert exact.end_id not in exact.special_ids
    special = {i for i, token in exact.tokenizer.added_tokens_decoder.items() if token.special}
    assert exact.special_ids == special - {exact.end_id}


def test_bos_comes_first_only_where_the_tokenizer_writes_it() -> None:
    by_family = {family: Codec(byte_tokenizer(family)) for family in FAMILIES}
    assert by_family["llama"].bos == (by_family["llama"].tokenizer.bos_token_id,)
    assert by_family["gpt2"].bos == ()  # it has one, the same as its END, and does not write it
    assert by_family["qwen2"].bos == ()  # it has none
    for codec in by_family.values():
        ids = codec.problem("Problem: x")
        assert ids == [*codec.bos, *pieces_of(codec, ["Problem: x"]), codec.end_id]
        assert not set(codec.bos) & set(codec.slot(" x") + codec.marker("final"))


def test_special_tokens_typed_in_a_text_stay_text(exact: Codec) -> None:
    for token in exact.tokenizer.all_special_tokens:
        for ids in (exact.problem(f"Problem: say {token}")[len(exact.bos) :], exact.slot(f" {token} ")):
            assert ids.count(exact.end_id) == 1
            assert not exact.special_ids & set(ids)
            assert token in exact.decode(ids[:-1])
    assert exact.tokenizer(exact.end_text, add_special_tokens=False).input_ids == [exact.end_id]  # it would not, else


def test_texts_are_cut_at_marks_and_problems_are_not(exact: Codec) -> None:
    cut = pieces_of(exact, [" it is <<48/2=", "24>>", "24, or <<1+1=", "2>>"])
    assert exact.text(MARK) == cut
    assert exact.slot(MARK) == [*cut, exact.end_id]
    whole = pieces_of(exact, [MARK])
    assert whole != cut, "the tiny tokenizer must merge across a cut, or this shows nothing"
    assert exact.problem(MARK) == [*exact.bos, *whole, exact.end_id]


def test_what_the_calculator_appends_is_what_a_text_holds_there(exact: Codec) -> None:
    assert exact.text(" <<48/2=24>>24") == exact.text(" <<48/2=") + exact.text("24>>") + exact.text("24")


def test_the_stop_is_one_token(exact: Codec) -> None:
    assert exact.slot(learned_text("")) == exact.slot(learned_text(" \n ")) == [exact.end_id]
    assert learned_text(" a \n") == " a"


@given(st.text())
def test_exact_tokenizers_give_any_text_back(text: str) -> None:
    for codec in EXACT:
        ids = codec.text(text)
        assert codec.decode(ids) == text
        assert codec.end_id not in ids
        assert not codec.special_ids & set(ids)


EXACT = [Codec(byte_tokenizer(family)) for family in FAMILIES]


def test_incomplete_bytes_are_replaced(exact: Codec) -> None:
    assert exact.decode(exact.text(" ½")[:-1]) == " \ufffd"


def test_tokens_that_hold_an_equals_sign(exact: Codec) -> None:
    holds = {token for i in range(len(exact.tokenizer)) if exact.has_equals(i) for token in [exact.decode([i])]}
    assert holds == {"=", "=2", "=1"}
    assert holds == {exact.decode([i]) for i in range(len(exact.tokenizer)) if exact.has_equals(i)}


# ---- tokenizers that do not give back every text


def test_substitutions_are_recorded_and_undone_in_what_a_model_writes(inexact: Codec) -> None:
    assert not inexact.exact
    assert inexact.substitutions == {"<<": "[[", "\n": " | ", "{": "(", "}": ")", "<": "less than"}
    ids = inexact.text(" 48/2=<<48/2=24>>24\nso {it} is < 25")
    assert inexact.tokenizer.unk_token_id not in ids
    assert inexact.decode(ids) == "48/2=<<48/2=24>>24\nso (it) is less than 25"


def test_inexact_tokenizers_get_markers_without_newlines(inexact: Codec) -> None:
    assert [inexact.decode(inexact.marker(kind)).strip() for kind in KINDS] == ["| Q:", "| A:", "| ####", "| Plan:"]
    for kind in KINDS:
        assert inexact.tokenizer.unk_token_id not in inexact.marker(kind)
    assert len({tuple(inexact.marker(kind)) for kind in KINDS}) == len(MARKERS)


def test_inexact_tokenizers_do_not_cut(inexact: Codec) -> None:
    text = " it is <<48/2=24>>24"
    assert inexact.text(text) == pieces_of(inexact, ["it is [[48/2=24>>24"])
    assert inexact.slot("") == [inexact.end_id]


def test_a_dummy_prefix_that_shows_only_between_two_texts_is_noticed() -> None:
    codec = Codec(prefix_space_tokenizer())
    assert codec.decode(codec.text("24>>")) == "24>>"
    assert not codec.exact
    assert codec.decode(codec.text(" 48/2=<<48/2=24>>24")).strip() == "48/2=<<48/2=24>>24"


@pytest.mark.parametrize("letters", ["abcdefgh", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz.,:#/=|[]()"])
def test_a_tokenizer_that_loses_letters_or_digits_is_refused(letters: str) -> None:
    with pytest.raises(UserError, match=r"does not give back the text .*; use another student"):
        Codec(metaspace_tokenizer(letters))


def test_a_tokenizer_without_an_end_token_is_refused() -> None:
    tokenizer: Any = byte_tokenizer("qwen2")
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="has no end token; set its eos_token"):
        Codec(tokenizer)


def test_a_tokenizer_trained_here_is_exact() -> None:
    from socratic.lm.scratch import train_tokenizer

    texts = [f"How many clips are {i} and {{a}}?\nZoë's 48/2=<<48/2=24>>24 < 3" for i in range(40)]
    codec = Codec(train_tokenizer(texts, 320))
    assert codec.exact
    for text in (*texts, " x", "  two  spaces", "tab\tand emoji 🎈", "\n\n"):
        assert codec.decode(codec.text(text)) == text
