from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from socratic.tasks import load_chains, load_problems, normalise
from socratic.tasks.strategyqa import resolve
from socratic.types import Step, UserError

RECORD: dict[str, Any] = {
    "qid": "a1",
    "term": "Ship",
    "description": "a vessel",
    "question": "Is the ship longer than the pier?",
    "answer": True,
    "facts": ["The ship is 90 m long.", "The pier is 80 m long"],
    "decomposition": ["How long is the ship?", "How long is the pier?", "Is #1 more than #2?"],
    "evidence": [],
}


def write(folder: Path, *records: dict[str, Any]) -> Path:
    path = folder / "strategyqa" / "dev.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def test_787_records_of_train_have_a_gold_chain(data_dir: Path) -> None:
    chains = [chain for split in ("train", "dev") for chain in load_chains("strategyqa", split, data_dir)]
    assert len(chains) == 787
    assert {len(chain.steps) for chain in chains} == {3, 4, 5}
    assert all(chain.metadata == {"alignment": "assumed"} for chain in chains)
    assert all(chain.steps[-1].answer == chain.answer and chain.answer in ("yes", "no") for chain in chains)
    # "#75" stands in a fact, which is data and stays.
    assert not [s for chain in chains for s in chain.steps if re.search(r"#\d", s.question.replace("Superman #75", ""))]


def test_test_is_the_authors_dev_file(data_dir: Path) -> None:
    problems = load_problems("strategyqa", "test", data_dir)
    assert [problem.id for problem in problems] == [f"strategyqa/dev/{i:05d}" for i in range(229)]


def test_fine_tune_cot_trains_on_no_question_of_its_test(data_dir: Path) -> None:
    examples = json.loads((data_dir / "strategyqa" / "bigbench_task.json").read_text(encoding="utf-8"))["examples"]
    split = json.loads((data_dir / "splits" / "strategy_qa__default.json").read_text())
    test = {normalise(examples[i]["input"]) for i in split["test"]}
    kept = [c for s in ("train", "dev") for c in load_chains("strategyqa", s, data_dir, split_scheme="fine-tune-cot")]
    assert len(kept) == 611
    assert not test & {normalise(chain.question) for chain in kept}
    authors = {c.problem_id: c for s in ("train", "dev", "test") for c in load_chains("strategyqa", s, data_dir)}
    for chain in kept:
        assert re.fullmatch(r"strategyqa-bigbench/all/\d{5}", chain.problem_id)
        assert authors[chain.metadata["authors_id"]].steps == chain.steps
    with pytest.raises(UserError, match="no gold chains in 'test'"):
        load_chains("strategyqa", "test", data_dir, split_scheme="fine-tune-cot")


def test_a_record_with_one_fact_fewer_than_questions_has_a_chain(tmp_path: Path) -> None:
    longer = {**RECORD, "question": "Is it?", "answer": False, "facts": [*RECORD["facts"], "Ships float."]}
    write(tmp_path, RECORD, longer)
    first, second = load_problems("strategyqa", "test", tmp_path)
    assert (first.answer, second.answer, first.answer_type) == ("yes", "no", "yesno")
    assert first.metadata == {key: RECORD[key] for key in ("qid", "term", "description", "facts", "decomposition")}
    [chain] = load_chains("strategyqa", "test", tmp_path)
    assert chain.problem_id == "strategyqa/dev/00000"
    assert chain.steps == (
        Step("How long is the ship?", "The ship is 90 m long."),
        Step("How long is the pier?", "The pier is 80 m long"),
        Step('Is "The ship is 90 m long" more than "The pier is 80 m long"?', "yes"),
    )


def test_references_are_replaced_whole_and_once() -> None:
    answers = [f"A{i}." for i in range(1, 11)] + ["no"]
    questions = [f"Q{i}?" for i in range(1, 11)] + ["Is #10 like #1, #2 or #12?"]
    assert resolve(questions, answers)[-1].question == 'Is "A10" like "A1", "A2" or #12?'
    assert resolve(["Q1?", "Q2?", "Is #2?"], ["one", "issue #1", "yes"])[-1].question == 'Is "issue #1"?'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "yes"}, "the answer is 'yes', not true or false"),
        ({"question": "  "}, "'question' is empty"),
        ({"facts": ["One.", ""]}, "entry 1 of 'facts' is empty"),
        ({"decomposition": []}, "'decomposition' must be a list of texts"),
    ],
)
def test_a_malformed_record_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path, RECORD, {**RECORD, **change})
    with pytest.raises(UserError, match=message) as raised:
        load_problems("strategyqa", "test", tmp_path)
    assert str(raised.value).startswith(f"{path}, record 1")
