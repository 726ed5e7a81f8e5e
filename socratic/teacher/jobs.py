"""Which problems a teacher is asked about, and from which given steps it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from socratic.teacher.teach import Job
from socratic.types import Chain, Problem, Step


def jobs_of(
    problems: Sequence[Problem], samples: int, style: str, gold: Callable[[], Iterable[Chain]] = lambda: ()
) -> list[Job]:
    """``samples`` of each problem, one behind the other.

    The styles `answers` and `questions` start from the steps of the ``gold`` chain, or from StrategyQA's sub-questions,
    and leave out the problems that have none.
    """
    given: dict[str, tuple[Step, ...]] = {}
    if style in ("answers", "questions"):
        given = {chain.problem_id: chain.steps for chain in gold()}
        given |= {problem.id: asked for problem in problems if (asked := _asked(problem)) and style == "answers"}
        problems = [problem for problem in problems if problem.id in given]
    return [Job(problem, sample, given.get(problem.id, ())) for problem in problems for sample in range(samples)]


def _asked(problem: Problem) -> tuple[Step, ...]:
    """StrategyQA's own sub-questions, whether or not its facts line up with them."""
    return tuple(Step(question, "") for question in problem.metadata.get("decomposition", ()))
