"""The four forms that Fu et al. (2301.12726) mix: with solved problems in context or without, and reasoned or not.

They are data: what stands in context is a chain's ``context``, and ``metadata.answer_only`` has a chain-of-thought
student learn the answer alone, behind the marker of the final slot.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

from socratic.prompts import ANSWER_ONLY, MARKERS, learned_text, render_chain
from socratic.types import Chain, UserError

Form = Literal["zero-shot-cot", "in-context-cot", "zero-shot-answer", "in-context-answer"]
FORMS: tuple[Form, ...] = get_args(Form)


def mixed(
    chains: Sequence[Chain], shares: Mapping[Form, float], solved: Sequence[Chain], shots: int = 4, seed: int = 0
) -> list[Chain]:
    """``chains``, each in a form drawn by ``shares``; in context stand ``shots`` drawn of ``solved``, in that form.

    A form depends on seed, problem and sample alone. Never in context is the problem itself. Raises `UserError` for
    shares that are all 0 or negative, for chains that have a form already, and for too few solved problems.
    """
    forms = [form for form in FORMS if shares.get(form, 0) > 0]
    if not forms or any(share < 0 for share in shares.values()):
        raise UserError(f"shares of {dict(shares)} draw nothing; give one of {', '.join(FORMS)} more than 0")
    made = []
    for chain in chains:
        if "form" in chain.metadata:
            raise UserError(f"the chain of {chain.problem_id} has a form already; give the chains as they were before")
        rng = random.Random(f"{seed}|{chain.problem_id}|{chain.sample}")
        [form] = rng.choices(forms, [shares[form] for form in forms])
        if form.endswith("answer"):
            chain = replace(chain, metadata={**chain.metadata, ANSWER_ONLY: True})
        if form.startswith("in-context"):
            chain = _in_context(chain, _drawn(chain, solved, shots, rng))
        made.append(replace(chain, metadata={**chain.metadata, "form": form}))
    return made


def _drawn(chain: Chain, solved: Sequence[Chain], shots: int, rng: random.Random) -> list[Chain]:
    """Chains of ``shots`` problems other than that of ``chain``."""
    found: dict[str, Chain] = {}
    for other in rng.sample(solved, min(len(solved), 4 * shots + 4)):
        if len(found) < shots and other.question != chain.question:
            found.setdefault(other.question, other)
    if len(found) < shots:
        raise UserError(f"{len(solved)} solved problems are too few to draw {shots} from; give more with --solved")
    return list(found.values())


def _in_context(chain: Chain, solved: Sequence[Chain]) -> Chain:
    """``chain`` behind solved problems, which read as the transcript does, in the same form as its own."""
    alike = {ANSWER_ONLY: chain.metadata.get(ANSWER_ONLY, False)}
    texts = []
    for other in solved:
        problem, slots = render_chain(replace(other, metadata={**other.metadata, **alike}), "cot")
        texts.append(problem + "".join(f"{MARKERS[slot.kind]}{learned_text(slot.text)}" for slot in slots))
    opening = "\n\n".join([*texts, "Problem:"]).removeprefix("Problem: ")
    own = chain.metadata.get("context")
    context = f"{opening}\n{own}" if own else opening
    return replace(chain, metadata={**chain.metadata, "context": context})
