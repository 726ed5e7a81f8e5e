from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from test_trainer import CHAINS, save_tiny, tiny_tokenizer

from socratic import cli as command_line
from socratic.lm.scripted import Script, ScriptedLM
from socratic.tokens import Codec
from socratic.types import Chain, Problem, Step

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
SETTINGS = ("max_steps=110", "learning_rate=0.01", "schedule=constant", "batch_size=4", "precision=fp32")
OVERFIT = [word for pair in (*SETTINGS, "trainer={save_steps: 1000, logging_steps: 50}") for word in ("--set", pair)]


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value printed."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The JSON values printed, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., Result]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run the command line as the shell would, in this process."""

    def run(*arguments: str | Path, stdin: str = "") -> Result:
        monkeypatch.setattr(sys, "argv", ["socratic", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            command_line.main()
        printed = capsys.readouterr()
        return Result(int(left.value.code or 0), printed.out, printed.err)

    return run


def write_jsonl(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def chains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's own file: three chains."""
    return write_jsonl(tmp_path_factory.mktemp("own") / "mine.jsonl", *(c.to_json() for c in CHAINS))


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], None]:
    """Let every MODEL be one that follows a script."""

    def plant(script: Script) -> None:
        codec = Codec(tiny_tokenizer())
        monkeypatch.setattr("socratic.lm.load.load_lm", lambda model, **how: ScriptedLM(codec, script, name=model))

    return plant


def sure(transcript: str, kind: str) -> str:
    """A model that asks one question and answers 24 to everything."""
    return "" if kind == "question" and "Q:" in transcript.removesuffix("Q:") else "What? 24"


PAIR = ("--qg", "asker", "--qa", "answerer")
TWO = ("--samples", "2", "--temperature", "1")


def test_a_path_that_cannot_be_used_is_one_sentence(cli: Cli) -> None:
    for asked in (("show", "x" * 300, "one"), ("solve", "Ann has 3 pens.", "--qg", "x" * 300, "--qa", "y")):
        refused = cli(*asked)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert "cannot be used (File name too long); give another" in refused.err


def test_help_lists_the_commands(cli: Cli) -> None:
    result = cli("--help")
    assert (result.code, result.err) == (0, "")
    data = "data teach curate harvest corrupt"
    commands = f"{data} train merge average export solve serve tutor evaluate score compare show rate run demo doctor"
    for name in commands.split():
        assert re.search(rf"^ +{name} ", result.out, re.MULTILINE)
    assert cli("train", "--help").out.count("--") > 8


def test_the_whole_way_from_chains_to_a_comparison(cli: Cli, chains: Path, tmp_path: Path) -> None:
    student = save_tiny(tmp_path / "student")
    for role in ("qg", "qa"):
        result = cli(
            "train", role, "--chains", chains, "--student", student, "--out", tmp_path / role, *OVERFIT, "--json"
        )
        assert result.code == 0
        assert (result.json["out"], result.json["updates"]) == (str(tmp_path / role), 110)
        assert "update 50 of 110, " in result.err
        assert " left: loss " in result.err
        assert "\r" not in result.err
    again = cli("train", "qg", "--chains", chains, "--student", student, "--out", tmp_path / "qg", *OVERFIT)
    assert again.code == 0
    assert "already trained" in again.err
    assert "train_loss" in again.out

    pair = ("--qg", tmp_path / "qg", "--qa", tmp_path / "qa", "--dtype", "fp32")
    solved = cli("solve", CHAINS[0].question, *pair)
    assert solved.code == 0
    assert solved.out.splitlines()[:-1] == [
        f"Problem: {CHAINS[0].question}",
        "",
        "1. Q: How many does she sell?",
        "   A: 48/2 = <<48/2=24>>24 clips. ✓",
        "2. Q: How many are left?",
        "   A: 48-24 = <<48-24=24>>24 clips. ✓",
        "#### 24",
        "",
    ]
    assert re.fullmatch(r"\(finished; [1-9]\d* tokens, \d+\.\d s\)", solved.out.splitlines()[-1])

    right, short = tmp_path / "right", tmp_path / "short"
    metrics = cli("evaluate", chains, *pair, "--out", right, "--json")
    assert metrics.code == 0
    assert metrics.json["strict"]["rate"] == 1.0
    table = cli("evaluate", chains, *pair, "--out", short, "--set", "max_steps=1")
    assert table.code == 0
    assert "Accuracy in %" in table.out
    assert cli("score", right, "--json").json == metrics.json
    assert "Accuracy in %" in cli("score", right).out

    shown = cli("show", right, "tiny/clips")
    assert "How many does she sell?" in shown.out
    [line] = cli("show", right, "tiny/clips", "--json").lines
    assert (line["problem_id"], line["score"]["reason"]) == ("tiny/clips", "right")
    compared = cli("compare", right, short, "--json").json
    assert [row["name"] for row in compared["rows"]] == ["right", "short"]
    assert compared["problems"] == 3
    assert "Against " in cli("compare", right, short).out


def test_data_is_listed_and_shown(cli: Cli, chains: Path, tmp_path: Path) -> None:
    assert "gsm8k" in cli("data", "list").out
    listed = cli("data", "list", "--json").json
    assert {"name", "splits", "answer_type"} <= set(listed[0])

    problems = [Problem(**line) for line in cli("data", "show", chains, "--split", "test", "--json").lines]
    assert [p.id for p in problems] == [c.problem_id for c in CHAINS]
    assert [Chain(**x) for x in cli("data", "show", chains, "--split", "test", "--chains", "--json").lines] == CHAINS
    shown = cli("data", "show", chains, "--split", "test", "--chains", "--limit", "1").out
    assert "Q: How many does she sell?" in shown
    assert "books" not in shown

    path = tmp_path / "sums.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("1e3", "yes"), *((f"What is {i}+1?", i + 1) for i in range(9))])
    names = ("--column", "question=1e3", "--column", "answer=yes")
    rows = cli("data", "show", path, "--split", "test", *names, "--json").lines
    assert [row["answer"] for row in rows] == [str(i + 1) for i in range(9)]
    assert cli("data", "show", path, "--split", "test", *names).out.count("= ") == 5


def test_data_of_the_authors_is_shown(cli: Cli, data_dir: Path) -> None:
    result = cli("data", "show", "gsm8k", "--split", "test", "--limit", "2", "--json", "--data-dir", data_dir)
    assert [line["id"] for line in result.lines] == ["gsm8k/test/00000", "gsm8k/test/00001"]


def test_a_problem_is_read_from_standard_input(cli: Cli, say: Callable[[Script], None]) -> None:
    say(sure)
    result = cli("solve", "-", *PAIR, "--json", stdin="Ann has 24 clips.\nHow many?\n")
    assert result.code == 0
    [trace] = result.lines
    assert (trace["stop_reason"], trace["answer"], len(trace["steps"])) == ("finished", "What? 24", 1)
    piped = cli("solve", *PAIR, stdin="Ann has 24 clips.\nHow many?\n")
    assert piped.out.startswith(
        "Problem: Ann has 24 clips.\n         How many?\n\n1. Q: What? 24\n   A: What? 24\n####"
    )


@pytest.mark.parametrize(
    ("lines", "ids"),
    [
        ("One?\n\n Two?\n", ["stdin/all/00000", "stdin/all/00001"]),
        ('\n{"no": "One?", "id": "a"}\n{"no": "Two?"}', ["a", "stdin/all/00001"]),
        (' [ {"no": "One?"},\n{"no": "Two?"}]', ["stdin/all/00000", "stdin/all/00001"]),
    ],
)
def test_several_problems_are_read_from_standard_input(
    cli: Cli, say: Callable[[Script], None], lines: str, ids: list[str]
) -> None:
    asked = []

    def script(transcript: str, kind: str) -> str:
        asked.append(transcript)
        return sure(transcript, kind)

    say(script)
    named = ("--column", "question=no") if "no" in lines else ()
    result = cli("solve", "--file", "-", *PAIR, *named, stdin=lines)
    assert result.out.splitlines() == [f"{id}: 24" for id in ids]
    assert {text.split("?")[0] for text in asked} == {"Problem: One", "Problem: Two"}
    assert cli("solve", "--file", "-", *PAIR, "--answer-type", "yesno", stdin="Is it?").out == (
        "stdin/all/00000: no answer\n"
    )


def test_answers_come_in_the_order_of_the_file(cli: Cli, say: Callable[[Script], None]) -> None:
    def script(transcript: str, kind: str) -> str:
        slow = "slow" in transcript and kind == "question" and transcript.count("Q:") < 4
        return f"{transcript.count('Q:')}?" if slow else sure(transcript, kind)

    say(script)
    result = cli("solve", "--file", "-", *PAIR, *TWO, "--json", stdin="slow\nquick\n")
    assert [(line["problem_id"][-1], line["sample"]) for line in result.lines] == [
        ("0", 0),
        ("0", 1),
        ("1", 0),
        ("1", 1),
    ]
    assert [len(line["steps"]) for line in result.lines] == [3, 3, 1, 1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mine.jsonl", '{"question": "One?"}\n{"question": "Two?", "id": "b"}\n'),
        ("mine.json", '[{"question": "One?"}, {"question": "Two?", "id": "b", "answer": "7"}]'),
        ("mine.csv", "id,question\n,One?\nb,Two?\n"),
    ],
)
def test_files_are_solved_with_answers_or_without(
    cli: Cli, say: Callable[[Script], None], tmp_path: Path, name: str, text: str
) -> None:
    say(sure)
    (tmp_path / name).write_text(text)
    traces = cli("solve", "--file", tmp_path / name, "--solver", "cot", "--lm", "any", *TWO, "--json").lines
    assert sorted((t["problem_id"], t["sample"]) for t in traces) == [
        ("b", 0),
        ("b", 1),
        ("mine/all/00000", 0),
        ("mine/all/00000", 1),
    ]
    plain = cli("solve", "--file", tmp_path / name, *PAIR)
    assert sorted(plain.out.splitlines()) == ["b: 24", "mine/all/00000: 24"]
    votes = cli("solve", "--file", tmp_path / name, *PAIR, *TWO)
    assert sorted(votes.out.splitlines()) == ["b: 24  (2 of 2)", "mine/all/00000: 24  (2 of 2)"]


