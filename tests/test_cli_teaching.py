from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_cli import PAIR, Cli, Result, cli, say, sure, write_jsonl
from test_curate import GOOD, with_step

from socratic.lm.scripted import Script
from socratic.tasks import load_chains, load_problems

__all__ = ["cli", "say"]


def test_curated_chains_and_their_yields(cli: Cli, tmp_path: Path) -> None:
    wrong = with_step(1, question="")
    file = write_jsonl(tmp_path / "chains.jsonl", GOOD.to_json(), wrong.to_json(), GOOD.to_json())
    out, rejects = tmp_path / "kept.jsonl", tmp_path / "rejects.jsonl"
    result = cli("curate", file, "--out", out, "--rejects", rejects)
    assert result.code == 0
    assert "3 chains of 1 problems; 1 problems keep one or more" in result.out
    assert cli("curate", out, "--json").json == {"chains": 1, "problems": 1, "problems_kept": 1, "kept": 1}
    yields = cli("curate", rejects, "--json").json
    assert yields == {"chains": 2, "problems": 1, "problems_kept": 1, "kept": 1, "empty_question": 1}
    assert [line.split('"rejected": ')[1].split("}")[0] for line in rejects.read_text().splitlines()] == [
        '"empty_question"',
        '"duplicate"',
    ]


def test_chains_are_curated_by_their_answer_alone(cli: Cli, tmp_path: Path) -> None:
    wrong = with_step(0, answer="Ann has 3*12=<<3*12=35>>35 pens.")
    file = write_jsonl(tmp_path / "chains.jsonl", GOOD.to_json(), wrong.to_json())
    assert cli("curate", file, "--json").json["kept"] == 1
    assert cli("curate", file, "--by", "answer", "--json").json["kept"] == 2
    cli("curate", file, "--rejects", tmp_path / "rejects.jsonl")
    cli("curate", tmp_path / "rejects.jsonl", "--by", "answer", "--out", tmp_path / "kept.jsonl")
    assert "rejected" not in (tmp_path / "kept.jsonl").read_text()  # what was once said of it


def test_gold_can_be_curated(cli: Cli) -> None:
    result = cli("curate", "gold:stories", "--json")
    assert result.json["kept"] == result.json["chains"]
    assert result.json["chains"] == sum(len(load_chains("stories", split)) for split in ("train", "dev"))
    assert cli("curate", "gold:nothing").code == 2
    assert cli("curate", "nowhere.jsonl").code == 2


def test_a_file_without_chains_is_said_to_have_none(cli: Cli, tmp_path: Path) -> None:
    empty = write_jsonl(tmp_path / "empty.jsonl")
    for call in (["curate", empty], ["mix", empty, "--out", tmp_path / "o.jsonl", "--share", "zero-shot-cot=1"]):
        result = cli(*call)
        assert (result.code, "empty.jsonl holds no chains; give a file that does" in result.err) == (2, True)


def test_stored_teacher_output_becomes_chains(cli: Cli, tmp_path: Path) -> None:
    asked = [load_problems("stories", split, limit=1)[0].question for split in ("train", "test", "dev")]
    records = [{"query": question, "response": "Then 3.\n#### 3"} for question in (*asked, asked[0], "Who?")]
    file = write_jsonl(tmp_path / "paths.jsonl", *records, {"query": asked[0], "response": "3"})
    out = tmp_path / "chains.jsonl"
    result = cli("data", "import", file, "--data", "stories", "--out", out)
    assert result.code == 0
    assert "rejection: 2 chains of 1 problems (stories, train)" in result.out
    assert "1 records are about questions of a test split and were refused" in result.out
    counts = {"records": 6, "chains": 2, "problems": 1, "unknown_question": 1, "other_split": 1, "test_split": 1}
    result = cli("data", "import", file, "--data", "stories", "--out", out, "--json")
    assert result.json == {"kind": "rejection", **counts, "no_answer": 1}
    assert cli("curate", out, "--json").json["chains"] == 2


