"""The notebooks: committed without outputs, and each runs from its first cell to its last, here at a tiny size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_trainer import save_tiny

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
NAMES = ("1-one-problem-by-hand", "2-teach-and-curate", "3-compare-students")
TINY = {"limit": 1, "epochs": 60, "batch_size": 1, "learning_rate": 0.01, "schedule": "constant", "precision": "fp32"}


def read(name: str) -> dict[str, Any]:
    book: dict[str, Any] = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))
    return book


def run(name: str, **parameters: Any) -> dict[str, Any]:
    """What stands in a notebook's namespace after its last cell; ``parameters`` replace those of its first."""
    space: dict[str, Any] = {}
    for cell in read(name)["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{name}, cell {cell['id']}", "exec"), space)
            if cell["metadata"].get("tags") == ["parameters"]:
                assert parameters.keys() <= space.keys()
                space.update(parameters)
    return space


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("student"), positions=1024)


def test_all_notebooks_are_here() -> None:
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_committed_without_outputs(name: str) -> None:
    book = read(name)
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert book["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in book["cells"]]
    assert len(set(ids)) == len(ids)
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert sum(cell["metadata"].get("tags") == ["parameters"] for cell in code) == 1
    for cell in code:
        assert (cell["outputs"], cell["execution_count"]) == ([], None)


def test_one_problem_by_hand(student: str, tmp_path: Path) -> None:
    found = run(NAMES[0], runs=tmp_path, student=student, split="train", training=TINY)
    gold, trace = found["gold"], found["trace"]
    assert [(step.question, step.answer) for step in gold.steps] == found["steps"]
    assert (trace.stop_reason, trace.answer, found["final"]) == ("finished", gold.answer, gold.answer)
    assert [(step.question, step.answer) for step in trace.steps] == found["steps"]
    tutor = found["tutor"]
    assert [child.asked_by for child in tutor.root.children] == ["student", "person"]
    assert tutor.final_answer
    assert found["event"].trace.answer == gold.answer


def test_teach_and_curate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    found = run(NAMES[1], runs=tmp_path)
    found["server"].shutdown()
    found["server"].server_close()
    assert found["curated"].yields() == {
        "kept": 5,
        "wrong_answer": 1,
        "wrong_mark": 1,
        "repeated_question": 1,
        "unfounded_number": 1,
        "leaking_question": 1,
    }
    assert len(found["chains"]) == 10
    assert found["strictness"] == {"kept": 1000}


def test_compare_students(student: str, tmp_path: Path) -> None:
    training = {**TINY, "limit": 2}
    found = run(NAMES[2], runs=tmp_path, student=student, splits=["train"], limit=2, training=training)
    [comparison] = found["comparisons"].values()
    assert [row.name for row in comparison.rows] == ["cot", "pair"]
    assert [len(row.runs) for row in comparison.rows] == [1, 1]
    assert all(row.metrics["correct"]["low"] < row.metrics["correct"]["high"] for row in comparison.rows)
    [pair] = comparison.pairs
    assert (pair.baseline, comparison.problems) == ("cot", 2)
    assert (pair.only_run, pair.only_baseline) == tuple(len(ids) for ids in found["alone"].values())
    failed, mended = found["blame"]["train"]
    assert failed == 2 - len(found["right"]["train", "pair"])
    assert 0 <= mended <= failed
