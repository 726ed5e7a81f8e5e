from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from sample_runs import CHAINS, as_gold, make_run, said, slips

from socratic.evaluate import score_trace
from socratic.report.taxonomy import COLUMNS, Error, asked, asked_tables, diagnose, errors_table, first_errors, shares
from socratic.types import Chain, Problem, Step, Trace

PROBLEM = Problem("p", "d", "test", "Ann has 3 boxes of 12 pens, gives 5 away, and is busy for 2 hours. Pens?", "1860")
GOLD = Chain(
    "p",
    "d",
    PROBLEM.question,
    "1860",
    "number",
    (
        Step("How many pens?", "3*12=<<3*12=36>>36"),
        Step("How many are left?", "36-5=<<36-5=31>>31"),
        Step("Seconds each?", "31*60=<<31*60=1860>>1860"),
    ),
)


def trace(*answers: str, slot: str | None = "7", solver: str = "iterative") -> Trace:
    steps = tuple(Step("Q?" if solver == "iterative" else "", answer) for answer in answers)
    raw = "\n".join([*answers, f"#### {slot or ''}"])
    return Trace("p", 0, solver, steps, raw, slot, "finished", None, True, 1, 0.1, "1")


def named(made: Trace) -> Error:
    return diagnose(PROBLEM, made, score_trace(PROBLEM, made), GOLD)


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        (["3*5=<<3*5=15>>15"], "quantity"),
        (["3+12=<<3+12=15>>15"], "operation"),
        (["12-5=<<12-5=7>>7"], "missing"),  # 36 was never made
        (["2+2=<<2+2=4>>4"], "extra"),
        (["3*12=<<3*12=36>>36", "36*2=<<36*2=72>>72"], "extra"),  # neither gold's signs nor its numbers
        (["3*12=<<3*12=36>>36", "36-5=<<36-5=31>>31", "31*60=<<31*60=1860>>1860", "<<1860*2=3720>>3720"], "extra"),
        (["3*12=<<3*12=36>>36", "36-5=<<36-5=31>>31"], "early_stop"),
        ([], "early_stop"),
        (["3*12=<<3*12=35>>35"], "arithmetic"),
        (["3*12=<<3*12=36>>36", "3*12=<<3*12=36>>36", "36+5=<<36+5=41>>41"], "operation"),  # what was had is no error
        (["3*12=<<3*12=36>>36", "36-5=<<36-5=31>>31", "31*1=<<31*1=31>>31", "31*3600=<<31*3600=111600>>"], "unit"),
        (["3*12=<<3*12=36>>36", "36-5=<<36-5=31>>31", "31*60=<<31*60=1860>>1860"], "quantity"),  # the final slot
    ],
)
def test_the_first_place_where_a_trace_leaves_gold(answers: list[str], error: Error) -> None:
    assert named(trace(*answers)) == error
    assert named(trace("\n".join(answers), solver="cot")) == error  # a chain of thought is read the same way


def test_a_text_that_was_dropped_has_its_errors_too() -> None:
    made = replace(trace("3*12=<<3*12=36>>36"), stop_reason="overlong")

    def error(answer: str, question: str = "And?") -> Error:
        return named(replace(made, rejected=Step(question, answer)))

    assert error("and 36+5=<<36+5=41>>41 and 36+5") == "operation"
    assert error("and and and") == "early_stop"
    assert error("36-5=<<36-5=31>>31 and 31*60=<<31*60=1860>>18") == "early_stop", "the last number may be cut off"
    assert error("", "And 36+5=<<36+5=41>>41 ?") == "early_stop", "questions are not read"


def test_gold_may_come_by_its_last_result_on_the_way() -> None:
    steps = tuple(Step("Q?", answer) for answer in ("2*3=<<2*3=6>>6", "6+4=<<6+4=10>>10", "10-4=<<10-4=6>>6"))
    problem = Problem("p", "d", "test", "Ann has 2 bags of 3 pens, finds 4 and loses 4. Pens?", "6")
    gold = Chain("p", "d", problem.question, "6", "number", steps)

    def error(*answers: str) -> Error:
        made = trace(*answers, slot="10")
        return diagnose(problem, made, score_trace(problem, made), gold)

    assert error(*(step.answer for step in steps[:2])) == "early_stop"
    assert error(*(step.answer for step in steps)) == "quantity"
    assert error(*(step.answer for step in steps), "6*9=<<6*9=54>>54") == "extra"


def test_without_a_number_nothing_else_counts() -> None:
    assert named(trace("2+2=<<2+2=4>>4", slot="?")) == "unparsed"


def test_errors_of_runs_and_their_table(tmp_path: Path) -> None:
    run = make_run(tmp_path / "slips", slips)
    found = first_errors(run, CHAINS)
    assert set(found.values()) == {"arithmetic"}
    assert len(found) == 6
    assert shares(found)["arithmetic"] == 1
    assert first_errors(run, {}) == {}
    table = errors_table({"slips": found, "none": {}})
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table)
    assert all(name in capture.get() for name in (*COLUMNS, "slips"))


def test_what_is_asked_that_gold_does_not(tmp_path: Path) -> None:
    def beside(i: int, sample: int) -> Trace:
        if i:
            return as_gold(i, sample)
        return said(i, sample, (Step("What about the moon?", "It is 7*7=<<7*7=49>>49."), Step("Why?", "So.")), "49")

    one = asked(make_run(tmp_path / "beside", beside), CHAINS)
    assert one.beyond == 1
    assert one.questions == sum(len(chain.steps) for chain in CHAINS.values())  # "So." is no result
    assert one.openings["what about the"] == (0, 1)
    assert one.openings["how many after"] == (1, 0)
    questions, words = asked_tables({"beside": one, "cot": replace(one, questions=0)})
    assert (questions.row_count, words.row_count) == (1, 2)
    assert asked_tables({"cot": replace(one, questions=0)}) == []
