from __future__ import annotations

import random
from dataclasses import replace

import pytest

from socratic.calculator import disagreements, holds, marks, without_marks
from socratic.corrupt import Kind, corrupt
from socratic.curate import check
from socratic.numerals import values
from socratic.tasks import in_dev, load_chains
from socratic.types import Chain, Step, UserError

ALL: list[Kind] = ["wrong_step", "reordered", "missing", "verbose"]
TILES = Chain(
    problem_id="d/train/1",
    dataset="d",
    question="A yard of 20 by 60 feet is tiled with 4 tiles a square foot. A tile costs $3. What do the tiles cost?",
    answer="14,400",
    answer_type="number",
    steps=(
        Step("How large is the yard?", "It is 20 * 60 = <<20*60=1200>>1,200 square feet."),
        Step("How many tiles are that?", "For 1,200 square feet it takes 1,200 x 4 = <<1200*4=4800>>4800 tiles."),
        Step("What do the 4800 tiles cost?", "They cost 4800 tiles * $3/tile = $<<4800*3=14400>>14,400."),
    ),
    final_answer="14,400",
)
FISH = (Step("Does it breathe?", "It breathes."), Step("Do fish?", "Fish do not."), Step("Is it one, then?", "no"))
YES = Chain("d/train/2", "d", "Is a whale a fish?", "no", "yesno", FISH)


def spoiled(kind: Kind, chain: Chain = TILES, seed: int = 0, keep_answer: bool = False) -> Chain:
    [made] = corrupt([chain], 1, [kind], seed, keep_answer).chains
    return made


def calculates_with_what_is_not_there_yet(chain: Chain) -> bool:
    known = values(chain.question)
    for step in chain.steps:
        for mark in marks(step.answer):
            if not values(mark.expr) <= known:
                return True
        known |= values(step.answer)
    return False


@pytest.fixture(scope="module")
def stories() -> list[Chain]:
    return [chain for split in ("train", "dev") for chain in load_chains("stories", split)][:400]


def test_a_wrong_step_is_carried_on_to_a_wrong_answer() -> None:
    for seed in range(12):
        made = spoiled("wrong_step", seed=seed)
        note = made.metadata["corrupted"]
        assert made.answer == made.final_answer != "14,400"
        assert made.problem_id == f"d/train/1/answered-{made.answer}"
        assert note["answer"] == "14,400"
        differing = [n for n, (old, new) in enumerate(zip(TILES.steps, made.steps, strict=True), start=1) if old != new]
        assert differing == list(range(note["step"], 4))
        assert f">>{made.answer.replace(',', '')}" in made.steps[-1].answer.replace(",", "")
        for step in made.steps:
            assert all(map(holds, marks(step.answer)))
            assert not disagreements(without_marks(step.answer))
    assert len({spoiled("wrong_step", seed=seed).answer for seed in range(12)}) > 3


def test_what_is_written_before_a_mark_is_as_wrong_as_the_mark() -> None:
    one = replace(TILES, steps=(Step("?", "With $1,200.50 a day it is 3 x $1,200.50 = $<<3*1200.5=3601.5>>3,601.50."),))
    one = replace(one, answer="3601.5", final_answer="3601.5", question="What are 3 days of $1,200.50? Not 7.")
    texts = {spoiled("wrong_step", one, seed).steps[0].answer for seed in range(20)}
    assert "With $1,200.50 a day it is 7 x $1,200.50 = $<<7*1200.5=8403.5>>8403.5." in texts
    assert all("3 x $1,200.50" not in text for text in texts)


def test_a_kept_answer_stays_with_its_problem() -> None:
    with pytest.raises(UserError, match="only a wrong_step changes the answer, not verbose"):
        spoiled("verbose", keep_answer=True)
    made = spoiled("wrong_step", keep_answer=True)
    assert (made.problem_id, made.answer, made.final_answer) == ("d/train/1", "14,400", "14,400")
    assert made.steps != TILES.steps
    assert check(made) == "answer_not_reached"
    assert "answer" not in made.metadata["corrupted"]


