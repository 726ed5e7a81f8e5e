"""Finished runs with chosen traces, gold chains for them, and the report made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from socratic.evaluate import Run, evaluate, load_run
from socratic.report.compare import compare
from socratic.report.report import Report, make_report
from socratic.types import Chain, Problem, Step, Trace

# Problem i has i % 3 + 1 gold steps, each adding 1, and the answer i + number of steps.
PROBLEMS = [
    Problem(f"d/test/{i:05}", "d", "test", f"What is {i} and {i % 3 + 1} more?", f"{i + i % 3 + 1}") for i in range(12)
]


def gold_steps(i: int) -> tuple[Step, ...]:
    return tuple(
        Step(f"How many after {n + 1}?", f"There are {i + n}+1=<<{i + n}+1={i + n + 1}>>{i + n + 1}.")
        for n in range(i % 3 + 1)
    )


CHAINS = {p.id: Chain(p.id, "d", p.question, p.answer, "number", gold_steps(i)) for i, p in enumerate(PROBLEMS)}

Say = Callable[[int, int], Trace]


def said(i: int, sample: int, steps: Sequence[Step], answer: str, solver: str = "iterative", **other: Any) -> Trace:
    """What was said to problem ``i``: ``steps`` and the final slot ``answer``."""
    raw = "\n".join([*(f"{step.question}\n{step.answer}".strip() for step in steps), f"#### {answer}"])
    trace = Trace(PROBLEMS[i].id, sample, solver, tuple(steps), raw, answer, "finished", None, True, 20 + i, 0.5, "1")
    return replace(trace, **other)


def make_run(folder: Path, say: Say, samples: int = 1, **settings: Any) -> Run:
    """A complete run over `PROBLEMS` in which ``say(i, sample)`` answers."""
    places = {problem.id: i for i, problem in enumerate(PROBLEMS)}

    def solve(pending: list[tuple[Problem, int]]) -> Iterator[Trace]:
        yield from (say(places[problem.id], sample) for problem, sample in pending)

    evaluate(PROBLEMS, solve, folder, settings, samples=samples)
    return load_run(folder)


def as_gold(i: int, sample: int) -> Trace:
    """Everything right."""
    return said(i, sample, gold_steps(i), PROBLEMS[i].answer)


def slips(i: int, sample: int) -> Trace:
    """Right where i is even; else the first mark is wrong, and so is the answer."""
    if i % 2 == 0:
        return as_gold(i, sample)
    first, *later = gold_steps(i)
    wrong = Step(first.question, f"There are {i}+1=<<{i}+1=90>>90.")
    return said(i, sample, (wrong, *later), "90", stop_reason="repeated_step")


def chain_of_thought(i: int, sample: int) -> Trace:
    """Right below 6, else a line too few; sample 1 is always wrong."""
    lines = [step.answer for step in gold_steps(i)]
    right = i < 6 and sample != 1
    text = "\n".join(lines if right else lines[:-1] or ["So."])
    return said(i, sample, (Step("", text),), PROBLEMS[i].answer if right else "77", "cot")


def make_page_of(runs: Sequence[Run], chains: Mapping[str, Chain] = CHAINS) -> Report:
    return make_report(runs, compare(runs), chains)
