"""Sub-questions and steps judged: against gold, and by the arithmetic in them; no model runs.

BLEU against gold questions and granularity, the number of questions against the number of gold steps, are what Guided
question generation (2211.12835) rewards.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import zip_longest
from statistics import fmean
from typing import Any

from rich.table import Table

from socratic.answers import extract, sub_answer_value
from socratic.calculator import disagreements, marks, prose
from socratic.evaluate import Run
from socratic.numerals import digits, values
from socratic.prompts import render_problem
from socratic.report.tables import new_table, percent, text
from socratic.types import Chain, Problem, Step, Trace

_FEW = 10  # problems
_NOT_ASKING = ("cot", "answer", "zero-shot-cot", "few-shot-cot", "likelihood")


@dataclass(frozen=True)
class StepReport:
    """Shares are in [0, 1]; None where nothing is there to judge. Of a chain of thought there are no questions.

    ``bleu`` (0 to 100, sacrebleu) and ``token_f1`` set the j-th question against the j-th gold one, ``granularity`` is
    the mean ratio of questions to gold steps, ``same_count`` the share of problems with as many. ``leaking`` is the
    share of questions that state a number found neither in the problem nor in a step before. ``step_accuracy``: of the
    gold steps, the share whose result stands at the same place. Of the right answers, ``wrong_arithmetic`` had a
    calculation that is wrong, ``unused_step`` (numeric answers only) a step whose result nothing later uses.
    ``calculator_coverage``: of all calculations, those written as a calculator's mark. One with a per cent sign counts
    as right: people write 20% * 50 for 10.
    """

    bleu: float | None
    token_f1: float | None
    granularity: float | None
    same_count: float | None
    leaking: float | None
    step_accuracy: float | None
    wrong_arithmetic: float | None
    unused_step: float | None
    calculator_coverage: float | None

    def to_json(self) -> dict[str, float | None]:
        """By name."""
        return asdict(self)


def judge(run: Run, chains: Mapping[str, Chain]) -> StepReport:
    """All traces of a complete run, against gold ``chains`` by problem id where there are any."""
    problems = {problem.id: problem for problem in run.problems}
    right = {(score.problem_id, score.sample) for score in run.scores if score.correct}
    solved = [t for t in run.traces if (t.problem_id, t.sample) in right]
    numeric = {problem.id for problem in run.problems if problem.answer_type == "number"}
    in_steps = [t for t in solved if t.solver not in _NOT_ASKING and t.problem_id in numeric]
    asked = [t for t in run.traces if t.solver not in _NOT_ASKING]
    told = {id: chain.steps for id, chain in chains.items() if all(step.question for step in chain.steps)}
    pairs = [pair for t in asked if t.problem_id in told for pair in aligned(t.steps, told[t.problem_id])]
    counts = [(len(t.steps), len(told[t.problem_id])) for t in asked if t.problem_id in told]
    leaks = [leak for t in asked for leak in _leaks(problems[t.problem_id], t.steps)]
    kept = [share for t in run.traces if (share := step_accuracy(t, chains.get(t.problem_id))) is not None]
    answers = [step.answer for t in run.traces for step in t.steps]
    marked, bare = (sum(len([*find(answer)]) for answer in answers) for find in (marks, prose))
    return StepReport(
        bleu=bleu(pairs),
        token_f1=_mean([token_f1(*pair) for pair in pairs]),
        granularity=_mean([mine / gold for mine, gold in counts]),
        same_count=_mean([mine == gold for mine, gold in counts]),
        leaking=_mean(leaks),
        step_accuracy=_mean(kept),
        wrong_arithmetic=_mean([any(disagreements(step.answer) for step in t.steps) for t in solved]),
        unused_step=_mean([*map(has_unused_step, in_steps)]),
        calculator_coverage=marked / (marked + bare) if marked + bare else None,
    )


def step_accuracy(trace: Trace, chain: Chain | None) -> float | None:
    """The share of the gold steps with a number as result that the trace has at the same place.

    None without such a gold step, and for the solvers that make no steps.
    """
    if chain is None or trace.solver in _NOT_ASKING:
        return None
    found, wanted = ([sub_answer_value(step.answer) for step in steps] for steps in (trace.steps, chain.steps))
    gold = [(place, value) for place, value in enumerate(wanted) if value is not None]
    return fmean(place < len(found) and found[place] == value for place, value in gold) if gold else None


def token_f1(text: str, gold: str) -> float:
    """Harmonic mean of precision and recall over words, without case and punctuation."""
    mine, wanted = (Counter(re.findall(r"\w+", words.lower())) for words in (text, gold))
    shared = (mine & wanted).total()
    return 2 * shared / (mine.total() + wanted.total()) if shared else 0.0


def has_unused_step(trace: Trace) -> bool:
    """Whether the result of a step stands in no later calculation and is not the answer."""
    results = [sub_answer_value(step.answer) for step in trace.steps]
    answer = extract(trace.answer or "", "number").predicted
    for place, value in enumerate(results):
        later = " ".join(step.answer for step in trace.steps[place + 1 :])
        if value is not None and value != answer and Fraction(value) not in _in_digits(later):
            return True
    return False


def steps_table(reports: Mapping[str, StepReport]) -> Table:
    """One row a run, readable at 80 columns."""
    columns = ["BLEU", "F1", "count", "leak", "steps", "wrong", "unused", "marked"]
    made = new_table("Sub-questions against gold, steps and calculations, in % (docs/comparing.md)", columns)
    for name, r in reports.items():
        shares = (r.token_f1, r.same_count, r.leaking, r.step_accuracy, r.wrong_arithmetic, r.unused_step)
        cells = [*("-" if share is None else percent(share) for share in (*shares, r.calculator_coverage))]
        made.add_row(text(name), "-" if r.bleu is None else f"{r.bleu:.1f}", *cells)
    return made


def by_length(chains: Mapping[str, Chain]) -> dict[str, set[str]]:
    """Problem ids by number of gold steps; the longest chains are joined until there are 10. ``chains`` has some."""
    exact: dict[int, set[str]] = {}
    for id, chain in chains.items():
        exact.setdefault(len(chain.steps), set()).add(id)
    lengths = sorted(exact)
    joined = exact[lengths.pop()]
    last = f"{max(exact)}"
    while len(joined) < _FEW and lengths:
        last = f"{lengths[-1]}+"
        joined = joined | exact[lengths.pop()]
    return {**{f"{length}": exact[length] for length in lengths}, last: joined}


def right_by_length(runs: Sequence[Run], groups: Mapping[str, set[str]]) -> list[float]:
    """Of each of the ``groups`` of `by_length` the share in [0, 1] of samples that are right, over all ``runs``."""
    scores = [score for run in runs for score in run.scores]
    return [fmean(score.correct for score in scores if score.problem_id in ids) for ids in groups.values()]


def lengths_table(rates: Mapping[str, Sequence[float]], groups: Mapping[str, set[str]]) -> Table:
    """One row a run, one column a number of gold steps."""
    made = new_table("Right answers by number of gold steps, in %", [*groups])
    made.add_row("(problems)", *(f"{len(ids)}" for ids in groups.values()))
    for name, shares in rates.items():
        made.add_row(text(name), *map(percent, shares))
    return made


def aligned(steps: Sequence[Step], gold: Sequence[Step]) -> Iterator[tuple[str, str]]:
    """The j-th question and the j-th gold one, as far as both go; what only one has stands against nothing."""
    yield from zip_longest((s.question for s in steps), (s.question for s in gold), fillvalue="")


def bleu(pairs: Sequence[tuple[str, str]]) -> float | None:
    """BLEU (0 to 100, sacrebleu) of texts against their gold ones; None without any."""
    if not pairs:
        return None
    import sacrebleu

    return float(sacrebleu.corpus_bleu([mine for mine, _ in pairs], [[gold for _, gold in pairs]]).score)


def _leaks(problem: Problem, steps: Sequence[Step]) -> Iterator[bool]:
    known = values(render_problem(problem))  # "five" is as well known as 5
    for step in steps:
        yield bool(_in_digits(step.question) - known)
        known |= values(f"{step.question} {step.answer}")


def _in_digits(text: str) -> set[Fraction]:
    return {number for _, number in digits(text)}


def _mean(values: Sequence[Any]) -> float | None:
    return fmean(values) if values else None
