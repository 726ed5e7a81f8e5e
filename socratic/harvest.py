"""Chains out of runs over training problems: what students solved, for the next ones to learn.

Rejection sampling keeps right solutions that calculate differently (Yuan et al. 2308.01825). It is *cross-fold*: a
student samples on problems that it was not trained on, or what it writes repeats its training.

`harvest`    whole solutions, right in the answer and in every step
`histories`  gold steps behind a student's own first ones, to close the gap between gold and predicted history
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from socratic import stats
from socratic.answers import sub_answer_value
from socratic.calculator import disagreements
from socratic.curate import By, check, equations
from socratic.evaluate import Run, check_whole, solved_content
from socratic.loops import normalised
from socratic.numerals import values
from socratic.origin import held_out, student_chain
from socratic.prompts import render_problem
from socratic.tasks import in_dev
from socratic.types import Chain, Problem, Score, Step, Trace, UserError

Way = tuple[str, ...]
"""What tells chains of one problem apart: its equations, its sub-questions, or its given steps."""
_Sampled = tuple[Run, Problem, Trace, Score]


@dataclass
class Harvest:
    """``chains`` that were kept, what became of every trace (``kept``, or the reason why not), and pass@1.

    ``pass_at_1`` has the strict share of right traces, with its 95 % Wilson interval over problems: ``held_out``, on
    problems that no student of the run was trained on, and ``trained_on``, on the others.
    """

    chains: list[Chain] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    pass_at_1: dict[str, dict[str, float]] = field(default_factory=dict)


def harvest(
    runs: Sequence[Run],
    gold: Iterable[Chain] = (),
    *,
    most: int | None = None,
    trained_on: Literal["refuse", "allow"] = "refuse",
    share: float | None = None,
    by: By = "all",
) -> Harvest:
    """Traces of complete ``runs`` as chains: right (strict), finished, with right arithmetic, and passed by `curate`.

    ``by`` answer, right and finished is enough, whatever the arithmetic.

    Of one problem's chains that calculate the same the first is kept, and none that calculates as ``gold`` does; of
    the others at most ``most``, each the one least like gold and those taken before. With ``share``, chains for QG:
    those whose questions led to right answers in at least that share of the samples that asked them, told apart by
    their questions.

    Traces on problems that a student of the run may have been trained on are left out, but where ``trained_on`` is
    ``allow``. Raises `UserError` for a run that is not complete, is not over training problems, has no steps or
    was given words, and where by that rule nothing at all is left.
    """
    by_questions = share is not None
    samples = [*_samples(runs, by_questions)]
    unseen = _unseen(samples)
    led: dict[tuple[str, Way], list[bool]] = {}
    for run, problem, trace, score in samples if by_questions else ():
        if trained_on == "refuse" and (run.path, problem.id) not in unseen:
            continue  # whose right answers may be remembered ones
        is_right = score.strict and trace.stop_reason == "finished"
        led.setdefault((problem.id, _questions(trace.steps)), []).append(is_right)

    def made(run: Run, problem: Problem, trace: Trace, score: Score) -> Chain | str:
        if not score.strict:
            return "wrong_answer"
        if trace.stop_reason != "finished":
            return "unfinished"
        if share is not None and fmean(led[problem.id, _questions(trace.steps)]) < share:
            return "seldom_right"
        chain = student_chain(run, problem, trace)
        if by == "all" and any(disagreements(step.answer) for step in chain.steps):
            return "wrong_calculation"
        return check(chain, by) or chain

    def way(chain: Chain) -> Way:
        return _questions(chain.steps) if by_questions else equations(chain)

    return _gathered(samples, unseen, gold, made, way, most, trained_on)


def histories(
    runs: Sequence[Run],
    gold: Iterable[Chain],
    *,
    most: int | None = None,
    trained_on: Literal["refuse", "allow"] = "refuse",
) -> Harvest:
    """Gold chains whose first steps are in a student's own words, given and not learned (``metadata.given_steps``).

    As many of a trace's first steps are given as come, step by step, to gold's values with right arithmetic and hold
    every number of gold's that its later steps need, but always fewer than gold has: where the student went wrong
    next, gold's step is the correction. Whether the trace ended right does not matter. Other arguments and errors as
    `harvest`.
    """
    first = {chain.problem_id: chain for chain in reversed([*gold])}

    def made(run: Run, problem: Problem, trace: Trace, score: Score) -> Chain | str:
        if problem.id not in first:
            return "no_gold_steps"
        own, right = student_chain(run, problem, trace), first[problem.id]
        count = _agreeing(own, right)
        if not count:
            return "other_values"
        if [*map(normalised, own.steps[:count])] == [*map(normalised, right.steps[:count])]:
            return "as_gold"
        steps = own.steps[:count] + right.steps[count:]
        metadata = {**own.metadata, "given_steps": count}
        mixed = replace(own, steps=steps, final_answer=right.final_answer, metadata=metadata)
        return check(mixed) or mixed

    def way(chain: Chain) -> Way:
        given = chain.metadata.get("given_steps", 0)
        return tuple(text for step in chain.steps[:given] for text in normalised(step))

    samples = [*_samples(runs, needs_questions=True)]
    return _gathered(samples, _unseen(samples), first.values(), made, way, most, trained_on)


def _gathered(
    samples: Sequence[_Sampled],
    unseen: set[tuple[Path, str]],
    gold: Iterable[Chain],
    made: Callable[[Run, Problem, Trace, Score], Chain | str],
    way: Callable[[Chain], Way],
    most: int | None,
    trained_on: str,
) -> Harvest:
    """What ``made`` makes of the traces that may be used, each ``way`` once and none of gold's."""
    done = Harvest()
    if samples and not unseen and trained_on == "refuse":
        raise UserError(
            f"the students of {samples[0][0].path} may have been trained on its problems, and would repeat what they "
            "learned; train with --set fold=1/4 and evaluate with --fold 1/4, or pass --trained-on allow"
        )
    known: dict[str, dict[Way, None]] = {}
    for chain in gold:
        known.setdefault(chain.problem_id, {})[way(chain)] = None
    found: dict[str, dict[Way, Chain]] = {}
    passed: dict[str, list[tuple[str, bool]]] = {}
    for run, problem, trace, score in samples:
        is_held_out = (run.path, problem.id) in unseen
        passed.setdefault("held_out" if is_held_out else "trained_on", []).append((problem.id, score.strict))
        came = made(run, problem, trace, score) if is_held_out or trained_on == "allow" else "trained_on"
        if isinstance(came, str):
            done.counts[came] += 1
        elif way(came) in known.get(problem.id, ()):
            done.counts["as_gold"] += 1
        elif way(came) in found.setdefault(problem.id, {}):
            done.counts["duplicate"] += 1
        else:
            found[problem.id][way(came)] = came
    for problem_id, chains in found.items():
        kept = [*_most_different(chains, known.get(problem_id, ()), len(chains) if most is None else most)]
        done.chains += kept
        done.counts["beyond_most"] += len(chains) - len(kept)
    done.counts["kept"] = len(done.chains)
    done.counts = +done.counts
    done.pass_at_1 = {name: _rate(outcomes) for name, outcomes in sorted(passed.items())}
    return done


