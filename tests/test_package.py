"""The wheel: complete, and of use outside the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SHIPPED = ("prompts", "data", "recipes")
CHECKOUT = Path(__file__).resolve().parent.parent


def run(*arguments: str | Path, cwd: Path, **variables: str) -> str:
    """Standard output of ``python *arguments``; what it said on standard error is the failure's message."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files_below(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by way of the source distribution from a copy, so that the checkout stays clean."""
    pytest.importorskip("setuptools", reason="needs the build backend: pip install setuptools")
    pytest.importorskip("build", reason="needs the build front end: pip install build")
    copy = tmp_path_factory.mktemp("source")
    for name in ("socratic", *SHIPPED):
        shutil.copytree(CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, copy)
    run("-m", "build", "--no-isolation", "--outdir", copy / "dist", cwd=copy)
    [built] = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside the checkout that the wheel is installed into."""
    folder = tmp_path_factory.mktemp("outside") / "site"
    run("-m", "pip", "install", "--no-deps", "--no-index", "--target", folder, wheel, cwd=folder.parent)
    return folder


def test_wheel_holds_every_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    expected = {f"socratic/{name}" for name in files_below(CHECKOUT / "socratic")}
    for folder in SHIPPED:
        assert files_below(CHECKOUT / folder)
        expected |= {f"socratic/_{folder}/{name}" for name in files_below(CHECKOUT / folder)}
    assert "socratic/py.typed" in expected
    assert expected - held == set()


@pytest.mark.parametrize("name", SHIPPED)
def test_installed_package_finds_its_files(site: Path, name: str) -> None:
    program = f"from socratic.store import shipped; print(shipped({name!r}))"
    folder = Path(run("-c", program, cwd=site.parent, PYTHONPATH=str(site)).strip())
    assert folder.is_relative_to(site)
    assert files_below(folder) == files_below(CHECKOUT / name)


def test_installed_command_answers(site: Path) -> None:
    assert "Usage" in run(site / "bin" / "socratic", "--help", cwd=site.parent, PYTHONPATH=str(site))
