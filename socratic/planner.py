"""A recipe's plan: its stages, each once, behind those that it needs, and what test problems share with train."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

from socratic import store
from socratic.chain_sets import MAKERS
from socratic.config import Settings, error_of
from socratic.formats import formed
from socratic.guidance import with_plans
from socratic.likelihood import offered
from socratic.lm.checkpoint import is_checkpoint, read_card
from socratic.lm.endpoint import role_instructions
from socratic.lm.load import ENDPOINT, local_folder
from socratic.prompts import TRANSCRIPT_VERSION
from socratic.recipe import GOLD, Recipe, SolverSpec, arm_of, folds_of, place_of, sampling_of, set_of, student_of
from socratic.solving import SolveSettings, prompt_of
from socratic.stages import EvaluateStage, SelectStage, SetStage, Stage, TrainStage
from socratic.tasks import Reading, load_problems
from socratic.tasks.overlap import Overlaps, find_overlaps
from socratic.tasks.sets import ANSWERS, CHAINS, SETS, load_set
from socratic.types import Chain, Problem, UserError

S = TypeVar("S", bound=Stage)


@dataclass(frozen=True)
class Plan:
    """All stages of a recipe, each behind those it needs, and what train shares with each split."""

    recipe: Recipe
    out: Path
    reading: Reading
    stages: tuple[Stage, ...]
    evaluation: tuple[EvaluateStage, ...]
    selection: tuple[SelectStage, ...]
    overlaps: Mapping[str, Overlaps]

    @property
    def unused(self) -> list[str]:
        """The sets and samplings of the recipe that nothing needs, so that they are not made."""
        made = {
            (stage.link.parent.name, stage.arm if isinstance(stage, EvaluateStage) else stage.link.name)
            for stage in self.stages
        }
        named = {"sets": self.recipe.sets, "samplings": self.recipe.samplings}
        return [f"{kind}.{name}" for kind, names in named.items() for name in names if (kind, name) not in made]

    def runs(self, split: str, calculator: bool) -> list[Path]:
        """The run folders of one table, arm by arm."""
        stages: list[EvaluateStage | SelectStage] = [*self.evaluation, *self.selection]
        return [stage.link for stage in stages if (stage.split, stage.calculator) == (split, calculator)]


def make_plan(recipe: Recipe, out: Path, data_dir: str | None = None) -> Plan:
    """The stages of ``recipe`` below the folder ``out``; reads the data, runs nothing."""
    reading = Reading(data_dir=data_dir, split_scheme=recipe.split_scheme)
    planner = _Planner(recipe, out, reading)
    students = [
        planner.student(name, seed, None)
        for seed in recipe.seeds
        for name in recipe.students
        if student_of(recipe, name, seed)[0].folds is None  # those with folds serve samplings alone
    ]
    evaluation = tuple(planner.arms())
    selection = tuple(planner.selections(evaluation))
    trained = [chain.problem() for source in dict.fromkeys(planner.read) for chain in planner.chains(source, "train")]
    if any(isinstance(stage, SetStage) and stage.maker.of != "chains" for stage in planner.made.values()):
        trained += planner.problems("train", None, None)  # of which no gold chain need be read
    asked = {split: planner.problems(split, recipe.limit, None) for split in recipe.splits if trained}
    overlaps = {split: find_overlaps(trained, problems) for split, problems in asked.items()}
    needed = _all_needed([*students, *evaluation, *selection])
    stages = tuple(stage for stage in planner.made.values() if stage in needed)
    return Plan(recipe, out, reading, stages, evaluation, selection, overlaps)


class _Planner:
    """Makes the stages of a recipe, each once, behind those it needs."""

    def __init__(self, recipe: Recipe, out: Path, reading: Reading) -> None:
        self.recipe, self.out, self.reading = recipe, out, reading
        self.gold = recipe.chains or recipe.data
        scheme = reading["split_scheme"]
        self.scheme = [] if scheme == "authors" else [scheme]
        """What keys have of it: content alone would not tell, where one scheme's runs record another."""
        self.made: dict[Path, Stage] = {}
        self._links: dict[Path, Path] = {}
        self.chains = cache(self._chains)
        self.problems = cache(self._problems)
        self.student = cache(self._student)
        self._set = cache(self._make_set)
        self._content = cache(_content)
        self._chains_key = cache(self._hash_chains)
        self.read: list[str] = []
        """The data sets and files whose chains anything is made of or trained on."""
        self._begun: list[str] = []

    def arms(self) -> Iterator[EvaluateStage]:
        """All arms, by seed, arm, calculator and split."""
        for seed in self.recipe.seeds:
            for name in self.recipe.arms:
                for on in self.recipe.calculator:
                    arm, settings = arm_of(self.recipe, name, seed, on)
                    for split in self.recipe.splits_of([name]):
                        link = self.out / place_of(split) / f"{name}{'' if on else '-nocalc'}-s{seed}"
                        what = f"{name} on {split}, seed {seed}{'' if on else ', calculator off'}"
                        problems = self.problems(split, self.recipe.limit, None)
                        if arm.form or arm.instruction:
                            form = arm.form or "zero-shot-cot"
                            solved = self.chains(self.gold, "train") if form.startswith("in-context") else []
                            plain = ((problem, 0) for problem in problems)
                            how = {form: 1}, solved, arm.shots
                            with error_of(f"arms.{name}"):
                                problems = tuple(formed(plain, *how, instruction=arm.instruction))
                        yield self._evaluation(what, link, name, arm, settings, split, problems, None)

    def selections(self, arms: Sequence[EvaluateStage]) -> Iterator[SelectStage]:
        """All selections, by seed, calculator and split."""
        runs = {(stage.arm, stage.settings.seed, stage.calculator, stage.split): stage for stage in arms}
        for seed, on, split in product(self.recipe.seeds, self.recipe.calculator, self.recipe.splits):
            for name, selection in self.recipe.selections.items():
                if split not in self.recipe.splits_of(selection.arms):
                    continue
                pooled = [runs[arm, seed, on, split] for arm in selection.of]
                match = runs[selection.match, seed, on, split] if selection.match else None
                verifier, judge, judging = None, None, None
                if selection.verifier:
                    verifier, judge, judging = self._model(selection.verifier, seed, None)
                needs = [stage for stage in (*pooled, match, judging) if stage]
                keys = [*(stage.key for stage in pooled), match and match.key, judge]
                yield self._add(
                    SelectStage(
                        name=f"choose {name} on {split}, seed {seed}{'' if on else ', calculator off'}",
                        link=self.out / place_of(split) / f"{name}{'' if on else '-nocalc'}-s{seed}",
                        key=store.hash_json([_given(selection), keys]),
                        needs=tuple(needs),
                        split=split,
                        arm=name,
                        calculator=on,
                        folders=tuple(stage.folder for stage in pooled),
                        match=match.folder if match else None,
                        verifier=verifier,
                        how=selection,
                    )
                )

    def _sampling(self, name: str, seed: int) -> list[EvaluateStage]:
        """The stage of a sampling, or one for each fold of its students."""
        sampling, settings = sampling_of(self.recipe, name, seed)
        stages = []
        for fold in _folds(folds_of(self.recipe, sampling.models.values())):
            problems = self.problems(sampling.split, sampling.limit, fold)
            link = self.out / "samplings" / f"{name}{_mark(fold)}-s{seed}"
            what = f"sample {name}{_mark(fold)} on {sampling.split}, seed {seed}"
            stages.append(self._evaluation(what, link, name, sampling, settings, sampling.split, problems, fold))
        return stages

    def _evaluation(
        self,
        what: str,
        link: Path,
        name: str,
        arm: SolverSpec,
        settings: SolveSettings,
        split: str,
        problems: tuple[Problem, ...],
        fold: str | None,
    ) -> EvaluateStage:
        if settings.solver == "likelihood":
            with error_of(what):
                for problem in problems:
                    offered(problem)  # refused before anything is trained
        used = {place: self._model(model, settings.seed, fold) for place, model in arm.models.items()}
        if settings.plan_by == "gold" and arm.qg:
            if arm.qg in self.recipe.students:
                guidance = student_of(self.recipe, arm.qg, settings.seed)[1].guidance
            else:
                folder = local_folder(arm.qg)
                guidance = read_card(folder).guidance if is_checkpoint(folder) else "none"
            if guidance != "none":
                problems = tuple(with_plans(problems, self.chains(*self.recipe.source(split)), guidance))
        samples = arm.samples or self.recipe.samples
        models = {place: model for place, (model, _, _) in used.items()}
        keys = {place: key for place, (_, key, _) in used.items()}
        asked = store.hash_json([problem.to_json() for problem in problems])
        further = [*filter(None, [prompt_of(settings.solver)]), *self.scheme]
        return self._add(
            EvaluateStage(
                name=what,
                link=link,
                key=store.hash_json([TRANSCRIPT_VERSION, asked, _given(settings), samples, keys, *further]),
                needs=tuple(stage for _, _, stage in used.values() if stage),
                source=self.recipe.source(split),
                split=split,
                split_scheme=self.recipe.split_scheme,
                arm=name,
                samples=samples,
                fold=fold,
                problems=problems,
                settings=settings,
                models=models,
            )
        )

    def _student(self, name: str, seed: int, fold: str | None) -> TrainStage:
        with self._inside(f"students.{name}"):
            spec, settings = student_of(self.recipe, name, seed)
            if (start := spec.student or self.recipe.student) is None:
                raise UserError(f"students.{name} has nothing to start from; set student, for it or for the recipe")
            student, base, before = self._model(start, seed, fold)
            if fold:
                settings = settings.model_copy(update={"fold": fold})
            shown = _given(settings)
            needs, with_partner = [before], None
            if settings.partner:
                partner, with_partner, stage = self._model(settings.partner, seed, fold)
                settings, needs = settings.model_copy(update={"partner": partner}), [before, stage]
            sources, data, sets = self._sources(spec.chains, seed)
            differ = any(map(_asks_students, sets))
            chains_recipe = store.hash_json(self._sources(spec.chains, 0)[1]) if differ else None
        key = [TRANSCRIPT_VERSION, spec.role, spec.qg_sees, data, shown, base, with_partner]
        return self._add(
            TrainStage(
                name=f"train {name}{_mark(fold)}, seed {seed}",
                link=self.out / f"{name}{_mark(fold)}-s{seed}",
                key=store.hash_json(key),
                needs=tuple(stage for stage in (*needs, *sets) if stage),
                role=spec.role,
                qg_sees=spec.qg_sees,
                student=student,
                sources=tuple(sources),
                chains_recipe=chains_recipe,
                settings=settings,
            )
        )

    def _make_set(self, name: str, seed: int) -> SetStage:
        with self._inside(f"sets.{name}"):
            spec, settings = set_of(self.recipe, name)
            maker = MAKERS[spec.make]
            needs: Sequence[Stage] = []
            if maker.of == "runs":
                runs = [stage for sampling in spec.of for stage in self._sampling(sampling, seed)]
                sources, keys, needs = [str(stage.folder) for stage in runs], [stage.key for stage in runs], runs
            elif maker.of == "problems":
                sources, keys = [self.recipe.data], []
            else:
                sources, keys, needs = self._sources(spec.of, seed)
            asked: dict[str | None, tuple[str, str, TrainStage | None]] = {}
            if spec.student:
                asked = {
                    fold: self._model(spec.student, seed, fold)
                    for fold in _folds(folds_of(self.recipe, [spec.student]))
                }
                needs = [*needs, *(stage for _, _, stage in asked.values() if stage)]
            readers = [key for _, key, _ in asked.values()]
            if read := maker.reads(settings, self.recipe.data, spec.limit, self.reading):
                readers.append(store.hash_json(read))
            # what harvest and reward set chains against
            gold = None if maker.of == "problems" else self._own_key()
        return self._add(
            SetStage(
                name=f"{spec.make} {name}",
                link=self.out / SETS / name,
                key=store.hash_json(
                    [TRANSCRIPT_VERSION, gold, spec.make, _given(settings), keys, spec.limit, *readers, *self.scheme]
                ),
                needs=tuple(needs),
                maker=maker,
                settings=settings,
                sources=tuple(sources),
                limit=spec.limit,
                students={fold: model for fold, (model, _, _) in asked.items()},
                reading=self.reading,
            )
        )

    def _sources(self, names: Sequence[str], seed: int) -> tuple[list[str], list[str], list[SetStage]]:
        """Of each set of chains, as `load_set` takes it, its name or file and its key; the stages among them."""
        stages = {name: self._set(name, seed) for name in names if name in self.recipe.sets}
        own = {GOLD: self.gold, ANSWERS: f"{ANSWERS}:{self.recipe.data}"}
        plain = {name: own.get(name, name.removeprefix(f"{GOLD}:")) for name in names}
        sources = [str(stages[name].folder / CHAINS) if name in stages else plain[name] for name in names]
        keys = [stages[name].key if name in stages else self._chains_key(plain[name]) for name in names]
        return sources, keys, list(stages.values())

    def _model(self, name: str, seed: int, fold: str | None) -> tuple[str, str, TrainStage | None]:
        """A MODEL, what tells it from others, and its stage where it is a student of the recipe."""
        if name not in self.recipe.students:
            return name, self._content(name), None
        stage = self.student(name, seed, fold)
        return str(stage.folder), stage.key, stage

    def _chains(self, source: str, split: str) -> list[Chain]:
        return load_set(source, split, self.reading)

    def _problems(self, split: str, limit: int | None, fold: str | None) -> tuple[Problem, ...]:
        name, own = self.recipe.source(split)
        return tuple(load_problems(name, own, limit=limit, fold=fold, **self.reading))

    def _hash_chains(self, source: str) -> str:
        key = store.hash_json([[c.to_json() for c in self.chains(source, split)] for split in ("train", "dev")])
        self.read.append(source)
        return key

    def _own_key(self) -> str | None:
        """The key of the recipe's own chains; None where its data have none, which a teacher can write."""
        try:
            return self._chains_key(self.gold)
        except UserError:
            return None

    def _add(self, stage: S) -> S:
        """``stage``, or the one with the same folder: seeds may share what does not depend on them.

        Raises `UserError` for another stage whose link, which the tables go by, has the same name.
        """
        if not isinstance(stage, SetStage) and self._links.setdefault(stage.link, stage.folder) != stage.folder:
            raise UserError(f"{stage.name} and another stage would both be called {stage.link.name}; rename one")
        known: Any = self.made.setdefault(stage.folder, stage)
        return known  # type: ignore[no-any-return]

    @contextmanager
    def _inside(self, place: str) -> Iterator[None]:
        """Raise `UserError` where ``place`` is made already, so that it would need itself."""
        if place in self._begun:
            way = " -> ".join([*self._begun[self._begun.index(place) :], place])
            raise UserError(f"{place} needs itself ({way}); take one of these out of the other")
        self._begun.append(place)
        yield
        self._begun.pop()


