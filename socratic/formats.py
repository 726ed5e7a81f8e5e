"""The four forms that Fu et al. (2301.12726) mix: with solved problems in context or without, and reasoned or not.

They are data: what stands in context, and an instruction, is a chain's ``context``, and ``metadata.answer_only`` has a
chain-of-thought student learn the answer alone, behind the marker of the final slot. Problems get them in the same way
as chains, so that a student is tested in a form as another was trained in it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from socratic.prompts import MARKERS, learned_text, render_chain
from socratic.types import ANSWER_ONLY, STATED_CONTEXT, Chain, Problem, UserError

Form = Literal["zero-shot-cot", "in-context-cot", "zero-shot-answer", "in-context-answer"]
FORMS: tuple[Form, ...] = get_args(Form)


def one_line(instruction: str | None) -> str | None:
    """``instruction``; raises `ValueError` for one of blanks alone, and for several lines."""
    if instruction is not None and len(instruction.strip().splitlines()) != 1:
        raise ValueError("it is not one line; write one, or leave it out")
    return instruction


def mixed(
    chains: Sequence[Chain],
    shares: Mapping[Form, float],
    solved: Sequence[Chain],
    shots: int = 4,
    seed: int = 0,
    instruction: str | None = None,
) -> list[Chain]:
    """``chains`` in forms, as `formed` puts their problems into them."""
    problems = formed(((c.problem(), c.sample) for c in chains), shares, solved, shots, seed, instruction)
    return [
        replace(chain, metadata={**chain.metadata, **({"context": p.context} if p.context else {}), **p.metadata})
        for chain, p in zip(chains, problems, strict=True)
    ]


def formed(
    problems: Iterable[tuple[Problem, int]],
    shares: Mapping[Form, float],
    solved: Sequence[Chain],
    shots: int = 4,
    seed: int = 0,
    instruction: str | None = None,
) -> Iterator[Problem]:
    """Each problem in a form drawn by ``shares``; in context stand ``shots`` drawn of ``solved``, in that form.

    A form depends on seed, problem and sample, which stands beside the problem, alone. Never in context is the problem
    itself; before all of it stands the ``instruction``. Raises `UserError` for shares that are all 0 or negative, for
    problems that have a form already, for too few solved problems, and for an instruction that is not one line.
    """
    forms = [form for form in FORMS if shares.get(form, 0) > 0]
    try:
        one_line(instruction)
    except ValueError as error:
        raise UserError(f"instruction {instruction!r}: {error}") from None
    if below := [f"{form}={share:g}" for form, share in shares.items() if share < 0]:
        raise UserError(f"the share {below[0]} is below 0; give it 0 or more")
    if not forms:
        raise UserError(f"shares of {dict(shares)} draw nothing; give one of {', '.join(FORMS)} more than 0")
    for problem, sample in problems:
        if "form" in problem.metadata:
            raise UserError(f"{problem.id} has a form already; give it as it was before")
        rng = random.Random(f"{seed}|{problem.id}|{sample}")
        [form] = rng.choices(forms, [shares[form] for form in forms])
        added: dict[str, Any] = {"form": form}
        before = [instruction.strip()] if instruction else []
        if form.endswith("answer"):
            added[ANSWER_ONLY] = True
        if form.startswith("in-context"):
            before.append(_solved(_drawn(problem, solved, shots, rng), form.endswith("answer")))
        if before:
            added[STATED_CONTEXT] = problem.context
        context = "\n".join([*before, *filter(None, [problem.context])]) if before else problem.context
        yield replace(problem, context=context, metadata={**problem.metadata, **added})


def _drawn(problem: Problem, solved: Sequence[Chain], shots: int, rng: random.Random) -> list[Chain]:
    """Chains of ``shots`` other problems."""
    found: dict[str, Chain] = {}
    # all, where the first few are of too few problems
    for size in dict.fromkeys((min(len(solved), 4 * shots + 4), len(solved))):
        for other in rng.sample(solved, size) if len(found) < shots else ():
            if len(found) < shots and other.question != problem.question:
                found.setdefault(other.question, other)
    if len(found) < shots:
        problems = len({other.question for other in solved})
        raise UserError(f"{problems} solved problems are too few to draw {shots} from; give more, or fewer shots")
    return list(found.values())


def _solved(chains: Sequence[Chain], answer_only: bool) -> str:
    """Solved problems as the transcript reads, up to where the next problem begins."""
    texts = []
    for chain in chains:
        problem, slots = render_chain(replace(chain, metadata={**chain.metadata, ANSWER_ONLY: answer_only}), "cot")
        texts.append(problem + "".join(f"{MARKERS[slot.kind]}{learned_text(slot.text)}" for slot in slots))
    return "\n\n".join([*texts, "Problem:"]).removeprefix("Problem: ")
