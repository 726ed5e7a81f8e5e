"""Recipes: data, students and arms of one comparison, in a YAML file.

::

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
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, field_validator

from socratic.config import Settings, nearest
from socratic.lm.load import ENDPOINT
from socratic.lm.scratch import SCRATCH
from socratic.prepare import TrainSettings
from socratic.solving import SolveSettings, check_role
from socratic.types import QGSees, Role, UserError


class StudentSpec(Settings):
    """One student of a recipe; further keys are training settings of its own."""

    role: Role = Field(description="what it learns")
    student: str | None = Field(None, description="MODEL, or a student above in the recipe; the recipe's if unset")
    qg_sees: QGSees = Field("answers", description="what QG reads: answers (iterative) or questions (plan)")


class ArmSpec(Settings):
    """One solver of a recipe with its students, by their names in the recipe; further keys are solving settings."""

    qg: str | None = Field(None, description="the student that asks; a MODEL from elsewhere does as well")
    qa: str | None = Field(None, description="the student that answers")
    lm: str | None = Field(None, description="the one student of the other solvers")


class Recipe(Settings):
    """A whole comparison: data, students, arms."""

    data: str = Field(description="a data set, or a file of your own problems")
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
    students: dict[str, dict[str, Any]] = Field(min_length=1, description="what is trained, by name, in this order")
    arms: dict[str, dict[str, Any]] = Field(
        min_length=1, description="what is compared, by name; the first is the baseline"
    )

    @field_validator("splits", "seeds", "calculator")
    @classmethod
    def _once(cls, values: list[Any]) -> list[Any]:
        if len(set(values)) < len(values):
            raise ValueError("each may stand in it once")
        return values


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key that stands twice, of which one would silently be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if names.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
        return super().construct_mapping(node, deep)


def read_recipe(path: Path, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe in ``path``; ``overrides`` name keys by their path, as ``training.epochs``.

    Raises `UserError` for a file that is no recipe and for every unknown key, naming the nearest known one.
    """
    try:
        values = yaml.load(path.read_bytes(), _Loader)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give the path of a recipe") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML ({' '.join(str(error).split())[:200]}); correct it") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} is not a recipe; it has to hold keys such as data, students and arms")
    for name, value in overrides.items():
        _override(values, name, value)
    recipe = Recipe.parse(values, "recipe key")
    for kind, names in (("students", recipe.students), ("arms", recipe.arms)):
        for name in names:
            if not re.fullmatch(r"[\w.-]*\w", name):
                raise UserError(f"{kind} has the name {name!r}, which makes no folder; use letters, digits, - and _")
    _check_models(recipe)
    return recipe


def student_of(recipe: Recipe, name: str, seed: int) -> tuple[StudentSpec, TrainSettings]:
    """A student and its training settings."""
    own, settings = _split(recipe.students[name], StudentSpec, TrainSettings, f"students.{name}")
    spec = StudentSpec.parse(own, f"students.{name}:")
    _refuse_shared({**recipe.training, **settings}, f"students.{name}")
    TrainSettings.parse(recipe.training, "training:")
    return spec, TrainSettings.parse({**recipe.training, **settings, "seed": seed}, f"students.{name}:")


def arm_of(recipe: Recipe, name: str, seed: int, calculator: bool) -> tuple[dict[str, str], SolveSettings]:
    """An arm's models by place, and its solving settings."""
    own, settings = _split(recipe.arms[name], ArmSpec, SolveSettings, f"arms.{name}")
    _refuse_shared({**recipe.solving, **settings}, f"arms.{name}")
    SolveSettings.parse(recipe.solving, "solving:")
    values = {**recipe.solving, **settings, "seed": seed, "calculator": calculator}
    parsed = SolveSettings.parse(values, f"arms.{name}:")
    models = {place: model for place, model in ArmSpec.parse(own, f"arms.{name}:") if model is not None}
    try:
        parsed.check_models(**{place: models.get(place) for place in ArmSpec.model_fields})
    except UserError as error:
        raise UserError(f"arms.{name}: {error}") from None
    return models, parsed


def _check_models(recipe: Recipe) -> None:
    """Raise `UserError` for a model that cannot be, before anything is trained."""
    _check_model(recipe, "student", recipe.student)
    roles = {}
    for name in recipe.students:
        spec, settings = student_of(recipe, name, 0)
        _check_model(recipe, f"students.{name}.student", spec.student)
        _check_model(recipe, f"students.{name}.partner", settings.partner)
        _check_trainer(name, settings.trainer)
        roles[name] = spec.role
    for name in recipe.arms:
        models, solving = arm_of(recipe, name, 0, True)
        for place, model in models.items():
            _check_model(recipe, f"arms.{name}.{place}", model)
            try:
                check_role(solving.solver, place, model, roles.get(model))
            except UserError as error:
                raise UserError(f"arms.{name}: {error}") from None


def _check_model(recipe: Recipe, where: str, model: str | None) -> None:
    if model is None or model in recipe.students or model.startswith(ENDPOINT) or Path(model).exists():
        return
    scratch = [f"scratch:{name}" for name in SCRATCH]
    if model not in scratch and not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise UserError(
            f"{where}={model!r} is no student of this recipe, nothing on disk and no Hub id (owner/name); did you mean "
            f"{nearest(model, [*recipe.students, *scratch])!r}?"
        )


def _check_trainer(name: str, trainer: Mapping[str, Any]) -> None:
    if not trainer:
        return
    from transformers import TrainingArguments

    known = TrainingArguments.__dataclass_fields__
    for key in trainer:
        if key not in known:
            raise UserError(f"students.{name}: trainer has no setting {key!r}; did you mean {nearest(key, known)!r}?")


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


def _override(values: dict[str, Any], name: str, value: Any) -> None:
    """Set ``a.b.c`` in nested ``values``; the way there has to exist, up to settings that were left out."""
    *way, last = name.split(".")
    place = values
    for depth, key in enumerate(way):
        if depth == 0 and key in ("training", "solving") and place.get(key) is None:
            place[key] = {}
        if not isinstance(place.get(key), dict):
            where = ".".join(way[: depth + 1])
            raise UserError(f"the recipe has no {where!r} to set {last!r} in; did you mean {nearest(key, place)!r}?")
        place = place[key]
    place[last] = value
