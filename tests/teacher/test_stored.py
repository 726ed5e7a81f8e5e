"""Stored teacher output becomes chains of known problems: small files in each published form."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socratic.curate import curate
from socratic.prompts import join_rationale
from socratic.store import read_records, write_jsonl
from socratic.tasks import load_chains, load_problems
from socratic.teacher.replies import BadReplyError, parse_reply
from socratic.teacher.stored import KINDS, detect, import_stored, interleave
from socratic.types import Chain, Problem, Step, UserError

TRAIN, OTHER = load_problems("stories", "train", limit=2)
DEV = load_problems("stories", "dev", limit=1)[0]
TESTS = [load_problems("stories", split, limit=1)[0] for split in ("test", "longer", "unseen")]
ANSWERED = "A1: It is 1+1=<<1+1=2>>2.\n(Note: so far.)\nA2: It is 2+1=3.\n\nFinal answer: 3"


loaded = cache(load_problems)


@pytest.fixture(autouse=True)
def load_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socratic.teacher.stored.load_problems", loaded)


def lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def path_record(question: str, response: Any = "It is 1+1=<<1+1=2>>2.\nThen 3.\n#### 3") -> dict[str, Any]:
    return {"query": question, "response": response}


def sub_record(question: str, *pairs: tuple[Any, Any]) -> dict[str, Any]:
    asked, answered = ([pair[i] for pair in pairs] for i in (0, 1))
    return {"problem": question, "questions": asked, "feedback": [], "answers": answered, "answer": "#### 3"}


def completions(path: Path, *samples: dict[str, Any], **metadata: Any) -> Path:
    data = {str(i): [sample] for i, sample in enumerate(samples)}
    path.write_text(json.dumps({"metadata": metadata, "data": data}, indent=4))
    return path


def completion(question: str, **changed: Any) -> dict[str, Any]:
    said = {
        "sample_index": 17,
        "completion_index": 0,
        "question": question,
        "answer": "3",
        "reasoning_prompt": f"Q: {question}\nA: Let's think step by step.",
        "reasoning_completion": " First it is 2.\nThen it is 3.",
        "reasoning_finish_reason": "stop",
        "completion": " 3.",
        "finish_reason": "stop",
    }
    return {name: value for name, value in {**said, **changed}.items() if value is not ...}


def test_completions_of_fine_tune_cot(tmp_path: Path) -> None:
    file = completions(
        tmp_path / "D_stories.json",
        completion(TRAIN.question),
        completion(TRAIN.question, reasoning_finish_reason="length"),
        completion(OTHER.question, completion=...),  # not asked for yet when the file was saved
        completion(OTHER.question, reasoning_completion=["no", "text"]),
        completion(TRAIN.question, completion=" that there are $4 left.\nQ: And"),
        base_model="text-davinci-002",
        prediction_template="zs_cot",
    )
    done = import_stored(file, "stories")
    assert done.kind == "reasoning-teacher"
    first, second = done.chains
    assert first.steps == (Step("", "First it is 2.\nThen it is 3."),)
    assert (first.final_answer, second.final_answer) == ("3.", "that there are $4 left.")
    assert {chain.source for chain in done.chains} == {"imported:reasoning-teacher:text-davinci-002"}
    assert [chain.sample for chain in done.chains] == [0, 1]
    assert done.dropped == Counter(truncated=1, empty=1, wrong_types=1)


def test_choices_that_stand_behind_a_question_are_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = "At the end, Ann has the"
    problem = Problem("b", "tracking_shuffled_objects", "train", asked, "A", "choice", ("red ball.", "blue ball."))

    def load(name: str, split: str, *args: Any, **how: Any) -> list[Problem]:
        return [problem] if split == "train" else []

    monkeypatch.setattr("socratic.teacher.stored.load_problems", load)
    theirs = f"{asked} \nWhich choice is true? Answer choices: (A) red ball, (B) blue ball."
    file = completions(tmp_path / "D.json", completion(theirs, completion=" (A).", answer="A"))
    [chain] = import_stored(file, "tracking_shuffled_objects").chains
    assert (chain.question, chain.final_answer, chain.metadata["choices"]) == (
        asked,
        "(A).",
        list(problem.choices or ()),
    )


def test_few_shot_completions_hold_rationale_and_answer(tmp_path: Path) -> None:
    said = (" It is 3. The answer is 3.\n\nQ: More?", " It is 3.")
    samples = [{"question": TRAIN.question, "completion": text, "finish_reason": "stop"} for text in said]
    done = import_stored(completions(tmp_path / "f.json", *samples, prediction_template="fs_cot"), "stories")
    assert [(chain.steps, chain.final_answer) for chain in done.chains] == [((Step("", "It is 3."),), "3.")]
    assert done.chains[0].source == "imported:reasoning-teacher"
    assert done.dropped == Counter(no_answer=1)


def test_sub_questions_and_their_answers(tmp_path: Path) -> None:
    asked = "Q1: What is it?\nQ2: And then? "
    pairs = [
        (asked, ANSWERED),
        (asked, None),
        (asked, ANSWERED.replace("Final answer: 3", "")),
        (asked, ANSWERED.replace("A2", "A3")),
        ("What is it?", ANSWERED),
        (
            asked,
            f"Q1: What is it?\nQ2: And then?\n\n{ANSWERED.replace('Final answer: 3', 'Final answer: None at all')}",
        ),
    ]
    done = import_stored(lines(tmp_path / "raw.jsonl", sub_record(TRAIN.question, *pairs)), "stories")
    assert done.kind == "subq"
    steps = (Step("What is it?", "It is 1+1=<<1+1=2>>2. (Note: so far.)"), Step("And then?", "It is 2+1=3."))
    assert [chain.steps for chain in done.chains] == [steps, steps]
    assert [chain.final_answer for chain in done.chains] == ["3", "None at all"]
    assert {chain.source for chain in done.chains} == {"imported:subq"}
    assert done.dropped == Counter(malformed=2, empty=1, no_answer=1)


def test_paths_of_rejection_sampling(tmp_path: Path) -> None:
    said = ["Then 3.\n#### 3", "Then 3.", "", None, 3, "{Then}\n#### 3", "#### 3", "x #### 4\n#### 5"]
    done = import_stored(
        lines(tmp_path / "u13b.jsonl", *(path_record(TRAIN.question, text) for text in said)), "stories"
    )
    assert done.kind == "rejection"
    assert [chain.final_answer for chain in done.chains] == ["3"]
    assert done.dropped == Counter(no_answer=1, empty=2, wrong_types=1, malformed=2, no_steps=1)


def test_our_own_chains_take_the_problem_from_the_data_set(tmp_path: Path) -> None:
    stated = Chain(
        problem_id="stories/test/00000",
        dataset="elsewhere",
        question=f" {TRAIN.question.upper()}\n",
        answer="gold?",
        answer_type="text",
        steps=(Step("How many?", "Some."),),
        source="teacher:t",
        sample=7,
        final_answer="12",
        metadata={"context": "of another", "choices": ["a", "b"], "split": "test", "prompt": "abc"},
    )
    broken = [replace(stated, steps=()), replace(stated, final_answer=None)]
    file = tmp_path / "chains.jsonl"
    write_jsonl(file, (chain.to_json() for chain in (stated, *broken)))
    done = import_stored(file, "stories")
    assert done.kind == "chains"
    (chain,) = done.chains
    assert chain.problem("train") == Problem(TRAIN.id, "stories", "train", TRAIN.question, TRAIN.answer)
    assert (chain.steps, chain.source, chain.sample, chain.final_answer) == (stated.steps, "teacher:t", 0, "12")
    assert chain.metadata == {"split": "train", "prompt": "abc"}
    assert done.dropped == Counter(no_steps=1, no_answer=1)
    write_jsonl(tmp_path / "again.jsonl", [chain.to_json()])
    assert import_stored(tmp_path / "again.jsonl", "stories").chains == [chain]


def test_only_problems_of_the_split_and_never_those_of_a_test(tmp_path: Path) -> None:
    asked = [TRAIN, DEV, *TESTS]
    records = [path_record(problem.question.replace(" ", "\n ").upper()) for problem in asked]
    file = lines(tmp_path / "all.jsonl", *records, path_record("Who?"))
    for split, problem in (("train", TRAIN), ("dev", DEV)):
        done = import_stored(file, "stories", split)
        assert [(chain.problem_id, chain.metadata["split"]) for chain in done.chains] == [(problem.id, split)]
        assert done.counts() == {
            "records": 6,
            "chains": 1,
            "problems": 1,
            "unknown_question": 1,
            "other_split": 1,
            "test_split": 3,
        }
    for split in ("test", "longer", "", "Train"):
        with pytest.raises(UserError, match="imported to train on"):
            import_stored(file, "stories", split)


def test_a_test_question_that_train_has_in_other_letters_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str, split: str, *_: Any, **__: Any) -> list[Problem]:
        text = "how many?" if split == "train" else "How many?"
        return [] if split == "dev" else [Problem(f"{name}/{split}/0", name, split, text, "3")]

    monkeypatch.setattr("socratic.teacher.stored.load_problems", load)
    done = import_stored(lines(tmp_path / "f.jsonl", path_record("how many?")), "gsm8k")
    assert (done.chains, done.dropped) == ([], Counter(test_split=1))


def test_a_longer_file_begins_with_the_same_chains(tmp_path: Path) -> None:
    asked = [TRAIN, OTHER, TRAIN, DEV, TRAIN, OTHER]
    records = [path_record(problem.question, f"Then {i}.\n#### {i}") for i, problem in enumerate(asked)]
    records.insert(2, path_record(TRAIN.question, "no answer"))
    whole = import_stored(lines(tmp_path / "whole.jsonl", *records), "stories").chains
    assert [(chain.problem_id, chain.sample) for chain in whole] == [
        (TRAIN.id, 0),
        (OTHER.id, 0),
        (TRAIN.id, 1),
        (TRAIN.id, 2),
        (OTHER.id, 1),
    ]
    for length in range(len(records)):
        part = import_stored(lines(tmp_path / "part.jsonl", *records[:length], records[-1]), "stories").chains[:-1]
        assert part == whole[: len(part)]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"metadata": {}, "data": {}}', "reasoning-teacher"),
        ('{\n  "data": {},\n  "metadata": {}\n}', "reasoning-teacher"),
        ('\n\n{"problem": "", "questions": [], "answers": [], "answer": ""}\nnot read here', "subq"),
        ('[{"problem": "", "questions": [], "answers": [], "answer": 3.0}]', "subq"),
        ('{"response": "", "query": "", "type": ""}', "rejection"),
        (json.dumps(load_chains("stories", "train", limit=1)[0].to_json()), "chains"),
    ],
)
def test_the_kind_is_told_from_the_file(text: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(text)
    assert detect(tmp_path / "file") == kind


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "is empty"),
        (b"[]", "give --kind as one of reasoning-teacher, subq, rejection, chains"),
        (b"3", "give --kind"),
        (b'{"question": "Who?", "answers": [], "rewards": {}, "true_answer": 3.0}', "give --kind"),  # without answers
        (b'[["prompt", "path"]]\n', "give --kind"),
        (b'{"query": "Who?", "response": "I', "line 1|Unterminated"),
        (b"\xff\xfe\xfd", "UTF-8"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_what_cannot_be_told_is_refused(text: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(text)
    with pytest.raises(UserError, match=sentence):
        import_stored(tmp_path / "file", "stories")


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        ("rejection", '{"query": "Who?", "response": "I"}\n{"query": 3, "response": "I"}', "file:2: 'query' is 3, not"),
        ("rejection", '{"query": "Who?", "response": "I"}\n{"query": "Who?"}', "file:2 has no column 'response'"),
        ("rejection", '{"query": "Who?", "response": "I"}\n\n{"query": "Wh', "file:3: not valid JSON"),
        ("rejection", '{"query": "Who?", "response": "I"}\n[1]', "file:2: .* is not a JSON object"),
        ("rejection", '{"query": "\\ud800", "response": "I"}', "file:1: .* surrogate"),
        ("subq", '{"problem": "Who?", "questions": ["Q1: I?"], "answers": []}', "file:1: .* equal length"),
        ("subq", '{"problem": "Who?", "questions": "Q1: I?", "answers": ["A1: I."]}', "file:1: .* must be lists"),
        ("reasoning-teacher", '{"metadata": [], "data": {}}', "form of Fine-tune-CoT"),
        ("reasoning-teacher", '{"metadata": {}, "data": {"0": 3}}', "form of Fine-tune-CoT"),
        ("reasoning-teacher", '{"metadata": {}, "data": {"0": ["I"]}}', "file, record 0: 'I' is not a JSON object"),
        ("reasoning-teacher", '{"metadata": {"prediction_template": "ft_cot_token"}, "data": {}}', "'ft_cot_token'"),
        ("chains", '{"problem_id": "p", "question": "Who?", "steps": []}', "file:1: field 'dataset'"),
        ("choins", "{}", "did you mean 'chains'"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(kind: str, text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(UserError, match=sentence):
        import_stored(tmp_path / "file", "stories", kind=kind)


def test_the_data_set_must_be_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'gsm8k'"):
        import_stored(tmp_path / "absent", "gsm8")
    with pytest.raises(UserError, match="absent does not exist"):
        import_stored(tmp_path / "absent", "stories")


@given(st.text(alphabet="QA12: \n#{`*finalanswer"), st.text(alphabet="QA12: \n#{`*finalanswer"))
def test_whatever_was_said_is_read_or_named(questions: str, answers: str) -> None:
    fault = None
    try:
        reply = parse_reply(interleave(questions, answers), "socratic")
    except BadReplyError as error:
        fault = str(error.fault)
    else:
        assert reply.steps
        assert reply.answer
    assert fault in (None, "malformed", "no_steps", "no_answer")


@pytest.mark.parametrize("kind", KINDS)
def test_gold_in_each_form_comes_back_as_it_is(kind: str, data_dir: Path, tmp_path: Path) -> None:
    gold = [c for c in load_chains("gsm8k", "train", data_dir, limit=300) if "####" not in c.question]
    tested = load_chains("gsm8k", "test", data_dir, limit=20)
    file = tmp_path / "gold"
    if kind == "chains":
        lines(file, *(chain.to_json() for chain in (*gold, *tested)))
    elif kind == "subq":
        lines(file, *(sub_record(c.question, _numbered(c)) for c in (*gold, *tested)))
    elif kind == "rejection":
        lines(file, *(path_record(c.question, f"{_rationale(c)}\n#### {c.answer}") for c in (*gold, *tested)))
    else:
        said = [
            completion(c.question, reasoning_completion=_rationale(c), completion=c.answer) for c in (*gold, *tested)
        ]
        completions(file, *said, prediction_template="zs_cot", base_model="gold")
    done = import_stored(file, "gsm8k", data_dir=data_dir)
    assert done.kind == kind
    assert done.dropped == Counter(test_split=20)
    for chain, read in zip(gold, done.chains, strict=True):
        assert (read.problem_id, read.answer, read.final_answer) == (chain.problem_id, chain.answer, chain.answer)
        assert _rationale(read) == _rationale(chain)
        if kind in ("chains", "subq"):
            assert [" ".join(s.question.split()) for s in read.steps] == [
                " ".join(s.question.split()) for s in chain.steps
            ]
    write_jsonl(tmp_path / "chains.jsonl", (chain.to_json() for chain in done.chains))
    read_back = list(read_records(tmp_path / "chains.jsonl", Chain))
    assert read_back == done.chains
    kept = [len(curate(chains).kept) for chains in (gold, read_back)]
    assert kept[1] >= kept[0] - 3  # a chain of thought states all its numbers at once


def _rationale(chain: Chain) -> str:
    return "\n".join(" ".join(line.split()) for line in join_rationale([s.answer for s in chain.steps]).split("\n"))


def _numbered(chain: Chain) -> tuple[str, str]:
    asked = "\n".join(f"Q{i}: {step.question}" for i, step in enumerate(chain.steps, 1))
    said = "\n".join(f"A{i}: {step.answer}" for i, step in enumerate(chain.steps, 1))
    return asked, f"{said}\n\nFinal answer: {chain.answer}"
