"""Contamination: test problems that share a long run of words with train, as they stand or with numbers masked.

A number is masked be it in digits or in words (``five``, ``twice``), as is what `socratic.augment` makes of others.

Thirteen words is the length that Brown et al. (2020), "Language models are few-shot learners", appendix C, use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from socratic.numerals import NUMBER, WORD
from socratic.types import Problem

N = 13
_WORD = re.compile(r"\d[\d.,]*\d|\w+")


@dataclass(frozen=True)
class Overlap:
    """A test problem and the first train problem it shares a run of words with; ``shared`` is that run."""

    test_id: str
    train_id: str
    shared: str
    masked: bool
    """Whether the two agree only with numbers masked."""


@dataclass(frozen=True)
class Overlaps:
    """What was found among ``tests`` test problems; a problem stands once, unmasked if it agrees as it stands."""

    tests: int
    found: tuple[Overlap, ...]

    def to_json(self) -> dict[str, Any]:
        """By name."""
        return asdict(self)

    def sentence(self) -> str:
        """For a person."""
        exact = sum(not overlap.masked for overlap in self.found)
        return (
            f"{len(self.found)} of {self.tests} test problems share {N} words in a row (shorter ones: all their words) "
            f"with a training problem once numbers are masked, {exact} of them as they stand"
        )


def find_overlaps(train: Sequence[Problem], test: Sequence[Problem]) -> Overlaps:
    """Test problems that share a run of `N` words with a train problem, case ignored; shorter ones have to be equal."""
    found: dict[str, Overlap] = {}
    for masked in (False, True):
        wanted: dict[tuple[str, ...], list[str]] = {}
        for problem in test:
            for run in _runs(words(f"{problem.context or ''} {problem.question}", masked)):
                wanted.setdefault(run, []).append(problem.id)
        for problem in train:
            for run in _runs(words(f"{problem.context or ''} {problem.question}", masked)):
                for id in wanted.get(run, ()):
                    found.setdefault(id, Overlap(id, problem.id, " ".join(run), masked))
    return Overlaps(len(test), tuple(found[problem.id] for problem in test if problem.id in found))


def words(text: str, masked: bool = False) -> list[str]:
    """The words and numbers of ``text`` in lower case; ``masked`` writes 0 for every number, in digits or in words."""
    return _WORD.findall((NUMBER.sub("0", WORD.sub("0", text)) if masked else text).lower())


def _runs(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for start in range(max(1, len(words) - N + 1)):
        yield tuple(words[start : start + N])
