from __future__ import annotations

from pathlib import Path

from socratic.tasks import load_problems
from socratic.tasks.overlap import find_overlaps
from socratic.types import Problem

LONG = "Tom has {} red pens and buys {} more of them at the shop, so how many has he got?"


def problem(id: str, question: str) -> Problem:
    return Problem(id, "d", "test", question, "1")


def test_a_shared_run_is_found_as_it_stands_and_with_numbers_masked() -> None:
    train = [problem("t0", LONG.format(3, 4)), problem("t1", "Nothing alike.")]
    tests = [
        problem("same", "Well. " + LONG.format(3, 4).upper()),
        problem("masked", LONG.format("1,200", 7)),
        problem("in words", LONG.format("five", "twenty-six")),
        problem("other", "Tom has 3 red pens. How many has he got?"),
    ]
    found = find_overlaps(train, tests)
    assert [(o.test_id, o.train_id, o.masked) for o in found.found] == [
        ("same", "t0", False),
        ("masked", "t0", True),
        ("in words", "t0", True),
    ]
    assert found.found[1].shared.startswith("tom has 0 red pens and buys 0 more")
    assert found.sentence() == (
        "3 of 4 test problems share 13 words in a row (shorter ones: all their words) with a "
        "training problem once numbers are masked, "
        "1 of them as they stand"
    )


def test_short_problems_have_to_be_equal() -> None:
    train = [problem("t", "What is 3 plus 4?")]
    tests = [problem("a", "what is 3 plus 4"), problem("b", "What is 5 plus 4?"), problem("c", "What is 3 plus 4 now?")]
    assert [(o.test_id, o.masked) for o in find_overlaps(train, tests).found] == [("a", False), ("b", True)]


def test_gsm8k_shares_eight_masked_runs_with_its_training_set(data_dir: Path) -> None:
    train = load_problems("gsm8k", "train", data_dir) + load_problems("gsm8k", "dev", data_dir)
    found = find_overlaps(train, load_problems("gsm8k", "test", data_dir))
    assert len(found.found) == 8
