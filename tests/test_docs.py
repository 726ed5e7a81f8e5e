"""The documentation is true: its commands run, its reference pages are what the code says, its links lead somewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from conftest import CHECKOUT
from docs_shell import SHELL, SHOWN, Block, Shell, blocks, teacher, words_of, write_data
from test_cli import Cli, cli
from test_trainer import save_tiny

from socratic.cli import app
from socratic.store import as_record
from socratic.tasks.own import FIELDS
from socratic.types import Chain, Judgement, Problem, Score, Trace

__all__ = ["cli"]

DOCS = CHECKOUT / "docs"
PAGES = [CHECKOUT / "README.md", *sorted(DOCS.glob("*.md"))]
BLOCKS = [block for page in PAGES for block in blocks(page)]
DEMO = """\
socratic train qg --chains gold:stories --student MODEL --out runs/demo/qg-s0
socratic train qa --chains gold:stories --student MODEL --out runs/demo/qa-s0
socratic train cot --chains gold:stories --student MODEL --out runs/demo/cot-s0
socratic train unified --chains gold:stories --student MODEL --out runs/demo/base-micro-s0
socratic evaluate stories --qg runs/demo/qg-s0 --qa runs/demo/qa-s0 --out runs/demo/test/socratic-s0
socratic evaluate stories --solver cot --lm runs/demo/cot-s0 --out runs/demo/test/cot-s0
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small data sets in their authors' formats."""
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    (folder / "stories").mkdir()
    for file in (CHECKOUT / "data" / "stories").glob("*.jsonl"):
        first = file.read_text("utf-8").splitlines(keepends=True)[:150]  # all of them take a second to read
        (folder / "stories" / file.name).write_text("".join(first), "utf-8")
    return folder


@pytest.fixture
def shell(cli: Cli, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell in an empty folder that has data, recipes, a model and a teacher."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOCRATIC_DATA", str(data))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setattr("socratic.tasks.stories.shipped", lambda name: data)
    monkeypatch.setattr("socratic.teacher.client.Endpoint.send", teacher)
    (tmp_path / "recipes").symlink_to(CHECKOUT / "recipes")
    model = save_tiny(tmp_path / "tiny")

    def command(words: list[str]) -> str:
        result = cli(*words)
        assert result.code == 0, f"socratic {' '.join(words)}: {result.err}"
        return result.out

    return Shell(command, monkeypatch.setenv, dict.fromkeys(("MODEL", "HuggingFaceTB/SmolLM2-135M-Instruct"), model))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first page that needs it leaves what the demo leaves."""
    return tmp_path_factory.mktemp("demo")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_pages_blocks_run_one_after_the_other(page: Path, shell: Shell, demo: Path) -> None:
    if "runs/demo/" in page.read_text("utf-8"):
        Path("runs").mkdir()
        Path("runs/demo").symlink_to(demo)
        for line in () if any(demo.iterdir()) else DEMO.splitlines():
            shell.run(line)
    for block in blocks(page):
        if block.file:
            Path(block.file).write_text(block.body, "utf-8")
        elif block.not_run:
            continue
        elif block.info == "python":
            exec(compile(block.body, f"{page.name}:{block.line}", "exec"), {})
        elif block.info in SHELL:
            printed = [shell.run(line) for line in block.commands]
            if block.info == "console":
                assert [shown.split() for shown in printed] == [shown.split() for shown in block.outputs]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}:{block.line}")
def test_a_block_that_is_not_run_says_why_and_its_commands_exist(block: Block) -> None:
    assert block.info in (*SHELL, *SHOWN, "python"), "a block needs a language"
    if block.info in SHOWN:
        assert not re.search(r"^(\$ |socratic )", block.body, re.M), "a command stands in a block of sh or console"
    assert block.info in (*SHELL, "python") or not block.not_run
    if block.not_run and block.info in SHELL:
        for line in block.commands:
            parse(words_of(line, {}))


def parse(words: list[str]) -> None:
    """Check the command and options of a line that is not run, where it calls socratic, whatever stands before."""
    place = next((i for i, word in enumerate(words) if word in ("socratic", "socratic.cli")), len(words))
    if rest := words[place + 1 :]:
        command, rest = find_command(rest)
        command.make_context("socratic", rest)


def find_command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words call, and what is left of them."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        name, *words = words
        assert name in command.commands, f"there is no command {name}"
        command = command.commands[name]
    return command, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_exist_with_their_options(page: Path) -> None:
    for line in re.findall(r"(?<!`)`socratic ([a-z][^`]*)`", page.read_text("utf-8")):
        if line != "data":  # a group
            command, words = find_command(line.split())
            known = {name for param in command.params for name in param.opts} | {"--help"}
            assert {word for word in words if word.startswith("--")} <= known, line


def generator() -> ModuleType:
    """``docs/reference.py``."""
    spec = importlib.util.spec_from_file_location("docs_reference", DOCS / "reference.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGE_WRITERS: dict[str, Callable[[], str]] = generator().PAGES


@pytest.mark.parametrize("name", PAGE_WRITERS)
def test_reference_pages_are_what_the_code_says(name: str) -> None:
    written = PAGE_WRITERS[name]()
    assert (DOCS / name).read_text("utf-8") == written, "run python docs/reference.py"
    assert not re.search(r"\|\s+\|$", written, re.M), "an option or a setting lacks its description"


def anchors(page: Path) -> set[str]:
    """The headings of a page as a repository's browser links to them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        file = Path(os.path.normpath(page.parent / path)) if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_the_formats_examples_are_such_records() -> None:
    shown = [json.loads(block.body) for block in blocks(DOCS / "formats.md") if block.info == "json"]
    problem, chain, own, trace, score, judgement = shown
    kinds = (problem, Problem), (chain, Chain), (trace, Trace), (score, Score), (judgement, Judgement)
    for record, kind in kinds:
        assert as_record("example", record, kind).to_json().keys() == record.keys()
    assert set(own) == set(FIELDS)


def test_the_index_links_to_every_page() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / "index.md").read_text("utf-8")))
    assert {page.name for page in DOCS.glob("*.md")} - {"index.md"} == linked
