"""Problems put through the loops: `solve` runs many at once, `stream` one, token by token."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Literal, Self, get_args

from pydantic import Field, ValidationInfo, field_validator

from socratic.config import Settings
from socratic.interventions import NOTHING, Intervention
from socratic.likelihood import likeliest
from socratic.lm.base import LM, Request, Session
from socratic.loops import Loop, Outcome, planned, single, stepwise, teacher_forced
from socratic.prompts import (
    PLAIN,
    TRANSCRIPT,
    TRANSCRIPT_VERSION,
    Format,
    SlotKind,
    prompt_format,
    prompt_hash,
    render_raw,
)
from socratic.types import ANSWER_ONLY, Guidance, Problem, Prompting, QGSees, Solver, Trace, UserError

_CHUNK = 8
"""Tokens a model advances before rows that ended are exchanged for waiting ones."""


class SolveSettings(Settings):
    """What decides a trace, apart from the models."""

    solver: Solver = Field(
        "socratic",
        description="socratic (QG and QA), unified (= tied: one model, one context), cot or answer; zero-shot-cot, "
        "few-shot-cot and few-shot-socratic prompt a model that was not trained for it; likelihood chooses among the "
        "answers that a problem offers",
    )
    qg_sees: QGSees | None = Field(
        None, description="what QG reads: answers (iterative) or questions (plan); QG's own if unset"
    )
    plan_by: Literal["planner", "gold"] = Field(
        "planner", description="who writes the plan of a guided QG; gold (from the data) is an upper bound"
    )
    calculator: bool | None = Field(
        None, description="compute <<expr= for the students; the checkpoint's default if unset"
    )
    temperature: float = Field(0.0, ge=0, description="0 is greedy")
    seed: int = Field(
        0,
        description="of sampling; a sample depends on seed, problem and sample index alone (with the same kernels and "
        "number format)",
    )
    max_steps: int = Field(16, ge=1, description="sub-questions before the loop is stopped (gold has at most 11)")
    max_tokens: int = Field(256, ge=1, description="tokens of one sub-question, sub-answer or final answer")
    max_rationale_tokens: int = Field(512, ge=1, description="tokens of the one slot of a chain of thought")

    @field_validator("temperature")
    @classmethod
    def _is_of_what_is_written(cls, temperature: float, info: ValidationInfo) -> float:
        if temperature and info.data.get("solver") == "likelihood":
            raise ValueError("solver likelihood writes nothing that could be drawn; give temperature=0")
        return temperature

    def check_models(self, qg: object, qa: object, lm: object, planner: object = None) -> None:
        """Raise `UserError` for a model that the solver needs and has not, or has and does not need."""
        if planner is not None and (self.solver != "socratic" or self.plan_by == "gold"):
            how = "plan_by='gold'" if self.plan_by == "gold" else f"solver {self.solver!r}"
            raise UserError(f"{how} takes no planner; leave it out")
        if self.solver == "socratic":
            if qg is None or qa is None or lm is not None:
                raise UserError("solver 'socratic' needs the two students qg and qa, and no lm")
        elif lm is None or qg is not None or qa is not None:
            raise UserError(f"solver {self.solver!r} needs the one student lm, and neither qg nor qa")


@dataclass(frozen=True)
class Event:
    """A piece of a solution as it is written: ``text`` is what came since the last event of this slot.

    Kinds: the slot kinds; ``done`` marks the end of a slot, ``fault`` why it was dropped; the last event has the trace.
    """

    kind: SlotKind | Literal["trace"]
    text: str = ""
    done: bool = False
    fault: str | None = None
    trace: Trace | None = None


@dataclass(eq=False)
class Job:
    """One problem's loop while it runs: ``out`` is what came of it so far, ``trace`` stands once it has ended.

    ``seconds`` is its share of the time of the steps it was in.
    """

    solving: Solving
    problem: Problem
    sample: int
    out: Outcome
    loop: Loop
    rng: random.Random
    seconds: float = 0.0
    trace: Trace | None = None


class Solving:
    """A solver with its models: checks that they fit, and runs jobs (problem, sample) to traces.

    Raises `UserError` for a missing or superfluous model, one trained for another role, and a calculator that a model
    cannot stop for.
    """

    def __init__(
        self,
        settings: SolveSettings,
        qg: LM | None = None,
        qa: LM | None = None,
        lm: LM | None = None,
        planner: LM | None = None,
    ) -> None:
        settings.check_models(qg, qa, lm, planner)
        if settings.qg_sees == "questions" and settings.solver != "socratic":
            raise UserError(f"qg_sees='questions' is for solver 'socratic', not {settings.solver!r}; leave it out")
        for place, model in (("qg", qg), ("qa", qa), ("lm", lm), ("planner", planner)):
            if model is not None:
                check_role(settings.solver, place, model.name, model.role)
        _check_plan(settings, qg, planner)
        self.settings = settings
        self.intervention: Intervention | None = None
        self.models: list[LM] = list(dict.fromkeys(m for m in (qg, qa, lm, planner) if m is not None))
        self._chooses = settings.solver == "likelihood"
        if self._chooses and lm is not None:
            lm.logprobs([])  # which says where it cannot
        self.qg_sees: QGSees = settings.qg_sees or (qg.qg_sees if qg else "answers")
        able = all(model.has_calculator for model in self.models)
        if settings.calculator and not able and not self._chooses:
            name = next(model.name for model in self.models if not model.has_calculator)
            raise UserError(f"the calculator cannot interrupt {name}; pass --calculator off")
        default = able and all(model.calculator_default for model in self.models)
        self.calculator = (default if settings.calculator is None else settings.calculator) and not self._chooses
        self._qg, self._qa, self._lm, self._planner = qg, qa, lm, planner

    def with_intervention(self, intervention: Intervention) -> Self:
        """The same solver and models, given other words; raises `UserError` for a solver without sub-questions."""
        if self.pair is None:
            raise UserError(
                f"solver {self.settings.solver!r} asks no sub-questions that {intervention.kind!r} could replace; "
                "choose the solver socratic, tied or unified"
            )
        made = copy(self)
        made.intervention = intervention
        return made

    @property
    def name(self) -> str:
        """The solver's name in traces: `iterative` or `plan` for a QG/QA pair."""
        if self.settings.solver != "socratic":
            return self.settings.solver
        return "iterative" if self.qg_sees == "answers" else "plan"

    def record(self) -> dict[str, Any]:
        """All that decides a trace, as plain values: settings, and each model's name and fingerprint."""
        roles = {"qg": self._qg, "qa": self._qa, "lm": self._lm, "planner": self._planner}
        models = {role: m.record() for role, m in roles.items() if m}
        resolved = {
            "qg_sees": self.qg_sees,
            "guidance": self.guidance,
            "calculator": self.calculator,
            "transcript": TRANSCRIPT_VERSION,
        }
        given: dict[str, Any] = {"intervention": self.intervention.record()} if self.intervention else {}
        if (prompt := prompt_of(self.settings.solver)) is not None:
            given["prompt"] = prompt
        return {**self.settings.model_dump(), **resolved, **given, "models": models}

    def run(self, jobs: Iterable[tuple[Problem, int]], batch_size: int = 64) -> Iterator[Trace]:
        """Traces of all jobs in order of completion, at most ``batch_size`` problems under way at once."""
        if type(batch_size) is not int or batch_size < 1:
            raise UserError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
        if self._chooses and self._lm is not None:
            check_idle(self.models)
            yield from likeliest(jobs, self._lm, batch_size)
            return
        board, waiting = Board(self.models), iter(jobs)
        try:
            while True:
                for problem, sample in islice(waiting, batch_size - len(board.under_way)):
                    board.add(self, problem, sample)
                if not board.under_way:
                    return
                for job in board.step():
                    if job.trace is not None:
                        yield job.trace
        finally:
            board.close()

    def stream(self, problem: Problem, sample: int = 0) -> Iterator[Event]:
        """One problem, an `Event` for each new piece of text; the last event carries the trace."""
        check_idle(self.models)
        job = self.start(problem, sample)
        started = time.perf_counter()
        wanted = next(job.loop)
        while True:
            request = self.job_request(job, wanted)
            shown = 0
            for piece in decode(request):
                yield Event(request.kind, piece)
                shown += len(piece)
            completion = request.completion
            assert completion is not None
            yield Event(request.kind, completion.text[shown:], done=True, fault=completion.fault)
            try:
                wanted = job.loop.send(completion)
            except StopIteration:
                job.seconds = time.perf_counter() - started
                yield Event("trace", trace=self.trace(job))
                return

    def start(self, problem: Problem, sample: int) -> Job:
        """A job whose loop has not begun."""
        key = f"{self.settings.seed}|{problem.id}|{sample}"
        rng = random.Random(hashlib.sha256(key.encode()).digest())
        out = Outcome()
        return Job(self, problem, sample, out, self._loop(out, problem), rng)

    @property
    def guidance(self) -> Guidance:
        """The plan that QG reads."""
        return self._qg.guidance if self._qg else "none"

    @property
    def pair(self) -> tuple[LM, LM] | None:
        """The models that ask and answer; None for a solver without sub-questions."""
        if self.settings.solver not in ("socratic", "tied", "unified", "few-shot-socratic"):
            return None
        qg, qa = self._qg or self._lm, self._qa or self._lm
        assert qg is not None
        assert qa is not None
        return qg, qa

    def format(self, problem: Problem) -> Format:
        """How the problem's solution is written down: as the student learned it, or as a prompt."""
        if (solver := _prompting(self.settings.solver)) is not None:
            return prompt_format(solver, problem.dataset)
        return self._lm.format if self._lm else TRANSCRIPT

    def _loop(self, out: Outcome, problem: Problem) -> Loop:
        if self._chooses:
            raise UserError("solver 'likelihood' chooses an answer and writes none; measure it with socratic evaluate")
        format = self.format(problem)
        if self.pair is not None:
            qg, qa = self.pair
            given = self.intervention.given[problem.id] if self.intervention else NOTHING
            common = (out, problem, qg, qa, self.qg_sees, format)
            if given.history:
                loop = partial(teacher_forced, *common, given.history)
            else:
                loop = partial(stepwise, *common, self.settings.max_steps, given)
            return loop() if self.guidance == "none" else planned(out, problem, self._planner, qa, loop)
        assert self._lm is not None
        at_once = self.settings.solver == "cot" and bool(problem.metadata.get(ANSWER_ONLY))
        if at_once and format.joint:
            raise UserError(
                f"problem {problem.id} is to be answered at once (answer_only), which a student of format "
                f"{format.name} does not learn; give it other problems"
            )
        return single(out, problem, self._lm, self.settings.solver != "answer" and not at_once, format)

    def job_request(self, job: Job, wanted: tuple[LM, Session, SlotKind]) -> Request:
        """The request for the slot that a job's loop wants."""
        return self.request(*wanted, self.settings.temperature, job.rng)

    def request(self, lm: LM, session: Session, kind: SlotKind, temperature: float, rng: random.Random) -> Request:
        """A request for a slot as these settings have it; not submitted yet."""
        rationale = self.pair is None and kind == "answer"
        most = self.settings.max_rationale_tokens if rationale else self.settings.max_tokens
        return Request(lm, session, kind, most, self.calculator, temperature, rng)

    def trace(self, job: Job) -> Trace:
        """The trace of a job that has ended."""
        out = job.out
        return Trace(
            problem_id=job.problem.id,
            sample=job.sample,
            solver=self.name,
            steps=tuple(out.steps),
            raw=render_raw(out.slots, out.answer),
            answer=out.answer,
            stop_reason=out.stop_reason,
            error=out.error,
            calculator=self.calculator,
            tokens=out.tokens,
            seconds=round(job.seconds, 4),
            version=TRANSCRIPT_VERSION,
            plan=None if out.plan is None else out.plan.strip(),
            rejected=out.rejected,
        )