def test_columns_of_a_file_to_solve_can_be_named(cli: Cli, say: Callable[[Script], None], tmp_path: Path) -> None:
    say(sure)
    path = write_jsonl(tmp_path / "mine.jsonl", {"no": "How many?"})
    assert cli("solve", "--file", path, "--column", "question=no", *PAIR).out == "mine/all/00000: 24\n"


HOSTILE = "\x1b[31mred\x1b]0;owned\x07 [/red][link=x] \x9b2J \u202e \r \x00"


def test_what_could_steer_a_terminal_is_shown_escaped(cli: Cli, say: Callable[[Script], None], tmp_path: Path) -> None:
    say(lambda transcript, kind: f"{HOSTILE} 24" if sure(transcript, kind) else "")
    file = write_jsonl(
        tmp_path / "mine.jsonl", {"question": HOSTILE, "answer": "24", "id": HOSTILE.replace("\x00", "")}
    )
    run = tmp_path / "run"
    commands: list[tuple[Any, ...]] = [
        ("solve", HOSTILE, *PAIR),
        ("solve", "--file", file, *PAIR),
        ("data", "show", file, "--split", "test"),
        ("evaluate", file, *PAIR, "--out", run),
        ("show", run, HOSTILE.replace("\x00", "")),
        ("show", run, "absent"),
        ("compare", run),
        ("data", "show", HOSTILE),
        ("train", HOSTILE, "--chains", "x", "--student", "y", "--out", "z"),
        (HOSTILE,),
        ("solve", "x", *PAIR, "--set", f"{HOSTILE}=1"),
    ]
    for command in commands:
        result = cli(*command)
        assert not CONTROL.search(result.out + result.err), command
        assert "Traceback" not in result.err
    assert "\\x1b[31mred" in cli("solve", HOSTILE, *PAIR).out
    assert "[/red][link=x]" in cli("solve", HOSTILE, *PAIR).out


