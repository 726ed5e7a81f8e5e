"""The data sets of choices, dates, letters and coins: AQuA, CommonsenseQA, and those in BIG-bench's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from socratic.answers import score
from socratic.tasks import load_chains, load_problems
from socratic.types import Problem, UserError

COIN = {"question": 'Is the coin still heads up? Note that "flip" here means "reverse".', "answer": "no"}
LETTERS = {"question": 'Take the last letters of each words in "Ann Bo" and concatenate them.', "answer": "no"}
DATE = {"input": "Yesterday was 4/30/2021. What is today?", "target_scores": {"04/29/2021": 0, "05/01/2021": 1}}
BALLS = {"input": "At the end, Ann has the ", "target_scores": {"red ball.": 0, "blue ball.": 1, "pink ball.": 0}}
# data set -> its file, the name of its split, a record
LAYOUT: dict[str, tuple[str, str, dict[str, Any]]] = {
    "coin_flip": ("coin_flip.json", "coin_flip", COIN),
    "last_letters": ("last_letters.json", "last_letter_concatenation", LETTERS),
    "date_understanding": ("task.json", "date_understanding", DATE),
    "tracking_shuffled_objects": ("task.json", "tracking_shuffled_objects", BALLS),
}
AQUA = {
    "question": "What is 1 + 1?",
    "options": ["A)1", "B)$2)", "C) 3", "D)4", "E)None of these"],
    "rationale": "It is 2.\nAnswer: B",
    "correct": "B",
}
COMMON = {
    "answerKey": "D",
    "id": "x1",
    "question": {
        "question_concept": "door",
        "choices": [{"label": letter, "text": f"place {letter}"} for letter in "ABCDE"],
        "stem": "Where is a revolving door?",
    },
}


def write(folder: Path, name: str, *records: dict[str, Any]) -> Path:
    """The files of a data set in BIG-bench's layout, all records in test."""
    file, split, _ = LAYOUT[name]
    for place, value in (
        (folder / name / file, {"canary": "…", "examples": records}),
        (folder / "splits" / f"{split}__default.json", {"train": [], "test": [*range(len(records))]}),
    ):
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps(value), encoding="utf-8")
    return folder


def write_lines(folder: Path, file: str, *records: dict[str, Any]) -> Path:
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return folder


def is_right(problem: Problem, output: str) -> bool:
    return score(output, problem.answer, problem.answer_type, problem.choices).strict


@pytest.mark.parametrize(
    ("name", "answer", "answer_type", "right", "wrong"),
    [
        ("coin_flip", "no", "yesno", "So the answer is No.", "So the answer is yes."),
        ("last_letters", "no", "text", '#### "NO".', "#### no way"),
        ("date_understanding", "05/01/2021", "text", "--> 5/1/2021", "--> 04/29/2021"),
        ("tracking_shuffled_objects", "B", "choice", "the answer is (B)", "the answer is pink ball"),
    ],
)
def test_a_record_is_read_and_its_answer_scored(
    name: str, answer: str, answer_type: str, right: str, wrong: str, tmp_path: Path
) -> None:
    [problem] = load_problems(name, "test", write(tmp_path, name, LAYOUT[name][2]))
    assert (problem.id, problem.answer, problem.answer_type) == (f"{name}/all/00000", answer, answer_type)
    assert is_right(problem, right)
    assert not is_right(problem, wrong)


def test_choices_are_the_targets_in_the_files_order_and_dates_are_not_shown(tmp_path: Path) -> None:
    [balls] = load_problems("tracking_shuffled_objects", "test", write(tmp_path, "tracking_shuffled_objects", BALLS))
    assert (balls.question, balls.choices) == ("At the end, Ann has the", ("red ball.", "blue ball.", "pink ball."))
    [date] = load_problems("date_understanding", "test", write(tmp_path, "date_understanding", DATE))
    assert date.choices is None
    assert date.metadata == {"dates": ["04/29/2021", "05/01/2021"]}


