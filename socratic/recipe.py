"""Recipes: data, students and arms of one comparison, in a YAML file.

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

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import Field, field_validator

from socratic.chain_sets import MAKERS
from socratic.choosing import By, Over
from socratic.config import Settings, nearest
from socratic.formats import Form, one_line
from socratic.lm.load import ENDPOINT
from socratic.lm.scratch import SCRATCH
from socratic.prepare import TrainSettings
from socratic.smoke import smoke
from socratic.solving import SolveSettings, check_role
from socratic.tasks import TASKS
from socratic.tasks.base import SplitScheme
from socratic.types import QGSees, Role, UserError

PLACES = ("qg", "qa", "lm", "planner")
GOLD = "gold"
"""The set of the data set's own chains, or of the recipe's file of chains; ``gold:NAME`` is another data set's."""
_NAMED = ("sets", "students", "samplings", "arms", "selections")
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
        None, ge=1, description="only the first so many chains, or teach's problems, of train and of dev"
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
    instruction: str | None = Field(None, min_length=1, description="a line before each problem")
    _is_one_line = field_validator("instruction")(one_line)


class SelectionSpec(Settings):
    """A choice among the samples of arms, which stands beside the arms in every table."""

    of: list[str] = Field(min_length=1, description="the arms whose samples are pooled")
    by: By = Field("majority", description="the most frequent answer, the verifier's likeliest trace, or both")
    verifier: str | None = Field(None, description="the student that judges, or a MODEL")
    over: Over = Field("final", description="what a trace's verdicts come to")
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
        return {line: {float(number): arm for number, arm in arms.items()} for line, arms in lines.items()}


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
    students: dict[str, dict[str, Any]] = Field(min_length=1, description="what is trained, by name")
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


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key that stands twice, of which one would silently be lost; its key ``on`` is a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:bool":
                key.tag = "tag:yaml.org,2002:str"
        names = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if names.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
        return super().construct_mapping(node, deep)


def read_recipe(path: Path, overrides: Mapping[str, Any], small: bool = False) -> Recipe:
    """The recipe in ``path``; ``overrides`` name keys by their path, as ``training.epochs``.

    With ``small`` it is brought to its smallest size first (`smoke`). Raises `UserError` for a file that is no recipe
    and for every unknown key, naming the nearest known one.
    """
    try:
        values = yaml.load(path.read_bytes(), _Loader)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give the path of a recipe") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML ({' '.join(str(error).split())[:200]}); correct it") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} is not a recipe; it has to hold keys such as data, students and arms")
    if small:
        Recipe.parse(_repeated(values, 1), "recipe key")
        values = smoke(values)
    for name, value in overrides.items():
        _override(values, name, value)
    rounds = values.get("rounds")
    recipe = Recipe.parse(_repeated(values, rounds if isinstance(rounds, int) else 0), "recipe key")
    for kind in _NAMED:
        for name in getattr(recipe, kind):
            if not re.fullmatch(r"[\w.-]*\w", name):
                raise UserError(f"{kind} has the name {name!r}, which makes no folder; use letters, digits, - and _")
    _check(recipe)
    return recipe


def _repeated(value: Any, rounds: int) -> Any:
    """``value`` with every entry, at any depth, whose key has ``$round`` once for each round, behind the others."""
    if not isinstance(value, dict):
        return value
    rest = {key: _repeated(inner, rounds) for key, inner in value.items() if "$round" not in str(key)}
    again = {key: inner for key, inner in value.items() if key not in rest}
    return rest | {_filled(k, n): _filled(v, n) for n in range(1, rounds + 1) for k, v in again.items()}


def _filled(value: Any, number: int) -> Any:
    if isinstance(value, str):
        return value.replace("$round", str(number)).replace("$last", str(number - 1))
    if isinstance(value, dict):
        return {key: _filled(inner, number) for key, inner in value.items()}
    return [_filled(inner, number) for inner in value] if isinstance(value, list) else value


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
    try:
        parsed.check_models(**{place: arm.models.get(place) for place in PLACES})
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return arm, parsed


