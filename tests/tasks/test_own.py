from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from socratic import store
from socratic.tasks import in_dev, load_chains, load_problems, read_lines, read_questions
from socratic.types import Chain, Problem, Step, UserError

ROW: dict[str, Any] = {"question": "What is 2+3?", "answer": "5"}
PROBLEM = Problem("p/test/00000", "p", "test", "What is 2+3?", "5", metadata={"note": "kept"})
CHAIN = Chain("p/train/00000", "p", "What is 2+3?", "5", "number", (Step("Sum?", "5"),), "teacher:T", 3, "5")


def write(folder: Path, text: str, name: str = "mine.jsonl") -> str:
    path = folder / name
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return str(path)


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mine.jsonl", '{"question": " What is 2+3?", "answer": 5}\n\n{"question": "Why?", "answer": "0.5"}\n'),
        ("mine.json", '[{"question": "What is 2+3?", "answer": 5.0}, {"question": "Why?", "answer": 0.5}]'),
        ("mine.csv", '\ufeffquestion,answer\r\n"What is 2+3?",5\r\nWhy?,0.5\r\n'),
    ],
)
def test_each_format_gives_the_same_problems(name: str, text: str, tmp_path: Path) -> None:
    first, second = load_problems(write(tmp_path, text, name), "test")
    assert first == Problem("mine/all/00000", "mine", "test", "What is 2+3?", "5")
    assert (second.id, second.answer) == ("mine/all/00001", "0.5")


def test_every_field_is_read(tmp_path: Path) -> None:
    row = {
        "id": 7,
        "question": "Which?",
        "answer": "B",
        "choices": ["red", "blue"],
        "context": "The sky.",
        "steps": [{"question": "", "answer": "It is blue."}],
    }
    path = write(tmp_path, lines(row))
    [problem] = load_problems(path, "test")
    assert problem == Problem("7", "mine", "test", "Which?", "B", "choice", ("red", "blue"), "The sky.")
    [chain] = load_chains(path, "test")
    assert chain.steps == (Step("", "It is blue."),)
    assert chain.metadata == {"context": "The sky.", "choices": ["red", "blue"]}


def test_columns_rename_and_csv_cells_hold_json(tmp_path: Path) -> None:
    text = 'q,a,why,choices\nIs it?,yes,"[{""question"": ""S?"", ""answer"": ""s""}]",\n'
    path = write(tmp_path, text.replace("choices", "answer_type").replace('",\n', '",yesno\n'), "mine.csv")
    columns = {"question": "q", "answer": "a", "steps": "why"}
    [chain] = load_chains(path, "test", columns=columns)
    assert (chain.question, chain.answer, chain.answer_type, chain.steps) == (
        "Is it?",
        "yes",
        "yesno",
        (Step("S?", "s"),),
    )


def test_json_booleans_are_yes_and_no(tmp_path: Path) -> None:
    [problem] = load_problems(write(tmp_path, lines({"question": "Is it?", "answer": True})), "test")
    assert (problem.answer, problem.answer_type) == ("yes", "yesno")


def test_train_and_dev_are_the_file_in_two_and_test_is_all_of_it(tmp_path: Path) -> None:
    path = write(tmp_path, lines(*({"question": f"Question {i}?", "answer": i} for i in range(200))))
    train, dev, everything = (load_problems(path, split) for split in ("train", "dev", "test"))
    assert all(in_dev(problem.question) for problem in dev)
    assert sorted(p.id for p in train + dev) == [p.id for p in everything]
    assert 0 < len(dev) < 40
    assert len(load_problems(path, "test", limit=3)) == 3


def test_own_problems_load_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    choice = replace(PROBLEM, id="c", answer="B", answer_type="choice", choices=("red", "blue"), split="dev")
    store.write_jsonl(path, [PROBLEM.to_json(), choice.to_json()])
    assert load_problems(str(path), "test") == [PROBLEM]
    assert load_problems(str(path), "dev") == [choice]
    with pytest.raises(UserError, match="holds no problems of the split 'train'"):
        load_problems(str(path), "train")
    with pytest.raises(UserError, match="no gold chains"):
        load_chains(str(path), "test")


