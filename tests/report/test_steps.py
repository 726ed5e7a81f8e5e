"""Sub-questions and steps judged, on traces whose faults are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from socratic.evaluate import Run, load_run
from socratic.evaluate import evaluate as run_evaluation
from socratic.report.steps import (
    by_length,
    has_unused_step,
    judge,
    right_by_length,
    step_accuracy,
    steps_table,
    token_f1,
)
from socratic.report.taxonomy import asked
from socratic.types import Chain, Problem, Step, Trace

PROBLEM = Problem("p", "d", "test", "Ann has 3 boxes of 12 pens and gives 5 away. How many are left?", "31")
GOLD = (
    Step("How many pens does Ann have?", "She has 3*12=<<3*12=36>>36 pens."),
    Step("How many are left?", "There are 36-5=<<36-5=31>>31 left."),
)
CHAIN = Chain("p", "d", PROBLEM.question, "31", "number", GOLD)


def trace(*steps: Step, answer: str = "31", solver: str = "iterative") -> Trace:
    raw = "\n".join([*(text for s in steps for text in (s.question, s.answer)), f"#### {answer}"])
    return Trace("p", 0, solver, steps, raw, answer, "finished", None, True, 20, 0.1, "1")


def judged(folder: Path, given: Trace) -> Run:
    run_evaluation([PROBLEM], lambda jobs: iter([given]), folder, {"solver": given.solver})
    return load_run(folder)


def test_gold_is_judged_flawless(tmp_path: Path) -> None:
    report = judge(judged(tmp_path, trace(*GOLD)), {"p": CHAIN})
    assert report.bleu == pytest.approx(100)
    assert (report.token_f1, report.granularity, report.same_count, report.step_accuracy) == (1, 1, 1, 1)
    assert (report.leaking, report.wrong_arithmetic, report.unused_step, report.calculator_coverage) == (0, 0, 0, 1)


def test_faults_are_counted(tmp_path: Path) -> None:
    steps = (
        Step("How many pens does Ann have?", "She has 3 x 12 = 35 pens."),
        Step("How many are 36 less 5?", "There are 36-5=<<36-5=31>>31 left."),
        Step("And her age?", "She is 9."),
    )
    report = judge(judged(tmp_path, trace(*steps)), {"p": CHAIN})
    assert report.bleu is not None
    assert 0 < report.bleu < 100
    assert report.granularity == 1.5
    assert report.same_count == 0
    assert report.leaking == pytest.approx(1 / 3)  # 36 stands neither in the problem nor in a step before
    assert report.step_accuracy == 0.5
    assert report.wrong_arithmetic == 1
    assert report.unused_step == 1
    assert report.calculator_coverage == 0.5


def test_gold_without_questions_judges_none(tmp_path: Path) -> None:
    rationale = replace(CHAIN, steps=tuple(replace(step, question="") for step in GOLD))
    report = judge(judged(tmp_path, trace(*GOLD)), {"p": rationale})
    assert (report.bleu, report.token_f1, report.granularity, report.same_count) == (None, None, None, None)
    assert report.step_accuracy == 1
    assert {*asked(judged(tmp_path, trace(*GOLD)), {"p": rationale}).openings} == set()


def test_what_a_choice_tells_is_no_leak(tmp_path: Path) -> None:
    problem = replace(PROBLEM, answer="A", answer_type="choice", choices=("61", "62"))
    run_evaluation(
        [problem], lambda jobs: iter([trace(Step("Is it 61?", "Yes."), answer="A")]), tmp_path, {"solver": "iterative"}
    )
    assert judge(load_run(tmp_path), {}).leaking == 0


def test_without_gold_and_without_questions(tmp_path: Path) -> None:
    report = judge(judged(tmp_path / "a", trace(*GOLD)), {})
    assert (report.bleu, report.token_f1, report.granularity, report.step_accuracy) == (None,) * 4
    assert report.calculator_coverage == 1
    rationale = Step("", "3*12=<<3*12=36>>36\n36-5=<<36-5=31>>31")
    report = judge(judged(tmp_path / "b", trace(rationale, solver="cot")), {"p": CHAIN})
    assert (report.bleu, report.leaking, report.step_accuracy, report.unused_step) == (None,) * 4
    assert report.wrong_arithmetic == 0
    shown = steps_table({"b": report})
    assert [next(iter(column.cells)) for column in shown.columns][1:5] == ["-"] * 4


def test_step_accuracy_goes_by_place() -> None:
    assert step_accuracy(trace(GOLD[1], GOLD[0]), CHAIN) == 0
    assert step_accuracy(trace(GOLD[0]), CHAIN) == 0.5
    assert step_accuracy(trace(), CHAIN) == 0
    assert step_accuracy(trace(*GOLD), None) is None


def test_an_unused_step_leads_nowhere() -> None:
    assert not has_unused_step(trace(*GOLD))
    assert has_unused_step(trace(Step("Q?", "It is 8."), *GOLD))
    assert not has_unused_step(trace(Step("Q?", "A name."), *GOLD))
    half = Step("What share?", "It is 1/2=<<1/2=.5>>.5.")
    assert not has_unused_step(trace(half, Step("How many?", "10*.5=<<10*.5=5>>5"), Step("And?", "36-5=31")))


def test_token_f1() -> None:
    assert token_f1("How many pens?", "how many PENS") == 1
    assert token_f1("", "how many") == 0
    assert token_f1("how", "how many") == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("question", "leaks"),
    [
        ("What are 12 plus 5?", 0),
        ("How many are 3, 12 and 1,200?", 0),
        ("How many are 1200?", 0),
        ("And 7?", 1),
        ("And Eve's 4?", 0),
        ("What have both of them?", 0),
    ],
)
def test_numbers_are_the_same_however_they_are_written(tmp_path: Path, question: str, leaks: int) -> None:
    problem = Problem("p", "d", "test", "Ann has 12, Bob 5, Cid 3, Eve four and Dora 1,200. How many have they?", "31")
    given = trace(Step(question, "So many."))
    run_evaluation([problem], lambda jobs: iter([given]), tmp_path, {"solver": "iterative"})
    assert judge(load_run(tmp_path), {}).leaking == leaks


def test_a_per_cent_sign_is_no_wrong_arithmetic(tmp_path: Path) -> None:
    report = judge(judged(tmp_path, trace(Step("How many?", "20% * 50 = 10 of them."))), {})
    assert (report.wrong_arithmetic, report.calculator_coverage) == (0, 0)


def test_a_number_that_is_not_the_marks_before_it_is_wrong_arithmetic(tmp_path: Path) -> None:
    report = judge(judged(tmp_path, trace(Step("How many?", "There are 36-5=<<36-5=31>>32 left."))), {"p": CHAIN})
    assert (report.wrong_arithmetic, report.step_accuracy, report.calculator_coverage) == (1, 0, 1)


def test_a_student_that_asks_nothing_is_no_better_for_it(tmp_path: Path) -> None:
    report = judge(judged(tmp_path, trace()), {"p": CHAIN})
    assert (report.bleu, report.token_f1, report.granularity, report.same_count) == (0, 0, 0, 0)


def test_an_unused_step_is_a_fault_of_numeric_answers_only(tmp_path: Path) -> None:
    problem = Problem("p", "d", "test", "Is 3 more than 2?", "yes", "yesno")
    given = trace(Step("How much more is 3 than 2?", "1 more."), answer="yes")
    run_evaluation([problem], lambda jobs: iter([given]), tmp_path, {"solver": "iterative"})
    assert judge(load_run(tmp_path), {}).unused_step is None


def test_right_answers_by_number_of_gold_steps(tmp_path: Path) -> None:
    """Of 12 problems with one step half are right, of two with more none: these are too few for a column each."""
    lengths = [1] * 12 + [2, 3]
    chains = {f"{n}": replace(CHAIN, problem_id=f"{n}", steps=GOLD[:1] * length) for n, length in enumerate(lengths)}
    traces = [replace(trace(*GOLD, answer="31" if n < 6 else "7"), problem_id=id) for n, id in enumerate(chains)]
    asked = [replace(PROBLEM, id=id) for id in chains]
    run_evaluation(asked, lambda jobs: iter(traces), tmp_path, {"solver": "iterative"})
    run = load_run(tmp_path)
    assert {length: len(ids) for length, ids in by_length(chains).items()} == {"1+": 14}
    assert right_by_length([run, run], by_length(chains)) == [pytest.approx(6 / 14)]
    groups = {"1": {f"{n}" for n in range(12)}, "2": {"12", "13"}}
    assert right_by_length([run], groups) == [0.5, 0.0]
