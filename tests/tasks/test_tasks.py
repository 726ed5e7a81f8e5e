"""The real data sets, and the arguments of `load_problems` and `load_chains`."""

from __future__ import annotations

import hashlib
import json
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socratic.tasks import SPLITS, TASKS, in_dev, load_chains, load_problems, normalise
from socratic.types import UserError

# Problems and gold chains of train, dev and test.
COUNTS = {
    ("gsm8k", "authors"): ((6979, 494, 1319), (6979, 494, 1319)),
    ("gsm8k-main", "authors"): ((6979, 494, 1319), (6979, 494, 1319)),
    ("strategyqa", "authors"): ((1931, 130, 229), (747, 40, 96)),
    ("strategyqa", "fine-tune-cot"): ((1509, 93, 687), (584, 27, None)),
    ("svamp", "authors"): ((654, 46, 300), (653, 46, 300)),
    ("multiarith", "authors"): ((385, 30, 180), (385, 30, 180)),
    ("addsub", "authors"): ((249, 27, 119), (248, 27, 119)),
    ("singleeq", "authors"): ((329, 27, 152), (319, 27, 150)),
    ("commonsenseqa", "authors"): ((9057, 684, 1221), (None, None, None)),
    ("date_understanding", "authors"): ((237, 21, 111), (None, None, None)),
    ("tracking_shuffled_objects", "authors"): ((485, 40, 225), (None, None, None)),
    ("coin_flip", "authors"): ((327, 23, 150), (None, None, None)),
    ("last_letters", "authors"): ((327, 23, 150), (None, None, None)),
}
# Data set -> file of Fine-tune-CoT's split, and its train and test indices over all rows in file order.
FINE_TUNE_COT = {
    "gsm8k": "gsm8k",
    "strategyqa": "strategy_qa",
    "svamp": "svamp",
    "multiarith": "multiarith",
    "addsub": "addsub",
    "singleeq": "single_eq",
    "aqua": "aqua",
    "commonsenseqa": "commonsense_qa",
    "date_understanding": "date_understanding",
    "tracking_shuffled_objects": "tracking_shuffled_objects",
    "coin_flip": "coin_flip",
    "last_letters": "last_letter_concatenation",
}
BEFORE = {"gsm8k/test": 7473, "commonsenseqa/dev": 9741, "aqua/test": 97_467}
"""Rows that stand before a file's own."""


@pytest.mark.parametrize(("name", "scheme"), COUNTS)
def test_counts_of_the_real_data(name: str, scheme: str, data_dir: Path) -> None:
    problems = [len(load_problems(name, split, data_dir, split_scheme=scheme)) for split in SPLITS]
    assert tuple(problems) == COUNTS[name, scheme][0]
    for split, expected in zip(SPLITS, COUNTS[name, scheme][1], strict=True):
        if expected is not None:
            assert len(load_chains(name, split, data_dir, split_scheme=scheme)) == expected


@pytest.mark.parametrize("name", FINE_TUNE_COT)
def test_fine_tune_cot_has_the_papers_split(name: str, data_dir: Path) -> None:
    split = json.loads((data_dir / "splits" / f"{FINE_TUNE_COT[name]}__default.json").read_text())

    def rows(*parts: str) -> list[int]:
        problems = [p for part in parts for p in load_problems(name, part, data_dir, split_scheme="fine-tune-cot")]
        ids = (problem.id.rpartition("/") for problem in problems)
        return sorted(int(row) + BEFORE.get(file, 0) for file, _, row in ids)

    assert rows("test") == sorted(split["test"])
    if name == "aqua":
        return  # whose train is not in the folder
    train = rows("train", "dev")
    assert set(train) <= set(split["train"])
    assert len(split["train"]) - len(train) == {"strategyqa": 1, "multiarith": 5}.get(name, 0)


@pytest.mark.parametrize(("name", "scheme"), [*((name, "authors") for name in TASKS), ("strategyqa", "fine-tune-cot")])
def test_splits_share_no_question_and_chains_belong_to_their_problems(name: str, scheme: str, data_dir: Path) -> None:
    questions, ids = [], []
    for split in ("test",) if name == "aqua" else SPLITS:  # whose train is not in the folder
        problems = {problem.id: problem for problem in load_problems(name, split, data_dir, split_scheme=scheme)}
        assert {problem.split for problem in problems.values()} == {split}
        questions.append({normalise(problem.question) for problem in problems.values()})
        ids.append(set(problems))
        if TASKS[name].gold_chains and (name, scheme, split) != ("strategyqa", "fine-tune-cot", "test"):
            for chain in load_chains(name, split, data_dir, split_scheme=scheme):
                problem = problems[chain.problem_id]
                assert (chain.question, chain.answer) == (problem.question, problem.answer)
                assert chain.final_answer == problem.answer
                assert chain.source == "gold"
                assert all(step.answer for step in chain.steps)
    assert all(not first & second for first, second in combinations(questions, 2))
    assert len(set.union(*ids)) == sum(map(len, ids))


@given(st.text())
def test_the_dev_rule_is_the_lowest_fifteenth_of_the_hash(question: str) -> None:
    digest = hashlib.sha256(b"socratic-dev-1|" + " ".join(question.split()).encode()).hexdigest()
    assert in_dev(question) == (int(digest, 16) < 2**256 / 15)
    assert in_dev(f" \n{question}\t") == in_dev(question)


@pytest.mark.parametrize("name", ["svamp", "multiarith", "addsub", "singleeq", "coin_flip"])
def test_without_its_split_file_a_data_set_of_one_file_is_refused(name: str, tmp_path: Path, data_dir: Path) -> None:
    (tmp_path / name).symlink_to(data_dir / name)
    with pytest.raises(UserError, match=r"splits/.*__default\.json does not exist"):
        load_problems(name, "test", tmp_path)


def test_the_environment_names_the_folder(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCRATIC_DATA", str(data_dir))
    assert load_problems("addsub", "test", limit=2) == load_problems("addsub", "test", data_dir)[:2]


def test_limit_counts_chains(data_dir: Path) -> None:
    chains = load_chains("strategyqa", "train", data_dir)
    assert load_chains("strategyqa", "train", data_dir, limit=5) == chains[:5]
    assert len(load_problems("strategyqa", "train", data_dir, 1_000_000)) == 1931


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "gsm9k"}, r"unknown data set 'gsm9k'; did you mean 'gsm8k'"),
        ({"name": "mine.txt"}, r"unknown data set 'mine.txt'.* \.jsonl, \.json, \.csv"),
        ({"split": "tests"}, r"unknown split 'tests'; did you mean 'test'\?"),
        ({"split": "all"}, r"unknown split 'all'"),
        ({"split_scheme": "finetune-cot"}, r"did you mean 'fine-tune-cot'\?"),
        ({"limit": 0}, r"limit must be a whole number of at least 1, not 0"),
        ({"limit": -3}, r"not -3"),
        ({"limit": 1.5}, r"not 1\.5"),
        ({"limit": True}, r"not True"),
        ({"columns": {"question": "q"}}, r"columns are for a file of your own"),
    ],
)
def test_a_wrong_argument_is_refused(arguments: dict[str, object], message: str, tmp_path: Path) -> None:
    values = {"name": "gsm8k", "split": "train", "data_dir": tmp_path, **arguments}
    with pytest.raises(UserError, match=message):
        load_problems(**values)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        load_chains(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(TASKS.keys() - {"stories"}))
def test_a_missing_folder_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.* does not exist; check the path, --data-dir and SOCRATIC_DATA"):
        load_problems(name, "test", tmp_path / "nowhere")
