"""A recipe as stages: students are trained, arms are evaluated, runs are compared; what is done is not done again.

Each stage has a folder named by a hash of all that decides its result, what it builds on included: a recipe that
changes trains and solves only what the change touches, and goes back without doing anything. A link without the hash
names the folder last used.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml
from rich.console import Console

from socratic import store
from socratic.evaluate import load_run
from socratic.lm.base import LM
from socratic.lm.checkpoint import is_checkpoint
from socratic.lm.load import hush_transformers, load_lm
from socratic.prepare import TrainingRun, TrainSettings
from socratic.progress import Training, evaluate_with_bar, train_with_bars
from socratic.prompts import TRANSCRIPT_VERSION
from socratic.recipe import Recipe, arm_of, student_of
from socratic.report.compare import Comparison, compare
from socratic.solving import SolveSettings, Solving
from socratic.tasks import load_chains, load_problems
from socratic.tasks.overlap import Overlaps, find_overlaps
from socratic.types import Chain, Problem, UserError


@dataclass(frozen=True)
class Stage(ABC):
    """One folder to be filled; ``key`` hashes all that decides its content."""

    name: str
    link: Path
    key: str

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether the folder is whole."""

    @property
    def folder(self) -> Path:
        """Where it goes."""
        return self.link.with_name(f"{self.link.name}.{self.key[:8]}")


@dataclass(frozen=True)
class TrainStage(Stage):
    """A student to be trained."""

    run: TrainingRun
    settings: TrainSettings

    @property
    def done(self) -> bool:
        return is_checkpoint(self.folder) and store.check_manifest(self.folder) is None


@dataclass(frozen=True)
class EvaluateStage(Stage):
    """An arm to be run over the problems of one split; ``models`` are places and the MODEL in each."""

    arm: str
    split: str
    calculator: bool
    problems: tuple[Problem, ...]
    settings: SolveSettings
    models: Mapping[str, str]

    @property
    def done(self) -> bool:
        try:
            return load_run(self.folder).metrics is not None
        except UserError:
            return False


@dataclass(frozen=True)
class Plan:
    """All stages of a recipe in order, and what train shares with each split."""

    recipe: Recipe
    out: Path
    training: tuple[TrainStage, ...]
    evaluation: tuple[EvaluateStage, ...]
    overlaps: Mapping[str, Overlaps]

    def runs(self, split: str, calculator: bool) -> list[Path]:
        """The run folders of one table, arm by arm."""
        return [s.link for s in self.evaluation if (s.split, s.calculator) == (split, calculator)]


def make_plan(recipe: Recipe, out: Path, data_dir: str | None = None) -> Plan:
    """The stages of ``recipe`` below the folder ``out``; reads the data, runs nothing."""
    source = recipe.chains or recipe.data
    chains, dev = (load_chains(source, split, data_dir) for split in ("train", "dev"))
    problems = {split: tuple(load_problems(recipe.data, split, data_dir, recipe.limit)) for split in recipe.splits}
    training = tuple(_train_stages(recipe, out, source, chains, dev))
    evaluation = tuple(_evaluate_stages(recipe, out, problems, {s.link.name: s for s in training}))
    trained = [chain.problem() for chain in chains]
    overlaps = {split: find_overlaps(trained, tests) for split, tests in problems.items()}
    return Plan(recipe, out, training, evaluation, overlaps)


def run_plan(plan: Plan, console: Console) -> dict[str, Comparison]:
    """Do whatever is not done yet, and compare the arms: a comparison for each split and calculator setting.

    Each stage continues where it was interrupted. The resolved recipe and the comparisons stay in the plan's folder.
    """
    with store.lock(plan.out):
        return _run_plan(plan, console)


