"""What a teacher might have said in place of each token, as a student's targets (Fu et al. 2301.12726).

A chain's ``metadata.teacher_tokens`` hold the teacher's text, token by token, each with its likeliest candidates:
``[["It", [["It", 0.9], ["The", 0.08]]], [" bakes", []], …]``; probabilities are of all the vocabulary, so that they add
up to less than 1. The candidates become a student's targets where its tokenizer has cut out the same token, and hold
those that are tokens of the student as well, made to add up to 1.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from math import exp
from typing import Any

from socratic.alignment import matches
from socratic.tokens import Codec
from socratic.types import Candidates, Chain, UserError

TOKENS = "teacher_tokens"
LEAST = 0.001
"""Probability below which a candidate is not kept: all of them together move a target by less than a few of these."""


def kept_tokens(tokens: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> list[Any]:
    """Tokens with candidates and the logarithms of their probabilities, as a chain's metadata hold them."""
    return [
        [
            token,
            [[text, round(exp(logprob), 4)] for text, logprob in candidates if logprob <= 0 and exp(logprob) >= LEAST],
        ]
        for token, candidates in tokens
    ]


class TeacherText:
    """A chain's teacher tokens, read from left to right, slot by slot; raises `UserError` where they are not such."""

    def __init__(self, chain: Chain) -> None:
        try:
            self._tokens = [str(token) for token, _ in chain.metadata.get(TOKENS, ())]
            self._candidates = [
                [(str(text), float(p)) for text, p in candidates] for _, candidates in chain.metadata.get(TOKENS, ())
            ]
        except (TypeError, ValueError):
            raise UserError(f"the chain of {chain.problem_id} has {TOKENS} that are none; leave them out") from None
        if not all(0 <= p <= 1.001 for candidates in self._candidates for _, p in candidates):
            raise UserError(f"the chain of {chain.problem_id} has {TOKENS} with a probability outside of 0 to 1")
        self._text = "".join(self._tokens)
        self._ends = list(accumulate(map(len, self._tokens)))
        self._place = 0

    def targets(self, text: str, ids: Sequence[int], codec: Codec) -> tuple[Candidates, ...]:
        """For each of ``ids``, the student's of the learned ``text``, its candidates, () where it is its own target.

        A text that the teacher's does not hold behind the last one found has none.
        """
        start = self._text.find(text.strip(), self._place) if text.strip() else -1
        if start < 0:
            return ((),) * len(ids)
        self._place = start + len(text.strip())
        if start and self._text[start - 1] == " ":
            start -= 1  # a learned text begins with a space
        first, last = bisect_right(self._ends, start), bisect_right(self._ends, self._place - 1)
        spelt = self._tokens[first : last + 1]
        spelt[-1] = spelt[-1][: len(spelt[-1]) - (self._ends[last] - self._place)]
        spelt[0] = spelt[0][start - (self._ends[first] - len(self._tokens[first])) :]
        found = matches(spelt, [codec.piece(token) for token in ids])
        whole = {j: first + i for j, i in found.items() if spelt[i] == self._tokens[first + i]}
        return tuple(_known(self._candidates[whole[j]], codec) if j in whole else () for j in range(len(ids)))


def _known(candidates: Sequence[tuple[str, float]], codec: Codec) -> Candidates:
    """Candidates that are tokens of the student, their probabilities adding up to 1; () where none is."""
    known = [(codec.ids_of_pieces[text], p) for text, p in candidates if p > 0 and text in codec.ids_of_pieces]
    total = sum(p for _, p in known)
    return tuple((token, p / total) for token, p in known)