def test_what_cannot_be_imported_is_one_sentence(cli: Cli, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "paths.jsonl", {"query": "Who?", "response": "I"})
    command = ("data", "import", file, "--data", "stories", "--out")
    out = tmp_path / "chains.jsonl"
    for arguments in ((out, "--split", "test"), (out, "--kind", "subq"), (out, "--kind", "other"), (file,)):
        result = cli(*command, *arguments)
        assert (result.code, result.err.count("\n"), result.out) == (2, 1, "")
    assert not out.exists()
    assert cli("data", "import", tmp_path / "absent", "--data", "stories", "--out", out).code == 2


PENS = {"question": "Ann has 3 boxes of 12 pens. How many pens has she?", "answer": "36"}
MODEL = ("--model", "m")


@pytest.fixture
def teach(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run ``teach`` on three problems, with an endpoint where nobody must be asked."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-proj-Kx7Qw2Zr9Tb4Lm6NpVd8")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")

    def send(*args: Any) -> None:
        raise AssertionError("something was sent")

    monkeypatch.setattr("socratic.teacher.client.Endpoint.send", send)
    monkeypatch.chdir(tmp_path)  # a short name, as it stands before the bar
    file = write_jsonl(Path("mine.jsonl"), *({**PENS, "id": f"p{i}"} for i in range(3)))

    def run(*arguments: str | Path, out: Path = tmp_path / "chains.jsonl") -> Result:
        return cli("teach", file, "--out", out, *arguments)

    return run


def is_a_users_error(result: Result, *said: str) -> bool:
    """Exit code 2, nothing printed, and one sentence that says all of ``said``; a bar may stand above it."""
    assert (result.code, result.out) == (2, "")
    *above, sentence = result.err.strip().splitlines()
    assert re.fullmatch(r"socratic: .+", sentence)
    assert [re.search(" 0%", line) is not None for line in above] in ([], [True])
    return all(words in sentence for words in said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), ["--model", "--lm"]),
        ((*MODEL, "--lm", "tiny"), ["--model", "--lm"]),
        (("--lm", "tiny", "--batch"), ["--lm tiny", "--batch"]),
        (("--lm", "tiny", "--base-url", "http://x/v1"), ["--lm tiny", "--base-url"]),
        (("--lm", "tiny", "--set", "base_url=http://x/v1"), ["--lm tiny", "--base-url"]),
        ((*MODEL, "--style", "zero-shot-cot", "--set", "form=json_schema"), ["zero-shot-cot", "form=json_schema"]),
        ((*MODEL, "--max-cost", "5"), ["--max-cost 5", "--price"]),
        ((*MODEL, "--max-cost", "-5", "--price", "1,2"), ["max_cost=-5"]),
        ((*MODEL, "--max-cost", "5", "--price", "0,0"), ["--max-cost 5", "--price"]),
        ((*MODEL, "--price", "cheap"), ["--price 'cheap'", "0.15,0.6"]),
        ((*MODEL, "--price", "1"), ["--price '1'", "0.15,0.6"]),
        ((*MODEL, "--price", "1,2,3"), ["--price '1,2,3'", "0.15,0.6"]),
        ((*MODEL, "--price", "-1,2"), ["prompt_price=-1"]),
        ((*MODEL, "--price", "1,nan"), ["completion_price=nan"]),
        ((*MODEL, "--set", "max_token=5"), ["'max_token'", "'max_tokens'"]),
        ((*MODEL, "--set", "temprature=0"), ["'temprature'", "'temperature'"]),
        ((*MODEL, "--set", "time_out=5"), ["'time_out'", "'timeout'"]),
        ((*MODEL, "--set", "max_tokens=many"), ["max_tokens='many'"]),
        ((*MODEL, "--set", "max_tokens"), ["'max_tokens'", "key=value"]),
        ((*MODEL, "--set", "style=cot"), ["style", "--style"]),
        ((*MODEL, "--price", "1,2", "--set", "prompt_price=3"), ["prompt_price=3", "give --price"]),
        ((*MODEL, "--set", "extra=3"), ["extra=3"]),
        ((*MODEL, "--temperature", "-1"), ["temperature=-1"]),
        ((*MODEL, "--concurrency", "0"), ["concurrency=0"]),
        ((*MODEL, "--samples", "0"), ["--samples"]),
        ((*MODEL, "--samples", "2", "--temperature", "0"), ["2 samples at --temperature 0 are all alike"]),
        ((*MODEL, "--style", "free"), ["--style", "free"]),
        ((*MODEL, "--limit", "0"), ["--limit 0"]),
        ((*MODEL, "--limit", "-1", "--only-failed-by", "run"), ["--limit -1"]),
        ((*MODEL, "--prompt", "nowhere"), ["nowhere/socratic.txt", "does not exist"]),
        ((*MODEL, "--only-failed-by", "nowhere"), ["nowhere"]),
        ((*MODEL, "--base-url", "localhost:8000/v1"), ["localhost:8000/v1", "--base-url"]),
        (("--lm", "nowhere/at/all"), ["nowhere/at/all"]),
    ],
)
def test_what_the_user_has_to_mend_is_one_sentence(
    teach: Callable[..., Result], tmp_path: Path, arguments: tuple[str, ...], said: list[str]
) -> None:
    assert is_a_users_error(teach(*arguments), *said)
    assert not (tmp_path / "chains.jsonl").exists()


