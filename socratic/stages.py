"""The stages of a recipe: a set of chains to be made, a student to be trained, a solver to be run.

Each has a folder named by a hash of all that decides its content, what it builds on included: a recipe that changes
does only what the change touches, and goes back without doing anything. A link without the hash names the folder last
used.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from socratic import store
from socratic.answers import SCORER_VERSION
from socratic.chain_sets import Maker, Making
from socratic.choosing import choose, judged, pooled, spent, within, write_chosen
from socratic.config import Settings
from socratic.evaluate import failed_for_now, load_run
from socratic.lm.base import LM
from socratic.lm.checkpoint import is_checkpoint
from socratic.lm.load import load_lm
from socratic.prepare import TrainingRun, TrainSettings
from socratic.progress import Training, evaluate_with_bar
from socratic.recipe import SelectionSpec
from socratic.solving import SolveSettings, Solving
from socratic.tasks import Reading
from socratic.tasks.base import SplitScheme
from socratic.tasks.sets import CHAINS
from socratic.types import Chain, Problem, QGSees, Role, UserError
from socratic.verifier import checked_verifier, judge, verifier_name


@dataclass(frozen=True, eq=False)
class Stage(ABC):
    """One folder to be filled; ``key`` hashes what decides its content, ``needs`` must be done before.

    Not in it: dev and test problems that augmented chains are kept apart from, but for how data are split.
    """

    name: str
    link: Path
    key: str
    needs: tuple[Stage, ...]

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether the folder is whole."""

    @property
    def folder(self) -> Path:
        """Where it goes."""
        return self.link.with_name(f"{self.link.name}.{self.key[:8]}")

    def point(self) -> None:
        """Let the name without hash lead to the folder; raises `UserError` where something else has that name."""
        self.check_link()
        if self.link.is_symlink() and os.readlink(self.link) == self.folder.name:
            return
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(self.folder.name)

    def check_link(self) -> None:
        """Raise `UserError` where something that is no link has its name."""
        if self.link.exists() and not self.link.is_symlink():
            raise UserError(
                f"{self.link} is in the way of a link to {self.folder.name}; move it, or give another --out"
            )


@dataclass(frozen=True, eq=False)
class SetStage(Stage):
    """Chains to be made by ``maker``, of ``sources``; what they are made of is read as ``reading`` says."""

    maker: Maker
    settings: Settings
    sources: tuple[str, ...]
    limit: int | None
    students: Mapping[str | None, str]
    reading: Reading

    @property
    def done(self) -> bool:
        return (self.folder / CHAINS).is_file()

    def run(self, number: str, console: Console, batch_size: int) -> None:
        """Make them, and say how many there are."""
        making = Making(self.sources, self.limit, self.students, self.folder, self.reading, batch_size, console)
        console.print(f"{number} {self.name}", soft_wrap=True)
        chains = self.maker.make(making, self.settings)
        store.write_jsonl(self.folder / CHAINS, (chain.to_json() for chain in chains))
        for part in self.folder.glob("*.part"):  # the same chains, kept as they were made
            shutil.rmtree(part)
        console.print(f"{number} {self.name}: {len(chains):,} chains", soft_wrap=True)


@dataclass(frozen=True, eq=False)
class TrainStage(Stage):
    """A student to be trained; ``sources`` are the names of data sets and the files that hold its chains.

    ``chains_recipe`` is as in `TrainingRun`.
    """

    role: Role
    qg_sees: QGSees
    student: str
    sources: tuple[str, ...]
    chains_recipe: str | None
    settings: TrainSettings

    @property
    def done(self) -> bool:
        return is_checkpoint(self.folder) and store.check_manifest(self.folder) is None

    def training(self, number: str, load: Callable[[str, str], list[Chain]]) -> Training:
        """What is to be done; ``load`` gives the chains of a source and a split."""
        chains, dev = ([c for source in self.sources for c in load(source, split)] for split in ("train", "dev"))
        if not chains:
            raise UserError(f"{self.name}: nothing came to stand in {', '.join(self.sources)}; make that less strict")
        run = TrainingRun(
            self.role, self.student, chains, dev, ", ".join(self.sources), self.qg_sees, self.chains_recipe
        )
        return Training(f"{number} {self.name}", run, self.settings, self.folder)


@dataclass(frozen=True, eq=False)
class EvaluateStage(Stage):
    """An arm to be run over ``problems`` of one split; ``models`` are places and the MODEL in each.

    ``source`` is the data set and the split that the problems are of, ``split`` what the recipe calls it, and
    ``split_scheme`` is recorded.
    """

    source: tuple[str, str]
    split: str
    split_scheme: SplitScheme
    arm: str
    samples: int
    fold: str | None
    problems: tuple[Problem, ...]
    settings: SolveSettings
    models: Mapping[str, str]

    @property
    def calculator(self) -> bool:
        """Whether it is on."""
        return bool(self.settings.calculator)

    @property
    def done(self) -> bool:
        return _is_run(self.folder)

    def run(self, number: str, console: Console, loaded: Mapping[str, LM], batch_size: int) -> None:
        """Solve with the models ``loaded``; an interrupted run is continued."""
        data, split = self.source
        record = {"data": data, "split": split, "split_scheme": self.split_scheme, "arm": self.arm}
        evaluate_with_bar(
            f"{number} {self.name}",
            self.problems,
            Solving(self.settings, **{place: loaded[model] for place, model in self.models.items()}),
            self.folder,
            record=record | ({"fold": self.fold} if self.fold else {}),
            samples=self.samples,
            resume="if-possible",
            batch_size=batch_size,
            console=console,
        )


@dataclass(frozen=True, eq=False)
class SelectStage(Stage):
    """A choice among the samples of the runs in ``folders``; ``match`` is the run whose tokens it may take."""

    split: str
    arm: str
    calculator: bool
    folders: tuple[Path, ...]
    match: Path | None
    verifier: str | None
    how: SelectionSpec

    @property
    def done(self) -> bool:
        return _is_run(self.folder) and all(stage.done for stage in self.needs)

    def run(self, batch_size: int) -> None:
        """Have the verifier, if there is one, judge what it has not judged yet, and write the run of what is chosen."""
        runs = [load_run(folder) for folder in self.folders]
        how: dict[str, Any] = self.how.model_dump(exclude={"of", "verifier"}, exclude_none=True)
        judgements = []
        if self.verifier:
            lm = checked_verifier(load_lm(self.verifier, dtype="fp32"))
            how["verifier"] = lm.record()
            ask = partial(judge, lm=lm, batch_size=batch_size)
            judgements = [judged(run, verifier_name(lm), ask) for run in runs]
        pool = pooled(runs, judgements, self.how.over)
        most = spent(load_run(self.match)) if self.match else None
        among = {id: within(own, most[id]) if most else own[: self.how.k] for id, own in pool.items()}
        chosen = {id: (choose(own, self.how.by), own) for id, own in among.items()}
        shutil.rmtree(self.folder, ignore_errors=True)  # of samples that an endpoint has failed at since
        write_chosen(runs, chosen, how, self.folder, self.arm)


def _is_run(folder: Path) -> bool:
    """Whether a run is complete, scored as now, and has no sample that is to be asked for again."""
    try:
        run = load_run(folder)
    except UserError:
        return False
    if run.metrics is None or run.metrics["scorer_version"] != SCORER_VERSION:
        return False
    return not any(map(failed_for_now, run.traces))