def _check(recipe: Recipe) -> None:
    """Raise `UserError` for models, sets and folds that cannot be, before anything is trained."""
    _check_model(recipe, "student", recipe.student, start=True)
    sets = [GOLD, *recipe.sets]
    specs: dict[str, StudentSpec] = {}
    for name in recipe.students:
        specs[name], settings = student_of(recipe, name, 0)
        _check_model(recipe, f"students.{name}.student", specs[name].student, start=True)
        _check_model(recipe, f"students.{name}.partner", settings.partner)
        _check_known(f"students.{name}.chains", specs[name].chains, sets)
        _check_trainer(name, settings.trainer)
    for name in recipe.sets:
        made, _ = set_of(recipe, name)
        maker = MAKERS[made.make]
        _check_known(f"sets.{name}.of", made.of, list(recipe.samplings) if maker.of == "runs" else sets)
        if maker.of == "runs" and len(set(made.of)) < len(made.of):
            raise UserError(
                f"sets.{name}.of={made.of} has a sampling twice, whose traces would count double; name each once"
            )
        _check_model(recipe, f"sets.{name}.student", made.student)
        if (made.student is not None) != maker.asks:
            needs = "needs a student" if maker.asks else "asks no student"
            raise UserError(f"sets.{name}: make={made.make} {needs}; {'name one' if maker.asks else 'leave it out'}")
        if made.make == "soften" and (made.student or "").startswith(ENDPOINT):
            raise UserError(
                f"sets.{name}.student={made.student!r} is not for soften, whose teacher runs here; name a MODEL"
            )
        if maker.of == "problems":
            if "of" in made.model_fields_set:
                raise UserError(
                    f"sets.{name}: make={made.make} asks about the problems of data; leave of={made.of} out"
                )
            _check_folds(f"sets.{name}", None, filter(None, [made.student]), specs)
    for name in recipe.students:
        before = (specs[name].student, student_of(recipe, name, 0)[1].partner)
        _check_folds(f"students.{name}", specs[name].folds, [one for one in before if one], specs)
    for name in recipe.arms:
        arm, solving = arm_of(recipe, name, 0, True)
        _check_roles(recipe, f"arms.{name}", arm, solving, specs)
        _check_folds(f"arms.{name}", None, arm.models.values(), specs)
        remote = [model for model in arm.models.values() if model.startswith(ENDPOINT)]
        if remote and True in recipe.calculator:
            raise UserError(f"arms.{name}: the calculator cannot interrupt {remote[0]}; set calculator=[false]")
        if arm.form and solving.solver not in ("cot", "answer"):
            raise UserError(f"arms.{name}: form={arm.form} is for the solvers cot and answer; leave it out")
        if "shots" in arm.model_fields_set and not (arm.form or "").startswith("in-context"):
            raise UserError(f"arms.{name}: shots={arm.shots} is for a form with problems in context; leave it out")
        if arm.lm in specs and arm.form and arm.form.endswith("answer") and solving.solver == "cot":
            learned = student_of(recipe, arm.lm, 0)[1].format
            if learned != "transcript":
                raise UserError(f"arms.{name}: form={arm.form} is not for {arm.lm}, which learns format={learned}")
        for split in arm.on or ():
            if split not in recipe.splits:
                meant = nearest(split, recipe.splits)
                raise UserError(f"arms.{name}.on names {split!r}, which is not in splits; did you mean {meant!r}?")
    sources = [recipe.source(split) for split in recipe.splits]
    if len(set(sources)) < len(sources):
        raise UserError(f"splits {recipe.splits} have the same problems twice; name each once")
    for split in recipe.splits:
        if not any(split in recipe.splits_of([name]) for name in recipe.arms):
            raise UserError(f"no arm runs on {split!r}; name it in an arm's on, or take it out of splits")
    for name in recipe.samplings:
        sampling, solving = sampling_of(recipe, name, 0)
        _check_roles(recipe, f"samplings.{name}", sampling, solving, specs)
        _check_folds(f"samplings.{name}", folds_of(recipe, sampling.models.values()), sampling.models.values(), specs)
    for name, selection in recipe.selections.items():
        _check_selection(recipe, name, selection, specs)
    named = [*recipe.arms, *recipe.selections]
    for name, curve in recipe.curves.items():
        for arms in curve.lines.values():
            for arm_name in arms.values():
                if arm_name not in named:
                    meant = nearest(arm_name, named)
                    raise UserError(f"curves.{name} names {arm_name!r}, which is no arm; did you mean {meant!r}?")