def test_a_folder_is_no_file_of_chains(teach: Callable[..., Result], tmp_path: Path) -> None:
    assert is_a_users_error(teach(*MODEL, out=tmp_path), f"{tmp_path} is no ordinary file")


def test_nothing_that_is_read_is_written_over(cli: Cli, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "chains.jsonl", GOOD.to_json())
    other, before = tmp_path / "other.jsonl", file.read_text()
    for arguments in (("--out", file), ("--rejects", file), ("--out", other, "--rejects", other), ("--out", tmp_path)):
        result = cli("curate", file, *arguments)
        assert (result.code, result.err.count("\n")) == (2, 1)
    result = cli("teach", file, "--out", file, *MODEL)
    assert (result.code, result.err) == (2, f"socratic: {file} is the file to be read; choose another to write\n")
    assert file.read_text() == before
    assert not other.exists()


def test_a_prompt_without_its_file_or_placeholder(teach: Callable[..., Result], tmp_path: Path) -> None:
    folder = tmp_path / "prompt"
    folder.mkdir()
    assert is_a_users_error(teach(*MODEL, "--prompt", folder), "socratic.txt does not exist", "{format}")
    (folder / "socratic.txt").write_text("Split it.")
    assert is_a_users_error(teach(*MODEL, "--prompt", folder), "socratic.txt lacks the placeholder {format}")


