"""Several students made one: the mean of their weights (Wortsman et al. 2203.05482, "model soups")."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from socratic.lm.checkpoint import Card, check_is_student, read_card, save_student
from socratic.lm.load import load_student
from socratic.store import files, hash_json
from socratic.types import UserError

_ALIKE = ("role", "qg_sees", "guidance", "format", "calculator", "end_id", "end_text", "substitutions", "parameters")
"""Fields of a card that have to be the same, beside the base."""


def average(students: Sequence[Path], out: Path) -> Card:
    """Write the student whose weights are the mean of those of ``students``, a full model, into ``out``.

    Adapters are merged into their base first: the mean of their products, which is what each adds to it, is not the
    product of their means, and of two adapters the same product may be made of different factors. Raises `UserError`
    for fewer than two, for students that differ in role, base or the like, or that were trained from nothing, whose
    weights have nothing in common, and for a folder that is not empty.
    """
    import torch

    for student in students:
        check_is_student(student)
    cards = [read_card(student) for student in students]
    _check_alike(students, cards)
    if out.exists() and files(out):
        raise UserError(f"{out} is not empty; give another --out")
    total: Any = None
    for student in students:
        pretrained, _ = load_student(student, torch.float32)
        state = pretrained.model.state_dict()
        if total is None:
            first, total = pretrained, {name: weight.double() for name, weight in state.items()}
        elif {name: weight.shape for name, weight in state.items()} != {n: w.shape for n, w in total.items()}:
            raise UserError(f"{student} is not of the shape of {students[0]}; give students of one model")
        else:
            for name, weight in state.items():
                total[name] += weight.double()
    first.model.load_state_dict({name: weight / len(students) for name, weight in total.items()})
    card = _card(students, cards)
    out.mkdir(parents=True, exist_ok=True)
    save_student(out, first.model, first.tokenizer, card)
    return card


def _check_alike(students: Sequence[Path], cards: Sequence[Card]) -> None:
    if len(students) < 2:
        raise UserError(f"the average of {students[0]} alone is itself; give two students or more")
    if cards[0].base.location.startswith("scratch:"):
        raise UserError(f"{students[0]} was trained from nothing, so it has no weights in common with another")
    for student, card in zip(students[1:], cards[1:], strict=True):
        base, other_base = ((c.base.content, c.base.location) for c in (card, cards[0]))
        pairs = [(name, getattr(card, name), getattr(cards[0], name)) for name in _ALIKE]
        if base[0] != other_base[0]:
            pairs.append(("base", base[1], other_base[1]))
        for name, mine, other in pairs:
            if mine != other:
                raise UserError(
                    f"{student} has {name} {mine}, {students[0]} has {other}; average students of one base that differ "
                    "in their training alone"
                )


def _card(students: Sequence[Path], cards: Sequence[Card]) -> Card:
    """A card for their average: what it was made of, its lineage all that any of them read."""
    data = {card.data["sha256"]: card.data for card in cards}
    merged = {
        "source": ", ".join(dict.fromkeys(str(of["source"]) for of in data.values())),
        "chains": sum(of["chains"] for of in data.values()),
        "sha256": next(iter(data)) if len(data) == 1 else hash_json(sorted(data)),
        "written_by": sorted({name for of in data.values() for name in of.get("written_by", ())}),
    }
    recipes = [card.recipe for card in cards]
    seeds = [card.settings["seed"] for card in cards]
    folds = {card.fold for card in cards}
    return cards[0].model_copy(
        update={
            "adapter": False,
            "data": merged,
            "settings": {"seed": seeds[0], "seeds": seeds, "averaged": [student.name for student in students]},
            "recipe": None if None in recipes else hash_json(["average", sorted(map(str, recipes))]),
            "fold": folds.pop() if len(folds) == 1 else None,
            "lineage": {key: tokens for card in cards for key, tokens in card.lineage.items()},
            "metrics": {"averaged": len(cards)},
        }
    )
