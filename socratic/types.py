"""Every type that crosses a module boundary, and the errors. Read this file first.

A *problem* is solved by a *chain* of steps (sub-question, sub-answer). Training turns a chain into *examples*, solving
turns a problem into a *trace*, and scoring turns a trace into a *score*. Each is one JSON object a line on disk.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

AnswerType = Literal["number", "yesno", "choice", "text"]
Role = Literal["qg", "qa", "unified", "cot", "answer", "planner", "verifier"]
QGSees = Literal["answers", "questions"]
"""What QG reads: ``answers`` everything so far (`iterative`), ``questions`` only its own (`plan`)."""

Guidance = Literal["none", "count", "operators", "equations"]
"""What a guided QG reads behind the problem, and a planner writes: ``3``, ``- *`` or ``12 - 5 ; 7 * 2``."""

Prompting = Literal["zero-shot-cot", "few-shot-cot", "few-shot-socratic"]
"""Solvers that prompt a model which nobody trained for it."""
Solver = Literal[
    "socratic", "tied", "unified", "cot", "answer", "zero-shot-cot", "few-shot-cot", "few-shot-socratic", "likelihood"
]

StopReason = Literal[
    "finished",
    "max_steps",
    "repeated_step",
    "empty_output",
    "overlong",
    "invalid_output",
    "model_error",
]
ScoreReason = Literal["right", "wrong", "unparsed", "ambiguous", "truncated", "empty"]


class SocraticError(Exception):
    """Base of this package's own exceptions."""


class UserError(SocraticError):
    """The user's mistake: one sentence that names the value and the fix. The command line exits with 2."""


