"""Chains that a recipe made on its way, in a folder of their own beside its students."""

from __future__ import annotations

import re
from pathlib import Path

from socratic.store import read_records
from socratic.tasks import load_chains
from socratic.tasks.base import Reading, carve
from socratic.types import Chain

CHAINS = "chains.jsonl"
"""The file in the folder of a set."""
SETS = "sets"
"""The folder that has the sets of a recipe, each in one called NAME.HASH."""


def load_set(source: str, split: str, reading: Reading) -> list[Chain]:
    """The chains of a data set or a user's file, as `load_chains` gives them, or of a set, which may be empty.

    A set may hold one problem in several forms, which a user's file may not.
    """
    path = Path(source)
    if (path.name, path.parent.parent.name) != (CHAINS, SETS) or not re.search(r"\.[0-9a-f]{8}$", path.parent.name):
        return load_chains(source, split, **reading)
    made = read_records(path, Chain)
    return [chain for _, chain in carve([(chain.problem(), chain) for chain in made], split) if chain]
