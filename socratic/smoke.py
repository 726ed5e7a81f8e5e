"""A recipe at its smallest size: the whole way in seconds, on bundled problems, with students made of nothing.

What comes of it says that a recipe runs, and nothing else: its test problems are those it trains on, and where it
tests on another data set with choices, a few everyday ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from socratic.chain_sets import MAKERS
from socratic.store import shipped
from socratic.tasks import TASKS
from socratic.types import UserError

_SMALL: dict[str, Any] = {
    "data": str(shipped("data") / "stories" / "unseen.jsonl"),
    "chains": None,
    "limit": 2,
    "seeds": [0],
    "student": "scratch:llama-mini",
    "samples": 1,
    "jobs": 1,
    "training": {"max_steps": 2, "batch_size": 2, "limit": 16, "dev_limit": 2, "compile": False},
    "solving": {"max_steps": 2, "max_tokens": 8, "max_rationale_tokens": 16},
}
_WITH_CHOICES = str(shipped("data") / "everyday.jsonl")
_MOST = {"rounds": 1, "folds": 2, "samples": 2, "k": 1}
_OWN_CHAINS = ("gold:", "answers:")
_OWN = (*_SMALL["training"], "epochs", "learning_rate", "lora_rank", "best_by", "partner", "trainer")


def smoke(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """``recipe``, as YAML has it, made small; what stands below its key ``smoke`` goes over that, entry by entry.

    An entry that is null there is left out.
    """
    own = recipe.get("smoke") or {}
    small: dict[str, Any] = _at_most({**recipe, **_SMALL})
    if temperature := (recipe.get("solving") or {}).get("temperature"):  # which several samples need
        small["solving"] = {**small["solving"], "temperature": temperature}
    small["calculator"] = (recipe.get("calculator") or [True])[:1]
    small["students"] = {
        name: {key: _local(key, _bundled(key, value)) for key, value in student.items() if key not in _OWN}
        for name, student in small["students"].items()
    }
    of_runs = {name for name, maker in MAKERS.items() if maker.of == "runs"}
    small["sets"] = {
        name: {key: _bundled(key, value) for key, value in made.items()}
        | ({} if made.get("make") in of_runs else {"limit": 8})  # whose samplings have theirs
        for name, made in small.get("sets", {}).items()
    }
    small["splits"] = _bundled_splits(recipe.get("splits") or ["test"])
    small["samplings"] = {name: {**entry, "limit": 4} for name, entry in small.get("samplings", {}).items()}
    for key, value in own.items():
        if isinstance(small.get(key), dict):
            if not isinstance(value, dict):
                raise UserError(
                    f"smoke.{key}={value!r} changes nothing that has a name; write NAME: …, or leave {key} out"
                )
            value = {name: entry for name, entry in {**small[key], **value}.items() if entry is not None}
        small[key] = value
    small["arms"] = {
        name: {
            key: _bundled_splits(value) if key == "on" and isinstance(value, list) else value
            for key, value in arm.items()
        }
        if isinstance(arm, dict)
        else arm  # which is refused as a recipe's
        for name, arm in small["arms"].items()
    }
    return small


def _bundled(key: str, value: Any) -> Any:
    """``value`` with other data sets' chains, of which nothing is bundled, as the bundled ones."""
    if key not in ("chains", "of") or not isinstance(value, list):  # which is refused as a recipe's
        return value
    return list(dict.fromkeys(name.partition(":")[0] if name.startswith(_OWN_CHAINS) else name for name in value))


def _local(key: str, value: Any) -> Any:
    """``value`` with a student of the Hub as the small one."""
    return _SMALL["student"] if key == "student" and "/" in str(value) else value


def _bundled_splits(splits: Sequence[Any]) -> list[str]:
    """What stands in place of ``splits``: of data sets with choices the bundled problems with choices, else `test`."""
    names = [str(split).rpartition(":")[0] for split in splits]
    choices = [name in TASKS and TASKS[name].answer_type in ("choice", "yesno") for name in names]
    return list(dict.fromkeys(f"{_WITH_CHOICES}:test" if chosen else "test" for chosen in choices))


def _at_most(value: Any) -> Any:
    """``value`` with every count among `_MOST`, at any depth, no larger than there."""
    if not isinstance(value, dict):
        return value
    return {
        key: min(inner, _MOST[key]) if key in _MOST and isinstance(inner, int) else _at_most(inner)
        for key, inner in value.items()
    }