class Board:
    """Problems under way at once over the same models: any may join, and leave, between two steps.

    Raises `UserError` where a model is solving for another call.
    """

    def __init__(self, models: Sequence[LM]) -> None:
        check_idle(models)
        self.models = models
        self.under_way: dict[Request, Job] = {}

    def add(self, solving: Solving, problem: Problem, sample: int = 0) -> Job:
        """Take a problem on, to be solved by ``solving``, whose models are the board's."""
        job = solving.start(problem, sample)
        self._submit(job, next(job.loop))
        return job

    def step(self) -> list[Job]:
        """Advance, by a few tokens, the model that most wait for; the jobs that a slot came to, ended or not."""
        model = max(self.models, key=lambda model: model.waiting)
        aboard = [job for request, job in self.under_way.items() if request.lm is model]
        started = time.perf_counter()
        ended = model.step(_CHUNK)
        for job in aboard:
            job.seconds += (time.perf_counter() - started) / len(aboard)
        moved = [self.under_way.pop(request) for request in ended]
        for request, job in zip(ended, moved, strict=True):
            assert request.completion is not None
            try:
                self._submit(job, job.loop.send(request.completion))
            except StopIteration:
                job.trace = job.solving.trace(job)
        return moved

    def remove(self, jobs: Collection[Job]) -> None:
        """Cancel jobs, whether or not they have ended."""
        dropped = [request for request, job in self.under_way.items() if job in jobs]
        for model in self.models:
            model.cancel(dropped)
        for request in dropped:
            del self.under_way[request]

    def close(self) -> None:
        """Cancel all that is under way."""
        self.remove(set(self.under_way.values()))

    def _submit(self, job: Job, wanted: tuple[LM, Session, SlotKind]) -> None:
        request = job.solving.job_request(job, wanted)
        request.lm.submit(request)
        self.under_way[request] = job


