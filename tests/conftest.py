"""Settings and fixtures that all tests share. Nothing here or in the tests reaches the network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Read by transformers, datasets and torch when they are first imported, so set before any test module is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # the workers already fill the cores

# No deadline: a busy machine is not a failure. Derandomised: the same tree gives the same verdict.
settings.register_profile("socratic", deadline=None, derandomize=True)
settings.load_profile("socratic")

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets; skips without ``SOCRATIC_DATA``."""
    folder = os.environ.get("SOCRATIC_DATA")
    if not folder:
        pytest.skip("set SOCRATIC_DATA to the folder of real data sets to run this")
    return Path(folder).resolve(strict=True)


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, from ``SOCRATIC_SMOLLM2`` or ``models/``; skips without it."""
    named = os.environ.get("SOCRATIC_SMOLLM2")
    if named:
        return Path(named).resolve(strict=True)
    local = CHECKOUT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not local.is_file():
        pytest.skip("set SOCRATIC_SMOLLM2 to SmolLM2-135M-Instruct.Q4_1.gguf to run this")
    return local
