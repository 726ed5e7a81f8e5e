"""Choosing among samples of a problem: majority, a verifier's favourite, a vote with a verifier's weights.

Sources: Wang et al. (2022), "Self-consistency improves chain of thought reasoning in language models", section 2, for
the vote; Cobbe et al. (2021), "Training verifiers to solve math word problems", section 4, for the favourite; Li et al.
(2022), "Making large language models better reasoners with step-aware verifier", section 3, for the weighted vote.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from socratic import stats, store
from socratic.evaluate import Metrics, Run, differing_problems, evaluate, failed_for_now
from socratic.types import Judgement, Problem, Score, Trace, UserError

By = Literal["majority", "verifier", "weighted"]
"""The most frequent answer; that of the trace which the verifier finds likeliest; that with most of its probability."""
Over = Literal["final", "minimum", "product"]
"""What a trace's verdicts come to: the last one, or the least or the product of all."""

SAMPLES = "samples_sha256"
"""Of all samples that were chosen from, in the config of the run that `write_chosen` writes."""
JUDGEMENTS = "verdicts.jsonl"
"""What verifiers said of a run's traces, beside them."""


@dataclass(frozen=True)
class Sample:
    """One trace of a problem, its score, the verifier's ``weight`` (0 without one), and the tokens that it ``read``."""

    trace: Trace
    score: Score
    weight: float = 0.0
    read: int = 0


Pool = dict[str, list[Sample]]
"""The samples of each problem by its id, in the order in which they count."""


def judged(
    run: Run,
    verifier: str,
    judge: Callable[[list[tuple[Problem, Trace]]], Iterable[Judgement]],
) -> dict[tuple[str, int], Judgement]:
    """The judgements of the verifier called ``verifier`` on all traces of ``run``, by problem and sample.

    What stands in the run's `JUDGEMENTS` is not asked for again; ``judge`` gets the others, and each is kept there as
    it comes.
    """
    problems = {problem.id: problem for problem in run.problems}
    path = run.path / JUDGEMENTS
    with store.lock(run.path), store.JsonlAppender(path) as log:
        stored = (one for one in store.read_records(path, Judgement) if one.verifier == verifier)
        known = {(one.problem_id, one.sample): one for one in stored}
        waiting = [(problems[t.problem_id], t) for t in run.traces if (t.problem_id, t.sample) not in known]
        failed = {(trace.problem_id, trace.sample) for trace in run.traces if failed_for_now(trace)}
        for one in judge(waiting) if waiting else ():
            if (one.problem_id, one.sample) not in failed:  # which is asked for again
                log.append(one.to_json())
            known[one.problem_id, one.sample] = one
    return known


def weight(judgement: Judgement, over: Over) -> float:
    """What the verdicts on a trace come to; 0 without any."""
    if not judgement.right:
        return 0.0
    return {"final": judgement.right[-1], "minimum": min(judgement.right), "product": math.prod(judgement.right)}[over]


def pooled(
    runs: Sequence[Run], judgements: Sequence[Mapping[tuple[str, int], Judgement]] = (), over: Over = "final"
) -> Pool:
    """The samples of complete ``runs`` over the same problems: of each run the first, then of each the second, ….

    ``judgements`` are each run's, where a verifier has read them. Raises `UserError` for runs that are not complete, or
    over different problems.
    """
    for run in runs:
        if run.metrics is None:
            raise UserError(f"{run.path} is not complete; continue it with `socratic evaluate`")
        if run.metrics["scorer_version"] != (runs[0].metrics or {})["scorer_version"]:
            raise UserError(
                f"{run.path} was scored by another scorer than {runs[0].path}; run `socratic score` on both"
            )
        if differing := differing_problems(runs[0].problems, run.problems):
            raise UserError(
                f"{runs[0].path} and {run.path} are over different problems ({len(differing)} differ, the first "
                f"{differing[0]!r}); pool runs over the same"
            )
    found = [_samples(run, said, over) for run, said in zip(runs, judgements or [{}] * len(runs), strict=True)]
    return {
        problem.id: [one for turn in zip_longest(*(samples[problem.id] for samples in found)) for one in turn if one]
        for problem in runs[0].problems
    }


def choose(samples: Sequence[Sample], by: By) -> Sample:
    """The sample chosen among ``samples``, of which an answer could be read if of any; ties go to the earliest."""
    parsed = [one for one in samples if one.score.predicted is not None]
    if not parsed:
        return samples[0]
    if by != "verifier":
        votes: dict[str | None, float] = {}
        for one in parsed:
            more = 1.0 if by == "majority" else one.weight
            votes[one.score.predicted] = votes.get(one.score.predicted, 0.0) + more
        answer = max(votes, key=votes.__getitem__)
        parsed = [one for one in parsed if one.score.predicted == answer]
    return max(parsed, key=lambda one: one.weight)


def within(samples: Sequence[Sample], tokens: float) -> Sequence[Sample]:
    """As many of the first ``samples`` as were decoded in ``tokens`` tokens, but at least one."""
    spent = 0
    for count, one in enumerate(samples):
        spent += one.trace.tokens
        if spent > tokens:
            return samples[: max(1, count)]
    return samples


