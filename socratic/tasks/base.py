"""What every data set shares: its description, dev and folds, split files, and the making of problems and chains."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, get_args

from socratic import answers
from socratic.config import error_of
from socratic.tasks.files import clean_text, read_json
from socratic.types import FORMED, AnswerType, Chain, Problem, Step, UserError

Part = str
"""What a data set's files hold before dev is carved out of train: ``train``, ``test``, and further tests if any."""
_SPLIT_FILE_PARTS = ("train", "test")
_FOLD = re.compile(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})")
SplitScheme = Literal["authors", "fine-tune-cot"]

SPLITS = ("train", "dev", "test")
SPLIT_SCHEMES: tuple[SplitScheme, ...] = get_args(SplitScheme)

Item = tuple[Problem, Chain | None]
"""A problem and its gold chain, where it has one."""


class Reading(TypedDict):
    """How data are read, for `load_problems` and `load_chains`: where the authors' files are, and the splits."""

    data_dir: str | None
    split_scheme: SplitScheme
    columns: NotRequired[Mapping[str, str] | None]


@dataclass(frozen=True)
class Task:
    """A data set: what `socratic data list` shows, and ``load(data_dir, part, scheme)``, which reads one part of it.

    ``data_dir`` None means the Hub; ``folder`` is the data set's place in it (its name where None).
    """

    name: str
    description: str
    answer_type: AnswerType
    gold_chains: bool
    upstream: str
    licence: str
    load: Callable[[Path | None, Part, SplitScheme], list[Item]]
    splits: tuple[str, ...] = SPLITS
    folder: str | None = None

    def describe(self) -> dict[str, Any]:
        """Everything but how it is loaded, as plain values."""
        kept = ("name", "description", "splits", "answer_type", "gold_chains", "upstream", "licence")
        return {name: getattr(self, name) for name in kept}


def normalise(question: str) -> str:
    """``question`` with every run of whitespace as one space: the form in which questions are compared."""
    return " ".join(question.split())


def in_dev(question: str) -> bool:
    """Whether a train problem belongs to dev: the SHA-256 of its normalised question falls in the lowest fifteenth.

    The rule sees the question alone, so every copy of a problem lands in the same split.
    """
    digest = hashlib.sha256(f"socratic-dev-1|{normalise(question)}".encode()).digest()
    return int.from_bytes(digest) * 15 < 2**256


def parse_fold(fold: str) -> tuple[int, int]:
    """``"2/4"``, the second of four folds, as ``(2, 4)``; raises `UserError` for what is no such text."""
    match = _FOLD.fullmatch(fold)
    k, n = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= k <= n or n < 2:
        raise UserError(f"fold {fold!r:.40} is not one of several; give such as 2/4, the second of four")
    return k, n


def in_fold(question: str, fold: str) -> bool:
    """Whether a problem belongs to ``fold``, by the SHA-256 of its normalised question.

    As `in_dev`, the rule sees the question alone, and neither rule says anything of the other.
    """
    k, n = parse_fold(fold)
    digest = hashlib.sha256(f"socratic-fold-1|{normalise(question)}".encode()).digest()
    return int.from_bytes(digest) % n == k - 1


def outside_fold(chains: Sequence[Chain], fold: str | None) -> Sequence[Chain]:
    """The chains whose problem is not in ``fold``: all of them without one.

    Raises `UserError` as `take_fold`, where none is left, and for solved problems in context, which may be the fold's.
    """
    if fold is None:
        return chains
    if shown := [chain.problem_id for chain in chains if str(chain.metadata.get("form", "")).startswith("in-context")]:
        raise UserError(
            f"the chain of {shown[0]} has solved problems in context, which may be of fold {fold}; train without a "
            "fold, or on chains without them"
        )
    kept = [chain for chain, inside in zip(chains, _folded(chains, fold), strict=True) if not inside]
    if chains and not kept:
        raise UserError(f"all {len(chains)} chains are of fold {fold}, which is to be left out; add others to them")
    return kept


