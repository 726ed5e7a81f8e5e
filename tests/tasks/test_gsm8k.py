from __future__ import annotations

import json
from pathlib import Path

import pytest

from socratic.tasks import SPLITS, load_chains, load_problems
from socratic.types import Chain, Step, UserError

GOOD = "How many are left? ** 5-2 = <<5-2=3>>3\nAnd twice that? ** 2*3 = <<2*3=6>>6\n#### 6"


def write(folder: Path, answers: list[str], config: str = "socratic") -> Path:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"question": [f" Question {i}? " for i in range(len(answers))], "answer": answers})
    path = folder / "gsm8k" / config / "test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(table, path)
    return path


def chains(name: str, data_dir: Path, splits: tuple[str, ...]) -> list[Chain]:
    return sorted((c for split in splits for c in load_chains(name, split, data_dir)), key=lambda c: c.problem_id)


def test_steps_of_the_real_data(data_dir: Path) -> None:
    train, test = chains("gsm8k", data_dir, ("train", "dev")), chains("gsm8k", data_dir, ("test",))
    assert (len(train), len(test)) == (7473, 1319)
    assert round(sum(len(chain.steps) for chain in train) / len(train), 2) == 3.58
    assert max(len(chain.steps) for chain in train) == 9
    assert max(len(chain.steps) for chain in test) == 11
    assert [chain.problem_id for chain in train] == [f"gsm8k/train/{i:05d}" for i in range(7473)]


def test_main_and_socratic_are_the_same_problems_and_sub_answers(data_dir: Path) -> None:
    for split in SPLITS:
        assert load_problems("gsm8k", split, data_dir) == load_problems("gsm8k-main", split, data_dir)
        for main, socratic in zip(
            load_chains("gsm8k-main", split, data_dir), load_chains("gsm8k", split, data_dir), strict=True
        ):
            assert main.steps == tuple(Step("", step.answer) for step in socratic.steps)
            assert all(step.question for step in socratic.steps)


def test_six_chains_lose_a_step_with_an_empty_answer(data_dir: Path) -> None:
    import pyarrow.parquet

    shorter = []
    for part, splits in {"train": ("train", "dev"), "test": ("test",)}.items():
        answers = pyarrow.parquet.read_table(data_dir / f"gsm8k/socratic/{part}-00000-of-00001.parquet")["answer"]
        for chain, answer in zip(chains("gsm8k", data_dir, splits), answers.to_pylist(), strict=True):
            lost = answer.count("\n") - len(chain.steps)
            assert lost in (0, 1)
            shorter += [chain.problem_id] * lost
    assert shorter == [f"gsm8k/train/{i:05d}" for i in (480, 2617, 2815, 5402)] + [
        "gsm8k/test/01042",
        "gsm8k/test/01284",
    ]


def test_fine_tune_cot_has_the_authors_split(data_dir: Path) -> None:
    split = json.loads((data_dir / "splits" / "gsm8k__default.json").read_text())
    assert split == {"train": list(range(7473)), "test": list(range(7473, 8792))}


def test_a_gold_is_kept_as_written(tmp_path: Path) -> None:
    write(tmp_path, [GOOD.replace("#### 6", "####  70,000 ")])
    [problem] = load_problems("gsm8k", "test", tmp_path)
    assert (problem.question, problem.answer) == ("Question 0?", "70,000")


def test_a_step_with_an_empty_answer_is_dropped(tmp_path: Path) -> None:
    write(tmp_path, ["How many? ** \nHow many now? ** 3\n#### 3"])
    [chain] = load_chains("gsm8k", "test", tmp_path)
    assert chain.steps == (Step("How many now?", "3"),)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("How many? ** 3", "no last line '#### NUMBER'"),
        ("How many? 3\n#### 3", r"the line 'How many\? 3' is not 'sub-question \*\* step'"),
        (" ** 3\n#### 3", "is not 'sub-question"),
        ("How many? ** 3\n#### three", "record 1: "),
        ("How many? ** 3\n#### NaN", "record 1: "),
        ("", "'answer' is empty"),
    ],
)
def test_a_malformed_record_is_named(answer: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, [GOOD, answer])
    with pytest.raises(UserError, match=message) as raised:
        load_chains("gsm8k", "test", tmp_path)
    assert str(raised.value).startswith(f"{path}, record 1")


def test_a_torn_parquet_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, [GOOD] * 20)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"parquet is not a whole parquet file .* fetch it again"):
        load_problems("gsm8k", "test", tmp_path)


def test_a_parquet_file_with_other_columns_is_named(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = write(tmp_path, [GOOD])
    pyarrow.parquet.write_table(pyarrow.table({"question": ["Q?"], "target": ["3"]}), path)
    with pytest.raises(UserError, match=r"record 0 has no column 'answer' \(it has: question, target\)"):
        load_problems("gsm8k", "test", tmp_path)
    pyarrow.parquet.write_table(pyarrow.table({"question": pyarrow.array([], pyarrow.string())}), path)
    with pytest.raises(UserError, match="is empty"):
        load_problems("gsm8k", "test", tmp_path)
