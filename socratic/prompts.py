"""All text rendering: the transcript that students are trained on and solve with, and where the prompt files lie.

Training and solving both go through this module, so that what a student sees at test time is what it was trained on
(teacher forcing, Shridhar et al. 2212.00193, section 3). A transcript is append-only:

    Problem: P END          given
    \\nQ: q END             a sub-question, written by QG
    \\nA: s END             a sub-answer, written by QA
    \\nQ: END               QG stops: END directly behind the marker
    \\n#### answer END      the final slot

That is the `Format` called `TRANSCRIPT`; others write the same down as Fine-tune-CoT does, or as a prompt for a model
that was never trained on it.

Behind the problem of a guided QG, and of no other student, stands ``\\nPlan: plan END``.

A verifier reads such a transcript and learns, behind the END of every sub-answer and of the final slot, whether what
stands there is right. That is the place of the next marker, which no role learns. The verdict is not written into the
transcript: a later one would only repeat it.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from socratic.guidance import plan_text
from socratic.store import hash_json, read_records, shipped
from socratic.types import ANSWER_ONLY, Chain, Guidance, Problem, Prompting, QGSees, Role, Step, Trace, UserError

TRANSCRIPT_VERSION = "1"

SlotKind = Literal["question", "answer", "final", "plan"]
MARKERS: dict[SlotKind, str] = {"question": "\nQ:", "answer": "\nA:", "final": "\n####", "plan": "\nPlan:"}

PROMPTS_DIR: Path = shipped("prompts")

Style = Literal["socratic", "cot", "answers", "questions"]
"""What a teacher writes: sub-questions and answers, a chain of thought, or what is missing of given steps."""
ReplyForm = Literal["json", "text"]


VERDICTS = {True: " yes", False: " no"}
"""What a verifier says."""


@dataclass(frozen=True)
class Slot:
    """One marker and the text behind it up to END; the text ``""`` is QG's stop. ``learned`` covers text and END.

    ``verdict``, where it is not None, is learned behind END.
    """

    kind: SlotKind
    text: str
    learned: bool
    verdict: bool | None = None


@dataclass(frozen=True, eq=False)
class Format:
    """How a problem and its solution are written down.

    ``opening`` stands before all problems alike; ``before`` and ``after`` stand around each, END behind it where
    ``ends``. Where ``joint`` is not empty it stands between rationale and answer, which then are one slot. ``stops``
    are for models that were not taught to end a slot: the texts that end it, by kind. No END stands in such a context.
    """

    name: str
    opening: str = ""
    before: str = "Problem: "
    after: str = ""
    ends: bool = True
    markers: Mapping[SlotKind, str] = field(default_factory=lambda: MARKERS)
    joint: str = ""
    stops: Mapping[SlotKind, tuple[str, ...]] = field(default_factory=dict)

    def problem(self, problem: Problem) -> str:
        """The first segment, behind the opening; raises `UserError` as `statement`."""
        return f"{self.before}{statement(problem.question, problem.context, problem.choices)}{self.after}"


CompletionFormat = Literal["transcript", "fine-tune-cot"]
_UNMARKED: dict[SlotKind, str] = dict.fromkeys(MARKERS, "")

TRANSCRIPT = Format("transcript")
FINE_TUNE_COT = Format("fine-tune-cot", before="", after=" ###", ends=False, markers=_UNMARKED, joint=" --> ")
"""Ho et al. 2212.10071: ``question ###``, then ``rationale --> answer END``, or for role `answer` the answer alone."""
FINE_TUNE_COT_T5 = Format("fine-tune-cot-t5", before="", markers=_UNMARKED, joint=" --> ")
"""The same for encoder-decoders, which read the bare question."""
FormatName = Literal["transcript", "fine-tune-cot", "fine-tune-cot-t5"]
FORMATS: dict[FormatName, Format] = {
    "transcript": TRANSCRIPT,
    "fine-tune-cot": FINE_TUNE_COT,
    "fine-tune-cot-t5": FINE_TUNE_COT_T5,
}
"""What students are trained in, by the name that their cards hold."""

ZERO_SHOT_COT = Format(
    "zero-shot-cot",
    before="Q: ",
    after="\nA: Let's think step by step.",
    ends=False,
    markers={**_UNMARKED, "final": "\nTherefore, the answer is"},
    stops={"answer": ("\nQ:",), "final": ("\nQ:",)},
)
"""Kojima et al. 2205.11916, as Ho et al. 2212.10071 ask their teacher."""

