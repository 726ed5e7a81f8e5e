"""The Hub as a source, with `datasets` replaced: nothing here reaches the network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from socratic.tasks import load_chains, load_problems
from socratic.types import Step, UserError


class DatasetsError(Exception):
    pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[Any, ...], Any]:
    """What `datasets.load_dataset` answers, by repository, configuration and split: rows, or an exception."""
    answers: dict[tuple[Any, ...], Any] = {}

    def load_dataset(repository: str, config: str | None, *, split: str) -> Any:
        answer = answers[repository, config, split]
        if isinstance(answer, Exception):
            raise answer
        return answer

    module: Any = ModuleType("datasets")
    module.load_dataset = load_dataset
    module.exceptions = SimpleNamespace(DatasetsError=DatasetsError)
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.delenv("SOCRATIC_DATA", raising=False)
    return answers


def test_gsm8k_has_the_ids_of_the_files(hub: dict[tuple[Any, ...], Any]) -> None:
    hub["openai/gsm8k", "socratic", "test"] = [{"question": "Q?", "answer": "S? ** 1+1 = <<1+1=2>>2\n#### 2"}]
    [chain] = load_chains("gsm8k", "test")
    assert (chain.problem_id, chain.steps) == ("gsm8k/test/00000", (Step("S?", "1+1 = <<1+1=2>>2"),))


def test_a_copy_with_a_split_of_its_own_has_ids_of_its_own(hub: dict[tuple[Any, ...], Any]) -> None:
    hub["ChilleD/MultiArith", None, "test"] = [{"question": " How many? ", "final_ans": "145.0"}]
    [problem] = load_problems("multiarith", "test")
    assert (problem.id, problem.question, problem.answer) == ("multiarith-hub/test/00000", "How many?", "145")
    with pytest.raises(UserError, match="no gold chains"):
        load_chains("multiarith", "test")
    hub["ChilleD/StrategyQA", None, "test"] = [{"question": "Is it?", "answer": True, "facts": "One. Two."}]
    assert load_problems("strategyqa", "test")[0].id == "strategyqa-hub/test/00000"


def test_aqua_has_the_ids_of_the_files_and_no_test_question_in_train(hub: dict[tuple[Any, ...], Any]) -> None:
    def record(question: str) -> dict[str, Any]:
        options = ["A)1", "B)2", "C)3", "D)4", "E)5"]
        return {"question": question, "options": options, "rationale": "1+1=2\n\nAnswer: B ", "correct": "B"}

    hub["deepmind/aqua_rat", "raw", "train"] = [record("What is 1 +  1?"), record("And 2 + 1?")]
    hub["deepmind/aqua_rat", "raw", "test"] = [record("What is 1 + 1?")]
    [chain] = load_chains("aqua", "train")
    assert (chain.problem_id, chain.question, chain.metadata["choices"][1]) == ("aqua/train/00001", "And 2 + 1?", "2")
    assert chain.steps == (Step("", "1+1=2"), Step("", "Answer: B"))
    with pytest.raises(UserError, match=r"stands in splits/aqua__default\.json; pass --data-dir"):
        load_problems("aqua", "train", split_scheme="fine-tune-cot")


def test_aquas_train_is_the_hubs_where_a_folder_has_test_alone(hub: dict[tuple[Any, ...], Any], tmp_path: Path) -> None:
    def record(question: str) -> dict[str, Any]:
        options = ["A)1", "B)2", "C)3", "D)4", "E)5"]
        return {"question": question, "options": options, "rationale": "", "correct": "B"}

    for folder in ("aqua", "splits"):
        (tmp_path / folder).mkdir()
    (tmp_path / "aqua" / "test.json").write_text(json.dumps(record("What is 1 + 1?")))
    (tmp_path / "splits" / "aqua__default.json").write_text(json.dumps({"train": [1, 2], "test": [4]}))
    hub["deepmind/aqua_rat", "raw", "train"] = [record(f"And {n} + 1?") for n in range(4)]
    found = [p.id for s in ("train", "dev") for p in load_problems("aqua", s, tmp_path, split_scheme="fine-tune-cot")]
    assert sorted(found) == ["aqua/train/00001", "aqua/train/00002"]

    hub["deepmind/aqua_rat", "raw", "train"] = ConnectionError("no route")
    with pytest.raises(UserError, match=r"train\.json does not exist, and deepmind/aqua_rat could not be loaded"):
        load_problems("aqua", "train", tmp_path)


def test_commonsenseqa_has_the_ids_of_the_files(hub: dict[tuple[Any, ...], Any]) -> None:
    choices = {"label": list("ABCDE"), "text": ["bank", "library", "store", "mall", "new york"]}
    record = {"id": "x", "question": "Where?", "question_concept": "door", "choices": choices, "answerKey": "D"}
    hub["tau/commonsense_qa", None, "validation"] = [record]
    [problem] = load_problems("commonsenseqa", "test")
    assert (problem.id, problem.question, problem.answer) == ("commonsenseqa/dev/00000", "Where?", "D")
    assert problem.choices == ("bank", "library", "store", "mall", "new york")


@pytest.mark.parametrize("error", [ConnectionError("no\nroute"), ValueError("no split"), DatasetsError("broken")])
def test_a_failure_says_what_to_do(error: Exception, hub: dict[tuple[Any, ...], Any]) -> None:
    hub["openai/gsm8k", "main", "test"] = error
    with pytest.raises(UserError, match=r"openai/gsm8k could not be loaded .*pass --data-dir or set SOCRATIC_DATA"):
        load_problems("gsm8k-main", "test")


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("addsub", "authors"), ("singleeq", "authors"), ("coin_flip", "authors"), ("strategyqa", "fine-tune-cot")],
)
def test_what_the_hub_does_not_have_needs_files(name: str, scheme: str, hub: dict[tuple[Any, ...], Any]) -> None:
    with pytest.raises(UserError, match="pass --data-dir"):
        load_problems(name, "test", split_scheme=scheme)
