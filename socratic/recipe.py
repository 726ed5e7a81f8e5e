"""What a recipe says: data, students and arms of one comparison. `recipe_file` reads and checks them.

::

    data: gsm8k                                 # chains: FILE trains on other chains than the data set's gold
    student: HuggingFaceTB/SmolLM2-135M-Instruct
    seeds: [0, 1, 2]
    training: {epochs: 3}                       # settings of all students (docs/training.md)
    sets:
      more: {make: augment, kinds: [prefix]}    # chains made on the way, of gold unless ``of`` names other sets
    students:
      qg: {role: qg}
      qa: {role: qa, epochs: 2, chains: [more]} # settings of its own; student: qg would start from that one
      cot: {role: cot}
    arms:                                       # the first is the baseline
      cot: {solver: cot, lm: cot}
      socratic: {solver: socratic, qg: qg, qa: qa}

``samplings`` are arms over training problems whose traces sets are made of. A student with ``folds: 4`` is four, each
trained without a quarter of the problems; a sampling with it has each solve the quarter that it has not seen. What has
``$round`` in its name stands there once for each of ``rounds``, ``$last`` being the round before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, field_validator

from socratic.chain_sets import MAKERS
from socratic.choosing import By, Over
from socratic.config import Settings, error_of, nearest
from socratic.formats import Form, one_line
from socratic.prepare import TrainSettings
from socratic.solving import SolveSettings
from socratic.tasks.base import SplitScheme
from socratic.types import QGSees, Role, UserError

PLACES = ("qg", "qa", "lm", "planner")
GOLD = "gold"
"""The set of the data set's own chains, or of the recipe's file of chains; ``gold:NAME`` is another data set's."""
_TWIN_SEEDS = 1_000_000
"""How far a twin's seed is from the recipe's: none that anybody gives."""


class StudentSpec(Settings):
    """One student of a recipe; further keys are training settings of its own."""

    role: Role = Field(description="what it learns")
    student: str | None = Field(None, description="MODEL, or a student above in the recipe; the recipe's if unset")
    qg_sees: QGSees = Field("answers", description="what QG reads: answers (iterative) or questions (plan)")
    chains: list[str] = Field(["gold"], min_length=1, description="the sets it learns from, one behind the other")
    folds: int | None = Field(None, ge=2, description="train so many in its place, each without its share of problems")
    twin: int = Field(
        0, ge=0, le=4_000, description="another number, another seed: a second student of the same settings"
    )


class SetSpec(Settings):
    """Chains made on the way; further keys are settings of what makes them."""

    make: Literal["augment", "corrupt", "curate", "draw", "harvest", "mix", "reward", "soften", "teach", "verdicts"] = (
        Field(description="what makes them")
    )
    of: list[str] = Field(["gold"], min_length=1, description="the sets, or samplings, that they are made of")
    limit: int | None = Field(
        None, ge=1, description="of what it is made of only the first so many, of train and of dev; not for samplings"
    )
    student: str | None = Field(
        None, description="whom reward has answer, soften has read, or teach has write: a student or MODEL"
    )


class SolverSpec(Settings):
    """One solver of a recipe with its students, by their names in the recipe; further keys are solving settings."""

    qg: str | None = Field(None, description="the student that asks; a MODEL from elsewhere does as well")
    qa: str | None = Field(None, description="the student that answers")
    lm: str | None = Field(None, description="the one student of the other solvers")
    planner: str | None = Field(None, description="who writes the plan that a guided QG reads")
    samples: int | None = Field(None, ge=1, description="traces of each problem; the recipe's if unset")

    @property
    def models(self) -> dict[str, str]:
        """The students named, by place."""
        return {place: name for place in PLACES if (name := getattr(self, place)) is not None}


class ArmSpec(SolverSpec):
    """A solver that is compared with others."""

    on: list[str] | None = Field(None, min_length=1, description="the splits it runs on; all of the recipe's if unset")
    form: Form | None = Field(None, description="what its problems are put into, as `make: mix` puts chains into it")
    shots: int = Field(4, ge=1, description="gold train chains in context, where the form has any")
    instruction: str | None = Field(None, description="a line before each problem")
    _is_one_line = field_validator("instruction")(one_line)