PLAIN = Format("plain", before="Question: ", after="\nAnswer:", ends=False, markers=_UNMARKED)
"""What any model can read, trained here or not: see `socratic.likelihood`."""


def format_name(setting: CompletionFormat, encoder_decoder: bool) -> FormatName:
    """What a student of this architecture is trained in."""
    return "fine-tune-cot-t5" if setting == "fine-tune-cot" and encoder_decoder else setting


def problem_text(question: str, context: str | None = None, choices: Sequence[str] | None = None) -> str:
    """The transcript's first segment; raises `UserError` as `statement`."""
    return TRANSCRIPT.before + statement(question, context, choices)


def statement(question: str, context: str | None = None, choices: Sequence[str] | None = None) -> str:
    """Context before the question, choices after it as ``(A) text`` lines.

    Raises `UserError` for more choices than there are letters.
    """
    if len(choices or ()) > len(string.ascii_uppercase):
        raise UserError(f"{len(choices or ())} choices are more than the letters A to Z can name; give at most 26")
    lines = [context.strip()] if context and context.strip() else []
    lines.append(question.strip())
    lines += [f"({letter}) {text.strip()}" for letter, text in zip(string.ascii_uppercase, choices or (), strict=False)]
    return "\n".join(lines)


def render_problem(problem: Problem) -> str:
    """`problem_text` of a problem."""
    return problem_text(problem.question, problem.context, problem.choices)


def render_chain(
    chain: Chain,
    role: Role,
    qg_sees: QGSees = "answers",
    guidance: Guidance = "none",
    format: Format = TRANSCRIPT,
) -> tuple[str, list[Slot]]:
    """The problem text and the slots of one training sample: what ``role`` sees, and which of it is learned.

    The first ``metadata.given_steps`` steps of a chain, a student's own words, are seen and never learned. ``guidance``
    is for QG, which reads the plan, and for the planner, which writes it; no other role sees one. Raises `UserError`
    where the role needs sub-questions (or any step) that the chain does not have, or a step's answer is blank, or the
    role is a verifier's and the chain has no verdicts.
    """
    text = format.problem(chain.problem())
    if role == "verifier":
        return text, _judged_slots(chain)
    final = Slot("final", chain.answer.strip(), learned=True)
    if role == "answer" or (role == "cot" and chain.metadata.get(ANSWER_ONLY)):
        if role == "cot" and format.joint:
            raise UserError(
                f"the chain of {chain.problem_id} has its answer alone (answer_only), which a student of format "
                f"{format.name} could not tell from a rationale; train it on other chains"
            )
        return text, [final]
    if not chain.steps or (role != "cot" and not all(step.question.strip() for step in chain.steps)):
        missing = "sub-questions" if chain.steps else "steps"
        raise UserError(f"the chain of {chain.problem_id} has no {missing}, which role {role!r} is trained on")
    if blank := [i for i, step in enumerate(chain.steps) if not step.answer.strip()]:
        raise UserError(f"step {blank[0]} of the chain of {chain.problem_id} has an empty answer; fill it in")
    given = chain.metadata.get("given_steps", 0)
    if type(given) is not int or given < 0:
        raise UserError(
            f"the chain of {chain.problem_id} has given_steps {given!r:.40}, which is no number; correct it"
        )
    if role == "cot" and given:
        raise UserError(
            f"the chain of {chain.problem_id} has {given} steps that are given, which role 'cot' cannot tell from its "
            "own; train it on other chains"
        )
    if role == "cot":
        rationale = join_rationale([s.answer for s in chain.steps])
        if format.joint:
            return text, [Slot("answer", f"{rationale}{format.joint}{final.text}", learned=True)]
        return text, [Slot("answer", rationale, learned=True), final]
    plan = [Slot("plan", plan_text(chain, guidance), learned=role == "planner")] if guidance != "none" else []
    if role == "planner":
        return text, plan

    asks, answers = role in ("qg", "unified"), role in ("qa", "unified")
    slots = plan if role == "qg" else []
    for number, step in enumerate(chain.steps, start=1):
        is_own = number > given
        slots.append(Slot("question", step.question.strip(), learned=asks and is_own))
        if role != "qg" or qg_sees == "answers":
            slots.append(Slot("answer", step.answer.strip(), learned=answers and is_own))
    slots.append(Slot("question", "", learned=asks))
    if answers:
        slots.append(final)
    return text, slots