def test_json_keeps_hostile_text_as_data(cli: Cli, say: Callable[[Script], None]) -> None:
    say(lambda transcript, kind: f"{HOSTILE} 24" if sure(transcript, kind) else "")
    [trace] = cli("solve", HOSTILE, *PAIR, "--json").lines
    assert trace["steps"][0]["question"] == f"{HOSTILE} 24"


def test_dropped_slots_are_marked_in_the_stream(cli: Cli, say: Callable[[Script], None]) -> None:
    say(lambda transcript, kind: "24 " * 50 if kind == "answer" else sure(transcript, kind))
    result = cli("solve", "How many?", *PAIR, "--set", "max_tokens=20")
    assert result.code == 0
    assert "[dropped: overlong]" in result.out
    assert "(stopped at a text that did not end in time (overlong); " in result.out


def damaged_chains(tmp_path: Path, _: Path) -> tuple[list[Any], str]:
    good, bad = CHAINS[0].to_json(), {**CHAINS[1].to_json(), "steps": 7}
    path = write_jsonl(tmp_path / "torn.jsonl", good, bad)
    return ["train", "qg", "--chains", path, "--student", "x", "--out", tmp_path / "o"], r"torn\.jsonl:2: field 'steps'"


def torn_line(tmp_path: Path, chains: Path) -> tuple[list[Any], str]:
    path = tmp_path / "torn.jsonl"
    path.write_bytes(chains.read_bytes()[:-40])
    train = ["train", "qg", "--chains", path, "--student", "x", "--out", tmp_path / "o"]
    return train, r"torn\.jsonl:3: not valid JSON"


def no_questions(tmp_path: Path, _: Path) -> tuple[list[Any], str]:
    plain = Chain("a/1", "a", "What is 1+0?", "1", "number", (Step("", "1+0 = 1"),))
    path = write_jsonl(tmp_path / "cot.jsonl", plain.to_json())
    train = ["train", "qg", "--chains", path, "--student", save_tiny(tmp_path / "s"), "--out", tmp_path / "o"]
    return train, r"the chain of a/1 has no sub-questions, which role 'qg' is trained on"


