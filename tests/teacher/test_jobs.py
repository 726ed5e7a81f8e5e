from __future__ import annotations

from dataclasses import replace

from campaign import problems

from socratic.tasks.base import gold_chain
from socratic.teacher.jobs import jobs_of
from socratic.types import Step


def test_each_problem_is_asked_for_so_many_times() -> None:
    asked = problems(2)
    found = [(job.problem.id, job.sample, job.given) for job in jobs_of(asked, 2, "cot")]
    assert found == [(problem.id, sample, ()) for problem in asked for sample in (0, 1)]


def test_what_has_no_given_steps_is_left_out() -> None:
    bare, with_chain, asks = problems(3)
    asks = replace(asks, metadata={"decomposition": ["How many?"]})
    steps = (Step("How many?", "23"),)

    def found(style: str) -> list[tuple[str, tuple[Step, ...]]]:
        jobs = jobs_of([bare, with_chain, asks], 1, style, lambda: [gold_chain(with_chain, steps)])
        return [(job.problem.id, job.given) for job in jobs]

    assert found("questions") == [(with_chain.id, steps)]
    assert found("answers") == [(with_chain.id, steps), (asks.id, (Step("How many?", ""),))]
    assert len(found("socratic")) == 3