class CalculatorError(SocraticError):
    """An expression the calculator does not compute; ``reason`` is a short name such as ``division_by_zero``."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Record:
    """JSON form of a dataclass: the fields by name, nested records as objects; `store.parse_record` reads it."""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]


ANSWER_ONLY, STATED_CONTEXT = "answer_only", "stated_context"
FORMED = ("form", ANSWER_ONLY, STATED_CONTEXT)
"""Of the metadata of a problem or chain that was put into a form (`socratic.formats`): which; whether its answer alone
is to be written by a chain-of-thought student; and, where something was put before its context, what that was."""


@dataclass(frozen=True)
class Problem(_Record):
    """One problem as its data set states it; ``answer`` is the gold as the data writes it (``70,000``, ``B``)."""

    id: str
    dataset: str
    split: str
    question: str
    answer: str
    answer_type: AnswerType = "number"
    choices: tuple[str, ...] | None = None
    context: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.choices is not None:
            object.__setattr__(self, "choices", tuple(self.choices))

    @property
    def stated(self) -> Problem:
        """The problem as it was before it was put into a form."""
        metadata = {key: value for key, value in self.metadata.items() if key not in FORMED}
        context = self.metadata.get(STATED_CONTEXT, self.context)
        return dataclasses.replace(self, context=context, metadata=metadata)


@dataclass(frozen=True)
class Step(_Record):
    """A sub-question and its sub-answer. A chain-of-thought step has the question ``""``."""

    question: str
    answer: str


@dataclass(frozen=True)
class Chain(_Record):
    """A problem with the steps that solve it.

    ``answer`` is the gold answer and fills the final slot; ``final_answer`` is what the steps themselves arrive at.
    ``source`` is ``gold``, ``teacher:NAME``, ``student:RUN``, ``imported:KIND`` or ``augmented:KIND-NUMBER``.
    ``metadata`` carries ``context`` and ``choices`` where the problem has them, so that a chain alone is enough to
    train on, ``made_from``, the id of the problem that an augmented one was made of, ``given_steps``, the number of
    steps at the beginning that are not learned, and ``weight``, how much it counts in training (1 where it says
    nothing, 0 for not at all). A verifier's chain is a student's solution, whose final slot holds ``final_answer``: see
    `socratic.verdicts`.
    """

    problem_id: str
    dataset: str
    question: str
    answer: str
    answer_type: AnswerType
    steps: tuple[Step, ...]
    source: str = "gold"
    sample: int = 0
    final_answer: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def problem(self, split: str = "") -> Problem:
        """The problem that this chain solves, in the form that it has."""
        choices, context = self.metadata.get("choices"), self.metadata.get("context")
        shared = (self.problem_id, self.dataset, split, self.question, self.answer, self.answer_type)
        metadata = {key: self.metadata[key] for key in FORMED if key in self.metadata}
        return Problem(*shared, choices=choices, context=context, metadata=metadata)

    def __post_init__(self) -> None:
        steps = tuple(s if isinstance(s, Step) else Step(**s) for s in self.steps)  # as in a record's JSON
        object.__setattr__(self, "steps", steps)


Candidates = tuple[tuple[int, float], ...]
"""Tokens that might stand at one place, and their probabilities, which add up to 1."""


@dataclass(frozen=True)
class Example:
    """One training sample: token ``ids`` and which of them are ``learned`` (the label mask), of equal length.

    ``source`` is empty for causal models; for encoder-decoders it is what the encoder reads, and ``ids`` is one slot.
    ``weight`` is how much each of its learned tokens counts in the loss. ``targets``, where there are any, are as many
    as ``ids``: a teacher's candidates for that place, or none, where the token itself is the target. ``labels``, where
    there are any, are what is learned in the places of ``ids``: a verdict is said of what stands before it and never
    read itself.
    """

    problem_id: str
    ids: tuple[int, ...]
    learned: tuple[bool, ...]
    source: tuple[int, ...] = ()
    weight: float = 1.0
    targets: tuple[Candidates, ...] = ()
    labels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Completion:
    """What a model wrote into one slot: ``text`` unstripped, without END.

    ``fault`` is None where the slot ended in END, else why it did not. ``tokens`` counts decoded tokens, END included.
    """

    text: str
    fault: Literal["overlong", "invalid_output", "model_error"] | None
    tokens: int
    error: str | None = None


@dataclass(frozen=True)
class Trace(_Record):
    """What one solver did with one problem, sample ``sample``.

    ``raw`` is the learned text of all slots and then ``\\n#### …``, the final slot, which is scored where there is
    one; ``answer`` is its text, or None where none was committed. ``tokens`` counts the tokens the students decoded
    (end tokens in, markers and calculator results out); ``seconds`` is this problem's share of the wall time of the
    batches it was in, so that the sum over a run is the time that solving took. ``plan`` is what a guided QG read
    behind the problem; ``rejected`` what was written of the first step, or else of the final answer, that does not
    stand since a text of it did not end in time or had a special token in it. The JSON of a trace without one of these
    leaves it out.
    """

    problem_id: str
    sample: int
    solver: str
    steps: tuple[Step, ...]
    raw: str
    answer: str | None
    stop_reason: StopReason
    error: str | None
    calculator: bool
    tokens: int
    seconds: float
    version: str
    plan: str | None = None
    rejected: Step | None = None

    def to_json(self) -> dict[str, Any]:
        values = super().to_json()
        return {key: value for key, value in values.items() if value is not None or key not in ("plan", "rejected")}


@dataclass(frozen=True)
class Judgement(_Record):
    """What a verifier (SHA-256 of its weights, number format) says of one trace, of which it read ``tokens``.

    ``right`` is the probability that all is right up to each sub-answer, in order, and then that the final answer is;
    empty where the trace has none, or is too long for the verifier.
    """

    problem_id: str
    sample: int
    verifier: str
    right: tuple[float, ...]
    tokens: int


@dataclass(frozen=True)
class Score(_Record):
    """A decision on one output: the lenient ``correct``, the ``strict`` one, what was read, and why."""

    problem_id: str
    sample: int
    correct: bool
    strict: bool
    predicted: str | None
    gold: str
    reason: ScoreReason
