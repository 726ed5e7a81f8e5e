from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from socratic.augment.make import augment, bare, kept_out, with_marks
from socratic.augment.prefix import prefixes
from socratic.augment.vary import Impossible
from socratic.calculator import disagreements, without_marks
from socratic.curate import check
from socratic.store import write_jsonl
from socratic.tasks import Reading, in_dev, load_chains, load_problems
from socratic.types import Chain, Problem, Step, UserError

PENS = Chain(
    problem_id="d/train/1",
    dataset="d",
    question="Ann has 3 boxes of 12 pens. If she gives 5 pens to Ben, how many pens does she keep?",
    answer="31",
    answer_type="number",
    steps=(
        Step("How many pens does Ann have?", "Ann has 3*12=<<3*12=36>>36 pens."),
        Step("How many pens does she keep?", "She keeps 36-5=<<36-5=31>>31."),
    ),
    final_answer="31",
)


def problem(question: str) -> Problem:
    return Problem("d/test/1", "d", "test", question, "1")


@pytest.mark.parametrize(
    ("answer", "marked"),
    [
        ("Ann has 3 x 12 = 36 pens.", "Ann has 3 x 12 = <<3*12=36>>36 pens."),
        ("It is $9 + $3.50 = $12.50.", "It is $9 + $3.50 = $<<9+3.50=12.50>>12.50."),
        ("2+2=4 and 4*5=20", "2+2=<<2+2=4>>4 and 4*5=<<4*5=20>>20"),
        ("First 2+2=<<2+2=4>>4, then 4*5=20.", "First 2+2=<<2+2=4>>4, then 4*5=<<4*5=20>>20."),
    ],
)
def test_right_calculations_in_prose_are_marked(answer: str, marked: str) -> None:
    chain = replace(PENS, steps=(Step("How many?", answer),))
    assert with_marks(chain).steps[0].answer == marked


@pytest.mark.parametrize(
    "answer", ["3 x 12 = 37", "10% + 5% = 15%", "36 pens", "3*12=<<3*12=36>>36", "3/6=1/2 h", "4+3=7:00", "12 – 5-3=2"]
)
def test_nothing_else_is_marked(answer: str) -> None:
    with pytest.raises(Impossible, match="nothing_to_mark"):
        with_marks(replace(PENS, steps=(Step("How many?", answer),)))


def test_bare_answers_are_the_marks_with_their_results() -> None:
    assert [step.answer for step in bare(PENS).steps] == ["<<3*12=36>>36", "<<36-5=31>>31"]
    assert [step.question for step in bare(PENS).steps] == [step.question for step in PENS.steps]
    with pytest.raises(Impossible, match="step_without_mark"):
        bare(replace(PENS, steps=(*PENS.steps, Step("And?", "31 pens."))))
    with pytest.raises(Impossible, match="step_without_mark"):
        bare(replace(PENS, steps=(*PENS.steps, Step("And?", "<<31=31>>31 pens."))))


def test_what_stands_in_dev_or_test_is_not_made_again() -> None:
    told = "Ann has 3 boxes of 12 pens. If she gives 5 pens to Ben, how many pens does Ann have?"
    in_words = "Ann has five boxes of 20 pens. If she gives eight pens to Ben, how many pens does Ann have?"
    for there in (told, told.upper(), in_words):
        done = augment([PENS], ["prefix"], [problem(there)])
        assert done.counts["prefix"] == {"like_dev_or_test": 1}
        assert done.chains == [PENS]
    assert augment([PENS], ["prefix"], [problem("Another one?")]).counts["prefix"] == {"made": 1}


def test_a_problem_is_made_once_and_must_pass_curation() -> None:
    (new,) = prefixes(PENS)
    assert isinstance(new, Chain)
    twice = augment([PENS, replace(PENS, sample=1), new], ["prefix"], [])
    assert twice.counts["prefix"] == {"duplicate": 2}
    odd = replace(PENS, steps=(replace(PENS.steps[0], answer="She has 17+19=<<17+19=36>>36 pens."), PENS.steps[1]))
    assert augment([odd], ["prefix"], []).counts["prefix"] == {"unfounded_number": 1}