def torn_weights(tmp_path: Path, _: Path) -> tuple[list[Any], str]:
    folder = Path(save_tiny(tmp_path / "s"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return ["solve", "x", "--solver", "cot", "--lm", folder], r"s' cannot be loaded \("


def no_weights(tmp_path: Path, _: Path) -> tuple[list[Any], str]:
    return ["solve", "x", "--solver", "cot", "--lm", tmp_path / "absent"], r"absent' cannot be loaded \("


def unknown_device(tmp_path: Path, _: Path) -> tuple[list[Any], str]:
    student = save_tiny(tmp_path / "s")
    return ["solve", "x", "--solver", "cot", "--lm", student, "--device", "gpu"], r"device 'gpu' cannot be used \("


def unfit_device(tmp_path: Path, _: Path) -> tuple[list[Any], str]:
    student = save_tiny(tmp_path / "s")
    return ["solve", "x", "--solver", "cot", "--lm", student, "--device", "meta"], r"device 'meta' cannot be used \("


@pytest.mark.parametrize(
    "arrange", [damaged_chains, torn_line, no_questions, torn_weights, no_weights, unknown_device, unfit_device]
)
def test_a_damaged_input_is_one_sentence(
    cli: Cli, chains: Path, tmp_path: Path, arrange: Callable[[Path, Path], tuple[list[Any], str]]
) -> None:
    arguments, said = arrange(tmp_path, chains)
    assert_one_sentence(cli(*arguments), said)


def assert_one_sentence(result: Result, said: str) -> None:
    assert result.code == 2
    assert result.out == ""
    assert re.fullmatch(r"socratic: [^\n]+\n", result.err), result.err
    assert re.search(said, result.err), result.err


TRAIN = ("train", "qg", "--chains", "CHAINS", "--student", "STUDENT", "--out", "OUT")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("data", "show", "gsm9k"), "unknown data set 'gsm9k'; did you mean 'gsm8k'"),
        (("data", "show", "gsm8k", "--split", "tset"), "unknown split 'tset'; did you mean 'test'?"),
        (("data", "show", "CHAINS", "--limit", "0"), "limit must be a whole number of at least 1, not 0"),
        (("data", "show", "absent.jsonl"), r"absent\.jsonl does not exist"),
        (("data", "show", "CHAINS", "--column", "question"), "column 'question' is not of the form field=name"),
        (("data", "show", "CHAINS", "--column", "qestion=q"), "did you mean 'question'"),
        (("data", "show", "CHAINS", "--column", "question=a", "--column", "question=b"), "names 'question' twice"),
        (("train", "qx", *TRAIN[2:]), "'qx' is not one of 'qg', 'qa'"),
        ((*TRAIN, "--set", "lerning_rate=1"), "unknown setting 'lerning_rate'; did you mean 'learning_rate'?"),
        ((*TRAIN, "--set", "epochs"), "override 'epochs' is not of the form key=value"),
        ((*TRAIN, "--set", "epochs=-1"), "setting epochs=-1 is not usable: Input should be greater than 0"),
        ((*TRAIN, "--set", "epochs=["), r"override 'epochs=\[': the value is not readable YAML"),
        ((*TRAIN, "--set", "batch_size=true"), "setting batch_size=True is not usable"),
        ((*TRAIN, "--set", "trainer={bogus: 1}"), "the trainer refuses these settings: .*bogus"),
        ((*TRAIN, "--qg-sees", "all"), "'all' is not one of 'answers', 'questions'"),
        ((*TRAIN[:-2],), "--out"),
        (("train", "qg", "--chains", "gold:gsm9k", *TRAIN[4:]), "unknown data set 'gsm9k'"),
        (("train", "qg", "--chains", "CHAINS", "--student", "nobody/none", "--out", "OUT"), "'nobody/none' cannot be"),
        ((*TRAIN[:-1], "STUDENT"), r"student\d holds .* but no training run"),
        ((*TRAIN[:4], *TRAIN[6:]), "give --student MODEL, or --from a trained student"),
        ((*TRAIN, "--from", "STUDENT"), "is no trained student"),
        (
            (*TRAIN, "--seed", "1", "--set", "seed=2"),
            "--set seed=2: seed has an option of its own; give --seed",
        ),
        (("merge", "STUDENT", "--out", "OUT"), "is no trained student"),
        (("export", "STUDENT", "--out", "OUT"), "is no trained student"),
        (("solve",), "the problem is empty; give its text"),
        (("solve", "--file", "-", *PAIR), "standard input is empty; it needs at least one record"),
        (("solve", "x", "--file", "CHAINS"), "give either the problem's text or --file, and not both"),
        (("solve", "  ", *PAIR), "the problem is empty"),
        (("solve", "-", *PAIR), "the problem is empty"),
        (("solve", "x", *PAIR, "--column", "question=q"), "--column question=q names a column of --file"),
        (("solve", "x", "--solver", "cot", "--lm", "scratch:gpt2-tiny"), "scratch:gpt2-tiny knows nothing yet"),
        (("solve", "x"), "there is no pair of students below runs/"),
        (("solve", "x", "--qg", "y"), "solver 'socratic' needs the two students qg and qa"),
        (("solve", "x", "--solver", "cot", *PAIR), "solver 'cot' needs the one student lm"),
        (("solve", "x", "--solver", "magic"), "'magic' is not one of 'socratic'"),
        (("solve", "x", *PAIR, "--temperature", "-1"), "setting temperature=-1.0 is not usable"),
        (("solve", "x", *PAIR, "--samples", "0"), "--samples"),
        (("solve", "x", *PAIR, "--samples", "4"), "4 samples at --temperature 0 are all alike; give --samples 1, or"),
        (("evaluate", "gsm8k", *PAIR, "--samples", "4", "--out", "r"), "4 samples at --temperature 0 are all alike"),
        (("reward", "c.jsonl", "--qa", "a", "--temperature", "0", "--out", "r"), "4 samples at --temperature 0 are"),
        (("solve", "x", *PAIR, "--set", "max_step=3"), "unknown setting 'max_step'; did you mean 'max_steps'?"),
        (("solve", "--file", "problems.txt", *PAIR), "'problems.txt' is not a problem file"),
        (("solve", "x", "--qg", "STUDENT", "--qa", "STUDENT", "--dtype", "int8"), "unknown dtype 'int8'"),
        (("evaluate", "CHAINS", *PAIR), "--out"),
        (("evaluate", "CHAINS", *PAIR, "--out", "OUT"), "'asker' cannot be loaded"),
        (("score", "absent"), "absent holds no run"),
        (("compare", "absent"), "absent holds no run"),
        (("compare",), "(?i)missing argument"),
        (("show", "absent", "x"), "absent holds no run"),
        (("bogus",), "(?i)no such command 'bogus'"),
        (("data", "show", "gsm8k", "--bogus"), "(?i)no such option"),
    ],
)
def test_a_mistake_is_one_sentence(
    cli: Cli,
    chains: Path,
    student: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)  # where no runs/ holds students
    places = {"CHAINS": str(chains), "STUDENT": student, "OUT": str(tmp_path / "out")}
    assert_one_sentence(cli(*(places.get(word, word) for word in arguments)), said)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("student"))


