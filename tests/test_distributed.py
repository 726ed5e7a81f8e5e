"""Several processes over the same global batches (DDP, gloo) against one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_trainer import CHAINS, save_tiny

from socratic.lm.checkpoint import Card, read_card
from socratic.store import read_jsonl, write_jsonl

SETTINGS = {
    "max_steps": 6,
    "learning_rate": 0.01,
    "schedule": "constant",
    "precision": "fp32",
    "limit": 24,  # three full batches an epoch
    "dev_limit": 6,  # which no number of processes and batches divides
    "trainer": "{logging_steps: 1}",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = [
        {
            "question": f"{chain.question} {'Think. ' * (i % 5)}",
            "steps": [step.to_json() for step in chain.steps],
            "answer": chain.answer,
        }
        for i, chain in enumerate(CHAINS * 12)
    ]
    write_jsonl(folder / "chains.jsonl", rows)
    save_tiny(folder / "student", "llama")
    return folder


def train(data: Path, name: str, processes: int, batch_size: int) -> tuple[Card, dict[str, list[float]]]:
    settings = {**SETTINGS, "batch_size": batch_size}
    command = ["train", "qa", "--chains", data / "chains.jsonl", "--student", data / "student", "--out", data / name]
    given = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes] if processes > 1 else []
    words = [sys.executable, *launch, "-m", "socratic.cli", *command, *given]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([str(word) for word in words], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    log = list(read_jsonl(data / name / "log.jsonl"))
    return read_card(data / name), {kind: [e[kind] for e in log if kind in e] for kind in ("loss", "eval_loss")}


def test_two_processes_learn_what_one_does(data: Path) -> None:
    alone, its_losses = train(data, "alone", 1, 8)
    both, their_losses = train(data, "both", 2, 4)
    assert len(its_losses["loss"]) == 6
    assert its_losses["loss"][0] - its_losses["loss"][-1] > 0.5
    assert len(its_losses["eval_loss"]) > 1
    for kind, losses in its_losses.items():
        assert their_losses[kind] == pytest.approx(losses, abs=1e-4)
    for measured in ("dev_loss", "updates", "trained_tokens", "input_tokens"):
        assert both.metrics[measured] == pytest.approx(alone.metrics[measured], abs=1e-4)
