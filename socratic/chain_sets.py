"""The sets of chains that a recipe makes on its way: what makes them, by the name that ``make`` gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from socratic.augment.make import Kind, augment, chosen_kinds, load_sources
from socratic.config import Settings
from socratic.types import Chain


@dataclass(frozen=True)
class Maker:
    """``make(sources, settings, data_dir)`` gives the chains of train and dev.

    Sources are data sets or files of chains as `load_chains` takes them, or with ``of_runs`` the folders of runs.
    """

    settings: type[Settings]
    make: Callable[[Sequence[str], Any, str | None], list[Chain]]
    of_runs: bool = False


class AugmentSettings(Settings):
    """How chains are made from chains."""

    kinds: list[Kind] = Field(min_length=1, description="prefix, vary: new problems; marks, bare: the same rewritten")
    copies: int = Field(1, ge=1, description="variations of each problem")
    seed: int = Field(0, description="of the numbers drawn")


def _augment(sources: Sequence[str], settings: AugmentSettings, data_dir: str | None) -> list[Chain]:
    loaded = [load_sources(source, [], data_dir) for source in sources]
    given = [chain for chains, _ in loaded for chain in chains]
    others = [problem for _, problems in loaded for problem in problems]
    return augment(given, chosen_kinds(settings.kinds), others, settings.copies, settings.seed).chains


MAKERS = {"augment": Maker(AugmentSettings, _augment)}