def check_idle(models: Sequence[LM]) -> None:
    """Raise `UserError` where a model is at work."""
    if busy := [model.name for model in models if model.waiting]:
        raise UserError(f"{busy[0]} is solving for another call; let that one end, or close it")


def decode(request: Request) -> Iterator[str]:
    """Have one request completed alone; yields what is written meanwhile. Left early, it is cancelled."""
    request.lm.submit(request)
    shown = ""
    try:
        while request.completion is None:
            request.lm.step(1)
            text = request.partial().rstrip("\ufffd")
            if text.startswith(shown) and text != shown:
                yield text[len(shown) :]
                shown = text
    finally:
        request.lm.cancel([request])


def _check_plan(settings: SolveSettings, qg: LM | None, planner: LM | None) -> None:
    """Raise `UserError` where QG does not get the plan that it was trained to read."""
    reads = qg.guidance if qg else "none"
    if reads == "none" and (planner or settings.plan_by == "gold"):
        raise UserError(f"{qg.name if qg else settings.solver} reads no plan; leave the planner and plan_by out")
    if qg and reads != "none" and settings.plan_by == "planner":
        if planner is None:
            raise UserError(f"{qg.name} reads a plan ({reads}); give --planner, or plan_by=gold where gold is known")
        if planner.guidance != reads:
            raise UserError(
                f"{planner.name} writes {planner.guidance}, but {qg.name} reads {reads}; give a planner of {reads}"
            )