def solution_slots(steps: Sequence[Step], answer: str) -> list[Slot]:
    """A student's whole solution, of whatever loop, as the loop left it in the transcript; nothing of it is learned."""
    slots = []
    for step in steps:
        if step.question:
            slots.append(Slot("question", step.question, learned=False))
        slots.append(Slot("answer", step.answer, learned=False))
    if any(step.question for step in steps):
        slots.append(Slot("question", "", learned=False))
    return [*slots, Slot("final", answer.strip(), learned=False)]


def takes_verdict(slot: Slot) -> bool:
    """Whether a verifier judges what stands up to the end of this slot."""
    return slot.kind != "question"


def _judged_slots(chain: Chain) -> list[Slot]:
    """The slots of a verifier's chain: ``metadata`` has ``verdicts``, one a step and one of the answer, None for none.

    ``metadata.learn_words`` says whether the words are learned as well.
    """
    verdicts = chain.metadata.get("verdicts")
    if not isinstance(verdicts, list) or len(verdicts) != len(chain.steps) + 1 or chain.final_answer is None:
        raise UserError(
            f"the chain of {chain.problem_id} has no verdicts, which role 'verifier' is trained on; "
            "make such chains of runs with socratic verdicts"
        )
    words, given = bool(chain.metadata.get("learn_words")), iter(verdicts)
    return [
        replace(slot, learned=words, verdict=next(given) if takes_verdict(slot) else None)
        for slot in solution_slots(chain.steps, chain.final_answer)
    ]


def learned_text(text: str) -> str:
    """A slot's text as it is learned: stripped, behind one space; the stop stays empty."""
    return f" {text.strip()}" if text.strip() else ""


def join_rationale(answers: Sequence[str]) -> str:
    """The chain of thought of a stepwise solution: its sub-answers, one a line (GSM8K main's own text)."""
    return "\n".join(answer.strip() for answer in answers)


def render_raw(slots: Sequence[str], answer: str | None) -> str:
    """A trace's ``raw``: the texts of all committed slots, one a line, and the final slot behind its marker."""
    body = "\n".join(text.strip() for text in slots)
    return body if answer is None else f"{body}{MARKERS['final']} {answer.strip()}"


def scored_text(trace: Trace) -> str:
    """What an answer is read from: the trace's final slot where it has one, whatever markers its other texts hold."""
    final = render_raw((), trace.answer)
    return final if final and trace.raw.endswith(final) else trace.raw


