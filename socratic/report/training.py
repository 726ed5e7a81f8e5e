"""The training curves of the students that runs were made with, from the logs beside their weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socratic import store
from socratic.evaluate import Run
from socratic.lm.checkpoint import CARD
from socratic.types import UserError

_FOLDERS_UP = 3  # a run lies beside its students, or in a folder or two below them


@dataclass(frozen=True)
class Curve:
    """Loss in nats per learned token at updates, while training and on dev; ``place`` is of the first arm it is in."""

    student: str
    place: int
    train: tuple[tuple[int, float], ...]
    dev: tuple[tuple[int, float], ...]


def curves(arms: Sequence[Sequence[Run]]) -> tuple[list[Curve], list[str]]:
    """The curve of every student of ``arms`` once, and the names of those whose folder is not to be found.

    A run records the name of a student's folder and a hash of its weights, not where it lay: it is looked for in the
    folders above the run, and taken where the hash is the same.
    """
    found: dict[str, Curve | None] = {}
    names: dict[str, str] = {}
    for place, runs in enumerate(arms):
        for run in runs:
            for model in run.config.get("models", {}).values():
                key = f"{model.get('name')} {model.get('sha256')}"
                names[key] = str(model.get("name"))
                if found.get(key) is None:
                    folder = _folder(run.path, model)
                    found[key] = _curve(folder, names[key], place) if folder else None
    return [curve for curve in found.values() if curve], [names[key] for key, curve in found.items() if not curve]


def _folder(run: Path, model: dict[str, Any]) -> Path | None:
    name = str(model.get("name"))
    if name != Path(name).name:
        return None  # a whole path, or one that leads elsewhere
    for parent in run.resolve().parents[:_FOLDERS_UP]:
        try:
            if str(model.get("sha256")) in _fingerprints(parent / name):
                return parent / name
        except (UserError, KeyError, TypeError, AttributeError):
            continue
    return None


def _fingerprints(folder: Path) -> Iterator[str]:
    """What a run would call the student in ``folder``, as a full model and as an adapter, by what its files record."""
    files = store.read_json(folder / store.MANIFEST)["files"]
    weights = store.hash_json({file: files[file]["sha256"] for file in files if Path(file).match("*.safetensors")})
    yield weights
    yield store.hash_json([store.read_json(folder / CARD)["base"]["sha256"], weights])


def _curve(folder: Path, name: str, place: int) -> Curve | None:
    try:
        log = list(store.read_jsonl(folder / "log.jsonl"))
        train, dev = (
            tuple((int(line["step"]), float(line[key])) for line in log if key in line) for key in ("loss", "eval_loss")
        )
    except (UserError, KeyError, TypeError, ValueError):
        return None
    return Curve(name, place, train, dev) if train or dev else None
