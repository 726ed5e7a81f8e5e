from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from socratic import load_chains
from socratic.curate import check, curate, equations
from socratic.numerals import values
from socratic.types import Chain, Step

GOOD = Chain(
    problem_id="p",
    dataset="d",
    question="Ann has 3 boxes of twelve pens and gives 25% of them away. How many pens are left?",
    answer="27",
    answer_type="number",
    steps=(
        Step("How many pens does Ann have?", "Ann has 3*12=<<3*12=36>>36 pens."),
        Step("How many pens does she give away?", "She gives away 36*.25=<<36*.25=9>>9 pens."),
        Step("How many pens are left?", "There are 36-9=<<36-9=27>>27 pens left."),
    ),
    source="teacher:t",
    final_answer="27",
)


def with_step(place: int, **changed: str) -> Chain:
    steps = list(GOOD.steps)
    steps[place] = replace(steps[place], **changed)
    return replace(GOOD, steps=tuple(steps))


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        (GOOD, None),
        (replace(GOOD, steps=()), "no_steps"),
        (with_step(1, question=" "), "empty_question"),
        (with_step(1, answer="\n"), "empty_answer"),
        (replace(GOOD, final_answer="28"), "wrong_answer"),
        (replace(GOOD, final_answer=None), "wrong_answer"),
        (replace(GOOD, final_answer="27.0 pens"), None),
        (with_step(0, answer="Ann has 3*12=<<3*12=35>>36 pens."), "wrong_mark"),
        (with_step(0, answer="Ann has 3*14=<<3*14=42>>42 pens."), "unfounded_number"),
        (with_step(0, answer="Ann has 4711 pens."), "unfounded_number"),
        (with_step(0, answer="Ann has 36 pens."), None),  # one operation from what is known
        (with_step(0, answer="Ann has 3 x 12 = 36 pens."), None),
        (with_step(0, answer="Ann has 3 x 12 = 38 pens."), "unfounded_number"),
        (with_step(0, question="How many pens has Ann|endoftext|>|endoftext|>"), "special_token"),
        (with_step(0, answer="Ann has <<3*12=36>>36 pens.<|im_end|>"), "special_token"),
        (with_step(0, answer="Ann has <<pens=36>>36 pens."), "wrong_mark"),
        (with_step(0, answer="Ann has <<3*12=36 pens."), "wrong_mark"),
        (with_step(0, answer="Ann has <<1/0=36>>36 pens."), "wrong_mark"),
        (with_step(1, answer="Half of 36 is 36*.5=<<36*.5=18>>18, half of that <<18*.5=9>>9."), None),
        (with_step(1, question="?"), "empty_question"),
        (with_step(1, question="What is true of both?"), None),
        (with_step(2, answer="Some are left."), "answer_not_reached"),
        (with_step(1, question="How many pens does  Ann HAVE?"), "repeated_question"),
        (with_step(1, question="Which 27 pens are left?"), "leaking_question"),
        (with_step(2, question="How are the 9 and 36 pens put together?"), None),
    ],
)
def test_the_reason(chain: Chain, reason: str | None) -> None:
    assert check(chain) == reason


def test_a_chain_of_thought_needs_no_questions() -> None:
    rationale = "\n".join(step.answer for step in GOOD.steps)
    thought = replace(GOOD, steps=(Step("", rationale),))
    assert check(thought) is None
    assert check(replace(thought, final_answer="26")) == "wrong_answer"
    assert equations(thought) == equations(GOOD)


def test_numbers_are_read_in_the_order_of_the_text() -> None:
    rationale = "3*12 = 36 pens. 36*25% is 9 pens, as 36 / 4 = 9. Thus 36 - 9 = 27 pens are left, of 36."
    assert check(replace(GOOD, steps=(Step("", rationale),))) is None


def test_the_order_of_steps_that_do_not_need_each_other_does_not_matter() -> None:
    first, second, third = GOOD.steps
    there = replace(GOOD, steps=(first, replace(second, answer="Twelve more: <<12+0=12>>12."), third))
    back = replace(there, steps=(there.steps[1], first, replace(third, answer="<<36.0-9=27>>27.")))
    assert equations(there) == equations(back)


def test_facts_may_bring_numbers_of_their_own() -> None:
    steps = (Step("When was it?", "It was in 1896."), Step("Was there television in 1896?", "No, there was none."))
    chain = replace(
        GOOD, question="Did they watch it?", answer="no", answer_type="yesno", final_answer="no", steps=steps
    )
    assert check(chain) is None


def test_ways_that_differ_in_words_alone_are_one() -> None:
    other = replace(with_step(0, question="How many are there?", answer="There are <<12 * 3=36>>36."), sample=1)
    another = replace(with_step(1, answer="She gives away 36/4=<<36/4=9>>9 pens."), sample=2)
    elsewhere = replace(GOOD, problem_id="q")
    done = curate([GOOD, other, another, elsewhere])
    assert done.kept == [GOOD, another, elsewhere]
    assert done.rejected == [(other, "duplicate")]
    assert done.yields() == {"kept": 3, "duplicate": 1}


def test_numbers_in_digits_and_words() -> None:
    found = values("Twenty-one of 1,250 cost $.50 or 2.5 dollars; half a dozen. Someone attended.")
    assert found == {Fraction(21), Fraction(1250), Fraction(1, 2), Fraction(5, 2), Fraction(2), Fraction(12)}


def test_the_bundled_problems_pass() -> None:
    chains = load_chains("stories", "train", limit=500)
    assert curate(chains).yields()["kept"] == len(chains)


def test_gold_chains_say_how_strict_it_is(data_dir: Path) -> None:
    found: dict[str, Any] = {name: curate(load_chains(name, "train", data_dir)) for name in ("gsm8k", "svamp")}
    assert found["svamp"].yields()["kept"] >= 650
    yields = found["gsm8k"].yields()
    assert yields["kept"] > 0.75 * 6979
    assert yields["wrong_mark"] == 2  # two cannot be computed
    unreached = {chain.problem_id for chain, why in found["gsm8k"].rejected if why == "answer_not_reached"}
    assert len(unreached) < 20


def test_by_answer_a_right_end_is_enough() -> None:
    wrong_mark = with_step(0, answer="Ann has 3*12=<<3*12=35>>35 pens.")
    assert check(wrong_mark) == "wrong_mark"
    assert check(wrong_mark, "answer") is None
    assert check(replace(GOOD, final_answer="28"), "answer") == "wrong_answer"
    assert check(with_step(1, answer=" "), "answer") == "empty_answer"  # which no student can learn
    done = curate([GOOD, GOOD, wrong_mark, replace(GOOD, final_answer="28")], "answer")
    assert done.yields() == {"kept": 3, "wrong_answer": 1}


def test_one_id_in_two_files_may_be_two_problems() -> None:
    other = replace(GOOD, question=GOOD.question.replace("Ann", "Bea"))
    assert curate([GOOD, other, GOOD]).yields() == {"kept": 2, "duplicate": 1}