def _samples(runs: Sequence[Run], needs_questions: bool) -> Iterator[_Sampled]:
    """Every trace of ``runs`` with its problem and score, in the order of the problems."""
    seen: dict[str, tuple[object, ...]] = {}
    for run in runs:
        _check(run, needs_questions)
        for problem, trace, score in run.scored():
            if seen.setdefault(problem.id, solved_content(problem)) != solved_content(problem):
                raise UserError(f"{run.path} has another problem {problem.id} than a run before it; harvest them apart")
            yield run, problem, trace, score


def _unseen(samples: Sequence[_Sampled]) -> set[tuple[Path, str]]:
    """The problems, by run and id, that no student of the run was trained on."""
    return {(run.path, id) for run in {id(run): run for run, *_ in samples}.values() for id in held_out(run)}


def _check(run: Run, needs_questions: bool) -> None:
    """Raise `UserError` for a run that nothing may be learned from."""
    check_whole(run)
    if run.config.get("intervention") or run.config.get("plan_by") == "gold":
        raise UserError(
            f"{run.path} gave its students words that are not their own; give a run without --swap and gold plans"
        )
    stepless = ("answer", "likelihood")
    unfit = (*stepless, "cot", "zero-shot-cot", "few-shot-cot") if needs_questions else stepless
    if run.config.get("solver") in unfit:
        what = "asks no sub-questions" if needs_questions else "writes no steps"
        raise UserError(f"solver {run.config['solver']!r} of {run.path} {what}; give a run of another")
    for problem in run.problems:
        if problem.split != "train" or (in_dev(problem.question) and "made_from" not in problem.metadata):
            split = problem.split if problem.split != "train" else "dev"
            raise UserError(
                f"{run.path} solves {problem.id}, a problem of {split}, which nothing may be learned from; evaluate "
                "with --split train"
            )


def _questions(steps: Iterable[Step]) -> Way:
    return tuple(normalised(step)[0] for step in steps)


def _agreeing(own: Chain, gold: Chain) -> int:
    """How many of a trace's first steps may stand in for gold's; always fewer than gold has."""
    count = 0
    for mine, right in zip(own.steps, gold.steps[:-1], strict=False):
        value = sub_answer_value(right.answer)
        if value is None or sub_answer_value(mine.answer) != value or disagreements(mine.answer):
            break
        count += 1
    told = values(render_problem(gold.problem()))
    while count and not _needed(gold, count, told) <= _stated(own.steps[:count]):
        count -= 1
    return count


def _needed(gold: Chain, count: int, told: set[Any]) -> set[Any]:
    """The numbers that gold's later steps take from its first ``count``."""
    return (_stated(gold.steps[:count]) & _stated(gold.steps[count:])) - told


def _stated(steps: Iterable[Step]) -> set[Any]:
    return {value for step in steps for value in values(step.answer)}


def _most_different(chains: Mapping[Way, Chain], known: Iterable[Way], most: int) -> Iterator[Chain]:
    """Up to ``most``: each time the chain whose nearest neighbour, in ``known`` or among those taken, is farthest."""
    left, taken = dict(chains), [*known]
    while left and most > 0:
        way = max(left, key=lambda way: min((_distance(way, other) for other in taken), default=0.0))
        yield left.pop(way)
        taken.append(way)
        most -= 1


def _distance(a: Way, b: Way) -> float:
    """The share of parts, of both together, that only one of the two has."""
    first, second = Counter(a), Counter(b)
    return 1 - (first & second).total() / max(1, (first | second).total())


def _rate(outcomes: Sequence[tuple[str, bool]]) -> dict[str, float]:
    problems = len({problem_id for problem_id, _ in outcomes})
    rate = sum(is_right for _, is_right in outcomes) / len(outcomes)
    low, high = stats.wilson(rate * problems, problems)
    return {"problems": problems, "traces": len(outcomes), "rate": rate, "low": low, "high": high}