def _check_selection(recipe: Recipe, name: str, selection: SelectionSpec, specs: Mapping[str, StudentSpec]) -> None:
    where = f"selections.{name}"
    if name in recipe.arms:
        raise UserError(f"{where} has the name of an arm; give it another")
    for arm in selection.arms:
        if arm not in recipe.arms:
            raise UserError(f"{where} names {arm!r}, which is no arm; did you mean {nearest(arm, recipe.arms)!r}?")
    if not recipe.splits_of(selection.arms):
        raise UserError(f"{where} needs {', '.join(selection.arms)}, which run on no split together; let them")
    if (selection.verifier is None) != (selection.by == "majority"):
        raise UserError(f"{where}: by={selection.by} {'needs' if selection.verifier is None else 'takes no'} verifier")
    if selection.k and selection.match:
        raise UserError(f"{where}: k and match each say how many samples to take; give one of them")
    _check_model(recipe, f"{where}.verifier", selection.verifier)
    judge = specs.get(selection.verifier or "")
    if judge and judge.role != "verifier":
        raise UserError(f"{where}: {selection.verifier} is trained as {judge.role!r}, not as a verifier")


def folds_of(recipe: Recipe, names: Iterable[str]) -> int | None:
    """How many folds the first of ``names`` that is a student of the recipe has; None where it has none."""
    named = (name for name in names if name in recipe.students)
    return next((student_of(recipe, name, 0)[0].folds for name in named), None)


def _check_folds(where: str, folds: int | None, names: Iterable[str], specs: Mapping[str, StudentSpec]) -> None:
    """Raise `UserError` where a student of the recipe has other folds than ``folds``."""
    for name in names:
        if name in specs and (theirs := specs[name].folds) != folds:
            if where.startswith("arms."):
                raise UserError(f"{where}: {name} has folds, which serve samplings; train one without for the arm")
            raise UserError(f"{where} goes by folds={folds} and {name} by folds={theirs}; give both the same")


def _check_roles(
    recipe: Recipe, where: str, arm: SolverSpec, solving: SolveSettings, specs: Mapping[str, StudentSpec]
) -> None:
    for place, model in arm.models.items():
        _check_model(recipe, f"{where}.{place}", model)
        try:
            check_role(solving.solver, place, model, specs[model].role if model in specs else None)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None


def _check_known(where: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raise `UserError` for a name that is not ``known``, no other data set's gold and no file."""
    for name in names:
        if name not in known and name.removeprefix(f"{GOLD}:") not in TASKS and not Path(name).is_file():
            raise UserError(f"{where} names {name!r}, which there is not; did you mean {nearest(name, known)!r}?")


def _check_model(recipe: Recipe, where: str, model: str | None, start: bool = False) -> None:
    """Raise `UserError` for a MODEL that cannot be; what is made of nothing may be where a student starts alone."""
    if model is None or model in recipe.students or Path(model).exists():
        return
    if model.startswith(ENDPOINT):
        if not model.removeprefix(ENDPOINT).partition("@")[0]:
            raise UserError(f"{where}={model!r} names no model; write {ENDPOINT}NAME, or {ENDPOINT}NAME@URL")
        if start:
            raise UserError(
                f"{where}={model!r} is an endpoint, which cannot be trained; give a model whose weights are here"
            )
        return
    scratch = [f"scratch:{name}" for name in SCRATCH]
    if model in scratch and not start:
        raise UserError(f"{where}={model!r} knows nothing yet; name a student of the recipe, which is trained from it")
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
