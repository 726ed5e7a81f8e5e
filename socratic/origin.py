"""Which students a run was made with, where they lie, and which problems they were trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from socratic import store
from socratic.evaluate import Run
from socratic.lm.checkpoint import CARD, Card, is_checkpoint, read_card
from socratic.tasks import SPLIT_SCHEMES, Reading, normalise
from socratic.tasks.base import gold_chain, in_fold
from socratic.tasks.sets import load_set
from socratic.train import chains_hash, used_chains
from socratic.types import Chain, Problem, Trace, UserError

_FOLDERS_UP = 3  # a run lies beside its students, or in a folder or two below them


@dataclass
class Schooling:
    """What the students of a run learned from, those they started from included.

    ``problems`` are the ids of the problems, of an augmented one that of what it was made of; ``unknown`` says of
    which trainings that cannot be told, and why. ``unseen`` are ids that a fold kept from all of them.
    """

    unseen: set[str] = field(default_factory=set)
    questions: set[str] = field(default_factory=set)
    problems: set[str] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)

    def holds(self, problem: Problem) -> bool:
        """Whether ``problem``, or a variant of it, was learned from."""
        id = problem.id
        if id in self.unseen:
            return False
        above = {id[:place] for place, letter in enumerate(id) if letter == "/"}  # a variant's id begins with its own
        return normalise(problem.question) in self.questions or not self.problems.isdisjoint({id, *above})

    def add(self, chain: Chain) -> None:
        """Note that ``chain`` was learned from."""
        self.questions.add(normalise(chain.question))
        self.problems.add(str(chain.metadata.get("made_from", chain.problem_id)))


def schooling(run: Run, data_dir: str | None = None) -> Schooling:
    """What the students of ``run`` were trained on, as far as their folders and the data are still there."""
    found = Schooling(held_out(run))
    if found.unseen.issuperset(problem.id for problem in run.problems):
        return found
    for model in run.config.get("models", {}).values():
        folder = student_folder(run.path, model)
        if folder is None:
            found.unknown.append(f"{model.get('name')}: its folder is not in those above {run.path}")
            continue
        for card in _trainings(folder, found):
            chains = _chains_of(card, data_dir)
            if chains is None:
                found.unknown.append(f"{model.get('name')}: {card.data.get('source')} no longer gives what it learned")
            for chain in chains or ():
                found.add(chain)
    return found


def student_chain(run: Run, problem: Problem, trace: Trace, **metadata: Any) -> Chain:
    """What a student wrote in ``run`` as a chain."""
    chain = gold_chain(problem, trace.steps, **metadata)
    source = f"student:{run.path.resolve().name}"
    return replace(chain, source=source, sample=trace.sample, final_answer=trace.answer)


def held_out(run: Run) -> set[str]:
    """Ids of the problems that no student of the run, nor one that it was trained from, has seen."""
    models: Mapping[str, Mapping[str, Any]] = run.config.get("models") or {}
    folds = {model.get("training", {}).get("fold") for model in models.values()}
    if not folds or None in folds:
        return set()
    return {p.id for p in run.problems if all(_is_in(p, str(fold), run) for fold in folds)}


def _is_in(problem: Problem, fold: str, run: Run) -> bool:
    """Whether a problem of ``run`` is in ``fold``; of one made from another, which may not be here, the run knows."""
    if run.config.get("fold") == fold:
        return True
    return "made_from" not in problem.metadata and in_fold(problem.question, fold)


def student_folder(run: Path, model: dict[str, Any]) -> Path | None:
    """The folder of a student that the run in folder ``run`` calls ``model``; None where it is not to be found.

    A run records the name of a student's folder and a hash of its weights, not where it lay: it is looked for in the
    folders above the run, and taken where the hash is the same.
    """
    name = str(model.get("name"))
    if name != Path(name).name:
        return None  # a whole path, or one that leads elsewhere
    for parent in run.resolve().parents[:_FOLDERS_UP]:
        try:
            if str(model.get("sha256")) in _fingerprints(parent / name):
                return parent / name
        except (UserError, KeyError, TypeError, AttributeError):
            continue
    return None


def _fingerprints(folder: Path) -> Iterator[str]:
    """What a run would call the student in ``folder``, as a full model and as an adapter, by what its files record."""
    files = store.read_json(folder / store.MANIFEST)["files"]
    weights = store.hash_json({file: files[file]["sha256"] for file in files if Path(file).match("*.safetensors")})
    yield weights
    yield store.hash_json([store.read_json(folder / CARD)["base"]["sha256"], weights])


def _trainings(folder: Path, found: Schooling) -> Iterator[Card]:
    """The cards of the student in ``folder`` and of those it started from; notes where one of them is missing."""
    first = card = read_card(folder)
    cards = [card]
    while is_checkpoint(Path(card.base.location)):
        card = read_card(Path(card.base.location))
        cards.append(card)
    if len(cards) < len(first.lineage):
        found.unknown.append(f"{folder.name}: the student that it started from is not here")
    yield from cards


def _chains_of(card: Card, data_dir: str | None) -> Sequence[Chain] | None:
    """The chains that a student learned from; None where its data are gone or have changed since."""
    source = str(card.data.get("source")).removeprefix("gold:")
    names = [source] if Path(source).is_file() else [name.removeprefix("gold:") for name in source.split(", ")]
    for scheme in SPLIT_SCHEMES:
        how = Reading(data_dir=data_dir, split_scheme=scheme, columns=card.data.get("columns"))
        try:
            train, dev = (
                [chain for name in names for chain in load_set(name, split, how)] for split in ("train", "dev")
            )
            chains, dev_chains = used_chains(train, dev, card.settings)
        except UserError:
            continue
        if chains_hash(chains, dev_chains) == card.data.get("sha256"):
            return chains
    return None
