"""A recipe as stages: students are trained, arms are evaluated, runs are compared; what is done is not done again.

A recipe is a YAML file::

    data: gsm8k                                 # chains: FILE trains on other chains than the data set's gold
    student: HuggingFaceTB/SmolLM2-135M-Instruct
    seeds: [0, 1, 2]
    training: {epochs: 3}                       # settings of all students (docs/training.md)
    students:
      qg: {role: qg}
      qa: {role: qa, epochs: 2}                 # settings of its own; student: qg would start from that one
      cot: {role: cot}
    arms:                                       # the first is the baseline
      cot: {solver: cot, lm: cot}
      socratic: {solver: socratic, qg: qg, qa: qa}

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
from typing import Any

import yaml
from pydantic import Field
from rich.console import Console

from socratic import store
from socratic.config import Settings, nearest
from socratic.evaluate import load_run
from socratic.lm.base import LM
from socratic.lm.checkpoint import is_checkpoint
from socratic.lm.load import hush_transformers, load_lm
from socratic.loops import SolveSettings, Solving
from socratic.progress import Training, evaluate_with_bar, train_with_bars
from socratic.prompts import TRANSCRIPT_VERSION
from socratic.report.compare import Comparison, compare
from socratic.tasks import load_chains, load_problems
from socratic.tasks.overlap import Overlaps, find_overlaps
from socratic.train import TrainingRun, TrainSettings
from socratic.types import Chain, Problem, QGSees, Role, UserError


class StudentSpec(Settings):
    """One student of a recipe; further keys are training settings of its own."""

    role: Role
    student: str | None = Field(None, description="MODEL, or a student above in the recipe; the recipe's if unset")
    qg_sees: QGSees = "answers"


class ArmSpec(Settings):
    """One solver of a recipe with its students, by their names in the recipe; further keys are solving settings."""

    qg: str | None = None
    qa: str | None = None
    lm: str | None = None


class Recipe(Settings):
    """A whole comparison: data, students, arms."""

    data: str
    chains: str | None = Field(None, description="a file of chains to train on; the data set's gold if unset")
    splits: list[str] = Field(["test"], min_length=1, description="what the arms are evaluated on")
    limit: int | None = Field(None, ge=1, description="only the first so many problems of each split")
    student: str | None = Field(None, description="MODEL that students start from unless they name their own")
    seeds: list[int] = Field([0], min_length=1, description="each trains and evaluates everything once")
    samples: int = Field(1, ge=1, description="traces of each problem")
    batch_size: int = Field(64, ge=1, description="problems under way at once")
    jobs: int = Field(1, ge=1, description="students trained at a time, each on its share of the cores")
    calculator: list[bool] = Field([True], min_length=1, description="on, off, or both")
    training: dict[str, Any] = Field(default={}, description="training settings of all students")
    solving: dict[str, Any] = Field(default={}, description="solving settings of all arms")
    students: dict[str, dict[str, Any]]
    arms: dict[str, dict[str, Any]] = Field(min_length=1)


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
        return (self.folder / "metrics.json").is_file()


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


def read_recipe(path: Path, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe in ``path``; ``overrides`` name keys by their path, as ``training.epochs``.

    Raises `UserError` for a file that is no recipe and for every unknown key, naming the nearest known one.
    """
    try:
        values = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give the path of a recipe") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} is not a recipe; it has to hold keys such as data, students and arms")
    for name, value in overrides.items():
        _override(values, name, value)
    recipe = Recipe.parse(values, "recipe key")
    for name in recipe.students:
        _student(recipe, name, 0)
    for name in recipe.arms:
        _arm(recipe, name, 0, True)
    return recipe


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
            qg, qa, lm = (loaded.get(run.models.get(place, "")) for place in ("qg", "qa", "lm"))
            solving = Solving(run.settings, qg, qa, lm)
            record = {"data": plan.recipe.data, "split": run.split, "split_scheme": "authors", "arm": run.arm}
            size, samples = plan.recipe.batch_size, plan.recipe.samples
            what = f"{number}/{count} {run.name}"
            evaluate_with_bar(what, run.problems, solving, run.folder, record, samples, "if-possible", size, console)
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
    made: dict[str, TrainStage] = {}
    for seed in recipe.seeds:
        for name in recipe.students:
            spec, settings = _student(recipe, name, seed)
            start = spec.student or recipe.student
            if start is None:
                raise UserError(f"students.{name} has nothing to start from; set student, for it or for the recipe")
            before = made.get(f"{start}-s{seed}")
            if before is None and start in recipe.students:
                raise UserError(f"students.{name} starts from {start!r}, which stands below it; move {start!r} up")
            run = TrainingRun(
                role=spec.role,
                student=str(before.folder) if before else start,
                chains=chains,
                dev_chains=dev,
                source=source,
                qg_sees=spec.qg_sees,
            )
            base = before.key if before else _content(start)
            key = [TRANSCRIPT_VERSION, spec.role, spec.qg_sees, data, settings.model_dump(), base]
            link = out / f"{name}-s{seed}"
            made[link.name] = TrainStage(f"train {name}, seed {seed}", link, store.hash_json(key), run, settings)
            yield made[link.name]