class SelectionSpec(Settings):
    """A choice among the samples of arms, which stands beside the arms in every table."""

    of: list[str] = Field(min_length=1, description="the arms whose samples are pooled")
    by: By = Field("majority", description="the most frequent answer, the verifier's likeliest trace, or both")
    verifier: str | None = Field(None, description="the student that judges, or a MODEL")
    over: Over = Field("final", description="what a trace's verdicts come to, with a verifier")
    k: int | None = Field(None, ge=1, description="among so many samples; all if unset")
    match: str | None = Field(None, description="among as many as fit the tokens that this arm took for the problem")

    @property
    def arms(self) -> list[str]:
        """All arms that it needs."""
        return [*self.of, *filter(None, [self.match])]


class CurveSpec(Settings):
    """A plot of arms that differ in a number."""

    x: str = Field(description="what the number is")
    lines: dict[str, dict[float, str]] = Field(min_length=1, description="of each line the arms, by their numbers")

    @field_validator("lines", mode="before")
    @classmethod
    def _numbers(cls, lines: dict[str, dict[Any, str]]) -> dict[str, dict[float, str]]:
        if not isinstance(lines, dict) or not all(isinstance(arms, dict) for arms in lines.values()):
            raise ValueError("write each line as its arms by their numbers, such as cot: {1: cot, 2: cot-2}")
        return {line: {float(str(number)): arm for number, arm in arms.items()} for line, arms in lines.items()}


class SamplingSpec(SolverSpec):
    """A solver whose traces chains are made of, before other students are trained."""

    split: str = Field("train", description="whose problems are solved")
    limit: int | None = Field(None, ge=1, description="only the first so many of them")


Spec = TypeVar("Spec", bound=SolverSpec)


class Recipe(Settings):
    """A whole comparison: data, students, arms."""

    data: str = Field(description="a data set, or a file of your own problems")
    chains: str | None = Field(None, description="a file of chains to train on; the data set's gold if unset")
    splits: list[str] = Field(
        ["test"], min_length=1, description="what the arms are evaluated on; NAME:SPLIT is of another data set or file"
    )
    split_scheme: SplitScheme = Field("authors", description="authors, or fine-tune-cot for the splits of Ho et al.")
    limit: int | None = Field(None, ge=1, description="only the first so many problems of each split")
    student: str | None = Field(None, description="MODEL that students start from unless they name their own")
    seeds: list[int] = Field([0], min_length=1, description="each trains and evaluates everything once")
    samples: int = Field(1, ge=1, description="traces of each problem")
    batch_size: int = Field(64, ge=1, description="problems under way at once")
    jobs: int = Field(1, ge=1, description="students trained at a time, each on its share of the cores")
    calculator: list[bool] = Field([True], min_length=1, description="on, off, or both")
    training: dict[str, Any] = Field(default={}, description="training settings of all students")
    solving: dict[str, Any] = Field(default={}, description="solving settings of all arms")
    rounds: int = Field(0, ge=0, description="how often what has $round in its name stands there")
    sets: dict[str, dict[str, Any]] = Field(default={}, description="chains made on the way, by name")
    students: dict[str, dict[str, Any]] = Field(default={}, description="what is trained, by name")
    samplings: dict[str, dict[str, Any]] = Field(default={}, description="what is solved for chains, by name")
    arms: dict[str, dict[str, Any]] = Field(
        min_length=1, description="what is compared, by name; the first is the baseline"
    )

    selections: dict[str, SelectionSpec] = Field(default={}, description="choices among arms' samples, by name")
    curves: dict[str, CurveSpec] = Field(default={}, description="plots of arms that differ in a number, by name")
    smoke: dict[str, Any] = Field(default={}, description="what else --smoke changes")

    @field_validator("splits", "seeds", "calculator")
    @classmethod
    def _once(cls, values: list[Any]) -> list[Any]:
        if len({place_of(value) if isinstance(value, str) else value for value in values}) < len(values):
            raise ValueError("each may stand in it once")
        return values

    def source(self, split: str) -> tuple[str, str]:
        """The data set or file that a split is of, and its name there."""
        name, _, own = split.rpartition(":")
        return name or self.data, own

    def splits_of(self, arms: Iterable[str]) -> list[str]:
        """The splits that all of ``arms`` run on."""
        lists = [self.arms[arm].get("on") or self.splits for arm in arms]
        return [split for split in self.splits if all(split in on for on in lists)]