def test_what_is_made_of_several_chains_of_a_problem_can_be_trained_on(tmp_path: Path) -> None:
    asked = replace(PENS.steps[0], question="How many pens are in the boxes?")
    other = replace(PENS, sample=1, steps=(asked, PENS.steps[1]))
    done = augment([PENS, other], ["prefix"], [])
    assert [c.problem_id for c in done.chains[2:]] == ["d/train/1/prefix-1", "d/train/1/prefix-1-2"]
    write_jsonl(tmp_path / "c.jsonl", (c.to_json() for c in done.chains))
    assert sum(len(load_chains(str(tmp_path / "c.jsonl"), split)) for split in ("train", "dev")) == 4


def test_kinds_build_on_each_other_in_their_order() -> None:
    chain = replace(PENS, steps=(Step(PENS.steps[0].question, "Ann has 3*12=36 pens."), PENS.steps[1]))
    done = augment([chain], ["bare", "prefix", "marks"], [])
    assert [c.steps[0].answer for c in done.chains] == ["<<3*12=36>>36"] * 2


def test_dev_stays_what_it_is(tmp_path: Path) -> None:
    dev = next(c for n in range(100) if in_dev((c := replace(PENS, question=f"{PENS.question} {n}?")).question))
    assert augment([dev], ["prefix"], []).chains == [dev]
    made = next(
        c
        for n in range(200)
        for c in augment([replace(PENS, question=f"In {n}, {PENS.question}")], ["prefix"], []).chains[1:]
        if in_dev(c.question)
    )
    write_jsonl(tmp_path / "c.jsonl", [dev.to_json(), made.to_json()])
    held = {split: load_chains(str(tmp_path / "c.jsonl"), split) for split in ("train", "dev")}
    assert held == {"train": [made], "dev": [dev]}


def test_a_wrong_calculation_in_prose_does_not_come_in() -> None:
    odd = replace(
        PENS, steps=(replace(PENS.steps[0], answer="12 x 3 = 37. She has 3*12=<<3*12=36>>36 pens."), PENS.steps[1])
    )
    assert augment([odd], ["prefix"], []).counts["prefix"] == {"wrong_calculation": 1}


def test_of_gsm8k(data_dir: Path) -> None:
    """Every chain made of a 24th of the real ones is right by the calculator and by curation, and its problem new."""
    chains = load_chains("gsm8k", "train", data_dir)[::24]
    tests = load_problems("gsm8k", "test", data_dir)
    with pytest.raises(UserError, match="copies=3 are of kind vary, not of marks, prefix"):
        augment(chains, ["marks", "prefix"], tests, copies=3)
    done = augment(chains, ["marks", "prefix", "vary"], tests, copies=3)
    new = done.chains[len(chains) :]
    assert done.counts["prefix"]["made"] > 400
    assert done.counts["vary"]["made"] > 300
    assert all(check(chain) is None for chain in new)
    assert not any(disagreements(without_marks(step.answer)) for chain in new for step in chain.steps)
    questions = [chain.question for chain in done.chains] + [each.question for each in tests]
    assert len(set(questions)) == len(questions)


def test_all_that_is_not_train_of_the_chains_own_data_is_kept_out() -> None:
    chains = load_chains("stories", "train", limit=2)
    here = Reading(data_dir=None, split_scheme="authors")
    others = [p for split in ("dev", "test", "longer", "unseen") for p in load_problems("stories", split)]
    assert kept_out([*chains, PENS], [], here) == others
    assert kept_out([PENS], ["stories"], here) == others
    assert kept_out([PENS], [], here) == []
    with pytest.raises(UserError, match="unknown data set 'storys'"):
        kept_out([PENS], ["storys"], here)
