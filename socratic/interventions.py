"""Where does the error come from? Runs in which a student is given words that are not its partner's.

Swaps put gold in a student's place: gold *questions* for QA, gold *answers* for QG, or a gold *history* before every
slot, as in training (the difference to the predicted history is the exposure gap). Interventions ask whether QA uses
the questions at all: gold questions in another order (*shuffle*), those of another problem (*foreign*), or always the
same (*generic*); their baseline is the swap of questions. (Shridhar et al. 2212.00193 also ablate questions.)
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from socratic.store import hash_json
from socratic.types import Chain, Step, UserError

SWAPS = ("questions", "answers", "history")
REPLACEMENTS = ("shuffle", "foreign", "generic")

GENERIC_QUESTION = "What is the next step?"


@dataclass(frozen=True)
class Given:
    """What one problem's loop is given: the questions it asks in place of QG's, all of them, where not None.

    ``answers`` take the place of QA's as far as they go; ``history`` is a whole gold chain, each of whose steps is
    written by the students first and then replaced.
    """

    questions: tuple[str, ...] | None = None
    answers: tuple[str, ...] = ()
    history: tuple[Step, ...] = ()


NOTHING = Given()


@dataclass(frozen=True)
class Intervention:
    """What is given to each problem, by problem id, and the name of it."""

    kind: str
    given: Mapping[str, Given]

    def record(self) -> dict[str, str]:
        """Plain values that change whenever something else is given."""
        given = {id: [g.questions, g.answers, [s.to_json() for s in g.history]] for id, g in self.given.items()}
        return {"kind": self.kind, "sha256": hash_json(given)}


def intervene(kind: str, chains: Sequence[Chain], seed: int = 0) -> Intervention:
    """The intervention ``kind`` made of gold ``chains``, one a problem.

    Raises `UserError` for a chain without sub-questions, and for *foreign* with a single problem.
    """
    for chain in chains:
        if not chain.steps or not all(step.question.strip() for step in chain.steps):
            raise UserError(
                f"{kind!r} needs gold sub-questions, which {chain.problem_id} has not; choose other problems"
            )
    questions = {chain.problem_id: tuple(step.question for step in chain.steps) for chain in chains}
    if kind not in (*SWAPS, *REPLACEMENTS):
        raise UserError(f"unknown intervention {kind!r}; choose one of {', '.join((*SWAPS, *REPLACEMENTS))}")
    if kind == "answers":
        return Intervention(kind, {c.problem_id: Given(answers=tuple(s.answer for s in c.steps)) for c in chains})
    if kind == "history":
        return Intervention(kind, {c.problem_id: Given(history=c.steps) for c in chains})
    if kind == "shuffle":
        questions = {id: _shuffled(asked, f"{seed}|{id}") for id, asked in questions.items()}
    elif kind == "foreign":
        questions = _exchanged(questions, seed)
    elif kind == "generic":
        questions = {id: (GENERIC_QUESTION,) * len(asked) for id, asked in questions.items()}
    return Intervention(kind, {id: Given(asked) for id, asked in questions.items()})


def _shuffled(questions: tuple[str, ...], seed: str) -> tuple[str, ...]:
    """Another order, where there is one that reads otherwise."""
    rng, order = random.Random(seed), list(questions)
    while len(set(questions)) > 1 and tuple(order) == questions:
        rng.shuffle(order)
    return tuple(order)


def _exchanged(questions: Mapping[str, tuple[str, ...]], seed: int) -> dict[str, tuple[str, ...]]:
    """Each problem with another's questions, one of as many steps where there is one: neighbours in a random order."""
    if len(questions) < 2:
        raise UserError("'foreign' takes the questions of another problem, and there is only one; choose more problems")
    ids = sorted(questions, key=lambda id: (len(questions[id]), random.Random(f"{seed}|{id}").random()))
    by_length: dict[int, list[str]] = {}
    for id in ids:
        by_length.setdefault(len(questions[id]), []).append(id)
    exchanged = {}
    for place, id in enumerate(ids):
        group = by_length[len(questions[id])]
        partner = group[(group.index(id) + 1) % len(group)]
        exchanged[id] = questions[partner if partner != id else ids[place - 1]]
    return exchanged
