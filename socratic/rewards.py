"""How good sub-questions are, as a filter or a weight for training QG on them.

The three rewards of guided question generation (Shridhar et al. 2211.12835): *fluency* (BLEU against gold questions),
*granularity* (as many questions as gold has steps) and *answerability* (whether the student QA reaches the answer with
these questions). Used as a filter they are filtered cloning (Tarasov & Shridhar 2402.01812).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Literal, get_args

from socratic.evaluate import Run, check_whole
from socratic.interventions import Given, Intervention
from socratic.lm.base import LM, TokenSession
from socratic.lm.scripted import ScriptedLM
from socratic.report.steps import aligned, bleu
from socratic.solving import SolveSettings, Solving
from socratic.types import Chain, Problem, UserError

Kind = Literal["fluency", "granularity", "answerability"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Reward:
    """Each in [0, 1]; fluency and granularity are None where no gold chain is known.

    ``fluency`` is BLEU of the j-th question against the j-th gold one, ``granularity`` 1 less the share by which the
    number of questions misses that of gold steps, ``answerability`` the share of QA's samples that are right.
    """

    fluency: float | None
    granularity: float | None
    answerability: float


def questions_given(chains: Sequence[Chain]) -> tuple[list[Problem], Intervention]:
    """A problem for each chain, with an id of its own, and the intervention that gives QA the chain's questions.

    Raises `UserError` for a chain without sub-questions.
    """
    problems, given = [], {}
    for place, chain in enumerate(chains):
        if not chain.steps or not all(step.question.strip() for step in chain.steps):
            raise UserError(f"the chain of {chain.problem_id} has no sub-questions to reward; leave it out")
        problem = replace(chain.problem("train"), id=f"{chain.problem_id}/chain-{place}")
        problems.append(problem)
        given[problem.id] = Given(tuple(step.question for step in chain.steps))
    return problems, Intervention("questions of chains", given)


def answering(qa: LM, settings: Mapping[str, object]) -> Solving:
    """QA with a QG that is never asked, since all questions are given."""
    session, qg = qa.session(), qa
    if isinstance(session, TokenSession):
        qg = ScriptedLM(session.codec, lambda transcript, kind: "", "the chains")
    return Solving(SolveSettings.parse(settings), qg=qg, qa=qa)


def rewards(chains: Sequence[Chain], run: Run, gold: Mapping[str, Chain]) -> list[Reward]:
    """The rewards of ``chains``, whose questions were given in ``run`` (see `questions_given`), in their order.

    ``gold`` are chains by problem id. Raises `UserError` for a run over other problems, or that an endpoint failed in.
    """
    check_whole(run)
    right: dict[str, list[bool]] = defaultdict(list)
    for score in run.scores:
        right[score.problem_id].append(score.correct)
    problems, _ = questions_given(chains)
    if [problem.id for problem in problems] != [problem.id for problem in run.problems]:
        raise UserError(f"{run.path} is not about these chains; give another folder for their answers")
    return [
        Reward(*_against_gold(chain, gold.get(chain.problem_id)), sum(right[p.id]) / len(right[p.id]))
        for p, chain in zip(problems, chains, strict=True)
    ]


def _against_gold(chain: Chain, gold: Chain | None) -> tuple[float | None, float | None]:
    if gold is None or not gold.steps:
        return None, None
    asked = all(step.question.strip() for step in gold.steps)
    fluency = bleu(list(aligned(chain.steps, gold.steps))) if asked else None
    missed = abs(len(chain.steps) - len(gold.steps)) / len(gold.steps)
    return None if fluency is None else fluency / 100, max(0.0, 1 - missed)


def rewarded(
    chains: Iterable[Chain], found: Iterable[Reward], kinds: Sequence[Kind], least: float | None
) -> list[Chain]:
    """``chains`` with their rewards in ``metadata.rewards``: those whose product of ``kinds`` is at least ``least``.

    Without ``least`` all of them, the product as ``metadata.weight``. Raises `UserError` where one of ``kinds`` is not
    known of a chain.
    """
    made = []
    for chain, reward in zip(chains, found, strict=True):
        values = asdict(reward)
        if missing := [kind for kind in kinds if values[kind] is None]:
            raise UserError(
                f"{chain.problem_id} has no gold questions, so no {missing[0]}; name their data set with --gold, or "
                "leave it out of --by"
            )
        share = prod(values[kind] for kind in kinds)
        weight = {} if least is not None else {"weight": round(share, 4)}
        if least is None or share >= least:
            made.append(replace(chain, metadata={**chain.metadata, "rewards": values, **weight}))
    return made
