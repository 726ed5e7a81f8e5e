from __future__ import annotations

import fcntl
import importlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from tiny import byte_tokenizer, causal_model, problems

from socratic.cluster import RaySolving
from socratic.evaluate import evaluate, load_run
from socratic.lm.base import LM
from socratic.lm.load import load_lm
from socratic.solving import SolveSettings
from socratic.types import Problem, Trace, UserError

ray: Any = pytest.importorskip("ray", reason="Ray (the extra [ray]) is not installed")

SETTINGS = SolveSettings.parse({"max_tokens": 40, "max_steps": 4, "temperature": 1.0, "seed": 3})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two machines of one core each, played by this one; pytest's processes wait here for each other."""
    turn = (tmp_path_factory.getbasetemp().parent / "cluster.lock").open("w")
    fcntl.flock(turn, fcntl.LOCK_EX)
    small: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80_000_000}
    made: Any = importlib.import_module("ray.cluster_utils").Cluster(
        initialize_head=True, head_node_args={**small, "include_dashboard": False}
    )
    try:
        made.add_node(**small)
        here = os.environ.get("PYTHONPATH", "")
        tests = str(Path(__file__).parent)
        ray.init(made.address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": f"{tests}:{here}"}})
        yield
    finally:
        ray.shutdown()
        made.shutdown()
        turn.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    tokenizer = byte_tokenizer("llama")
    found = {}
    for seed, place in enumerate(("qg", "qa")):
        folder = tmp_path_factory.mktemp(place)
        causal_model("llama", tokenizer, seed).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        found[place] = str(folder)
    return found


@pytest.fixture(scope="module")
def lms(models: dict[str, str]) -> dict[str, LM]:
    return {place: load_lm(model, dtype="fp32") for place, model in models.items()}


def workers() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if any("MapWorker" in word for word in _command(p))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_loses_and_doubles_nothing(models: dict[str, str], lms: dict[str, LM], tmp_path: Path) -> None:
    over_there = RaySolving(SETTINGS, lms, models, "fp32")
    asked = problems(40)
    killed: list[int] = []

    def solve(jobs: list[tuple[Problem, int]]) -> Iterator[Trace]:
        for trace in over_there.run(jobs, batch_size=2):
            if not killed:
                found = workers()
                assert len(found) == 2
                killed.append(found[0].pid)
                found[0].kill()
            yield trace

    evaluate(asked, solve, tmp_path / "run", over_there.record(), samples=2)
    assert killed
    run = load_run(tmp_path / "run")
    here = {
        (t.problem_id, t.sample): t for t in super(RaySolving, over_there).run((p, k) for p in asked for k in (0, 1))
    }
    assert len(run.traces) == len(here) == 80
    assert {(t.problem_id, t.sample): replace(t, seconds=0) for t in run.traces} == {
        key: replace(trace, seconds=0) for key, trace in here.items()
    }


@pytest.mark.usefixtures("cluster")
def test_a_student_that_a_worker_cannot_load_is_named(lms: dict[str, LM], tmp_path: Path) -> None:
    elsewhere = {"qg": str(tmp_path / "only-here"), "qa": str(tmp_path / "only-here")}
    with pytest.raises(UserError, match=r"a worker says: .*only-here"):
        list(RaySolving(SETTINGS, lms, elsewhere, "fp32").run([(problems(1)[0], 0)]))
