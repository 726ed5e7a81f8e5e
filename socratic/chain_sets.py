"""The sets of chains that a recipe makes on its way: what makes them, by the name that ``make`` gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from socratic.augment.make import Kind, augment, chosen_kinds, load_sources
from socratic.config import Settings
from socratic.corrupt import Kind as SpoiledKind
from socratic.corrupt import corrupt
from socratic.evaluate import load_run
from socratic.harvest import harvest, histories
from socratic.tasks import load_chains
from socratic.types import Chain, UserError


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


class CorruptSettings(Settings):
    """How chains are spoiled."""

    share: float = Field(ge=0, le=1, description="of the training chains, how many are spoiled")
    kinds: list[SpoiledKind] = Field(
        ["wrong_step", "reordered", "missing", "verbose"], min_length=1, description="in which ways"
    )
    keep_answer: bool = Field(False, description="a wrong step leaves the final answer right")
    seed: int = Field(0, description="of which chains, and how")


def _corrupt(sources: Sequence[str], settings: CorruptSettings, data_dir: str | None) -> list[Chain]:
    given = [c for source in sources for split in ("train", "dev") for c in load_chains(source, split, data_dir)]
    return corrupt(given, settings.share, settings.kinds, settings.seed, settings.keep_answer).chains


class HarvestSettings(Settings):
    """Which of the students' own chains are kept."""

    most: int | None = Field(None, ge=1, description="chains of a problem at most, the most different")
    share: float | None = Field(
        None, ge=0, le=1, description="for QG: question sequences that led to right answers in so many of the samples"
    )
    history: Literal["own", "predicted"] = Field(
        "own", description="predicted: gold steps behind a student's own first ones, which are not learned"
    )
    trained_on: Literal["refuse", "allow"] = Field(
        "refuse", description="traces on problems that a student was trained on"
    )


def _harvest(sources: Sequence[str], settings: HarvestSettings, data_dir: str | None) -> list[Chain]:
    runs = [load_run(Path(source)) for source in sources]
    gold: list[Chain] = []
    with suppress(UserError):  # a data set need not have any
        gold = load_chains(runs[0].config["data"], runs[0].config["split"], data_dir)
    if settings.history == "predicted":
        return histories(runs, gold, most=settings.most, trained_on=settings.trained_on).chains
    return harvest(runs, gold, most=settings.most, trained_on=settings.trained_on, share=settings.share).chains


MAKERS = {
    "augment": Maker(AugmentSettings, _augment),
    "corrupt": Maker(CorruptSettings, _corrupt),
    "harvest": Maker(HarvestSettings, _harvest, of_runs=True),
}
