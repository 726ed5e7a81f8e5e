"""The committed students' demo, with scripted and tiny students in their place."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from test_cli import Cli, cli
from test_train import fit
from test_trainer import CHAINS, save_tiny, tiny_tokenizer

from socratic import demo_real
from socratic.calculator import calculate
from socratic.lm.checkpoint import CARD, read_card
from socratic.lm.load import load_pretrained, load_student
from socratic.lm.scripted import ScriptedLM
from socratic.store import check_manifest, files, read_jsonl, shipped, write_manifest
from socratic.tokens import Codec
from socratic.types import Problem, Role

__all__ = ["cli"]

ROLES: tuple[Role, ...] = ("qg", "qa", "cot")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of students as they are committed, and in ``trained`` beside it as they were trained, on ``base``."""
    folder = tmp_path_factory.mktemp("shared")
    base = save_tiny(folder / "base", "llama")
    for role in ROLES:
        fit(base, folder / "trained" / role, role, max_steps=1, lora_rank=2)
    return folder


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Students that ask once and calculate 3*12-5, in an empty folder that holds nothing but their cards."""
    codec = Codec(tiny_tokenizer())

    def script(transcript: str, kind: str) -> str:
        if kind == "question":
            return "" if "\nA:" in transcript else "How many are left?"
        return "31" if kind == "final" else "3*12-5 = <<3*12-5=31>>31 pens."

    monkeypatch.setattr(demo_real, "FOLDER", tmp_path)
    monkeypatch.setattr(demo_real, "is_checkpoint", lambda folder: True)
    monkeypatch.setattr(demo_real, "read_card", lambda folder: type("Card", (), {"base": None}))
    monkeypatch.setattr(demo_real, "find_base", lambda base, student: "there")
    monkeypatch.setattr(demo_real, "load_lm", lambda model, **how: ScriptedLM(codec, script, name=Path(model).name))
    return tmp_path


def commit_traces(folder: Path, changed: str = "") -> None:
    """What the scripted students write, as the committed traces; of the problem ``changed`` another."""
    (folder / "traces").mkdir()
    for solving in demo_real.open_students(Console(file=io.StringIO())).values():
        traces = solving.run([(problem, 0) for problem in demo_real.bundled_problems()])
        lines = [json.dumps(replace(t, raw=t.raw + "!" * (t.problem_id == changed)).to_json()) for t in traces]
        (folder / "traces" / f"{solving.name}.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))


def test_the_bundled_problems_answers_are_what_their_expressions_come_to() -> None:
    rows = list(read_jsonl(shipped("data") / "gsm8k-style.jsonl"))
    for row in rows:
        assert calculate(row["expression"]) == Fraction(row["answer"]), row["id"]
    assert len({row["question"] for row in rows}) == len({row["id"] for row in rows}) == len(rows) == 100
    assert [problem.answer for problem in demo_real.bundled_problems()] == [row["answer"] for row in rows]


def test_a_few_problems_are_solved_by_both_then_it_stops_without_a_terminal(cli: Cli, scripted: Path) -> None:
    result = cli("demo", "--real")
    assert (result.code, result.err) == (0, "")
    assert result.out.count("\nQG and QA\n") == result.out.count("\nCoT\n") == demo_real.SHOWN
    assert "1. Q: How many are left?\n   A: 3*12-5 = <<3*12-5=31>>31 pens. ✓\n#### 31\n" in result.out
    assert "It is 31: QG and QA right, CoT right." in result.out
    assert "It is 216: QG and QA wrong, CoT wrong." in result.out
    traces = cli("demo", "--real", "--json").lines
    assert [trace["solver"] for trace in traces] == ["iterative"] * demo_real.SHOWN + ["cot"] * demo_real.SHOWN


def test_at_a_terminal_it_asks_for_more_until_enter_alone(
    cli: Cli, scripted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = iter(["caf\udce9", "Zoë has 3 \x1b[1mpens\x1b[0m. How many?", "  "])
    monkeypatch.setattr("socratic.cli.recipes.Screen", lambda as_json: type("S", (), {"is_typed": True, "read": read}))

    def read(prompt: str) -> str:
        return next(typed)

    result = cli("demo", "--real")
    assert (result.code, "socratic: the problem is not UTF-8; convert it" in result.err) == (0, True)
    assert result.out.count("\nCoT\n") == demo_real.SHOWN + 1
    assert "Problem: Zoë has 3 \\x1b[1mpens\\x1b[0m. How many?\n" in result.out
    assert result.out.count("It is ") == demo_real.SHOWN
    assert next(typed, None) is None


def test_solutions_stand_side_by_side_on_a_wide_terminal(scripted: Path) -> None:
    students = demo_real.open_students(Console(file=io.StringIO()))
    for width, beside in ((100, True), (60, False)):
        text = io.StringIO()
        problem = Problem("p", "own", "test", "Ann has pens. How many?", "")
        demo_real.show(Console(file=text, width=width, force_terminal=True, color_system=None), problem, students)
        assert bool(re.search(r"QG and QA +CoT", text.getvalue())) == beside
        assert max(len(line) for line in re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", text.getvalue()).splitlines()) <= width


def test_the_committed_traces_are_written_again_or_not(cli: Cli, scripted: Path) -> None:
    missing = cli("demo", "--check")
    assert (missing.code, "there are no traces" in missing.err) == (2, True)
    commit_traces(scripted)
    result = cli("demo", "--check")
    assert (result.code, result.err) == (0, "")
    assert (
        result.out
        == "QG and QA: 100 of 100 traces as committed, 1 right\nCoT: 100 of 100 traces as committed, 1 right\n"
    )


def test_a_trace_that_differs_is_named(cli: Cli, scripted: Path) -> None:
    commit_traces(scripted, changed="gsm8k-style/007")
    result = cli("demo", "--check", "--json")
    assert (result.code, "the traces of gsm8k-style/007 are not those committed" in result.err) == (2, True)
    assert result.json["CoT"]["same"] == 99
    assert result.json["CoT"]["differ"] == ["gsm8k-style/007"]


def test_without_the_students_it_is_one_sentence(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_real, "FOLDER", tmp_path)
    result = cli("demo", "--real")
    assert (result.code, result.out) == (2, "")
    said = f"{tmp_path} holds no qg-warm and no qa-warm and no cot; the students come with a clone of the repository"
    assert result.err == f"socratic: {said}\n"
    refused = cli("demo", "--real", "--set", "limit=3")
    assert (refused.code, "--set limit=3 changes what is trained" in refused.err) == (2, True)


def test_an_exported_adapter_is_small_names_no_path_and_solves_on_its_base(
    cli: Cli, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    for role, student in zip(ROLES, demo_real.STUDENTS, strict=True):
        result = cli("export", shared / "trained" / role, "--out", tmp_path / student, "--base-model", "lab/tiny")
        assert (result.code, result.err) == (0, "")
        assert check_manifest(tmp_path / student) is None
        for name in files(tmp_path / student):
            assert str(shared).encode() not in (tmp_path / student / name).read_bytes(), name
        weights = load_file(tmp_path / student / "adapter_model.safetensors")
        assert {str(tensor.dtype) for tensor in weights.values()} == {"torch.bfloat16"}
    card = read_card(tmp_path / "qa-warm")
    assert (card.base.location, card.base.model) == ("base", "lab/tiny")
    text = (tmp_path / "qa-warm" / "README.md").read_text()
    assert "base_model: lab/tiny" in text
    assert "| which is a form of | lab/tiny |" in text
    monkeypatch.setattr(demo_real, "FOLDER", tmp_path)
    monkeypatch.setenv("SOCRATIC_BASE", str(shared / "base"))
    students = demo_real.open_students(Console(file=io.StringIO()), "cpu", "fp32")
    [trace] = students["CoT"].run([(CHAINS[0].problem(), 0)])
    assert trace.solver == "cot"


def test_an_adapter_on_an_adapter_is_shared_as_one(cli: Cli, shared: Path, tmp_path: Path) -> None:
    first, second, out = shared / "trained" / "qg", tmp_path / "second", tmp_path / "out"
    fit(str(first), second, "qa", max_steps=3, lora_rank=3, learning_rate=0.1)
    assert cli("export", second, "--out", out, "--base-model", "lab/tiny").code == 0
    assert json.loads((out / "adapter_config.json").read_text())["r"] == 2 + 3
    assert read_card(out).base.sha256 == read_card(first).base.sha256
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOCRATIC_BASE", str(shared / "base"))
        plain = load_pretrained(str(shared / "base"), torch.float32).model.state_dict()
        before, trained, joined = (load_student(f, torch.float32)[0].model.state_dict() for f in (first, second, out))
    moved = {name for name, weight in before.items() if not weight.equal(trained[name])}
    assert moved
    for name, weight in trained.items():
        tolerance = 0.01 * float((weight - plain[name]).abs().max())  # of rounding to bf16
        torch.testing.assert_close(joined[name], weight, atol=tolerance, rtol=0)
    copied = tmp_path / "moved"
    shutil.copytree(first, copied)
    elsewhere = read_card(second).base.model_copy(update={"location": str(copied)})
    (second / CARD).write_text(read_card(second).model_copy(update={"base": elsewhere}).model_dump_json())
    write_manifest(second, ())
    with (copied / "adapter_model.safetensors").open("ab") as file:
        file.write(b" ")
    refused = cli("export", second, "--out", tmp_path / "other", "--base-model", "lab/tiny")
    assert (refused.code, "is not the one it was trained on" in refused.err) == (2, True)
    shutil.rmtree(copied)
    refused = cli("export", second, "--out", tmp_path / "other", "--base-model", "lab/tiny")
    assert (refused.code, "stands, is gone; restore it" in refused.err) == (2, True)


def test_the_committed_students_write_a_trace_again(smollm2_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOCRATIC_BASE", str(smollm2_gguf))
    quiet = Console(file=io.StringIO())
    found = demo_real.check(demo_real.open_students(quiet, "cpu", "fp32"), demo_real.bundled_problems()[:1], quiet)
    assert {name: (of["same"], of["differ"]) for name, of in found.items()} == {
        "QG and QA": (1, []),
        "CoT": (1, []),
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{trained}", "--out", "{new}"), "base is a form of a model on the Hub; give its id with --base-model"),
        (("{trained}", "--out", "{new}", "--base-model", "mine"), "give its id with --base-model"),
        (("{trained}", "--out", "{trained}", "--base-model", "a/b"), "is not empty; give another --out"),
        (("{base}", "--out", "{new}", "--base-model", "a/b"), "is no trained student"),
        (("{trained}", "--out", "{new}.gguf", "--base-model", "a/b"), "--base-model a/b is for an adapter's folder"),
    ],
)
def test_what_cannot_be_shared_is_one_sentence(
    cli: Cli, shared: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    places: dict[str, Any] = {"trained": shared / "trained" / "qa", "base": shared / "base", "new": tmp_path / "new"}
    result = cli("export", *(word.format(**places) for word in arguments))
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert said in result.err
    assert not (tmp_path / "new").exists()
