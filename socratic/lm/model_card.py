"""A student's ``README.md``: what it does, how it was trained, and how its transcript reads. The Hub shows it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from socratic.prompts import FORMATS, VERDICTS, learned_text, render_chain
from socratic.types import Chain, Step

if TYPE_CHECKING:
    from socratic.lm.checkpoint import Card

_EXAMPLE = Chain(
    "example",
    "example",
    "A bakery bakes 12 trays of 8 rolls and sells 70 rolls. How many rolls are left?",
    "26",
    "number",
    (
        Step("How many rolls does the bakery bake?", "It bakes 12*8=<<12*8=96>>96 rolls."),
        Step("How many rolls are left?", "There are 96-70=<<96-70=26>>26 rolls left."),
    ),
    final_answer="26",
    metadata={"verdicts": [True, True, True]},
)
_DOES = {
    "qg": "asks the next sub-question of a problem",
    "qa": "answers the sub-questions of a problem and gives the final answer",
    "unified": "asks and answers the sub-questions of a problem",
    "cot": "writes a chain of thought and the final answer",
    "answer": "writes the final answer at once",
    "planner": "writes the plan that a guided QG reads",
    "verifier": "judges the solutions of others, step by step and as a whole",
}
_BEHIND: dict[str, str] = {
    "transcript": "the markers of its lines",
    "fine-tune-cot": "`###`",
    "fine-tune-cot-t5": "the problem",
}
_SEES = {"answers": ", reading the answers so far", "questions": ", reading only the problem and its own questions"}
_SOLVE = {
    "qg": "socratic solve 'TEXT' --qg {folder} --qa QA",
    "qa": "socratic solve 'TEXT' --qg QG --qa {folder}",
    "unified": "socratic solve 'TEXT' --solver unified --lm {folder}",
    "cot": "socratic solve 'TEXT' --solver cot --lm {folder}",
    "answer": "socratic solve 'TEXT' --solver answer --lm {folder}",
    "planner": "socratic solve 'TEXT' --planner {folder} --qg QG --qa QA",
    "verifier": "socratic select RUN --by weighted --verifier {folder}",
}


def model_card(name: str, card: Card) -> str:
    """The Markdown of a student's card, its metadata in front. Of local paths it holds names alone.

    The licence is left out: it follows from the base model's, the data's and the teacher's, which nobody here knows.
    """
    from huggingface_hub import ModelCardData

    on_hub = not Path(card.base.location).exists() and card.base.location.count("/") == 1
    model = card.base.location if on_hub else card.base.model
    metadata = ModelCardData(
        base_model=model,
        library_name="peft" if card.adapter else "transformers",
        tags=["socratic", card.role],
    )
    rows = {
        "base": card.base.location if on_hub else Path(card.base.location).name,
        "which is a form of": None if on_hub else card.base.model,
        "base's SHA-256, or commit": card.base.sha256,
        "parameters": f"{card.parameters:,}",
        "kind": "LoRA adapter" if card.adapter else "full model",
        "trained on": f"{card.data.get('chains')} chains of {Path(str(card.data.get('source'))).name}",
        "written by": ", ".join(card.data.get("written_by", ())) or None,
        "data's SHA-256": card.data.get("sha256"),
        "ends at": f"`{card.end_text}`",
        "plan": None if card.guidance == "none" else card.guidance,
        "calculator": "on by default" if card.calculator else "off by default",
    }
    solve = _SOLVE[card.role].format(folder=name)
    if card.role == "qg" and card.guidance != "none":
        solve += " --planner PLANNER"
    parts = [
        f"---\n{metadata.to_yaml()}\n---\n# {name}",
        f"A student of `socratic`, role **{card.role}**: it {_DOES[card.role]}"
        f"{_SEES[card.qg_sees] if card.role == 'qg' else ''}.",
        _table("", {key: value for key, value in rows.items() if value is not None}),
        teachers_terms(card.data.get("written_by", ())),
        "## How it reads",
        f"The student writes what stands behind {_BEHIND[card.format]}, up to its end token `{card.end_text}`.",
        _transcript(card),
        "## Use",
        f"```\nhf download REPOSITORY --local-dir {name}\n{solve}\n```",
        _plain_use(card),
        "## Training",
        _table("metric", card.metrics),
        "`socratic.json` beside this file holds the settings, the data's hash and the library versions.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def teachers_terms(written_by: tuple[str, ...] | list[str]) -> str:
    """A note where a teacher wrote some of the chains; ``""`` without one."""
    teachers = [name.removeprefix("teacher:") for name in written_by if name.startswith("teacher:")]
    return f"The terms of use of {', '.join(teachers)} apply to what was made with its replies." if teachers else ""


def _table(head: str, rows: dict[str, object]) -> str:
    lines = [f"| {key} | {' '.join(str(value).split())} |" for key, value in rows.items()]
    return "\n".join([f"| {head} | |", "|---|---|", *lines])


def _transcript(card: Card) -> str:
    """The example as this student is trained on it."""
    format = FORMATS[card.format]
    text, slots = render_chain(_EXAMPLE, card.role, card.qg_sees, card.guidance, format)
    text += card.end_text if format.ends else ""
    for slot in slots:
        text += f"{format.markers[slot.kind]}{learned_text(slot.text)}{card.end_text}"
        text += "    <- the student" if slot.learned else ""
        text += "" if slot.verdict is None else f"    <- here the student says{VERDICTS[slot.verdict]}"
    return f"```\n{text}\n```"


def _plain_use(card: Card) -> str:
    if card.adapter:
        other = f", which {card.base.model} itself is not," if card.base.model else ","
        return f"Without `socratic`, load it with `peft` on the base above{other} and end at the end token above."
    return "Without `socratic`, `AutoModelForCausalLM` loads it, and `generate` writes one slot behind its marker."
