from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from sample_runs import as_gold, make_page_of, make_run

from socratic import store
from socratic.evaluate import Run
from socratic.report.training import Curve, curves

LOG = [{"loss": 2.0, "step": 10}, {"loss": 1.0, "step": 20}, {"eval_loss": 1.5, "step": 20}, {"train_runtime": 3.0}]


def make_student(folder: Path, base: str | None = None) -> dict[str, Any]:
    """A student's folder as far as its curve is concerned, and what a run says of it; with ``base`` an adapter."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(folder.name.encode())
    store.write_json(folder / "socratic.json", {"base": {"sha256": base}})
    store.write_jsonl(folder / "log.jsonl", LOG)
    store.write_manifest(folder)
    weights = store.hash_json({"model.safetensors": store.hash_file(folder / "model.safetensors")})
    return {"name": folder.name, "sha256": weights if base is None else store.hash_json([base, weights])}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    students = {"qg": make_student(tmp_path / "qg"), "qa": make_student(tmp_path / "qa", base="abc")}
    return make_run(tmp_path / "test" / "run", as_gold, models=students)


def test_the_logs_of_students_near_the_run_are_read(run: Run) -> None:
    found, missing = curves([[run]])
    assert found[0] == Curve("qg", 0, ((10, 2.0), (20, 1.0)), ((20, 1.5),))
    assert [curve.student for curve in found] == ["qg", "qa"]
    assert missing == []


def test_a_student_of_several_arms_is_drawn_once(run: Run) -> None:
    assert [(curve.student, curve.place) for curve in curves([[run], [run]])[0]] == [("qg", 0), ("qa", 0)]


def exchange(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"others")
    store.write_manifest(folder)


@pytest.mark.parametrize(
    "spoil",
    [
        exchange,
        lambda folder: (folder / "log.jsonl").write_text("no log"),
        lambda folder: (folder / "log.jsonl").unlink(),
        lambda folder: (folder / "manifest.json").write_text("[]"),
        lambda folder: folder.rename(folder.with_name("moved")),
    ],
    ids=["other weights", "no log", "log gone", "no manifest", "moved"],
)
def test_another_student_is_not_taken_for_it(run: Run, tmp_path: Path, spoil: Any) -> None:
    spoil(tmp_path / "qg")
    found, missing = curves([[run]])
    assert ([curve.student for curve in found], missing) == (["qa"], ["qg"])


def test_what_is_missing_is_said(run: Run) -> None:
    elsewhere = {"qg": {**run.config["models"]["qg"], "name": "../../qg"}}
    report = make_page_of([dataclasses.replace(run, config={**run.config, "models": elsewhere})])
    assert "../../qg" in report.notes[-1]
    assert "training" in [plot.name for plot in make_page_of([run]).plots]