@pytest.mark.parametrize(
    ("name", "record", "message"),
    [
        ("coin_flip", {**COIN, "answer": "perhaps"}, r"record 0: gold answer 'perhaps' is not a yesno answer"),
        ("coin_flip", {"question": "Is it?"}, r"record 0 has no column 'answer'"),
        ("date_understanding", {**DATE, "target_scores": {"05/01/2021": 0}}, r"record 0: the target_scores are"),
        ("date_understanding", {**DATE, "target_scores": []}, r"record 0: the target_scores are \[\]"),
        ("tracking_shuffled_objects", {**BALLS, "target_scores": {"a": 1, "b": 1}}, r"the target_scores are"),
        ("tracking_shuffled_objects", {**BALLS, "target_scores": {"a": "1", "b": 0}}, r"the target_scores are"),
    ],
)
def test_a_damaged_record_is_named(name: str, record: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_problems(name, "test", write(tmp_path, name, record))


def test_aqua_reads_options_and_rationale(tmp_path: Path) -> None:
    write_lines(tmp_path, "aqua/test.json", AQUA, {**AQUA, "rationale": ""})
    first, second = load_problems("aqua", "test", tmp_path)
    assert (first.id, first.answer, second.id) == ("aqua/test/00000", "B", "aqua/test/00001")
    assert first.choices == ("1", "$2)", "3", "4", "None of these")
    [chain] = load_chains("aqua", "test", tmp_path)
    assert (chain.problem_id, [step.answer for step in chain.steps]) == (first.id, ["It is 2.", "Answer: B"])


def test_aquas_train_is_read_where_it_lies(tmp_path: Path) -> None:
    write_lines(tmp_path, "aqua/test.json", AQUA)
    others = [{**AQUA, "question": f"What is 1 + 1, {number}?"} for number in range(3)]
    write_lines(tmp_path, "aqua/train.json", AQUA, *others)
    assert len(load_problems("aqua", "train", tmp_path)) + len(load_problems("aqua", "dev", tmp_path)) == 3
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "aqua__default.json").write_text(json.dumps({"train": [0, 2], "test": [4]}))
    kept = [
        p for split in ("train", "dev") for p in load_problems("aqua", split, tmp_path, split_scheme="fine-tune-cot")
    ]
    assert [problem.id for problem in kept] == ["aqua/train/00002"]


def test_commonsenseqa_reads_stem_and_choices(tmp_path: Path) -> None:
    write_lines(tmp_path, "commonsenseqa/dev_rand_split.jsonl", COMMON)
    [problem] = load_problems("commonsenseqa", "test", tmp_path)
    assert (problem.id, problem.question) == ("commonsenseqa/dev/00000", "Where is a revolving door?")
    assert is_right(problem, "It is place D.\n#### D")
    assert problem.metadata == {"source_id": "x1"}


@pytest.mark.parametrize(
    ("file", "record", "message"),
    [
        (
            "aqua/test.json",
            {**AQUA, "options": ["A)1", "C)2"]},
            r"test\.json:1: the options do not begin with A\) to E\)",
        ),
        ("aqua/test.json", {**AQUA, "correct": "F"}, r"gold answer 'F' is not a choice answer"),
        ("commonsenseqa/dev_rand_split.jsonl", {**COMMON, "question": {"stem": "?"}}, r"is not a stem with choices"),
        ("commonsenseqa/dev_rand_split.jsonl", {**COMMON, "question": ["?"]}, r"is not a stem with choices"),
        (
            "commonsenseqa/dev_rand_split.jsonl",
            {**COMMON, "question": {"stem": "?", "choices": [{"label": "B", "text": "b"}]}},
            r"split\.jsonl:1: the choices are not A to E in order",
        ),
    ],
)
def test_a_damaged_line_is_named(file: str, record: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_lines(tmp_path, file, record)
    with pytest.raises(UserError, match=message):
        load_problems(file.partition("/")[0], "test", tmp_path)