def accuracy(pool: Pool, sizes: Sequence[int], ways: Sequence[By]) -> list[dict[str, Any]]:
    """For every k of ``sizes`` how many problems each of ``ways`` solves with k samples, and what they cost.

    A rate is the mean over problems of the mean over the disjoint groups of k samples, its 95 % interval Wilson's over
    problems, which is conservative where there are several groups. ``any`` is the share of problems of which one of k
    samples is right, which no choice can exceed. ``tokens`` and ``read`` are decoded by the students and read by the
    verifier, per problem. Raises `UserError` for a k that is not between 1 and the number of samples.
    """
    count = min(map(len, pool.values()))
    if wrong := [k for k in sizes if not 1 <= k <= count]:
        raise UserError(f"k={wrong[0]} is not between 1 and the {count} samples of each problem")
    rows = []
    for k in sizes:
        groups = [[own[i : i + k] for i in range(0, len(own) - k + 1, k)] for own in pool.values()]
        rows.append({"k": k, **_row(groups, ways)})
    return rows


def accuracy_within(pool: Pool, tokens: Mapping[str, float], ways: Sequence[By]) -> dict[str, Any]:
    """As a row of `accuracy`, with as many samples of each problem as its ``tokens`` allow; ``k`` is their mean."""
    groups = [[within(own, tokens[id])] for id, own in pool.items()]
    return {"k": statistics.fmean(len(group) for [group] in groups), **_row(groups, ways)}


def write_chosen(
    runs: Sequence[Run],
    chosen: Mapping[str, tuple[Sample, Sequence[Sample]]],
    how: Mapping[str, Any],
    out: Path,
    arm: str | None = None,
) -> Metrics:
    """A run folder of one trace a problem, for `compare`: ``chosen`` has it, and all samples that it was chosen from.

    A trace's tokens and seconds are those of all the samples together. ``how`` says how it was chosen; it may hold the
    record of a ``verifier``, which then counts among the run's models; ``arm`` is its name in a recipe. The run's
    config has a hash of all these samples beside it.
    """
    verifier = {"verifier": how["verifier"]} if "verifier" in how else {}
    config = {key: value for key, value in runs[0].config.items() if key not in ("samples", "models", "arm")}
    kept = {key: value for key, value in how.items() if key != "verifier"}
    samples = store.hash_json(
        [[id, [(one.trace.raw, one.trace.tokens, one.weight) for one in among]] for id, (_, among) in chosen.items()]
    )
    models: dict[str, Any] = {}
    for number, run in enumerate(runs, start=1):
        named = run.config.get("models", {}).items()
        models |= {role if number == 1 else f"{role}-{number}": model for role, model in named}

    def solve(pending: list[tuple[Problem, int]]) -> Iterator[Trace]:
        for problem, _ in pending:
            one, among = chosen[problem.id]
            tokens, seconds = (sum(getattr(other.trace, what) for other in among) for what in ("tokens", "seconds"))
            yield replace(one.trace, sample=0, tokens=tokens, seconds=round(seconds, 4))

    named_arm = {"arm": arm} if arm else {}
    made = {**config, **named_arm, "chosen": {**kept, SAMPLES: samples}, "models": {**models, **verifier}}
    return evaluate(runs[0].problems, solve, out, made)


def spent(run: Run) -> dict[str, float]:
    """The tokens that were decoded for each problem of ``run``."""
    tokens = dict.fromkeys((problem.id for problem in run.problems), 0.0)
    for trace in run.traces:
        tokens[trace.problem_id] += trace.tokens
    return tokens


def _samples(run: Run, said: Mapping[tuple[str, int], Judgement], over: Over) -> Pool:
    found: Pool = {problem.id: [] for problem in run.problems}
    for problem, trace, score in run.scored():
        key = problem.id, trace.sample
        judgement = (weight(said[key], over), said[key].tokens) if key in said else ()
        found[problem.id].append(Sample(trace, score, *judgement))
    return found


def _row(groups: Sequence[Sequence[Sequence[Sample]]], ways: Sequence[By]) -> dict[str, Any]:
    """Accuracies and cost of ``groups`` [problems, groups, samples]."""
    row: dict[str, Any] = {
        "tokens": _mean(groups, lambda group: sum(one.trace.tokens for one in group)),
        "read": _mean(groups, lambda group: sum(one.read for one in group)),
    }
    rights: dict[str, Callable[[Sequence[Sample]], bool]] = {way: partial(_is_right, by=way) for way in ways}
    rights["any"] = lambda group: any(one.score.correct for one in group)
    for name, is_right in rights.items():
        rate = min(1.0, _mean(groups, is_right))
        low, high = stats.wilson(rate * len(groups), len(groups))
        row[name] = {"rate": rate, "low": low, "high": high}
    return row


def _is_right(samples: Sequence[Sample], by: By) -> bool:
    return choose(samples, by).score.correct


def _mean(groups: Sequence[Sequence[Sequence[Sample]]], value: Callable[[Sequence[Sample]], float]) -> float:
    """The mean over problems of the mean over a problem's groups."""
    return statistics.fmean(statistics.fmean(map(value, own)) for own in groups)