@dataclass(frozen=True)
class TeacherPrompt:
    """What a teacher is told and shown: an instruction, worked examples, and how a hint at the answer is worded."""

    style: Style
    instruction: str
    hint: str
    examples: tuple[Chain, ...]

    def messages(
        self, problem: Problem, form: ReplyForm, given: Sequence[Step] = (), hint_answer: bool = False
    ) -> list[dict[str, str]]:
        """The chat that asks for a chain of ``problem``: instruction, examples, and the problem itself.

        ``given`` are the steps whose questions (style `answers`) or answers (style `questions`) the teacher gets.
        """
        asked = self._asked(problem, given)
        if hint_answer:
            asked += "\n" + self.hint.format(answer=problem.answer).strip()
        return [*self._openings[form], {"role": "user", "content": asked}]

    def reply(self, chain: Chain, form: ReplyForm) -> str:
        """The reply that says ``chain``, as an example shows it and `parse_reply` reads it."""
        if form == "json" and self.style == "cot":
            said = {"reasoning": join_rationale([s.answer for s in chain.steps]), "answer": chain.answer}
            return json.dumps(said, ensure_ascii=False)
        if form == "json":
            steps = [{"question": step.question, "answer": step.answer} for step in chain.steps]
            return json.dumps({"steps": steps, "answer": chain.answer}, ensure_ascii=False)
        _, slots = render_chain(chain, "cot" if self.style == "cot" else "unified")
        if self.style == "cot" and len(slots) == 2:  # else its answer alone is to be written
            return f"{slots[0].text}{_written(slots[1])}"
        return "".join(_written(slot) for slot in slots if slot.text).strip()

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of a reply, for servers that hold a model to one."""
        text = {"type": "string"}
        step = _object({"question": text, "answer": text})
        body = {"reasoning": text} if self.style == "cot" else {"steps": {"type": "array", "items": step}}
        return _object({**body, "answer": text})

    @property
    def texts(self) -> list[Any]:
        """All that a teacher is told and shown besides the problem, in either form of reply."""
        return [self._openings, self.hint]

    @cached_property
    def _openings(self) -> dict[ReplyForm, list[dict[str, str]]]:
        """Instruction and examples, the same for every problem."""
        return {"json": self._opening("json"), "text": self._opening("text")}

    def _opening(self, form: ReplyForm) -> list[dict[str, str]]:
        shape = "cot" if self.style == "cot" else "steps"
        reply_form = (PROMPTS_DIR / "formats" / f"{shape}-{form}.txt").read_text("utf-8").strip()
        chat = [{"role": "system", "content": self.instruction.format(format=reply_form).strip()}]
        for chain in self.examples:
            chat.append({"role": "user", "content": self._asked(chain.problem(), chain.steps)})
            chat.append({"role": "assistant", "content": self.reply(chain, form)})
        return chat

    def _asked(self, problem: Problem, steps: Sequence[Step]) -> str:
        lines = [render_problem(problem)]
        if self.style == "answers":
            lines += [_written(Slot("question", step.question, learned=False)).strip() for step in steps]
        if self.style == "questions":
            lines += [_written(Slot("answer", step.answer, learned=False)).strip() for step in steps]
        return "\n".join(lines)


def load_prompt(style: Style, dataset: str, folder: Path | None = None) -> TeacherPrompt:
    """The prompt of a data set (`generic` where it has none of its own), or one from a user's ``folder``.

    ``folder`` holds ``STYLE.txt`` with the placeholder ``{format}``, and may hold ``hint.txt`` with ``{answer}`` and
    ``examples.jsonl``, one chain a line. Raises `UserError` for a missing file and a missing or unknown placeholder.
    """
    places = [folder] if folder else [PROMPTS_DIR / dataset, PROMPTS_DIR / "generic"]
    hints = [*places, PROMPTS_DIR / "generic"]
    examples = next((path for place in places if (path := place / "examples.jsonl").is_file()), None)
    return TeacherPrompt(
        style,
        _template(places, f"{style}.txt", "format"),
        _template(hints, "hint.txt", "answer"),
        tuple(read_records(examples, Chain)) if examples else (),
    )


def prompted_data() -> list[str]:
    """The data sets that have worked examples of their own, and `generic`, whose are for the others."""
    return sorted(path.parent.name for path in PROMPTS_DIR.glob("*/examples.jsonl"))


@lru_cache
def prompt_format(solver: Prompting, dataset: str) -> Format:
    """How a model that was not trained for it is asked: zero-shot, or with the worked examples that a teacher gets.

    The examples are transcripts in plain text, with a blank line between them and nothing for END, so that a slot ends
    where the next marker begins.
    """
    if solver == "zero-shot-cot":
        return ZERO_SHOT_COT
    role: Role = "cot" if solver == "few-shot-cot" else "unified"
    shown = (render_chain(chain, role) for chain in load_prompt("cot", dataset).examples)
    texts = [f"{text}{''.join(map(_written, slots))}\n" for text, slots in shown]
    return Format(
        solver,
        opening="\n".join(texts),
        before=f"\n{TRANSCRIPT.before}",  # cut between two line breaks, as tokenizers cut them before a word
        ends=False,
        stops={"question": ("\n",), "answer": ("\nQ:", "\n####", "\nProblem:"), "final": ("\n",)},
    )


def prompt_hash(solver: Prompting) -> str:
    """Of all texts that `prompt_format` may put around a problem."""
    formats = [prompt_format(solver, name) for name in prompted_data()]
    return hash_json([(made.opening, made.before, made.after, dict(made.markers)) for made in formats])[:16]


def _template(places: Sequence[Path], name: str, placeholder: str) -> str:
    path = next((place / name for place in places if (place / name).is_file()), None)
    if path is None:
        raise UserError(f"{places[0] / name} does not exist; write it, with the placeholder {{{placeholder}}} in it")
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8; convert it") from None
    try:
        found = [field for _, field, _, _ in string.Formatter().parse(text) if field is not None]
    except ValueError as error:
        raise UserError(f"{path}: {error}; write a brace that is no placeholder twice") from None
    if unknown := [field for field in found if field != placeholder]:
        raise UserError(f"{path} has the unknown placeholder {{{unknown[0]}}}; only {{{placeholder}}} is filled in")
    if not found:
        raise UserError(f"{path} lacks the placeholder {{{placeholder}}}; put it where that text belongs")
    return text


def _written(slot: Slot) -> str:
    return f"{MARKERS[slot.kind]}{learned_text(slot.text)}"


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
