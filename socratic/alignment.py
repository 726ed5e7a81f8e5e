"""Two token sequences of one text set against each other by dynamic programming, for learning from other tokenizers.

Fu et al. (2301.12726) align a teacher's tokens with a student's by dynamic programming over the edit distance of their
strings, and take over the teacher's probabilities where one token of each stands for the other and is the same string.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate


def align(first: Sequence[str], second: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of places, from the first tokens of both to the last, each next one a token on in either or in both.

    Every token stands in a pair, and the summed edit distance of the pairs' strings is the least there is. Where both
    spell the same text, so it is between any two places of it where both have a token's end: these are kept, so that
    equal sequences are aligned token by token. No pairs where a sequence is empty. Takes the product of the lengths.
    """
    cuts = [(len(first), len(second))]
    if "".join(first) == "".join(second):
        mine, theirs = _ends(first), _ends(second)
        behind = [{end: place for place, end in enumerate(ends, start=1)} for ends in (mine, theirs)]
        cuts = [(behind[0][end], behind[1][end]) for end in sorted(behind[0].keys() & behind[1].keys())]
    pairs: list[tuple[int, int]] = []
    i = j = 0
    for end, other_end in cuts:
        pairs += [(i + a, j + b) for a, b in _warp(first[i:end], second[j:other_end])]
        i, j = end, other_end
    return pairs


def matches(first: Sequence[str], second: Sequence[str]) -> dict[int, int]:
    """For each token of ``second`` that one of ``first`` stands for, alone and as the same string, that one's place.

    Where both spell the same text, also at the same place of it.
    """
    pairs = align(first, second)
    times = Counter(i for i, _ in pairs), Counter(j for _, j in pairs)
    found = {j: i for i, j in pairs if times[0][i] == times[1][j] == 1 and first[i] == second[j]}
    if "".join(first) != "".join(second):
        return found
    mine, theirs = _ends(first), _ends(second)
    return {j: i for j, i in found.items() if mine[i] == theirs[j]}


def _ends(tokens: Sequence[str]) -> list[int]:
    return list(accumulate(map(len, tokens)))


def _warp(first: Sequence[str], second: Sequence[str]) -> list[tuple[int, int]]:
    """The cheapest way through all pairs; of equally cheap ones that which goes on in both."""
    if not first or not second:
        return []
    far = float("inf")
    costs = [[0.0] + [far] * len(second)]
    for token in first:
        above, row = costs[-1], [far]
        for j, other in enumerate(second):
            row.append(_edits(token, other) + min(above[j], above[j + 1], row[j]))
        costs.append(row)
    i, j = len(first), len(second)
    pairs = []
    while i and j:
        pairs.append((i - 1, j - 1))
        i, j = min(((i - 1, j - 1), (i - 1, j), (i, j - 1)), key=lambda place: costs[place[0]][place[1]])
    return pairs[::-1]


@lru_cache(maxsize=100_000)
def _edits(first: str, second: str) -> int:
    """Levenshtein's distance."""
    if first == second:
        return 0
    before = list(range(len(second) + 1))
    for i, letter in enumerate(first, start=1):
        row = [i]
        for j, other in enumerate(second, start=1):
            row.append(min(row[-1] + 1, before[j] + 1, before[j - 1] + (letter != other)))
        before = row
    return before[-1]
