"""What students learn from beside gold: chains that a recipe made on its way, and answers alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from socratic.store import read_records
from socratic.tasks import load_chains, load_problems
from socratic.tasks.base import Reading, carve, gold_chain
from socratic.types import Chain

CHAINS = "chains.jsonl"
"""The file in the folder of a set."""
SETS = "sets"
"""The folder that has the sets of a recipe, each in one called NAME.HASH."""
ANSWERS = "answers"
"""Before the name of a data set, as in ``answers:coin_flip``: chains without steps, for the role ``answer``."""


def load_set(source: str, split: str, reading: Reading) -> list[Chain]:
    """The chains of a data set or a user's file, as `load_chains` gives them, or of a set, which may be empty.

    A set may hold one problem in several forms, which a user's file may not. ``answers:NAME`` gives a chain without
    steps of each problem of a data set or file.
    """
    if is_answers(source):
        return load_answers(source.removeprefix(f"{ANSWERS}:"), split, **reading)
    path = Path(source)
    if (path.name, path.parent.parent.name) != (CHAINS, SETS) or not re.search(r"\.[0-9a-f]{8}$", path.parent.name):
        return load_chains(source, split, **reading)
    made = read_records(path, Chain)
    return [chain for _, chain in carve([(chain.problem(), chain) for chain in made], split) if chain]


def is_answers(chains: str) -> bool:
    """Whether a recipe or ``--chains`` names answers alone so."""
    return chains.partition(":")[0] == ANSWERS


def load_answers(name: str, split: str, **how: Any) -> list[Chain]:
    """A chain without steps of each problem of a data set or file; arguments as `load_problems`."""
    return [gold_chain(problem, ()) for problem in load_problems(name, split, **how)]