def _run_plan(plan: Plan, console: Console) -> dict[str, Comparison]:
    for stage in (*plan.training, *plan.evaluation):
        if stage.link.exists() and not stage.link.is_symlink():
            raise UserError(
                f"{stage.link} is in the way of a link to {stage.folder.name}; move it, or give another --out"
            )
    store.atomic_write(plan.out / "recipe.yaml", yaml.safe_dump(plan.recipe.model_dump(), sort_keys=False).encode())
    store.write_json(plan.out / "overlap.json", {split: found.to_json() for split, found in plan.overlaps.items()})
    hush_transformers()
    count = len(plan.training) + len(plan.evaluation)
    todo = [
        Training(f"{number}/{count} {stage.name}", stage.run, stage.settings, stage.folder)
        for number, stage in enumerate(plan.training, start=1)
        if not stage.done
    ]
    train_with_bars(todo, plan.recipe.jobs, console)
    for stage in plan.training:
        _link(stage)
    loaded: dict[str, LM] = {}
    for number, run in enumerate(plan.evaluation, start=len(plan.training) + 1):
        if not run.done:
            loaded = {model: loaded.get(model) or load_lm(model) for model in run.models.values()}
            solving = Solving(run.settings, **{place: loaded[model] for place, model in run.models.items()})
            record = {"data": plan.recipe.data, "split": run.split, "split_scheme": "authors", "arm": run.arm}
            size, samples = plan.recipe.batch_size, plan.recipe.samples
            what = f"{number}/{count} {run.name}"
            evaluate_with_bar(
                what,
                run.problems,
                solving,
                run.folder,
                record=record,
                samples=samples,
                resume="if-possible",
                batch_size=size,
                console=console,
            )
        _link(run)
    compared = {
        f"{split}, calculator {'on' if on else 'off'}": compare([load_run(run) for run in plan.runs(split, on)])
        for split in plan.recipe.splits
        for on in plan.recipe.calculator
    }
    store.write_json(plan.out / "comparison.json", {name: one.to_json() for name, one in compared.items()})
    return compared


def _train_stages(
    recipe: Recipe, out: Path, source: str, chains: Sequence[Chain], dev: Sequence[Chain]
) -> Iterator[TrainStage]:
    data = store.hash_json([[chain.to_json() for chain in part] for part in (chains, dev)])
    content = lru_cache(_content)
    made: dict[str, TrainStage] = {}
    for seed in recipe.seeds:
        for name in recipe.students:
            spec, settings = student_of(recipe, name, seed)
            start = spec.student or recipe.student
            if start is None:
                raise UserError(f"students.{name} has nothing to start from; set student, for it or for the recipe")
            before, partner = (made.get(f"{other}-s{seed}") for other in (start, settings.partner))
            for other, stage in ((start, before), (settings.partner, partner)):
                if stage is None and other in recipe.students:
                    raise UserError(f"students.{name} needs {other!r}, which stands below it; move {other!r} up")
            if partner:
                settings = settings.model_copy(update={"partner": str(partner.folder)})
            run = TrainingRun(
                role=spec.role,
                student=str(before.folder) if before else start,
                chains=chains,
                dev_chains=dev,
                source=source,
                qg_sees=spec.qg_sees,
            )
            base = before.key if before else content(start)
            shown = settings.model_dump(exclude={"report_to", "partner"})
            with_partner = partner.key if partner else settings.partner and content(settings.partner)
            key = [TRANSCRIPT_VERSION, spec.role, spec.qg_sees, data, shown, base, with_partner]
            link = out / f"{name}-s{seed}"
            made[link.name] = TrainStage(f"train {name}, seed {seed}", link, store.hash_json(key), run, settings)
            yield made[link.name]


def _evaluate_stages(
    recipe: Recipe, out: Path, problems: Mapping[str, tuple[Problem, ...]], trained: Mapping[str, TrainStage]
) -> Iterator[EvaluateStage]:
    content = lru_cache(_content)
    asked = {split: store.hash_json([problem.to_json() for problem in rows]) for split, rows in problems.items()}
    for seed in recipe.seeds:
        for name in recipe.arms:
            for on in recipe.calculator:
                arm, settings = arm_of(recipe, name, seed, on)
                stages = {place: trained.get(f"{model}-s{seed}") for place, model in arm.items()}
                models = {place: str(stage.folder) if (stage := stages[place]) else arm[place] for place in arm}
                keys = {place: stage.key if (stage := stages[place]) else content(arm[place]) for place in arm}
                for split, rows in problems.items():
                    key = [TRANSCRIPT_VERSION, asked[split], settings.model_dump(), recipe.samples, keys]
                    link = out / split / f"{name}{'' if on else '-nocalc'}-s{seed}"
                    what = f"{name} on {split}, seed {seed}{'' if on else ', calculator off'}"
                    yield EvaluateStage(what, link, store.hash_json(key), name, split, on, rows, settings, models)


def _content(model: str) -> str:
    """What tells one MODEL from another: the hash of a file or of a folder's files, else its name."""
    path = Path(model)
    if path.is_file():
        return store.hash_file(path)
    if path.is_dir():
        return store.hash_json({name: store.hash_file(path / name) for name in store.files(path)})
    return model


def _link(stage: Stage) -> None:
    """Let the name without hash lead to the folder."""
    if stage.link.is_symlink() and os.readlink(stage.link) == stage.folder.name:
        return
    stage.link.unlink(missing_ok=True)
    stage.link.symlink_to(stage.folder.name)