@pytest.mark.parametrize(
    ("step", "answer"),
    [
        ("It is <<60-20=40>>40, so forty.", "40"),  # in words
        ("It is <<20*60=1200>>1200 and 20*60=1200.", "1200"),  # once more, in prose
        ("It is <<20+40=60>>60, and 60 are told.", "60"),
        ("It is <<20*60=1300>>1300.", "1300"),
        ("It is 20 by 60, which is 1200.", "1200"),
    ],
)
def test_no_step_is_wrong_where_it_cannot_be_carried_on(step: str, answer: str) -> None:
    one = replace(TILES, steps=(Step("How large?", step),), answer=answer, final_answer=answer)
    with pytest.raises(UserError, match="only 0 of 1 chains can be spoiled by wrong_step"):
        corrupt([one], 1, ["wrong_step"])


def test_reordered_steps_use_a_number_before_it_is_there() -> None:
    for seed in range(6):
        made = spoiled("reordered", seed=seed)
        assert sorted(made.steps, key=str) == sorted(TILES.steps, key=str)
        assert made.steps != TILES.steps
        assert calculates_with_what_is_not_there_yet(made)
        assert made.answer == "14,400"


def test_a_missing_step_is_missed() -> None:
    for seed in range(6):
        made = spoiled("missing", seed=seed)
        gone = made.metadata["corrupted"]["step"]
        assert made.steps == tuple(s for n, s in enumerate(TILES.steps, start=1) if n != gone)
        assert gone < 3
        assert calculates_with_what_is_not_there_yet(made)


@pytest.mark.parametrize("kind", ["reordered", "missing"])
def test_steps_that_nothing_needs_stay(kind: Kind) -> None:
    steps = (Step("A?", "<<20+7=27>>27"), Step("B?", "<<60-20=40>>40"))
    with pytest.raises(UserError, match="only 0 of 1"):
        corrupt([replace(TILES, steps=steps)], 1, [kind])
    assert len(spoiled(kind, YES).steps) == (3 if kind == "reordered" else 2)
    with pytest.raises(UserError, match="only 0 of 1"):
        corrupt([YES], 1, ["wrong_step"])


def test_facts_change_places_and_the_answer_stays_behind_them() -> None:
    assert all(spoiled("reordered", YES, seed).steps == (FISH[1], FISH[0], FISH[2]) for seed in range(6))
    with pytest.raises(UserError, match="only 0 of 1"):
        corrupt([replace(YES, steps=FISH[1:])], 1, ["reordered"])


def test_verbose_answers_say_everything_again() -> None:
    made = spoiled("verbose")
    for old, new in zip(TILES.steps, made.steps, strict=True):
        assert old.answer in new.answer
        assert old.question == new.question
        assert old.question in new.answer
        assert len(new.answer) > 2 * len(old.answer)
        assert [*map(str, marks(new.answer))] != []
    assert check(made) is None
    named = replace(TILES, question=TILES.question.replace("A yard", "Mr. Lee's yard"))
    assert "Mr. Lee's yard of 20 by 60 feet" in spoiled("verbose", named).steps[0].answer
    assert ". It takes" not in spoiled("verbose", YES).steps[0].answer


def test_the_share_is_exact_and_the_smaller_dose_is_in_the_larger(stories: list[Chain]) -> None:
    training = [chain for chain in stories if not in_dev(chain.question)]
    doses = {share: corrupt(stories, share, ALL) for share in (0.0, 0.05, 0.1, 0.4)}
    spoilt: dict[int, Chain] = {}
    for share, done in doses.items():
        found = {n: chain for n, chain in enumerate(done.chains) if "corrupted" in chain.metadata}
        assert len(found) == done.counts.total() == round(share * len(training))
        assert found.items() >= spoilt.items()
        assert all(chain is stories[n] for n, chain in enumerate(done.chains) if n not in found)
        assert not any(in_dev(chain.question) for chain in found.values())
        spoilt = found
    assert set(doses[0.4].counts) == set(ALL)
    assert corrupt(stories, 0.1, ALL).chains == corrupt(stories, 0.1, ALL[::-1]).chains == doses[0.1].chains
    assert corrupt(stories, 0.1, ALL, seed=1).chains != doses[0.1].chains
    shuffled = random.Random(0).sample(stories, len(stories))
    assert sorted(map(str, corrupt(shuffled, 0.1, ALL).chains)) == sorted(map(str, doses[0.1].chains))


def test_what_is_spoiled_already_is_not_spoiled_again() -> None:
    with pytest.raises(UserError, match="spoiled already"):
        corrupt([spoiled("reordered")], 1, ["reordered"])
