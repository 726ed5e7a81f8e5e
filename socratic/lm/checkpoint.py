"""What a student's folder says of itself: ``socratic.json`` and the model card, written with the weights.

The end token is recorded by id and text and checked on load: a student trained to stop at one token and read with
another never stops (a GGUF's end token differs between transformers versions).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from socratic.config import Settings
from socratic.lm.model_card import model_card
from socratic.prompts import TRANSCRIPT_VERSION, FormatName
from socratic.store import MANIFEST, atomic_write, read_json, write_json, write_jsonl, write_manifest
from socratic.types import Guidance, QGSees, Role, UserError

CARD = "socratic.json"
README = "README.md"
"""The model card, which its owner may rewrite."""


class Base(Settings):
    """The model a student was trained from: where it lay and what it held, so that an adapter finds it again.

    ``sha256`` is of its weights, or the commit of a Hub repository. ``model`` is the Hub id of the model whose
    quantized or copied weights they are, where the student is shared and ``location`` is a mere name.
    """

    location: str
    sha256: str | None
    model: str | None = None

    @property
    def content(self) -> str:
        """What tells it from other bases: its weights' hash, or its name, since a commit may change a page alone."""
        return self.sha256 if self.sha256 and len(self.sha256) == 64 else self.location


class Card(Settings):
    """All that `solve` must know of a trained student, and what made it."""

    role: Role
    qg_sees: QGSees = "answers"
    guidance: Guidance = "none"
    """The plan that this QG reads, or this planner writes."""
    format: FormatName = "transcript"
    """How problems and solutions are written down."""
    calculator: bool
    """Whether loops stop for the calculator unless told otherwise."""
    transcript: str = TRANSCRIPT_VERSION
    end_id: int
    end_text: str
    substitutions: dict[str, str] = Field(default_factory=dict)
    base: Base
    adapter: bool
    parameters: int
    data: dict[str, Any]
    """``source``, ``chains`` and ``sha256`` of the training chains."""
    settings: dict[str, Any]
    recipe: str | None = None
    """SHA-256 of all that was asked for but the seed: students of one recipe differ by chance alone."""
    lineage: dict[str, int] = Field(default_factory=dict)
    """Tokens read in each training that led here, by a hash of recipe and seed: two students may share their first."""
    fold: str | None = None
    """The fold (``k/n``) whose problems no training that led here saw; None where one may have seen any."""
    metrics: dict[str, Any]
    versions: dict[str, str | None]
    commit: str | None = None


def is_checkpoint(folder: Path) -> bool:
    """Whether the folder was written as a trained student of this package, whole or not."""
    return (folder / CARD).is_file() or (folder / MANIFEST).is_file()


def check_is_student(folder: Path) -> None:
    """Raise `UserError` where `is_checkpoint` says no."""
    if not is_checkpoint(folder):
        raise UserError(f"{folder} is no trained student; give the folder that train wrote")


def read_card(folder: Path) -> Card:
    """The card in ``folder``; raises `UserError` where it is unreadable or of another transcript version."""
    return parse_card(read_json(folder / CARD), folder, f"{folder / CARD} field")


def parse_card(values: dict[str, Any], student: Path, where: str) -> Card:
    """The card of ``student``, a folder or a GGUF file; raises `UserError` as `read_card` does."""
    card = Card.parse(values, where)
    if card.transcript != TRANSCRIPT_VERSION:
        raise UserError(
            f"{student} was trained on transcript version {card.transcript}, not {TRANSCRIPT_VERSION}; train it again"
        )
    return card


def check_end(card: Card, tokenizer: Any, folder: Path) -> None:
    """Raise `UserError` where the tokenizer's end token is not the one the student learned to stop at."""
    if (card.end_id, card.end_text) != (tokenizer.eos_token_id, tokenizer.eos_token):
        raise UserError(
            f"{folder} was trained to end at {card.end_text!r} ({card.end_id}), but its tokenizer now ends at "
            f"{tokenizer.eos_token!r} ({tokenizer.eos_token_id}); use transformers {card.versions.get('transformers')} "
            "as in training, or train it again"
        )


def save_student(
    out: Path,
    model: Any,
    tokenizer: Any,
    card: Card,
    log: Sequence[dict[str, Any]] = (),
    state: Any = None,
    skip: str = "",
) -> None:
    """Write weights, tokenizer, ``socratic.json``, a model card and the log into ``out``, and the manifest last.

    ``state`` is the model's state dict where its own is not whole; the manifest leaves out the model card and ``out /
    skip``. The generation config is greedy and ends at END, whatever the base's says, so that plain ``generate`` writes
    a slot.
    """
    from transformers import GenerationConfig

    written = GenerationConfig.from_model_config(model.config)
    written.eos_token_id, written.pad_token_id = card.end_id, tokenizer.pad_token_id
    model.generation_config = written
    model.save_pretrained(str(out), state_dict=state)
    tokenizer.save_pretrained(str(out))
    write_json(out / CARD, card.model_dump())
    atomic_write(out / README, model_card(out.name, card).encode("utf-8", "replace"))
    write_jsonl(out / "log.jsonl", log)
    write_manifest(out, (README, skip))