def test_a_reader_that_goes_away_ends_the_command_quietly(chains: Path, tmp_path: Path) -> None:
    many = write_jsonl(tmp_path / "many.jsonl", *({"question": f"{i}?" * 99, "answer": "1"} for i in range(3000)))
    for form in (["--json"], ["--limit", "3000"]):
        show = [sys.executable, "-m", "socratic.cli", "data", "show", str(many), "--split", "test", *form]
        command = subprocess.Popen(show, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert command.stdout
        assert command.stderr
        command.stdout.read(10)
        command.stdout.close()
        assert command.wait() == 0
        assert command.stderr.read() == b""
        command.stderr.close()


def test_a_group_without_a_command_shows_its_help(cli: Cli) -> None:
    for arguments in ((), ("data",)):
        result = cli(*arguments)
        assert result.code == 2
        assert "Usage: socratic" in result.err


def test_runs_over_different_problems_are_not_compared(
    cli: Cli, say: Callable[[Script], None], chains: Path, tmp_path: Path
) -> None:
    say(sure)
    for name, limit in (("a", "2"), ("b", "3")):
        assert cli("evaluate", chains, *PAIR, "--out", tmp_path / name, "--limit", limit).code == 0
    both = (tmp_path / "a", tmp_path / "b")
    assert_one_sentence(cli("compare", *both), r"over different problems \(1 differ.*--common")
    shared = cli("compare", *both, "--common", "--steps", "--errors", "--json").json
    assert shared["problems"] == 2
    assert shared["asked"]["a"]["questions"] == shared["asked"]["b"]["questions"] > 0
    assert_one_sentence(cli("show", both[0], "tiny/clip"), "no problem 'tiny/clip' in .*; did you mean 'tiny/clips'?")
    assert_one_sentence(
        cli("evaluate", chains, *PAIR, "--out", both[0], "--limit", "2", "--seed", "1"), "seed: 0, now 1"
    )
    assert_one_sentence(cli("evaluate", chains, *PAIR, "--out", both[0], "--resume", "never"), "already holds a run")


def test_doctor_prints_a_table_or_json(cli: Cli) -> None:
    found = cli("doctor", "--json").json
    assert found["python"] in cli("doctor").out


INTERRUPTED = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started with it ignored
sys.path.insert(0, sys.argv.pop(1))
from test_cli import Codec, ScriptedLM, sure, tiny_tokenizer
import socratic.cli, socratic.lm.load
codec = Codec(tiny_tokenizer())
asked = []

def stalling(transcript, kind):
    asked.append(kind)
    if asked.count("final") == 3:
        print("ready", flush=True)
        time.sleep(600)
    return sure(transcript, kind)

socratic.lm.load.load_lm = lambda model, **how: ScriptedLM(codec, stalling, name=model)
socratic.cli.main()
"""


def test_an_interrupted_evaluation_continues_with_the_same_command(
    cli: Cli, say: Callable[[Script], None], chains: Path, tmp_path: Path
) -> None:
    command = ["evaluate", str(chains), *PAIR, "--batch-size", "1", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(Path(__file__).parent), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert "socratic: interrupted; the same command continues" in err
    assert "Traceback" not in err
    traces = (tmp_path / "traces.jsonl").read_text()
    assert traces.count("\n") == 2
    say(sure)
    assert cli(*command, "--json").json["problems"] == 3
    assert (tmp_path / "traces.jsonl").read_text().startswith(traces)
    assert (tmp_path / "traces.jsonl").read_text().count("\n") == 3


def pressing(times: int) -> Script:
    """As `sure`, but Ctrl-C is pressed when it writes its ``times``-th final answer."""
    finals = iter(range(1, 99))

    def script(transcript: str, kind: str) -> str:
        if kind == "final" and next(finals) == times:
            raise KeyboardInterrupt
        return sure(transcript, kind)

    return script


def test_ctrl_c_shows_what_is_solved(cli: Cli, say: Callable[[Script], None]) -> None:
    say(pressing(3))
    result = cli("solve", "--file", "-", *PAIR, "--batch-size", "1", stdin="One?\nTwo?\nThree?\n")
    assert (result.code, result.out) == (130, "stdin/all/00000: 24\nstdin/all/00001: 24\n")
    assert result.err == "socratic: interrupted; 2 of 3 problems are solved and shown\n"
    say(pressing(3))
    result = cli("solve", "--file", "-", *PAIR, "--batch-size", "1", *TWO, "--json", stdin="One?\nTwo?\n")
    assert (result.code, [line["sample"] for line in result.lines]) == (130, [0, 1])
    assert "interrupted; 1 of 2 problems" in result.err
    say(pressing(1))
    result = cli("solve", "One?", *PAIR)
    assert (result.code, result.err) == (130, "socratic: interrupted before the problem was solved\n")
    assert result.out.startswith("Problem: One?\n\n1. Q: What? 24\n")


def test_where_the_errors_came_from_is_one_command(
    cli: Cli, chains: Path, say: Callable[[Script], None], tmp_path: Path
) -> None:
    say(sure)
    run = tmp_path / "why"
    command = ("evaluate", chains, *PAIR, "--out", run, "--swap", "all", "--intervene", "generic")
    kinds = ["as-is", "questions", "answers", "history", "generic"]
    result = cli(*command)
    assert result.code == 0
    assert [line.split()[0] for line in result.out.splitlines() if line.split() and line.split()[0] in kinds] == kinds
    assert max(map(len, result.out.splitlines())) <= 80
    found = cli(*command, "--json").json
    assert [effect["name"] for effect in found] == kinds
    assert found[-1]["against"] == "questions"
    wrong = cli(*command[:-2], "--intervene", "shufle")
    assert (wrong.code, wrong.err) == (
        2, "socratic: --intervene 'shufle' is unknown; give some of shuffle, foreign, generic, all\n"
    )  # fmt: skip


def test_steps_are_judged_where_gold_is_found_and_where_not(
    cli: Cli, chains: Path, say: Callable[[Script], None], tmp_path: Path
) -> None:
    say(sure)
    mine = tmp_path / "mine.jsonl"
    mine.write_bytes(chains.read_bytes())
    cli("evaluate", mine, *PAIR, "--out", tmp_path / "run")
    judged = cli("compare", tmp_path / "run", "--steps")
    assert (judged.code, judged.err) == (0, "")
    assert "BLEU" in judged.out
    assert "(problems)     3" in judged.out
    found = cli("compare", tmp_path / "run", "--steps", "--json").json
    assert found["steps"][str(tmp_path / "run")]["token_f1"] is not None
    assert found["right_by_steps"][str(tmp_path / "run")] == {"1+": pytest.approx(1 / 3)}
    moved = mine.rename(tmp_path / "moved.jsonl")
    without = cli("compare", tmp_path / "run", "--steps", "--json")
    moved.rename(mine)
    assert without.code == 0
    assert "is judged without gold steps" in without.err
    assert without.json["steps"][str(tmp_path / "run")]["token_f1"] is None
    assert "right_by_steps" not in without.json
    first, *others = mine.read_text().splitlines(keepends=True)
    record = json.loads(first)
    mine.write_text(json.dumps({**record, "question": f"Today: {record['question']}"}) + "\n" + "".join(others))
    changed = cli("compare", tmp_path / "run", "--steps")
    assert "1 of its problems read otherwise in the data now" in changed.err
    assert "(problems)    2" in changed.out


def test_a_run_remembers_the_columns_of_its_file(cli: Cli, say: Callable[[Script], None], tmp_path: Path) -> None:
    say(sure)
    own = [{"q": c.question, "answer": c.answer, "steps": [s.to_json() for s in c.steps]} for c in CHAINS]
    file = write_jsonl(tmp_path / "own.jsonl", *own)
    made = cli("evaluate", file, "--column", "question=q", *PAIR, "--out", tmp_path / "run")
    assert (made.code, cli("compare", tmp_path / "run", "--steps").err) == (0, "")


def test_a_comparison_is_written_as_a_page_and_as_plots(
    cli: Cli, chains: Path, say: Callable[[Script], None], tmp_path: Path
) -> None:
    say(sure)
    run, page, plots = tmp_path / "run", tmp_path / "new" / "report.html", tmp_path / "plots"
    cli("evaluate", chains, *PAIR, "--out", run)
    made = cli("compare", run, "--html", page, "--plots", plots, "--steps", "--json")
    assert made.code == 0
    assert made.json == cli("compare", run, "--steps", "--json").json
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "Sub-questions against gold" in text
    assert "How many does she sell?" in text  # a gold step
    assert {path.suffix for path in plots.iterdir()} == {".png"}
    assert_one_sentence(cli("compare", run, "--html", run / "traces.jsonl"), "is the file to be read")
    assert_one_sentence(cli("compare", run, "--html", tmp_path), "is no ordinary file")
    for where in (page / "p", page / "p" / "q"):
        for option in ("--html", "--plots"):
            assert_one_sentence(cli("compare", run, option, where), f"{page} is a file, not a folder")
    assert_one_sentence(cli("compare", run, "--plots", page), f"{page} is a file, not a folder")
    nowhere = "/proc/none/place"
    assert_one_sentence(cli("compare", run, "--html", nowhere), "cannot be written")
    assert_one_sentence(cli("compare", run, "--plots", nowhere), "cannot be written")
    assert "cannot be written" in cli("augment", chains, "--kind", "marks", "--out", nowhere).err


def test_contamination_is_found(cli: Cli, tmp_path: Path) -> None:
    text = "Tom has 3 red pens and buys 4 more of them at the shop, so how many has he got?"
    train = write_jsonl(tmp_path / "train.jsonl", {"question": text, "answer": "7"})
    test = write_jsonl(tmp_path / "test.jsonl", {"question": text.replace("3", "5").replace("4", "6"), "answer": "11"})
    result = cli("data", "check", f"{train}:test", test)
    assert result.code == 0
    assert "test/all/00000 ~ train/all/00000 (numbers masked): tom has 0 red pens" in result.out
    assert "1 of 1 test problems" in result.out
    assert cli("data", "check", "stories", "stories:longer", "--json").json["tests"] == 300
    own = write_jsonl(tmp_path / "own.jsonl", {"q": "How many are 3 pens and 4 pens?", "answer": "7"})
    assert cli("data", "check", "stories", own, "--column", "question=q", "--json").json["tests"] == 1
    assert cli("data", "check", "stories", "stories", "--column", "question=q").code == 2


def test_rating_in_the_terminal(cli: Cli, chains: Path, say: Callable[[Script], None], tmp_path: Path) -> None:
    say(sure)
    cli("evaluate", chains, *PAIR, "--out", tmp_path / "run")
    ratings = tmp_path / "ratings.jsonl"
    result = cli("rate", tmp_path / "run", "--rater", "eve", "--out", ratings, stdin="2 2 2 1\nq\n")
    assert result.code == 0
    assert "1. What? 24" in result.out
    assert "1 ratings added" in result.out
    assert str(tmp_path / "run") not in result.out  # nothing tells whose questions they are
    assert "complete" in cli("rate", ratings, "--report").out
    assert cli("rate", ratings, "--report", "--json").json["raters"] == ["eve"]
    assert cli("rate", tmp_path / "run").code == 2
    assert cli("rate", tmp_path / "run", "--rater", "caf\udce9", "--out", ratings).code == 2


def test_labelling_in_the_terminal(cli: Cli, chains: Path, say: Callable[[Script], None], tmp_path: Path) -> None:
    say(lambda transcript, kind: "It is 2+2=<<2+2=4>>4." if kind != "question" else sure(transcript, kind))
    run, labels = tmp_path / "run", tmp_path / "labels.jsonl"
    cli("evaluate", chains, *PAIR, "--out", run)
    result = cli("label", run, "--rater", "eve", "--out", labels, stdin="caf\udce9\nx\n")
    assert (result.code, result.err) == (0, "socratic: the line is not UTF-8; convert it\n")
    assert "How many does she sell?" in result.out  # gold
    assert result.out.count("Type the key of what went wrong first") == 2  # what cannot be read is none
    assert "1 labels added" in result.out
    assert "The rule on 1 labels" in cli("label", run, "--out", labels, "--report").out
    assert cli("label", run, "--out", labels, "--report", "--json").json["raters"] == ["eve"]
    assert cli("label", run, "--out", labels).code == 2
    compared = cli("compare", run, "--errors")
    assert "The first error" in compared.out
    assert cli("compare", run, "--errors", "--json").json["errors"]["run"]["wrong"] > 0


def test_errors_in_calculations_are_of_numbers(cli: Cli, say: Callable[[Script], None], tmp_path: Path) -> None:
    questions, run = tmp_path / "questions.jsonl", tmp_path / "run"
    questions.write_text('{"question": "Can fish sing?", "answer": false}\n')
    say(lambda transcript, kind: "Yes." if kind != "question" else sure(transcript, kind))
    cli("evaluate", questions, *PAIR, "--out", run)
    refused = cli("compare", run, "--errors")
    assert refused.code == 2
    assert f"no answer in {run} is a number" in " ".join(refused.err.split())
    assert cli("compare", run).code == 0


def test_a_recipe_is_planned_without_being_run(
    cli: Cli, tmp_path: Path, few_stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Path(__file__).parent.parent / "recipes" / "demo.yaml"
    result = cli("run", recipe, "limit=5", "--dry-run", "--out", tmp_path / "out")
    assert result.code == 0
    assert result.out.count("to do") == 19
    assert "of 5 test problems share 13 words" in result.err
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("socratic.tasks.stories.shipped", lambda name: few_stories)
    stages = cli("run", recipe, "--dry-run", "--out", tmp_path / "out", "--json").json
    assert not any(stage["done"] for stage in stages)
    assert cli("run", recipe, "limt=5", "--dry-run").code == 2


def test_a_file_with_a_colon_in_its_name_is_checked(cli: Cli, tmp_path: Path) -> None:
    rows = [{"question": f"How many are {'very ' * 20}{i}?", "answer": str(i)} for i in range(40)]
    path = write_jsonl(tmp_path / "a:b.jsonl", *rows)
    result = cli("data", "check", f"{path}:train", path, "--json")
    assert result.code == 0
    assert result.json["tests"] == 40
    assert len(result.json["found"]) == 40


def test_runs_named_twice_are_compared_once(cli: Cli, tmp_path: Path, student: str) -> None:
    problems = write_jsonl(tmp_path / "p.jsonl", {"question": "1?", "answer": "1"}, {"question": "2?", "answer": "2"})
    run = tmp_path / "run"
    made = cli("evaluate", problems, "--solver", "answer", "--lm", student, "--set", "max_tokens=2", "--out", run)
    assert made.code == 0
    (tmp_path / "link").symlink_to("run")
    assert len(cli("compare", run, tmp_path / "link", run, "--json").json["rows"]) == 1


def test_a_cluster_is_for_many_problems(cli: Cli, student: str, tmp_path: Path) -> None:
    problems = write_jsonl(tmp_path / "p.jsonl", {"question": "1?"})
    result = cli(
        "solve", "--file", problems, "--solver", "answer", "--lm", student, "--engine", "ray", "--device", "cpu"
    )
    assert_one_sentence(result, "--device cpu names one of this machine's; leave it out with --engine ray")
    result = cli("solve", "1+1?", "--solver", "answer", "--lm", student, "--engine", "ray")
    assert_one_sentence(result, "--engine ray is for the problems of a --file")


def completed(folder: Path, *words: str) -> list[str]:
    """What a shell in ``folder`` is offered for the last word."""
    line = {"_SOCRATIC_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(["socratic", *words])}
    program = "from socratic.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, **line, "COMP_CWORD": str(len(words)), "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_the_shell_completes_commands_data_and_students(tmp_path: Path) -> None:
    for name in ("runs/demo/qg", "runs/demo/qa", "runs/notes", "old/qg"):
        (tmp_path / name).mkdir(parents=True)
        if name.endswith(("qg", "qa")):
            (tmp_path / name / "socratic.json").touch()
    assert completed(tmp_path, "exp") == ["export"]
    assert completed(tmp_path, "evaluate", "gsm8") == ["gsm8k", "gsm8k-main"]
    assert completed(tmp_path, "solve", "--qg", "") == ["runs/demo/qa", "runs/demo/qg"]
    assert completed(tmp_path, "solve", "--qg", "runs/demo/qg") == ["runs/demo/qg"]
    assert completed(tmp_path, "export", "o") == ["old/"]
    assert completed(tmp_path, "merge", "old/") == ["old/qg"]


def test_the_completion_script_is_shown(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # else that of whoever runs the tests
    result = cli("--show-completion", "zsh")
    assert (result.code, "#compdef socratic" in result.out) == (0, True)


def test_what_stands_around_a_question_is_shown(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    row = {"question": "Which glows?", "answer": "B", "choices": ["stone", "bulb"], "context": "It is dark."}
    file.write_text(json.dumps(row) + "\n")
    shown = cli("data", "show", file, "--split", "test").out
    assert "  It is dark.\n  Which glows?\n  (A) stone\n  (B) bulb\n  = B\n" in shown


def test_chains_may_be_problems_in_any_form(cli: Cli, tmp_path: Path) -> None:
    steps = json.dumps([{"question": "How many?", "answer": "1+1=<<1+1=2>>2"}])
    file = tmp_path / "own.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([["question", "answer", "steps"], ["How many are 1 and 1?", "2", steps]])
    assert cli("curate", file, "--json").json["chains"] == 1
