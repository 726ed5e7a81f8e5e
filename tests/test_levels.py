"""The import levels, and that the command line starts without the heavy packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "socratic"

# Lowest first. A module imports only from strictly lower levels; inside a sub-package, siblings are free.
LEVELS: list[set[str]] = [
    {"types"},
    {"config"},
    {"alignment", "calculator", "stats", "store", "versions"},
    {"answers", "guidance"},
    {"prompts"},
    {"numerals", "tokens"},
    {"targets"},
    {"tasks", "lm", "examples", "formats", "interventions", "curate"},
    {"doctor", "publish"},
    {"augment", "corrupt", "likelihood", "loops", "optimizer", "prepare", "teacher", "verifier"},
    {"solving"},
    {"cluster", "serve", "trainer"},
    {"assemble"},
    {"train", "evaluate"},
    {"choosing", "origin"},
    {"harvest", "report", "verdicts"},
    {"__init__"},
    {"progress", "rewards"},
    {"chain_sets"},
    {"recipe", "smoke"},
    {"recipe_file", "stages", "tutor"},
    {"planner"},
    {"pipeline"},
    {"demo", "demo_real", "learner", "session_file"},
    {"cli"},
    {"__main__"},
]
LEVEL_OF = {unit: level for level, units in enumerate(LEVELS) for unit in units}
HEAVY = ("torch", "transformers", "datasets", "openai", "pyarrow", "matplotlib", "jinja2", "aiohttp")


def unit_of(file: Path, package: Path) -> str:
    """The top-level module or sub-package that ``file`` belongs to: ``tasks`` for ``socratic/tasks/gsm8k.py``."""
    return file.relative_to(package).parts[0].removesuffix(".py")


def imported_units(file: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Line and unit of every import of this package in ``file``, those inside functions and type checks included."""
    inside = file.relative_to(package.parent).parent.parts
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*inside[: len(inside) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            targets = [".".join([*base, alias.name]) for alias in node.names]
        else:
            continue
        for target in targets:
            top, *rest = target.split(".")
            if top == package.name:
                yield node.lineno, rest[0] if rest and rest[0] in LEVEL_OF else "__init__"


def upward_imports(package: Path) -> list[str]:
    """One line for every import that does not point to a strictly lower level."""
    found = {
        f"{file.relative_to(package.parent).as_posix()}:{line}: {unit} imports {target}"
        for file in package.rglob("*.py")
        for unit in [unit_of(file, package)]
        for line, target in imported_units(file, package)
        if target != unit and LEVEL_OF[target] >= LEVEL_OF[unit]
    }
    return sorted(found)


def test_every_module_has_a_level() -> None:
    unplaced = {unit_of(file, PACKAGE) for file in PACKAGE.rglob("*.py")} - LEVEL_OF.keys()
    assert not unplaced, f"place {sorted(unplaced)} in LEVELS"


def test_modules_import_only_from_lower_levels() -> None:
    assert upward_imports(PACKAGE) == []


@pytest.mark.parametrize(
    ("statement", "caught"),
    [
        ("from socratic.types import Problem", False),
        ("from socratic.tasks import gsm8k", False),
        ("from . import gsm8k", False),
        ("import transformers", False),
        ("from socratic.lm import local", True),
        ("import socratic.evaluate", True),
        ("from socratic import evaluate", True),
        ("from socratic import load_problems", True),
        ("from ..evaluate import score", True),
        ("def late() -> None:\n    from socratic.evaluate import score", True),
    ],
)
def test_an_upward_import_is_found(tmp_path: Path, statement: str, caught: bool) -> None:
    package = tmp_path / "socratic"
    for name in ("__init__", "types", "evaluate", "lm/local", "tasks/gsm8k"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / f"{name}.py").touch()
    (package / "tasks" / "base.py").write_text(statement)
    assert bool(upward_imports(package)) == caught


IMPORT = "import sys, socratic"
HELP = """
import sys
sys.argv = ["socratic", "--help"]
from socratic.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""


@pytest.mark.parametrize("program", [IMPORT, HELP], ids=["import", "help"])
def test_starts_without_the_heavy_packages(program: str) -> None:
    report = f"{program}\nprint('loaded:', [name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded: []"
