from __future__ import annotations

from itertools import accumulate, pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import byte_tokenizer, metaspace_tokenizer

from socratic.alignment import align, matches
from socratic.tokens import Codec

TEXT = st.text(st.one_of(st.sampled_from("ab 0123=.,<>\n"), st.characters()), max_size=30)


@st.composite
def tokenised(draw: st.DrawFn) -> tuple[str, list[str], list[str]]:
    """A text, and two ways to cut it into tokens, empty ones among them."""
    text = draw(TEXT)

    def cut() -> list[str]:
        places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
        return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]

    return text, cut(), cut()


def edits(first: str, second: str) -> int:
    if not first or not second:
        return len(first) + len(second)
    return min(
        edits(first[1:], second) + 1,
        edits(first, second[1:]) + 1,
        edits(first[1:], second[1:]) + (first[0] != second[0]),
    )


def cost(pairs: list[tuple[int, int]], first: list[str], second: list[str]) -> int:
    return sum(edits(first[i], second[j]) for i, j in pairs)


def cheapest(first: list[str], second: list[str]) -> int:
    """Over all ways, by trying them."""

    def way(i: int, j: int) -> float:
        here = edits(first[i], second[j])
        if (i, j) == (0, 0):
            return here
        before = [(a, b) for a, b in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if a >= 0 and b >= 0]
        return here + min(way(a, b) for a, b in before)

    return int(way(len(first) - 1, len(second) - 1))


@given(st.lists(TEXT, max_size=12))
def test_equal_sequences_are_aligned_token_by_token(tokens: list[str]) -> None:
    assert align(tokens, tokens) == [(i, i) for i in range(len(tokens))]
    assert matches(tokens, tokens) == {i: i for i in range(len(tokens))}


@given(tokenised())
def test_every_token_stands_in_a_pair_and_the_way_has_no_gaps(drawn: tuple[str, list[str], list[str]]) -> None:
    _, first, second = drawn
    pairs = align(first, second)
    assert pairs[0] == (0, 0)
    assert pairs[-1] == (len(first) - 1, len(second) - 1)
    for (i, j), (k, m) in pairwise(pairs):
        assert (k - i, m - j) in ((1, 1), (1, 0), (0, 1))
    assert {i for i, _ in pairs} == set(range(len(first)))
    assert {j for _, j in pairs} == set(range(len(second)))


@given(tokenised())
def test_what_matches_is_the_same_string_at_the_same_place(drawn: tuple[str, list[str], list[str]]) -> None:
    _, first, second = drawn
    ends = [list(accumulate(map(len, tokens))) for tokens in (first, second)]
    found = matches(first, second)
    for j, i in found.items():
        assert first[i] == second[j]
        assert ends[0][i] == ends[1][j]
    assert list(found.values()) == sorted(set(found.values()))
    spans = [
        {(end - len(t), end): p for p, (t, end) in enumerate(zip(tokens, e, strict=True)) if t}
        for tokens, e in zip((first, second), ends, strict=True)
    ]
    if all(first) and all(second):
        assert found == {spans[1][span]: spans[0][span] for span in spans[0].keys() & spans[1].keys()}


SHORT = st.lists(st.text("ab1 ", max_size=3), min_size=1, max_size=4)


@given(SHORT, SHORT)
def test_no_way_is_cheaper_where_the_texts_differ(first: list[str], second: list[str]) -> None:
    if "".join(first) != "".join(second):
        assert cost(align(first, second), first, second) == cheapest(first, second)


def test_texts_that_differ_a_little_are_aligned_by_their_strings() -> None:
    teacher = ["It", " bakes", " 12", "*", "8", "=<<", "12*8", "=", "96", ">>", "96"]
    student = ["It", " bakes", " ", "1", "2", "*", "8=", "[[", "12*8", "=", "96", "]]", "96"]
    found = matches(teacher, student)
    assert {student[j] for j in found} == {"It", " bakes", "12*8", "=", "96"}
    assert all(teacher[i] == student[j] for j, i in found.items())


@pytest.mark.parametrize(("first", "second"), list(product(([], [""], ["a"]), repeat=2)))
def test_nothing_is_aligned_with_nothing(first: list[str], second: list[str]) -> None:
    assert align(first, second) == ([(0, 0)] if first and second else [])


@given(TEXT)
def test_real_tokenizers_of_one_text(text: str) -> None:
    pieces = []
    for codec in TOKENIZERS:
        ids = codec.text(f" {text}")
        pieces.append([codec.decode([i]) for i in ids])
    found = matches(*pieces)
    assert all(pieces[0][i] == pieces[1][j] for j, i in found.items())


TOKENIZERS = (Codec(byte_tokenizer("llama")), Codec(metaspace_tokenizer()))
