"""What students learn from beside gold: chains that a recipe made on its way, and answers alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from socratic.store import read_records
from socratic.tasks import load_chains, load_problems
from socratic.tasks.base import Reading, carve, gold_chain
from socratic.types import Chain, Role, UserError

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
    path = Path(source)
    if (path.name, path.parent.parent.name) != (CHAINS, SETS) or not re.search(r"\.[0-9a-f]{8}$", path.parent.name):
        return load_named(source, split, **reading)
    return of_split(read_records(path, Chain), split)


def of_split(chains: Iterable[Chain], split: str) -> list[Chain]:
    """Of ``chains`` of train and dev those of ``split``; of any other split all."""
    return [chain for _, chain in carve([(chain.problem(), chain) for chain in chains], split) if chain]


def load_named(source: str, split: str, **how: Any) -> list[Chain]:
    """Chains as ``--chains`` names them: ``gold:NAME``, ``answers:NAME``, or a file; arguments as `load_chains`."""
    if (data := source.removeprefix(f"{ANSWERS}:")) != source:
        return [gold_chain(problem, ()) for problem in load_problems(data, split, **how)]
    return load_chains(source.removeprefix("gold:"), split, **how)


def check_learned(where: str, sources: Iterable[str], role: Role, also: Role | None) -> None:
    """Raise `UserError` where a student is to learn steps from answers alone."""
    if {role, also or role} != {"answer"} and any(source.partition(":")[0] == ANSWERS for source in sources):
        raise UserError(f"{where} names {ANSWERS}, which have no steps; only the role answer learns them")