def _evaluate_stages(
    recipe: Recipe, out: Path, problems: Mapping[str, tuple[Problem, ...]], trained: Mapping[str, TrainStage]
) -> Iterator[EvaluateStage]:
    content = {split: store.hash_json([problem.to_json() for problem in rows]) for split, rows in problems.items()}
    for seed in recipe.seeds:
        for name in recipe.arms:
            for on in recipe.calculator:
                arm, settings = _arm(recipe, name, seed, on)
                stages = {place: trained.get(f"{model}-s{seed}") for place, model in arm.items()}
                models = {place: str(stage.folder) if (stage := stages[place]) else arm[place] for place in arm}
                keys = {place: stage.key if (stage := stages[place]) else _content(arm[place]) for place in arm}
                for split, rows in problems.items():
                    key = [TRANSCRIPT_VERSION, content[split], settings.model_dump(), recipe.samples, keys]
                    link = out / split / f"{name}{'' if on else '-nocalc'}-s{seed}"
                    what = f"{name} on {split}, seed {seed}{'' if on else ', calculator off'}"
                    yield EvaluateStage(what, link, store.hash_json(key), name, split, on, rows, settings, models)


def _student(recipe: Recipe, name: str, seed: int) -> tuple[StudentSpec, TrainSettings]:
    own, settings = _split(recipe.students[name], StudentSpec, TrainSettings, f"students.{name}")
    spec = StudentSpec.parse(own, f"students.{name}:")
    _refuse_seed({**recipe.training, **settings}, f"students.{name}")
    return spec, TrainSettings.parse({**recipe.training, **settings, "seed": seed}, f"students.{name}:")


def _arm(recipe: Recipe, name: str, seed: int, calculator: bool) -> tuple[dict[str, str], SolveSettings]:
    """The arm's models by place, and its settings."""
    own, settings = _split(recipe.arms[name], ArmSpec, SolveSettings, f"arms.{name}")
    _refuse_seed({**recipe.solving, **settings}, f"arms.{name}")
    values = {**recipe.solving, **settings, "seed": seed, "calculator": calculator}
    parsed = SolveSettings.parse(values, f"arms.{name}:")
    models = {place: model for place, model in ArmSpec.parse(own, f"arms.{name}:") if model is not None}
    try:
        parsed.check_models(**{place: models.get(place) for place in ArmSpec.model_fields})
    except UserError as error:
        raise UserError(f"arms.{name}: {error}") from None
    return models, parsed


def _split(
    values: Mapping[str, Any], own: type[Settings], further: type[Settings], where: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """``values`` that are fields of ``own``, and the others, which have to be fields of ``further``."""
    known = own.model_fields | further.model_fields
    for key in values:
        if key not in known:
            raise UserError(f"unknown key {key!r} in {where}; did you mean {nearest(key, known)!r}?")
    mine = {key: value for key, value in values.items() if key in own.model_fields}
    return mine, {key: value for key, value in values.items() if key not in mine}


def _refuse_seed(settings: Mapping[str, Any], where: str) -> None:
    if "seed" in settings or "calculator" in settings:
        name = "seed" if "seed" in settings else "calculator"
        raise UserError(f"{where} sets {name}, which the whole recipe shares; set {name}{'s' * (name == 'seed')} there")


def _override(values: dict[str, Any], name: str, value: Any) -> None:
    """Set ``a.b.c`` in nested ``values``; the way there has to exist, up to settings that were left out."""
    *way, last = name.split(".")
    place = values
    for depth, key in enumerate(way):
        if key in ("training", "solving") and depth == 0:
            place.setdefault(key, {})
        if not isinstance(place.get(key), dict):
            where = ".".join(way[: depth + 1])
            raise UserError(f"the recipe has no {where!r} to set {last!r} in; did you mean {nearest(key, place)!r}?")
        place = place[key]
    place[last] = value


@lru_cache
def _content(model: str) -> str:
    """What tells one MODEL from another: the hash of a file or of a folder's files, else its name."""
    path = Path(model)
    if path.is_file():
        return store.hash_file(path)
    if path.is_dir():
        return store.hash_json({file.name: store.hash_file(file) for file in sorted(path.iterdir()) if file.is_file()})
    return model


def _link(stage: Stage) -> None:
    """Let the name without hash lead to the folder."""
    if stage.link.is_symlink() and os.readlink(stage.link) == stage.folder.name:
        return
    if stage.link.exists() and not stage.link.is_symlink():
        raise UserError(f"{stage.link} is in the way of a link to {stage.folder.name}; move it, or give another --out")
    stage.link.unlink(missing_ok=True)
    stage.link.symlink_to(stage.folder.name)