def test_a_folder_that_is_no_run(teach: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert is_a_users_error(teach(*MODEL, "--only-failed-by", tmp_path / "empty"), str(tmp_path / "empty"))


def test_a_run_that_got_all_right_leaves_nothing(
    teach: Callable[..., Result], cli: Cli, say: Callable[[Script], None], tmp_path: Path
) -> None:
    say(lambda transcript, kind: "" if kind == "question" and "Q:" in transcript.removesuffix("Q:") else "What? 36")
    cli("evaluate", tmp_path / "mine.jsonl", "--split", "train", *PAIR, "--out", tmp_path / "run")
    result = teach(*MODEL, "--only-failed-by", tmp_path / "run")
    assert is_a_users_error(result, "no problem of", "mine.jsonl", "is left to ask for")


def test_only_what_a_run_got_wrong_is_asked_for(
    teach: Callable[..., Result], cli: Cli, say: Callable[[Script], None], tmp_path: Path
) -> None:
    say(sure)
    cli("evaluate", tmp_path / "mine.jsonl", "--split", "train", "--limit", "2", *PAIR, "--out", tmp_path / "run")
    assert teach(*MODEL, "--only-failed-by", tmp_path / "run", "--dry-run", "--json").json["jobs"] == 2
    one = teach(*MODEL, "--only-failed-by", tmp_path / "run", "--limit", "1", "--dry-run", "--json")
    assert one.json["jobs"] == 1


def test_problems_without_given_steps_have_nothing_to_answer(teach: Callable[..., Result]) -> None:
    assert is_a_users_error(teach(*MODEL, "--style", "answers"), "mine.jsonl")
    assert is_a_users_error(teach(*MODEL, "--style", "zero-shot-cot", "--prompt", "own"), "shows no prompt")


def test_a_missing_key(teach: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert is_a_users_error(teach(*MODEL), "set OPENAI_API_KEY")


@pytest.mark.parametrize("style", ["socratic", "cot", "zero-shot-cot"])
def test_an_estimate_asks_nobody_and_needs_no_key(
    teach: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    asked = (*MODEL, "--dry-run", "--style", style, "--samples", "2", "--price", "1000000,2000000")
    told = teach(*asked, "--json").json
    assert told["jobs"] == 6
    assert told["prompt_tokens"] > told["completion_tokens"] // 10 > 0
    assert told["cost"] == told["prompt_tokens"] + 2 * told["completion_tokens"]
    table = teach(*asked)
    assert (table.code, table.err) == (0, "")
    words = (
        f"6 requests, about {told['prompt_tokens']:,} tokens of prompts and {told['completion_tokens']:,} of replies"
    )
    assert table.out.splitlines() == [words, f"about {told['cost']:,.2f} dollars"]
    assert [path.name for path in tmp_path.iterdir()] == ["mine.jsonl"]


def test_an_estimate_without_a_price_states_no_cost(teach: Callable[..., Result]) -> None:
    assert teach(*MODEL, "--dry-run", "--json").json["cost"] == 0
    assert "dollars" not in teach(*MODEL, "--dry-run").out


def test_chains_are_augmented(cli: Cli, tmp_path: Path) -> None:
    given = write_jsonl(tmp_path / "given.jsonl", *(c.to_json() for c in load_chains("stories", "train", limit=20)))
    out = tmp_path / "more.jsonl"
    result = cli("augment", given, "--kind", "vary", "--kind", "prefix", "--out", out, "--json")
    assert result.code == 0
    found = result.json
    assert found["given"] == 20
    assert found["prefix"]["made"] > 10
    assert found["chains"] == 20 + found["prefix"]["made"] + found["vary"].get("made", 0)
    assert len(out.read_text().splitlines()) == found["chains"]
    own = write_jsonl(
        tmp_path / "own.jsonl",
        *(
            dict(zip(("question", "answer", "steps"), (c["question"], c["answer"], c["steps"]), strict=True))
            for c in map(json.loads, given.read_text().splitlines())
        ),
    )
    assert cli("augment", own, "--kind", "prefix", "--out", tmp_path / "p.jsonl", "--json").json["given"] == 20
    shown = cli("augment", out, "--kind", "bare", "--out", tmp_path / "b.jsonl")
    assert f"{found['chains']} chains given, {found['chains']} in" in shown.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("gold:stories", "--kind", "longer", "--out", "x.jsonl"),
        ("gold:nothing", "--kind", "bare", "--out", "x.jsonl"),
        ("gold:stories", "--kind", "bare", "--out", "."),
        ("gold:stories", "--kind", "bare", "--against", "nothing", "--out", "x.jsonl"),
        ("gold:stories", "--out", "x.jsonl"),
    ],
)
def test_mistakes_in_augment(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("augment", *arguments).code == 2
    assert not (tmp_path / "x.jsonl").exists()


def test_problems_with_steps_are_chains_too(cli: Cli, tmp_path: Path) -> None:
    steps = [{"question": "How many are 2 and 3?", "answer": "2+3 = 5"}]
    rows = [{"question": f"Ann has {n} pens and buys 1. How many?", "answer": 5, "steps": steps} for n in range(20)]
    path = write_jsonl(tmp_path / "own.jsonl", *rows)
    assert cli("curate", path, "--json").json["chains"] == 20
    unsolved = write_jsonl(tmp_path / "bare.jsonl", {"question": "How many?", "answer": 5})
    result = cli("curate", unsolved)
    assert (result.code, "bare.jsonl has no gold chains in 'train'" in result.err) == (2, True)


def test_a_full_disk_is_said_in_one_sentence(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("socratic.store.os.fsync", full)
    result = cli("augment", "gold:stories", "--kind", "bare", "--out", tmp_path / "more.jsonl")
    assert (result.code, result.err.splitlines()[-1:]) == (
        2,
        ["socratic: the disk has no room for what is written; free some and run that again"],
    )


def test_an_endpoint_cannot_soften(cli: Cli, tmp_path: Path) -> None:
    result = cli("soften", "gold:stories", "--lm", "openai:x", "--limit", "1", "--out", tmp_path / "soft.jsonl")
    assert (result.code, "openai:x is an endpoint, which does not say how likely" in result.err) == (2, True)
