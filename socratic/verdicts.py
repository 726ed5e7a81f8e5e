"""What a verifier learns from: right and wrong solutions of finished runs, as chains with their verdicts.

Right and wrong ones are of the same problem and the same loop, and as many of each, so that neither the problem nor the
form of a solution tells which it is. (Cobbe et al. 2021, 2110.14168, section 4.2; there without the matching.)
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from socratic.answers import sub_answer_value
from socratic.config import Settings
from socratic.evaluate import Run, check_whole, solved_content
from socratic.origin import Schooling, student_chain
from socratic.types import Chain, Problem, Trace, UserError


class VerdictSettings(Settings):
    """Which solutions a verifier learns from, and what of them."""

    labels: Literal["outcome", "gold"] = Field(
        "outcome", description="what makes a step right: that the answer came out right, or that gold has its value"
    )
    words: Literal["right", "all", "none"] = Field(
        "right", description="solutions whose words are learned beside the verdicts"
    )
    per_problem: int | None = Field(None, ge=1, description="right ones of a problem at most, and as many wrong ones")
    seed: int = Field(0, description="of those that are drawn")
    keep_seen: bool = Field(False, description="take solutions of problems that their student was trained on, too")


@dataclass
class Verdicts:
    """The chains, and what became of the traces: ``counts`` by reason, ``right`` and ``wrong`` those in chains."""

    chains: list[Chain] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Solution:
    """A finished trace, whether its answer is right, and the run it is of."""

    problem: Problem
    trace: Trace
    right: bool
    run: Run


def make_verdicts(
    runs: Sequence[Run],
    settings: VerdictSettings,
    schooled: Sequence[Schooling],
    gold: Sequence[Mapping[str, Chain]] = (),
) -> Verdicts:
    """Verdict chains of complete ``runs``, whose students' schooling is ``schooled``, in the order of the problems.

    A chain's ``metadata`` has ``verdicts``, ``learn_words``, and the ``models`` that wrote it by name and hash; its
    ``source`` is the run. ``gold`` are the chains of each run's problems by id, for ``labels="gold"``. Raises
    `UserError` for a run that is incomplete or not over train or dev, where gold is missing, and where nothing is left,
    saying why.
    """
    made = Verdicts()
    groups: dict[tuple[object, ...], dict[str, _Solution]] = {}
    for run, school in zip(runs, schooled, strict=True):
        for one in _solutions(run, None if settings.keep_seen else school, made.counts):
            alike = groups.setdefault((*solved_content(one.problem), one.trace.solver), {})
            made.counts["duplicate"] += one.trace.raw in alike
            alike.setdefault(one.trace.raw, one)
    chains_of = {id(run): chains for run, chains in zip(runs, gold, strict=True)} if gold else {}
    for content, alike in groups.items():
        drawn = _matched(list(alike.values()), settings, random.Random(f"{settings.seed}|{content}"))
        made.counts["unmatched"] += len(alike) - len(drawn)
        for one in drawn:
            made.counts["right" if one.right else "wrong"] += 1
            made.chains.append(_chain(one, settings, chains_of.get(id(one.run))))
    if not made.chains:
        why = ", ".join(f"{count} {reason}" for reason, count in made.counts.items() if count)
        hint = "give a run over other problems, or --keep-seen" if made.counts["seen"] else "sample more"
        raise UserError(f"the runs have no right and wrong solutions of one problem to learn from ({why}); {hint}")
    return made


def _solutions(run: Run, school: Schooling | None, counts: Counter[str]) -> Iterator[_Solution]:
    """The finished traces of ``run`` that may be learned from; counts the others."""
    check_whole(run)
    for problem in run.problems:
        if problem.split not in ("train", "dev"):
            raise UserError(
                f"{run.path} solves {problem.id}, a problem of {problem.split}, which nothing may be learned from; "
                "evaluate with --split train"
            )
    seen = {problem.id for problem in run.problems if school and school.holds(problem)}
    for problem, trace, score in run.scored():
        if problem.id in seen:
            counts["seen"] += 1
        elif trace.stop_reason != "finished" or trace.answer is None:
            counts["unfinished"] += 1
        else:
            yield _Solution(problem, trace, score.correct, run)


def _matched(solutions: list[_Solution], settings: VerdictSettings, rng: random.Random) -> list[_Solution]:
    """As many right as wrong ones, drawn at random; in their order."""
    kinds = [[one for one in solutions if one.right is right] for right in (True, False)]
    count = min(*map(len, kinds), settings.per_problem or len(solutions))
    drawn = {id(one) for kind in kinds for one in rng.sample(kind, count)}
    return [one for one in solutions if id(one) in drawn]


def _chain(one: _Solution, settings: VerdictSettings, gold: Mapping[str, Chain] | None) -> Chain:
    problem, trace, run = one.problem, one.trace, one.run
    models = {role: f"{m['name']} {str(m['sha256'])[:16]}" for role, m in run.config.get("models", {}).items()}
    verdicts: list[bool | None] = [one.right] * (len(trace.steps) + 1)
    if settings.labels == "gold":
        if gold is None or problem.id not in gold:
            raise UserError(f"{problem.id} has no gold chain to judge its steps by; use --labels outcome")
        known = {sub_answer_value(step.answer) for step in gold[problem.id].steps}
        values = [sub_answer_value(step.answer) for step in trace.steps]
        verdicts = [*(None if value is None else value in known for value in values), one.right]
    learned = settings.words == "all" or (settings.words == "right" and one.right)
    return student_chain(run, problem, trace, verdicts=verdicts, learn_words=learned, models=models)
