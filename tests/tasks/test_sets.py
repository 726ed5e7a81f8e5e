from __future__ import annotations

from pathlib import Path

import pytest

from socratic.store import write_jsonl
from socratic.tasks import load_chains, load_problems
from socratic.tasks.base import Reading
from socratic.tasks.sets import check_learned, load_named, load_set
from socratic.types import Chain, Role, Step, UserError

HERE = Reading(data_dir=None, split_scheme="authors")


def test_answers_alone_are_chains_without_steps_of_all_problems(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        problems, alone = load_problems("stories", split), load_set("answers:stories", split, HERE)
        assert [(c.problem_id, c.question, c.final_answer) for c in alone] == [
            (p.id, p.question, p.answer) for p in problems
        ]
        assert not any(chain.steps for chain in alone)
    assert load_set("stories", "train", HERE) == load_chains("stories", "train")
    assert load_named("gold:stories", "dev") == load_chains("stories", "dev")
    check_learned("here", ["answers", "answers:stories"], "answer", None)
    check_learned("here", ["gold:stories", "answers.jsonl"], "cot", None)
    learners: list[tuple[Role, Role | None]] = [("cot", None), ("answer", "cot")]
    for role, also in learners:
        with pytest.raises(UserError, match="here names answers, which have no steps; only the role answer learns th"):
            check_learned("here", ["gold", "answers:stories"], role, also)


def test_a_variants_answer_alone_keeps_what_it_was_made_from(tmp_path: Path) -> None:
    made_from = {"made_from": "a/1"}
    variant = Chain("a/1/vary-1", "a", "What is 1+1?", "2", "number", (Step("Sum?", "2"),), metadata=made_from)
    write_jsonl(tmp_path / "own.jsonl", [variant.to_json()])
    [chain] = load_named(f"answers:{tmp_path / 'own.jsonl'}", "train")
    assert (chain.metadata, chain.steps) == (made_from, ())
