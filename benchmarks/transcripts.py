"""Gold transcripts as work to be raced over: who writes how many tokens behind which."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from socratic.examples import causal_example
from socratic.tokens import Codec
from socratic.types import Chain, Problem, Role

ROLES: tuple[Role, Role] = ("qg", "qa")


@dataclass(frozen=True)
class Turn:
    """One slot of a gold transcript: the role that writes it, the ids it has seen before, how many it writes."""

    role: int
    seen: list[int]
    written: int


@dataclass(frozen=True)
class Script:
    """A problem and its gold transcript, as each role sees it and turn by turn."""

    problem: Problem
    ids: list[list[int]]
    turns: list[Turn]

    @property
    def written(self) -> int:
        """Decoded tokens of both roles."""
        return sum(turn.written for turn in self.turns)


def scripts(chains: list[Chain], codec: Codec, roles: Sequence[Role] = ROLES) -> list[Script]:
    """The gold transcripts of ``chains``, for roles that take turns."""
    made = []
    for chain in chains:
        examples = [causal_example(chain, role, codec) for role in roles]
        slots = [list(_slots(example.learned)) for example in examples]
        turns = []
        while any(slots):
            role = slots.index(max(slots, key=len))
            start, end = slots[role].pop(0)
            turns.append(Turn(role, list(examples[role].ids[:start]), end - start))
        made.append(Script(chain.problem("test"), [list(example.ids) for example in examples], turns))
    return made


def _slots(learned: tuple[bool, ...]) -> Iterator[tuple[int, int]]:
    start = None
    for place, is_learned in enumerate((*learned, False)):
        if is_learned and start is None:
            start = place
        elif not is_learned and start is not None:
            yield start, place
            start = None


Contestant = Callable[[list[Script], int], None]
"""Writes all scripts, at most so many problems at a time."""