def check_role(solver: Solver, place: str, name: str, role: str | None) -> None:
    """Raise `UserError` for a student that was trained for something else; a unified one may ask and answer.

    Of any student it can be measured what it finds likely.
    """
    if solver == "likelihood":
        return
    if role is not None and _prompting(solver) is not None:
        raise UserError(f"{name} was trained as {role!r}, and solver {solver!r} is for untrained models; give its base")
    single = ("unified",) if solver == "tied" else (solver,)
    wanted = {"lm": single, "planner": ("planner",)}.get(place, (place, "unified"))
    if role is not None and role not in wanted:
        raise UserError(
            f"{name} was trained as {role!r} and cannot be the {place} of solver {solver!r}; "
            f"give a student trained as {' or '.join(map(repr, wanted))}"
        )


def _prompting(solver: Solver) -> Prompting | None:
    """``solver`` where it only prompts."""
    return next((known for known in get_args(Prompting) if known == solver), None)


def prompt_of(solver: Solver) -> str | None:
    """What ``solver`` puts around a problem, or its hash, where that is not what a student learned to read."""
    if solver == "likelihood":
        return f"{PLAIN.before}…{PLAIN.after}"
    known = _prompting(solver)
    return None if known is None else prompt_hash(known)


def solve(
    problems: Iterable[Problem],
    solver: Solver = "socratic",
    *,
    qg: LM | None = None,
    qa: LM | None = None,
    lm: LM | None = None,
    planner: LM | None = None,
    samples: int = 1,
    batch_size: int = 64,
    **settings: object,
) -> Iterator[Trace]:
    """Solve problems, many at once; traces come in order of completion, ``samples`` for each problem.

    ``settings`` are the fields of `SolveSettings`. Bad model output ends a trace with a named reason, never with an
    exception; missing models and unknown settings raise `UserError`.
    """
    if type(samples) is not int or samples < 1:
        raise UserError(f"samples must be a whole number of at least 1, not {samples!r}")
    solving = Solving(SolveSettings.parse({"solver": solver, **settings}), qg, qa, lm, planner)
    return solving.run(((problem, k) for problem in problems for k in range(samples)), batch_size)


def stream(
    problem: Problem,
    solver: Solver = "socratic",
    *,
    qg: LM | None = None,
    qa: LM | None = None,
    lm: LM | None = None,
    planner: LM | None = None,
    **settings: object,
) -> Iterator[Event]:
    """Solve one problem, piece by piece; see `Event` and `solve`."""
    return Solving(SolveSettings.parse({"solver": solver, **settings}), qg, qa, lm, planner).stream(problem)