def test_own_chains_load_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "chains.jsonl"
    chains = [CHAIN, replace(CHAIN, sample=4, steps=())]
    store.write_jsonl(path, [chain.to_json() for chain in chains])
    assert load_chains(str(path), "test") == chains
    assert [problem.id for problem in load_problems(str(path), "test")] == [CHAIN.problem_id]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.jsonl is empty"),
        (" \n\n", "mine.jsonl is empty"),
        (lines(ROW) + '{"question": ', "mine.jsonl:2: not valid JSON"),
        (
            lines(ROW) + '{"question": "Q?", "answer": 1, "answer": 2}',
            "2: .*the key 'answer' stands in it more than once",
        ),
        (lines(ROW) + "[1]\n", r"mine.jsonl:2: '\[1\]' is not a JSON object"),
        (lines(ROW, {"question": "Q?"}), r"mine.jsonl:2 has no column 'answer' \(it has: question\)"),
        (lines(ROW, {"question": " ", "answer": "5"}), "mine.jsonl:2: 'question' is empty"),
        (lines(ROW, {"question": "Q?", "answer": ""}), "mine.jsonl:2: 'answer' is empty"),
        (lines(ROW, {"question": "Q?", "answer": None}), "mine.jsonl:2: 'answer' is empty"),
        (lines(ROW, {"question": ["Q?"], "answer": "5"}), r"mine.jsonl:2: 'question' is \['Q\?'\], not text"),
        (lines(ROW, {"question": "Q?", "answer": float("nan")}), "mine.jsonl:2: 'answer' is nan, not a finite number"),
        (lines(ROW, {"question": "Q?", "answer": "NaN"}), "mine.jsonl:2: "),
        (lines(ROW, {"question": "Q?", "answer": "many"}), "mine.jsonl:2: "),
        (lines(ROW, {**ROW, "answer_type": "numbers"}), "the answer_type 'numbers' is unknown"),
        (lines(ROW, {**ROW, "choices": ["one"]}), "the choices must be a list of two to 26 texts"),
        (lines({**ROW, "choices": ["x"] * 27}), "mine.jsonl:1: the choices must be a list of two to 26 texts"),
        (lines({**CHAIN.to_json(), "metadata": None}), "mine.jsonl:1: field 'metadata' of this chain is not usable"),
        (lines({**CHAIN.to_json(), "metadata": {"weight": float("nan")}}), "mine.jsonl:1 holds NaN or an infinity"),
        (lines({**ROW, "answer": 12345678901234567.5}), "too large to be exact in JSON with its decimals"),
        (lines({**ROW, "answer": 1e100}), "not a finite number of at most 30 digits"),
        (lines({**ROW, "answer": "x", "choices": ["x", "y"]}), "not a choice answer; write its letter, A to B"),
        (lines(ROW, {**ROW, "choices": ["one", "two"], "answer": "F"}), "mine.jsonl:2: "),
        (lines(ROW, {**ROW, "steps": ["5"]}), "mine.jsonl:2: the steps must be a list of"),
        (lines(ROW, {**ROW, "steps": [{"question": "Q", "answer": ""}]}), "the answer of step 0 is empty"),
        (lines(ROW, {**ROW, "steps": [{"question": 1, "answer": "a"}]}), "the question of step 0 is 1, not text"),
        (lines(ROW, {**ROW, "context": 5}), "mine.jsonl:2: the context is 5, not text"),
        (lines(ROW, {**ROW, "id": [1]}), r"mine.jsonl:2: the id is \[1\], not text"),
        (lines(ROW, {"question": "Q\ud800", "answer": "5"}), "mine.jsonl:2: 'question' holds half a surrogate pair"),
        (
            lines({**ROW, "id": "a"}, ROW, {"id": "a", "question": "Q?", "answer": "6"}),
            "mine.jsonl:3: the id 'a' stands",
        ),
        (lines({**ROW, "id": "a"}, {**ROW, "id": "a"}), "the id 'a' stands at .*mine.jsonl:1 already"),
        (lines(PROBLEM.to_json(), {**PROBLEM.to_json(), "id": "b", "split": "all"}), "2: the split 'all' is unknown"),
        (lines(PROBLEM.to_json(), {**PROBLEM.to_json(), "choices": "AB"}), "mine.jsonl:2: field 'choices'"),
        (lines({**PROBLEM.to_json(), "choices": ["red", " "]}), "mine.jsonl:1: a choice or the context is empty"),
        (lines(PROBLEM.to_json(), {**PROBLEM.to_json(), "id": "b", "question": ""}), "2: the question is empty"),
        (lines(CHAIN.to_json(), {**CHAIN.to_json(), "answer": "6"}), "reads otherwise at .*mine.jsonl:1"),
        (lines(CHAIN.to_json(), {**CHAIN.to_json(), "sample": "0"}), "mine.jsonl:2: field 'sample'"),
        (lines(CHAIN.to_json(), {**CHAIN.to_json(), "metadata": {"choices": 3}}), "mine.jsonl:2: the choices must be"),
    ],
)
def test_a_fault_is_named_with_file_and_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as raised:
        load_problems(write(tmp_path, text), "test")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question,answer\nQ?,5,6\n", "mine.csv:2: 3 cells under a header of 2"),
        ("question,question\nQ?,5\n", "mine.csv:1: two columns are called 'question'"),
        ('question,answer\n"Q\nand?",5\n"Q"x,5\n', "mine.csv:4: not valid CSV"),
        ("question,answer\n\n", "mine.csv is empty"),
        ("question;answer\nMia, who is 2, grows?;5\n", "mine.csv:1: ';' separates the columns"),
        ("question\nQ?\n", r"mine.csv:2 has no column 'answer' \(it has: question\)"),
    ],
)
def test_a_fault_in_csv_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_problems(write(tmp_path, text, "mine.csv"), "test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"question": "Q?",\n "answer" 5}]', "mine.json, line 2: not valid JSON"),
        ("[1]", "mine.json, record 0: 1 is not a JSON object"),
        ('{\n  "question": "Q?",\n  "answer": "5"\n}\n', "mine.json:1: a record goes over several lines"),
        ("[]", "mine.json is empty"),
        ("[" * 100_000, "mine.json: not valid JSON"),
        ('[{"question": "Q?", "answer": ' + "9" * 5000 + "}]", "mine.json: not valid JSON"),
        ('[{"question": "Q?", "answer": Infinity}]', "mine.json, record 0: 'answer' is inf"),
    ],
)
def test_a_fault_in_json_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_problems(write(tmp_path, text, "mine.json"), "test")


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.csv", "mine.json"])
def test_bad_utf8_is_named_with_its_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"question,answer\nCaf\xe9?,5\n")
    with pytest.raises(UserError, match=rf"{name}:2: not valid UTF-8 \(byte 0xe9\); save the file as UTF-8"):
        load_problems(str(tmp_path / name), "test")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"questoin": "q"}, "unknown field 'questoin'; did you mean 'question'"),
        ({"question": "q"}, r"mine.jsonl:1 has no column 'q' \(it has: answer, question\)"),
        ({"context": "story"}, r"mine.jsonl:1 has no column 'story'"),
    ],
)
def test_a_wrong_column_is_named(columns: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load_problems(write(tmp_path, lines(ROW)), "test", columns=columns)


def test_a_missing_file_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.csv does not exist"):
        load_problems(str(tmp_path / "none.csv"), "test")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UserError, match=r"folder.json cannot be read \(Is a directory\)"):
        load_problems(str(tmp_path / "folder.json"), "test")