def take_fold(items: Sequence[Item], fold: str) -> list[Item]:
    """The items of ``fold``; what was made from another problem falls with that one.

    Raises `UserError` where that one is not among the chains, since nobody then knows its fold.
    """
    chains = [chain for _, chain in items if chain is not None]
    inside = dict(zip((chain.problem_id for chain in chains), _folded(chains, fold), strict=True))
    for problem, _ in items:
        if problem.id not in inside and (origin := problem.metadata.get("made_from")):
            raise UserError(
                f"{problem.id} was made from {origin}, whose fold is not known here; give chains, that one's too"
            )
    return [item for item in items if inside.get(item[0].id, in_fold(item[0].question, fold))]


def _folded(chains: Sequence[Chain], fold: str) -> Iterator[bool]:
    """Of each chain whether the problem that it goes back to belongs to ``fold``."""
    questions = {chain.problem_id: chain.question for chain in chains}
    made_from = {c.problem_id: str(c.metadata["made_from"]) for c in chains if "made_from" in c.metadata}
    for chain in chains:
        origin, behind = chain.problem_id, {chain.problem_id}
        while origin in made_from and made_from[origin] not in behind:
            origin = made_from[origin]
            behind.add(origin)
        if origin in made_from or origin not in questions:
            raise UserError(
                f"{chain.problem_id} was made from {made_from[chain.problem_id]}, which does not stand beside it, so "
                "that its fold is not known; add that chain, or leave the fold out"
            )
        yield in_fold(questions[origin], fold)


def carve(items: Sequence[Item], split: str) -> list[Item]:
    """The items of ``split``, where ``items`` is the part it comes from; what was made from another is never in dev."""
    if split not in ("train", "dev"):
        return list(items)
    return [item for item in items if _is_dev(*item) == (split == "dev")]


def _is_dev(problem: Problem, chain: Chain | None) -> bool:
    return in_dev(problem.question) and not (chain is not None and "made_from" in chain.metadata)


def checked(problem: Problem, where: str) -> Problem:
    """``problem``, whose gold is now known to parse; raises `UserError` that begins with ``where`` if it does not."""
    for name, text in (("id", problem.id), ("question", problem.question), ("answer", problem.answer)):
        clean_text(text, f"{where}: the {name}")
    for text in (*(problem.choices or ()), *filter(None, [problem.context])):
        clean_text(text, f"{where}: a choice or the context")
    with error_of(where):
        answers.canonical(problem.answer, problem.answer_type, problem.choices)
    return problem


def gold_chain(problem: Problem, steps: Sequence[Step], **metadata: Any) -> Chain:
    """The gold chain of ``problem``: its last step arrives at the gold answer; of a variant it keeps the origin."""
    if problem.context is not None:
        metadata["context"] = problem.context
    if problem.choices is not None:
        metadata["choices"] = list(problem.choices)
    metadata |= {key: problem.metadata[key] for key in ("made_from", *FORMED) if key in problem.metadata}
    return Chain(
        problem_id=problem.id,
        dataset=problem.dataset,
        question=problem.question,
        answer=problem.answer,
        answer_type=problem.answer_type,
        steps=tuple(steps),
        final_answer=problem.answer,
        metadata=metadata,
    )


def take_part(items: Sequence[Item], part: Part, split_file: Path) -> list[Item]:
    """The rows of ``part`` as ``split_file`` lists them; train leaves out a question that stands in test as well."""
    indices = _read_split(split_file, len(items))
    if part == "test":
        return [items[i] for i in indices["test"]]
    test = {normalise(items[i][0].question) for i in indices["test"]}
    return [items[i] for i in indices["train"] if normalise(items[i][0].question) not in test]


def _read_split(path: Path, rows: int) -> dict[str, list[int]]:
    """``{"train": [0, 2], "test": [1]}``: indices of rows in file order, each at most once."""
    split = read_json(path)
    if not isinstance(split, dict) or not all(isinstance(split.get(part), list) for part in _SPLIT_FILE_PARTS):
        raise UserError(f'{path} is not a split; write {{"train": [row, …], "test": [row, …]}}')
    seen: set[int] = set()
    for part in _SPLIT_FILE_PARTS:
        for index in split[part]:
            if type(index) is not int or not 0 <= index < rows or index in seen:
                raise UserError(
                    f"{path}: {part} lists {index!r:.60}, not one of the data's {rows} rows, or listed twice"
                )
            seen.add(index)
    return split
