"""The training curves of the students that runs were made with, from the logs beside their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from socratic import store
from socratic.evaluate import Run
from socratic.origin import student_folder
from socratic.types import UserError


@dataclass(frozen=True)
class Curve:
    """Loss in nats per learned token at updates, while training and on dev; ``place`` is of the first arm it is in."""

    student: str
    place: int
    train: tuple[tuple[int, float], ...]
    dev: tuple[tuple[int, float], ...]


def curves(arms: Sequence[Sequence[Run]]) -> tuple[list[Curve], list[str]]:
    """The curve of every student of ``arms`` once, and the names of those whose folder is not to be found."""
    found: dict[str, Curve | None] = {}
    names: dict[str, str] = {}
    for place, runs in enumerate(arms):
        for run in runs:
            for model in run.config.get("models", {}).values():
                key = f"{model.get('name')} {model.get('sha256')}"
                names[key] = str(model.get("name"))
                if found.get(key) is None:
                    folder = student_folder(run.path, model)
                    found[key] = _curve(folder, names[key], place) if folder else None
    return [curve for curve in found.values() if curve], [names[key] for key, curve in found.items() if not curve]


def _curve(folder: Path, name: str, place: int) -> Curve | None:
    try:
        log = list(store.read_jsonl(folder / "log.jsonl"))
        train, dev = (
            tuple((int(line["step"]), float(line[key])) for line in log if key in line) for key in ("loss", "eval_loss")
        )
    except (UserError, KeyError, TypeError, ValueError):
        return None
    return Curve(name, place, train, dev) if train or dev else None
