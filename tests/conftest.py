"""Settings and fixtures that all tests share. Nothing here or in the tests reaches the network."""

from __future__ import annotations

import gc
import os

# Read by transformers, datasets and torch when they are first imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # the workers already fill the cores

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from tiny import FAMILIES, byte_tokenizer, metaspace_tokenizer

from socratic.tasks import TASKS, load_chains
from socratic.tasks.base import Item
from socratic.tokens import Codec
from socratic.types import Chain

# No deadline: a busy machine is not a failure. Derandomised: the same tree gives the same verdict.
settings.register_profile("socratic", deadline=None, derandomize=True)
settings.load_profile("socratic")

gc.disable()  # until the first module, see `few_to_search`: what the test modules import is no garbage

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets; skips without ``SOCRATIC_DATA``."""
    folder = os.environ.get("SOCRATIC_DATA")
    if not folder:
        pytest.skip("set SOCRATIC_DATA to the folder of real data sets to run this")
    return Path(folder).resolve(strict=True)


@pytest.fixture(scope="session", autouse=True)
def read_once() -> Iterator[None]:
    """The large ones of the real data sets are read once a process, where a test asks for their files."""

    def once(load: Callable[..., list[Item]]) -> Callable[..., list[Item]]:
        kept = cache(load)

        def loaded(folder: Path | None, *how: Any) -> list[Item]:
            real = os.environ.get("SOCRATIC_DATA")
            is_real = folder is not None and real and folder.resolve() == Path(real).resolve()
            return [*kept(folder, *how)] if is_real else load(folder, *how)

        return loaded

    with pytest.MonkeyPatch.context() as patched:
        for name in ("gsm8k", "gsm8k-main", "commonsenseqa"):
            patched.setitem(TASKS, name, replace(TASKS[name], load=once(TASKS[name].load)))
        yield


@pytest.fixture(scope="module", autouse=True)
def few_to_search() -> None:
    """Garbage is looked for among what came after here alone: every training looks for it, in seconds else."""
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def few_stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the first of the bundled stories; all of them take a second to read."""
    folder = tmp_path_factory.mktemp("bundled") / "stories"
    folder.mkdir()
    for file in (CHECKOUT / "data" / "stories").glob("*.jsonl"):
        with file.open(encoding="utf-8") as rows:
            (folder / file.name).write_text("".join(islice(rows, 300)), "utf-8")
    return folder.parent


@pytest.fixture
def few_bundled(few_stories: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled stories are the first of them alone."""
    monkeypatch.setattr("socratic.tasks.stories.shipped", lambda name: few_stories)


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


@pytest.fixture(scope="session", params=FAMILIES)
def exact(request: pytest.FixtureRequest) -> Codec:
    """A byte-level tokenizer of each family; `gpt2`'s PAD is its END, `llama`'s writes BOS."""
    return Codec(byte_tokenizer(request.param))


@pytest.fixture(scope="session")
def inexact() -> Codec:
    """A tokenizer like T5's, which does not give back every text."""
    return Codec(metaspace_tokenizer())


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2_gguf: Path) -> Any:
    """SmolLM2's own tokenizer; reading it from the file takes seconds."""
    from socratic.lm.load import load_gguf_tokenizer

    return load_gguf_tokenizer(smollm2_gguf)


@pytest.fixture(scope="session")
def gsm8k(data_dir: Path) -> dict[str, Chain]:
    """All 8,792 gold chains of GSM8K by problem id."""
    splits = ("train", "dev", "test")
    return {chain.problem_id: chain for split in splits for chain in load_chains("gsm8k", split, data_dir)}
