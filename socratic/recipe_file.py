"""A recipe's file: how it is read, with its overrides set and its rounds repeated, and what is refused of it.

What can be known of it alone to fail is refused here; what takes data or folders, by `planner`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from os.path import exists, isfile  # which say no, not raise, of a name that is too long
from pathlib import Path
from typing import Any

import yaml

from socratic.chain_sets import MAKERS
from socratic.config import error_of, nearest
from socratic.lm.load import ENDPOINT, endpoint
from socratic.lm.scratch import SCRATCH
from socratic.prepare import check_sees
from socratic.recipe import (
    GOLD,
    Recipe,
    SelectionSpec,
    SolverSpec,
    StudentSpec,
    arm_of,
    folds_of,
    sampling_of,
    set_of,
    student_of,
)
from socratic.smoke import smoke
from socratic.solving import SolveSettings, check_role
from socratic.store import expanded
from socratic.tasks import TASKS
from socratic.tasks.sets import ANSWERS, check_learned
from socratic.types import UserError

_NAMED = ("sets", "students", "samplings", "arms", "selections")


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
        whole = Recipe.parse(_repeated(values, 1), "recipe key")
        others = [name for name, _ in map(whole.source, whole.splits) if name != whole.data]
        _check_known("splits", others, list(TASKS))  # of which smoke leaves nothing to be refused later
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


def _check(recipe: Recipe) -> None:
    """Raise `UserError` for models, sets and folds that cannot be."""
    _check_model(recipe, "student", recipe.student, start=True)
    students = {name: student_of(recipe, name, 0) for name in recipe.students}
    specs = {name: spec for name, (spec, _) in students.items()}
    for name, (spec, settings) in students.items():
        _check_model(recipe, f"students.{name}.student", spec.student, start=True)
        _check_model(recipe, f"students.{name}.partner", settings.partner)
        _check_known(f"students.{name}.chains", spec.chains, [GOLD, ANSWERS, *recipe.sets], (GOLD, ANSWERS))
        check_learned(f"students.{name}.chains", spec.chains, spec.role, settings.also)
        with error_of(f"students.{name}"):
            check_sees(spec.role, spec.qg_sees, settings)
        _check_trainer(name, settings.trainer)
        _check_folds(f"students.{name}", spec.folds, filter(None, [spec.student, settings.partner]), specs)
    for name in recipe.sets:
        _check_set(recipe, name, specs)
    for name in recipe.arms:
        _check_arm(recipe, name, specs)
    for name in recipe.samplings:
        sampling, solving = sampling_of(recipe, name, 0)
        _check_roles(recipe, f"samplings.{name}", sampling, solving, specs)
        _check_folds(f"samplings.{name}", folds_of(recipe, sampling.models.values()), sampling.models.values(), specs)
    for name, selection in recipe.selections.items():
        _check_selection(recipe, name, selection, specs)
    _check_splits(recipe)
    named = [*recipe.arms, *recipe.selections]
    for name, curve in recipe.curves.items():
        for arms in curve.lines.values():
            for arm in arms.values():
                if arm not in named:
                    meant = nearest(arm, named)
                    raise UserError(f"curves.{name} names {arm!r}, which is no arm; did you mean {meant!r}?")


def _check_set(recipe: Recipe, name: str, specs: Mapping[str, StudentSpec]) -> None:
    made, _ = set_of(recipe, name)
    maker, where = MAKERS[made.make], f"sets.{name}"
    if maker.of != "runs":
        _check_known(f"{where}.of", made.of, [GOLD, *recipe.sets])
    elif wrong := [name for name in made.of if name not in recipe.samplings]:
        meant = nearest(wrong[0], recipe.samplings)
        hint = f"did you mean {meant!r}?" if meant else "the recipe has none; add one"
        raise UserError(f"{where}.of names {wrong[0]!r}, which is no sampling; {hint}")
    if maker.of == "runs" and len(set(made.of)) < len(made.of):
        raise UserError(f"{where}.of={made.of} has a sampling twice, whose traces would count double; name each once")
    for sampling in made.of if maker.of == "runs" else ():
        split = sampling_of(recipe, sampling, 0)[0].split
        if recipe.source(split)[1] not in (("train", "dev") if made.make == "verdicts" else ("train",)):
            raise UserError(f"samplings.{sampling} solves {split}, which {where} may not learn from; sample train")
    _check_model(recipe, f"{where}.student", made.student)
    if (made.student is not None) != maker.asks:
        needs = "needs a student" if maker.asks else "asks no student"
        raise UserError(f"{where}: make={made.make} {needs}; {'name one' if maker.asks else 'leave it out'}")
    if made.make == "soften" and (made.student or "").startswith(ENDPOINT):
        raise UserError(f"{where}.student={made.student!r} is not for soften, whose teacher runs here; name a MODEL")
    if maker.of == "runs" and made.limit:
        raise UserError(f"{where}: limit={made.limit} is not for make={made.make}; set the limit of what it samples")
    if maker.of == "problems":
        if "of" in made.model_fields_set:
            raise UserError(f"{where}: make={made.make} asks about the problems of data; leave of={made.of} out")
        _check_folds(where, None, filter(None, [made.student]), specs)


def _check_arm(recipe: Recipe, name: str, specs: Mapping[str, StudentSpec]) -> None:
    arm, solving = arm_of(recipe, name, 0, True in recipe.calculator)
    where = f"arms.{name}"
    _check_roles(recipe, where, arm, solving, specs)
    _check_folds(where, None, arm.models.values(), specs)
    if arm.form and solving.solver not in ("cot", "answer"):
        raise UserError(f"{where}: form={arm.form} is for the solvers cot and answer; leave it out")
    if "shots" in arm.model_fields_set and not (arm.form or "").startswith("in-context"):
        raise UserError(f"{where}: shots={arm.shots} is for a form with problems in context; leave it out")
    if arm.lm and arm.lm in specs and arm.form and arm.form.endswith("answer") and solving.solver == "cot":
        learned = student_of(recipe, arm.lm, 0)[1].format
        if learned != "transcript":
            raise UserError(f"{where}: form={arm.form} is not for {arm.lm}, which learns format={learned}")
    for split in arm.on or ():
        if split not in recipe.splits:
            meant = nearest(split, recipe.splits)
            raise UserError(f"{where}.on names {split!r}, which is not in splits; did you mean {meant!r}?")


def _check_splits(recipe: Recipe) -> None:
    named: dict[tuple[str, str], str] = {}
    for split in recipe.splits:
        if (other := named.setdefault(recipe.source(split), split)) != split:
            raise UserError(f"splits {other!r} and {split!r} are the same problems; leave one out")
        if not any(split in recipe.splits_of([name]) for name in recipe.arms):
            raise UserError(f"no arm runs on {split!r}; name it in an arm's on, or take it out of splits")


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
    if selection.over != "final" and selection.verifier is None:
        raise UserError(f"{where}: over={selection.over} is of a verifier's verdicts, and none is named; leave it out")
    if len(set(selection.of)) < len(selection.of):
        raise UserError(f"{where}.of={selection.of} has an arm twice, whose samples would count double; name each once")
    drawn = sum((recipe.arms[arm].get("samples") or recipe.samples) for arm in selection.of)
    if (selection.k or 0) > drawn:
        raise UserError(f"{where}: k={selection.k} is more than the {drawn} samples that there are; draw more")
    if selection.k and selection.match:
        raise UserError(f"{where}: k and match each say how many samples to take; give one of them")
    _check_model(recipe, f"{where}.verifier", selection.verifier)
    if (selection.verifier or "").startswith(ENDPOINT):
        raise UserError(
            f"{where}.verifier={selection.verifier!r} is an endpoint; give a verifier that was trained here"
        )
    judge = specs.get(selection.verifier or "")
    if judge and judge.role != "verifier":
        raise UserError(f"{where}: {selection.verifier} is trained as {judge.role!r}, not as a verifier")


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
        with error_of(where):
            check_role(solving.solver, place, model, specs[model].role if model in specs else None)
        if not model.startswith(ENDPOINT):
            continue
        if solving.solver == "likelihood":
            raise UserError(f"{where}: {model} does not say how likely a text is; give a model whose weights are here")
        if solving.calculator:
            raise UserError(f"{where}: the calculator cannot interrupt {model}; set calculator=[false]")


def _check_known(where: str, names: Sequence[str], known: Sequence[str], kinds: Sequence[str] = (GOLD,)) -> None:
    """Raise `UserError` for a name that is not ``known``, no file, and no data set's, as ``KIND:NAME`` of ``kinds``."""
    for name in names:
        kind, _, data = name.partition(":")
        if name in known or name in TASKS or isfile(expanded(name)):
            continue
        if kind not in kinds or not data:
            raise UserError(f"{where} names {name!r}, which there is not; did you mean {nearest(name, known)!r}?")
        if data not in TASKS and not (kind == ANSWERS and isfile(expanded(data))):
            meant = f"{kind}:{nearest(data, TASKS)}"
            raise UserError(f"{where} names {name!r}, which there is not; did you mean {meant!r}?")


def _check_model(recipe: Recipe, where: str, model: str | None, start: bool = False) -> None:
    """Raise `UserError` for a MODEL that cannot be; what is made of nothing may be where a student starts alone."""
    if model is None or model in recipe.students or exists(model):
        return
    if model.startswith(ENDPOINT):
        if not endpoint(model)[0]:
            raise UserError(f"{where}={model!r} names no model; write {ENDPOINT}NAME, or {ENDPOINT}NAME@URL")
        if start:
            raise UserError(
                f"{where}={model!r} is an endpoint, which cannot be trained; give a model whose weights are here"
            )
        return
    scratch = [f"scratch:{name}" for name in SCRATCH]
    if model in scratch and not start:
        raise UserError(f"{where}={model!r} knows nothing yet; name a student of the recipe, which is trained from it")
    if model not in scratch and not re.fullmatch(r"[\w.-]+/[\w.-]+(?<!\.gguf)", model):
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