def place_of(split: str) -> str:
    """What folders and tables call a split: one of another data set, or of a file, NAME-SPLIT."""
    name, _, own = split.rpartition(":")
    return f"{Path(name).stem}-{own}" if name else own


def student_of(recipe: Recipe, name: str, seed: int) -> tuple[StudentSpec, TrainSettings]:
    """A student and its training settings."""
    own, settings = _split(recipe.students[name], StudentSpec, TrainSettings, f"students.{name}")
    spec = StudentSpec.parse(own, f"students.{name}:")
    _refuse_shared({**recipe.training, **settings}, f"students.{name}")
    TrainSettings.parse(recipe.training, "training:")
    own_seed = seed + _TWIN_SEEDS * spec.twin
    return spec, TrainSettings.parse({**recipe.training, **settings, "seed": own_seed}, f"students.{name}:")


def set_of(recipe: Recipe, name: str) -> tuple[SetSpec, Settings]:
    """A set of chains and the settings of what makes it."""
    values = recipe.sets[name]
    spec = SetSpec.parse({key: value for key, value in values.items() if key in SetSpec.model_fields}, f"sets.{name}:")
    maker = MAKERS[spec.make]
    _, settings = _split(values, SetSpec, maker.settings, f"sets.{name}")
    return spec, maker.settings.parse(settings, f"sets.{name}:")


def arm_of(recipe: Recipe, name: str, seed: int, calculator: bool) -> tuple[ArmSpec, SolveSettings]:
    """An arm and its solving settings."""
    return _solver(recipe, f"arms.{name}", recipe.arms[name], ArmSpec, seed, calculator)


def sampling_of(recipe: Recipe, name: str, seed: int) -> tuple[SamplingSpec, SolveSettings]:
    """A sampling and its solving settings; the calculator is as in the recipe's first table."""
    return _solver(recipe, f"samplings.{name}", recipe.samplings[name], SamplingSpec, seed, recipe.calculator[0])


def _solver(
    recipe: Recipe, where: str, values: Mapping[str, Any], spec: type[Spec], seed: int, calculator: bool
) -> tuple[Spec, SolveSettings]:
    own, settings = _split(values, spec, SolveSettings, where)
    _refuse_shared({**recipe.solving, **settings}, where)
    SolveSettings.parse(recipe.solving, "solving:")
    values = {**recipe.solving, **settings, "seed": seed, "calculator": calculator}
    parsed = SolveSettings.parse(values, f"{where}:")
    arm = spec.parse(own, f"{where}:")
    samples = arm.samples or recipe.samples
    if samples > 1 and parsed.temperature == 0:
        raise UserError(
            f"{where}: samples={samples} of a greedy solver are all alike; give a temperature, or samples=1"
        )
    with error_of(where):
        parsed.check_models(**{place: arm.models.get(place) for place in PLACES})
    return arm, parsed


def folds_of(recipe: Recipe, names: Iterable[str]) -> int | None:
    """How many folds the first of ``names`` that is a student of the recipe has; None where it has none."""
    named = (name for name in names if name in recipe.students)
    return next((student_of(recipe, name, 0)[0].folds for name in named), None)


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


def _refuse_shared(settings: Mapping[str, Any], where: str) -> None:
    if "seed" in settings or "calculator" in settings:
        name = "seed" if "seed" in settings else "calculator"
        raise UserError(f"{where} sets {name}, which the whole recipe shares; set {name}{'s' * (name == 'seed')} there")