def test_chains_are_solved_as_the_problems_that_they_are_of(tmp_path: Path) -> None:
    told = {"choices": ["2 pens", "3 pens"], "context": "Ann counts."}
    chain = replace(CHAIN, answer="B", answer_type="choice", final_answer="B", metadata=told)
    both = [chain.to_json(), replace(chain, sample=4).to_json()]
    array = write(tmp_path, json.dumps(both), "mine.json")
    files = [read_questions(write(tmp_path, lines(*both))), read_questions(array)]
    piped = [read_lines(lines(*both), "number"), read_lines(json.dumps(both), "number")]
    for [problem] in files + piped:
        assert (problem.id, problem.answer_type) == (CHAIN.problem_id, "choice")
        assert (problem.context, problem.choices) == ("Ann counts.", ("2 pens", "3 pens"))
    assert load_chains(array, "test") == [chain, replace(chain, sample=4)]


def test_a_record_of_ours_with_one_field_more_is_refused_by_name(tmp_path: Path) -> None:
    chain = load_chains("stories", "train", limit=1)[0]
    file = tmp_path / "chains.jsonl"
    file.write_text(json.dumps({**chain.to_json(), "note": "hi"}) + "\n")
    with pytest.raises(UserError, match="note"):
        load_chains(str(file), "train")


def test_blanks_around_the_names_of_columns_do_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("question, answer, context\nHow many?,5,There are 5 cats.\n")
    [problem] = load_problems(file, "test")
    assert (problem.answer, problem.context) == ("5", "There are 5 cats.")


def test_an_optional_column_may_be_missing_in_some_records(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    step = {"question": "How many?", "answer": "1+1=<<1+1=2>>2"}
    rows = [{"question": "How many are two?", "answer": 2, "sol": [step]}, {"question": "How many?", "answer": 3}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(load_problems(file, "test", columns={"steps": "sol"})) == 2
    assert len(load_chains(file, "test", columns={"steps": "sol"})) == 1
    with pytest.raises(UserError, match="'soul'"):
        load_problems(file, "test", columns={"steps": "soul"})
