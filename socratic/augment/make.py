"""All kinds of augmentation, and what is let through of what they make.

`marks`    calculations in prose get the calculator's marks; the same problems
`prefix`   new problems that end at an earlier step: a sub-question takes the final question's place
`vary`     new problems with other numbers, and all that follows from them calculated anew (`augment.vary`)
`bare`     sub-answers are the marks alone, the words stay with the questions; the same problems
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from socratic.augment.vary import Impossible, vary
from socratic.calculator import agrees, calculate, holds, marks, prose
from socratic.curate import NUMBER, WORD, check
from socratic.tasks import in_dev
from socratic.types import Chain, Problem, Step, UserError

Kind = Literal["marks", "prefix", "vary", "bare"]
"""In the order to be done in: what has marks can be varied, and bare sub-answers come last."""

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"”']?\s+(?=\S)")
_ASKS = r"(?:(?:at|in|by|for|on|to|after|of|from|with)\s+)?(?:how|what|who|which|when|where)|find|calculate|determine"
_CONDITION = re.compile(rf"(.+?,)\s+(?:then\s+)?(?:{_ASKS})\b", re.IGNORECASE | re.DOTALL)
_IS_TOLD = re.compile(r"if|when|assuming|suppose|given|since|because|as\b", re.IGNORECASE)
_QUALIFIES = re.compile(r"\b(?:less|more|fewer|than|each|every|per|apiece|profit|extra|additional)\b", re.IGNORECASE)
_ASKING = re.compile(rf"(?:{_ASKS})\b", re.IGNORECASE)


@dataclass
class Augmented:
    """``chains``, old and new, and of each kind how many were ``made``, and how many not for which reason."""

    chains: list[Chain]
    counts: dict[Kind, Counter[str]] = field(default_factory=dict)


def chosen_kinds(names: Iterable[str]) -> list[Kind]:
    """The kinds of those names; raises `UserError` for an unknown one."""
    names = list(names)
    for name in names:
        if name not in get_args(Kind):
            raise UserError(f"--kind {name!r} is unknown; give one of {', '.join(get_args(Kind))}")
    return [kind for kind in get_args(Kind) if kind in names]


def augment(
    chains: Sequence[Chain], kinds: Sequence[Kind], against: Iterable[Problem], copies: int = 1, seed: int = 0
) -> Augmented:
    """``chains`` as ``kinds`` rewrite them, followed by the new ones that ``kinds`` make of them.

    Of each chain `vary` makes up to ``copies``. Nothing is made of a chain whose problem is in dev. Left out is a new
    chain that `curate` would reject, whose problem stands among ``chains`` or ``against``, or differs from one of
    ``against`` in its numbers alone.
    """
    done = Augmented(list(chains))
    gate = _Gate(chains, against)
    for kind in kinds:
        count = done.counts[kind] = Counter()
        if kind in ("marks", "bare"):
            done.chains = [_rewritten(kind, chain, count) for chain in done.chains]
            continue
        sources = [chain for chain in done.chains[: len(chains)] if not in_dev(chain.question)]
        made = (new for chain in sources for new in _made(kind, chain, copies, seed, count))
        done.chains += [new for new in made if gate.lets_through(new, count)]
    return done


class _Gate:
    """What keeps double, leaking and faulty chains out."""

    def __init__(self, chains: Iterable[Chain], against: Iterable[Problem]) -> None:
        against = list(against)
        self.questions = {_words(question) for question in [c.question for c in chains] + [p.question for p in against]}
        self.templates = {_template(problem.question) for problem in against}

    def lets_through(self, chain: Chain, count: Counter[str]) -> bool:
        """Whether ``chain`` may be used, counted under ``made`` or the reason why not."""
        if _template(chain.question) in self.templates:
            reason: str = "like_dev_or_test"
        elif _words(chain.question) in self.questions:
            reason = "duplicate"
        else:
            reason = check(chain) or "made"
        count[reason] += 1
        self.questions.add(_words(chain.question))
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
            yield from prefixes(chain)
        else:
            for copy in range(copies):
                made = vary(chain, random.Random(f"{seed}|{chain.problem_id}|{chain.sample}|{copy}"))
                yield _from(chain, made, f"vary-{copy}")
    except Impossible as why:
        count[str(why)] += 1


def prefixes(chain: Chain) -> Iterator[Chain]:
    """A problem for each step but the last: what is told stays, the step's question is asked, its result the answer.

    A condition in the final question (``If each costs $2, how many …``) is told too. Steps give none whose result
    cannot be read without doubt, is qualified in another way than their question (``5 less than on Monday``), or that
    ask what the problem asks. Raises `Impossible` for a chain without sub-questions, or whose problem does not end in a
    question.
    """
    *told, last = _SENTENCE_END.split(chain.question.strip())
    if not last.rstrip("\"”'").endswith("?"):
        raise Impossible("no_final_question")
    if not all(step.question.strip() for step in chain.steps):
        raise Impossible("no_sub_questions")
    condition = _CONDITION.match(last)
    for number, step in enumerate(chain.steps[:-1], start=1):
        asked = step.question.strip()
        answer = _result(step)
        if answer is None or not asked.endswith("?") or _words(asked) in _words(chain.question):
            continue
        if condition and _IS_TOLD.match(condition[1]):
            if not _ASKING.match(asked):
                continue
            asked = f"{condition[1]} {asked[0].lower()}{asked[1:]}"
        question = " ".join([*told, asked])
        steps = chain.steps[:number]
        made = replace(chain, question=question, answer=answer, final_answer=answer, steps=steps)
        yield _from(chain, made, f"prefix-{number}")


def with_marks(chain: Chain) -> Chain:
    """Right calculations in the prose of sub-answers marked for the calculator: ``3 x 4 = <<3*4=12>>12``.

    Raises `Impossible` where there is none to mark.
    """
    steps = tuple(replace(step, answer=_marked(step.answer)) for step in chain.steps)
    if steps == chain.steps:
        raise Impossible("nothing_to_mark")
    return replace(chain, steps=steps)


def _marked(answer: str) -> str:
    for found in reversed([*prose(answer)]):
        if not holds(found):
            continue
        *_, number = NUMBER.finditer(answer, found.start, found.end)
        answer = f"{answer[: number.start()]}<<{found.expr.replace(' ', '')}={found.result}>>{answer[number.start() :]}"
    return answer


def bare(chain: Chain) -> Chain:
    """Sub-answers that are their marks alone, each followed by its result: ``<<48/2=24>>24``.

    Raises `Impossible` where a step has no mark.
    """
    written = [[*marks(step.answer)] for step in chain.steps]
    if not all(written):
        raise Impossible("step_without_mark")
    answers = (" ".join(f"<<{m.expr}={m.result}>>{m.result}" for m in of_step) for of_step in written)
    steps = (replace(step, answer=answer) for step, answer in zip(chain.steps, answers, strict=True))
    return replace(chain, steps=tuple(steps))


def _result(step: Step) -> str | None:
    """The result of a step as it is written, where it is the only number behind the last mark and is that mark's."""
    written = [*marks(step.answer)]
    if not written or not holds(written[-1]):
        return None
    behind = step.answer[written[-1].end :]
    numbers = NUMBER.findall(behind)
    if set(map(str.lower, _QUALIFIES.findall(behind))) - set(map(str.lower, _QUALIFIES.findall(step.question))):
        return None
    return numbers[0] if len(numbers) == 1 and agrees(numbers[0], calculate(written[-1].expr)) else None


def _from(chain: Chain, made: Chain, name: str) -> Chain:
    """``made`` of ``chain``, with an id and a source of its own, never taken for dev."""
    metadata = {**chain.metadata, "made_from": chain.problem_id}
    return replace(made, problem_id=f"{chain.problem_id}/{name}", source=f"augmented:{name}", metadata=metadata)


def _words(text: str) -> str:
    return " ".join(re.findall(r"\d[\d.,]*\d|\w+", text.lower()))


def _template(text: str) -> str:
    """The words of a text with one sign for every number, be it in digits or in words."""
    return _words(NUMBER.sub("0", WORD.sub("0", text)))