def _asks_students(made: Stage) -> bool:
    """Whether a set is made of what students wrote, so that each seed makes another."""
    return any(not isinstance(stage, SetStage) or _asks_students(stage) for stage in made.needs)


def _all_needed(stages: Iterable[Stage]) -> set[Stage]:
    """``stages`` and whatever they build on."""
    found, waiting = set[Stage](), [*stages]
    while waiting:
        if (stage := waiting.pop()) not in found:
            found.add(stage)
            waiting += stage.needs
    return found


def _folds(count: int | None) -> list[str | None]:
    """The folds by name; ``[None]`` without."""
    return [f"{k}/{count}" for k in range(1, count + 1)] if count else [None]


def _mark(fold: str | None) -> str:
    """What the names of a fold's folders have behind them."""
    return f"-fold{fold.partition('/')[0]}" if fold else ""


def _given(settings: Settings) -> dict[str, Any]:
    """What decides a result and is not the default: a setting that is new changes no key.

    The partner and the prompt do so by their content, which stands in the key beside these.
    """
    return settings.model_dump(exclude_defaults=True, exclude={"report_to", "partner", "prompt"})


def _content(model: str) -> str:
    """What tells one MODEL from another: the hash of a file or of a folder's files, else its name.

    An endpoint is told as well what to write, which is not in its name.
    """
    if model.startswith(ENDPOINT):
        return store.hash_json([model, role_instructions()])
    path = Path(model)
    if path.is_file():
        return store.hash_file(path)
    if is_checkpoint(path):  # its manifest leaves out the model card, which its owner may rewrite
        return store.hash_file(path / store.MANIFEST)
    if path.is_dir():
        return store.hash_json({name: store.hash_file(path / name) for name in store.files(path)})
    return model
