"""A recipe at its smallest size: the whole way in seconds, on bundled problems, with students made of nothing.

What comes of it says that a recipe runs, and nothing else: its test problems are those it trains on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from socratic.store import shipped

_SMALL: dict[str, Any] = {
    "data": str(shipped("data") / "stories" / "unseen.jsonl"),
    "chains": None,
    "splits": ["test"],
    "limit": 2,
    "seeds": [0],
    "student": "scratch:llama-mini",
    "samples": 1,
    "calculator": [True],
    "jobs": 1,
    "training": {"max_steps": 2, "batch_size": 2, "limit": 16, "dev_limit": 2, "compile": False},
    "solving": {"max_steps": 2, "max_tokens": 8, "max_rationale_tokens": 16},
}
_MOST = {"rounds": 1, "folds": 2, "samples": 2, "k": 2}
_OWN = (*_SMALL["training"], "epochs", "learning_rate", "lora_rank", "trainer")


def smoke(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """``recipe``, as YAML has it, made small; what stands below its key ``smoke`` goes over that, entry by entry.

    An entry that is null there is left out.
    """
    own = recipe.get("smoke") or {}
    small: dict[str, Any] = _at_most({**recipe, **_SMALL})
    small["students"] = {
        name: {key: _local(key, _bundled(key, value)) for key, value in student.items() if key not in _OWN}
        for name, student in small["students"].items()
    }
    small["sets"] = {
        name: {key: _bundled(key, value) for key, value in made.items()} | {"limit": 8}
        for name, made in small.get("sets", {}).items()
    }
    small["samplings"] = {name: {**entry, "limit": 4} for name, entry in small.get("samplings", {}).items()}
    for key, value in own.items():
        if isinstance(value, dict) and isinstance(small.get(key), dict):
            value = {name: entry for name, entry in {**small[key], **value}.items() if entry is not None}
        small[key] = value
    return small


def _bundled(key: str, value: Any) -> Any:
    """``value`` with other data sets' chains, of which nothing is bundled, as the bundled ones."""
    if key not in ("chains", "of"):
        return value
    return list(dict.fromkeys("gold" if name.startswith("gold:") else name for name in value))


def _local(key: str, value: Any) -> Any:
    """``value`` with a student of the Hub as the small one."""
    return _SMALL["student"] if key == "student" and "/" in str(value) else value


def _at_most(value: Any) -> Any:
    """``value`` with every count among `_MOST`, at any depth, no larger than there."""
    if not isinstance(value, dict):
        return value
    return {
        key: min(inner, _MOST[key]) if key in _MOST and isinstance(inner, int) else _at_most(inner)
        for key, inner in value.items()
    }
