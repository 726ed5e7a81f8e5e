"""All kinds of augmentation, and what is let through of what they make.

`marks`    calculations in prose get the calculator's marks; the same problems
`prefix`   new problems that end at an earlier step (`augment.prefix`)
`vary`     new problems with other numbers, and all that follows from them calculated anew (`augment.vary`)
`bare`     sub-answers are the marks alone, the words stay with the questions; the same problems
"""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from socratic.augment.prefix import prefixes
from socratic.augment.vary import Impossible, vary
from socratic.calculator import holds, marks, miscalculates, prose, result_continues
from socratic.curate import check
from socratic.numerals import NUMBER
from socratic.tasks import TASKS, Reading, in_dev, load_problems
from socratic.tasks.base import SPLITS
from socratic.tasks.overlap import words
from socratic.types import Chain, Problem, UserError

_JOINED = re.compile(r"[-+*/x×÷–:] *$")

Kind = Literal["marks", "prefix", "vary", "bare"]
"""In the order to be done in: what has marks can be varied, and bare sub-answers come last."""


@dataclass
class Augmented:
    """``chains``, old and new, and of each kind how many were ``made``, and how many not for which reason.

    Counted are problems, but for reasons against a whole chain: these count chains.
    """

    chains: list[Chain]
    counts: dict[Kind, Counter[str]] = field(default_factory=dict)


def kept_out(chains: Iterable[Chain], against: Iterable[str], reading: Reading) -> list[Problem]:
    """Problems that nothing made of ``chains`` may be: all but those of train, of every known data set that the chains
    come from, and of those in ``against``, read as ``reading`` says.
    """
    names = dict.fromkeys([*(chain.dataset for chain in chains if chain.dataset in TASKS), *against])
    splits = ((name, split) for name in names for split in (TASKS[name].splits if name in TASKS else SPLITS))
    return [p for name, split in splits if split != "train" for p in load_problems(name, split, **reading)]


def augment(
    chains: Sequence[Chain], kinds: Sequence[Kind], against: Iterable[Problem], copies: int = 1, seed: int = 0
) -> Augmented:
    """``chains`` as ``kinds`` rewrite them, followed by the new ones that ``kinds`` make of them.

    Of each chain `vary` makes up to ``copies``. Nothing is made of a chain whose problem is in dev. Left out is a new
    chain that miscalculates or that `curate` would reject, whose problem stands among ``chains`` or ``against``, or
    differs from one of ``against`` in its numbers alone.
    """
    if copies > 1 and "vary" not in kinds:
        raise UserError(f"copies={copies} are of kind vary, not of {', '.join(kinds)}; leave copies out")
    kinds = [kind for kind in get_args(Kind) if kind in kinds]  # in whatever order they were given
    done = Augmented(list(chains))
    gate = _Gate(chains, against)
    taken = {chain.problem_id for chain in chains}
    for kind in kinds:
        count = done.counts[kind] = Counter()
        if kind in ("marks", "bare"):
            done.chains = [_rewritten(kind, chain, count) for chain in done.chains]
            continue
        sources = [chain for chain in done.chains[: len(chains)] if not in_dev(chain.question)]
        made = (new for chain in sources for new in _made(kind, chain, copies, seed, count))
        done.chains += [_with_own_id(new, taken) for new in made if gate.lets_through(new, count)]
    return done


def _with_own_id(chain: Chain, taken: set[str]) -> Chain:
    """``chain``, with a number behind its id where another problem has that, as where a problem has several chains."""
    ids = (f"{chain.problem_id}-{number}" for number in itertools.count(2))
    id = next(id for id in itertools.chain([chain.problem_id], ids) if id not in taken)
    taken.add(id)
    return replace(chain, problem_id=id)


class _Gate:
    """What keeps double, leaking and faulty chains out."""

    def __init__(self, chains: Iterable[Chain], against: Iterable[Problem]) -> None:
        against = list(against)
        self.questions = {tuple(words(q)) for q in [c.question for c in chains] + [p.question for p in against]}
        self.templates = {tuple(words(problem.question, masked=True)) for problem in against}

    def lets_through(self, chain: Chain, count: Counter[str]) -> bool:
        """Whether ``chain`` may be used, counted under ``made`` or the reason why not."""
        question = tuple(words(chain.question))
        if tuple(words(chain.question, masked=True)) in self.templates:
            reason: str = "like_dev_or_test"
        elif question in self.questions:
            reason = "duplicate"
        elif any(miscalculates(step.answer) for step in chain.steps):
            reason = "wrong_calculation"
        else:
            reason = check(chain) or "made"
        count[reason] += 1
        self.questions.add(question)
        return reason == "made"


def _rewritten(kind: Kind, chain: Chain, count: Counter[str]) -> Chain:
    try:
        made = with_marks(chain) if kind == "marks" else bare(chain)
    except Impossible as why:
        count[str(why)] += 1
        return chain
    count["made"] += 1
    return made


def _made(kind: Kind, chain: Chain, copies: int, seed: int, count: Counter[str]) -> Iterator[Chain]:
    try:
        if kind == "prefix":
            for made in prefixes(chain):
                if isinstance(made, str):
                    count[made] += 1
                else:
                    yield _from(chain, made, f"prefix-{len(made.steps)}")
        else:
            draws = (random.Random(f"{seed}|{chain.problem_id}|{chain.sample}|{copy}") for copy in range(copies))
            for copy, made in enumerate(vary(chain, draws)):
                yield _from(chain, made, f"vary-{copy}")
    except Impossible as why:
        count[str(why)] += 1


def with_marks(chain: Chain) -> Chain:
    """Right calculations in the prose of sub-answers marked for the calculator: ``3 x 4 = <<3*4=12>>12``.

    Unmarked stay those that are a part of what is written, as in ``3/6 = 1/2``, ``4+3 = 7:00`` and ``12 – 5 - 3 = 2``.
    Raises `Impossible` where there is none to mark.
    """
    steps = tuple(replace(step, answer=_marked(step.answer)) for step in chain.steps)
    if steps == chain.steps:
        raise Impossible("nothing_to_mark")
    return replace(chain, steps=steps)


def _marked(answer: str) -> str:
    for found in reversed([*prose(answer)]):
        if not holds(found) or result_continues(answer, found) or _JOINED.search(answer, 0, found.start):
            continue
        *_, number = NUMBER.finditer(answer, found.start, found.end)
        answer = f"{answer[: number.start()]}<<{found.expr.replace(' ', '')}={found.result}>>{answer[number.start() :]}"
    return answer


def bare(chain: Chain) -> Chain:
    """Sub-answers that are their marks alone, each followed by its result: ``<<48/2=24>>24``.

    Raises `Impossible` where a step has no mark, or one that calculates nothing (``<<10=10>>``).
    """
    written = [[*marks(step.answer)] for step in chain.steps]
    if not all(written) or any(NUMBER.fullmatch(mark.expr.strip()) for of_step in written for mark in of_step):
        raise Impossible("step_without_mark")
    answers = (" ".join(f"<<{m.expr}={m.result}>>{m.result}" for m in of_step) for of_step in written)
    steps = (replace(step, answer=answer) for step, answer in zip(chain.steps, answers, strict=True))
    return replace(chain, steps=tuple(steps))


def _from(chain: Chain, made: Chain, name: str) -> Chain:
    """``made`` of ``chain``, with an id and a source of its own, never taken for dev."""
    metadata = {**chain.metadata, "made_from": chain.problem_id}
    return replace(made, problem_id=f"{chain.problem_id}/{name}", source=f"augmented:{name}", metadata=metadata)
