"""The loops: QG and QA in turn until the problem is solved, and the one-model baselines, in one shape.

Every loop is a generator that writes into sessions, yields (model, session, kind) for each slot it wants, is sent the
`Completion`, and fills an `Outcome`; nothing in a loop knows how many problems are solved at once (`solving`).
(Shridhar et al. 2212.00193, section 3.3: QG and QA alternate at test time without the large model.)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

from socratic.calculator import canonicalise
from socratic.guidance import PLAN
from socratic.interventions import Given
from socratic.lm.base import LM, Session
from socratic.prompts import TRANSCRIPT, Format, SlotKind, learned_text, render_problem
from socratic.types import Completion, Problem, QGSees, Step, StopReason, UserError


@dataclass
class Outcome:
    """A solution in the making; ``slots`` are the texts that stand."""

    stop_reason: StopReason = "finished"
    steps: list[Step] = field(default_factory=list)
    slots: list[str] = field(default_factory=list)
    answer: str | None = None
    error: str | None = None
    tokens: int = 0
    plan: str | None = None
    """What stands in the plan slot, as its writer wrote it."""
    rejected: Step | None = None
    """The first step, or final answer, that came to no end or had a special token in it."""

    @property
    def model_error(self) -> str | None:
        """What the last model that failed said."""
        return self.error if self.stop_reason == "model_error" else None

    def take(self, completion: Completion, cut_stands: bool = False) -> str | None:
        """Count a slot; its text, or None where it is rejected, the stop reason then set.

        ``cut_stands``: one that was cut off as overlong is not rejected.
        """
        self.tokens += completion.tokens
        if completion.fault is not None:
            self.stop_reason, self.error = completion.fault, completion.error
            if not (cut_stands and completion.fault == "overlong"):
                return None
        if completion.text.strip():
            return completion.text
        if completion.fault is None:
            self.stop_reason = "empty_output"
        return None

    def keep_rejected(self, completion: Completion, question: str = "", is_question: bool = False) -> None:
        """Note what was written of a step that is rejected, unless one was before: the question, or its answer."""
        text = completion.text.strip()
        if self.rejected is None and completion.fault is not None and text:
            self.rejected = Step(text, "") if is_question else Step(question.strip(), text)


Loop = Generator[tuple[LM, Session, SlotKind], Completion, None]


def open_sessions(
    problem: Problem, qg: LM, qa: LM, qg_sees: QGSees, format: Format = TRANSCRIPT, plan: str | None = None
) -> tuple[Session, Session]:
    """Where QG asks and QA answers: one shared session where ``qg is qa`` and it reads everything.

    A ``plan`` stands behind QG's problem alone.
    """
    ask = qg.open(format)
    reply = ask if qg is qa and qg_sees == "answers" else qa.open(format)
    ask.write_problem(format.problem(problem), format)
    if reply is not ask:
        reply.write_problem(format.problem(problem), format)
    if plan is not None:
        ask.write_marker("plan")
        ask.write_slot(plan)
    return ask, reply


def planned(out: Outcome, problem: Problem, planner: LM | None, qa: LM, loop: Callable[[], Loop]) -> Loop:
    """The plan first, from ``planner`` or, without one, from the problem's metadata, then ``loop``, which reads it.

    Where the planner's is rejected, only the final slot is left. Raises `UserError` for a problem without a gold plan.
    """
    if planner is None:
        gold = problem.metadata.get(PLAN)
        if not isinstance(gold, str):
            raise UserError(f"problem {problem.id} carries no gold plan for plan_by=gold; give --planner in its place")
        out.plan = _as_learned(gold)
        yield from loop()
        return
    session = planner.session()
    session.write_problem(render_problem(problem))
    session.write_marker("plan")
    completion = yield planner, session, "plan"
    if completion.fault is None:
        out.plan, out.tokens = completion.text, completion.tokens
        yield from loop()
        return
    out.take(completion)
    reply = qa.session()
    reply.write_problem(render_problem(problem))
    yield from _conclude(out, qa, reply)


def stepwise(
    out: Outcome,
    problem: Problem,
    qg: LM,
    qa: LM,
    qg_sees: QGSees,
    format: Format,
    max_steps: int,
    given: Given,
) -> Loop:
    """QG asks, QA answers, each as far as nothing is given in its place."""
    ask, reply = open_sessions(problem, qg, qa, qg_sees, format, out.plan)
    sessions = [ask] if ask is reply else [ask, reply]
    marks = [session.mark() for session in sessions]
    out.stop_reason = "max_steps"
    while (place := len(out.steps)) < max_steps:
        ask.write_marker("question")
        if given.questions is None:
            completion = yield qg, ask, "question"
            if completion.fault is None and not completion.text:
                out.stop_reason, out.tokens = "finished", out.tokens + completion.tokens
                break
            question = out.take(completion)
            if question is None:
                out.keep_rejected(completion, is_question=True)
                break
        elif place == len(given.questions):
            ask.write_slot("")
            out.stop_reason = "finished"
            break
        else:
            question = _as_learned(given.questions[place])
            ask.write_slot(question)
        if reply is not ask:
            reply.write_marker("question")
            reply.write_slot(question)
        reply.write_marker("answer")
        if place < len(given.answers):
            answer = _as_learned(given.answers[place])
            reply.write_slot(answer)
        elif (written := out.take(completion := (yield qa, reply, "answer"))) is not None:
            answer = written
        else:
            out.keep_rejected(completion, question)
            break
        step = Step(question.strip(), answer.strip())
        if given.questions is None and normalised(step) in map(normalised, out.steps):
            out.stop_reason = "repeated_step"
            break
        if reply is not ask and qg_sees == "answers":
            ask.write_marker("answer")
            ask.write_slot(answer)
        out.steps.append(step)
        out.slots += [step.question, step.answer]
        marks = [session.mark() for session in sessions]

    for session, mark in zip(sessions, marks, strict=True):
        if session is reply or out.stop_reason != "finished":  # QG's own stop stays
            session.crop(mark)
    yield from _conclude(out, qa, reply)


def teacher_forced(
    out: Outcome,
    problem: Problem,
    qg: LM,
    qa: LM,
    qg_sees: QGSees,
    format: Format,
    gold: Sequence[Step],
) -> Loop:
    """Every slot behind a gold history, as in training: what a student writes is kept, and gold then takes its place.

    The final slot follows QA's own last answer. What ends in a fault is kept as ``""``, and of errors the first.
    """
    error: str | None = None
    ask, reply = open_sessions(problem, qg, qa, qg_sees, format, out.plan)
    for number, step in enumerate(gold, start=1):
        mark = ask.mark()
        ask.write_marker("question")
        question = out.take((yield qg, ask, "question")) or ""
        error = error or out.model_error
        ask.crop(mark)
        before = reply.mark()
        for session in [ask] if ask is reply else [ask, reply]:
            session.write_marker("question")
            session.write_slot(_as_learned(step.question))
        mark = reply.mark()
        reply.write_marker("answer")
        answer = out.take((yield qa, reply, "answer")) or ""
        error = error or out.model_error
        out.steps.append(Step(question.strip(), answer.strip()))
        out.slots += [question.strip(), answer.strip()]
        if number == len(gold) and not answer:
            reply.crop(before)  # no question without its answer stands before the final slot
        elif number < len(gold):
            reply.crop(mark)
            for session in [reply] if ask is reply or qg_sees == "questions" else [ask, reply]:
                session.write_marker("answer")
                session.write_slot(_as_learned(step.answer))
    out.stop_reason, out.error = "model_error" if error else "finished", error
    yield from _conclude(out, qa, reply)


def _as_learned(text: str) -> str:
    return learned_text(canonicalise(text))


def single(out: Outcome, problem: Problem, lm: LM, with_rationale: bool, format: Format = TRANSCRIPT) -> Loop:
    """Chain of thought as a loop of one step, or the bare answer.

    Of a model that is only prompted, what is cut off as too long stands: it was never taught to come to an end.
    """
    session = lm.open(format)
    session.write_problem(format.problem(problem), format)
    if with_rationale:
        mark = session.mark()
        session.write_marker("answer")
        completion = yield lm, session, "answer"
        rationale = out.take(completion, cut_stands=bool(format.stops))
        if rationale is None:
            out.keep_rejected(completion)
        if format.joint:
            _part(out, rationale, format.joint.strip())
            return
        if rationale is None:
            session.crop(mark)
        else:
            if completion.fault is not None:
                session.write_slot(rationale)
            out.steps.append(Step("", rationale.strip()))
            out.slots.append(rationale)
    yield from _final_slot(out, lm, session)


def _part(out: Outcome, text: str | None, joint: str) -> None:
    """Rationale and answer of the one slot that holds both; an answer that is missing is an empty one."""
    rationale, found, answer = (text or "").rpartition(joint)
    rationale, answer = (rationale, answer.strip()) if found else (answer, "")
    if rationale.strip():
        out.steps.append(Step("", rationale.strip()))
        out.slots.append(rationale)
    out.answer = answer or None
    if text is not None and not answer:
        out.stop_reason = "empty_output"


def _conclude(out: Outcome, qa: LM, reply: Session) -> Loop:
    """QA's final slot behind the stop: whatever ended the questions, it follows the prefix it was trained on."""
    reply.write_marker("question")
    reply.write_slot("")
    yield from _final_slot(out, qa, reply)


def _final_slot(out: Outcome, lm: LM, session: Session) -> Loop:
    session.write_marker("final")
    completion = yield lm, session, "final"
    answer = out.take(completion, cut_stands=bool(session.format.stops))
    if answer is None:
        out.keep_rejected(completion)
    out.answer = answer.strip() if answer is not None else None


def normalised(step: Step) -> tuple[str, str]:
    """Question and answer, each run of whitespace one space: in this form a step is repeated."""
    return " ".join(step.question.split()), " ".join(step.answer.split())
