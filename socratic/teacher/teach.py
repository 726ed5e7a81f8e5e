"""Problems -> requests -> replies in the ledger -> chains; stops and goes on at any point.

Each problem and sample is a short conversation, written as a generator: it yields request bodies, is sent raw replies
and returns a chain. `Asking` drives it against a teacher, `standing` against the ledger alone, so that replies can be
read anew without a single request.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from pydantic import Field, ValidationInfo, field_validator

from socratic.answers import extract
from socratic.config import Settings
from socratic.curate import check
from socratic.prompts import ZERO_SHOT_COT, ReplyForm, Style, TeacherPrompt
from socratic.store import hash_json
from socratic.targets import TOKENS
from socratic.tasks.base import gold_chain
from socratic.tasks.strategyqa import resolve
from socratic.teacher.client import Outcome, Received
from socratic.teacher.crash import crash_point
from socratic.teacher.ledger import Ledger, request_key
from socratic.teacher.pace import EndpointDownError, Pace, retry_after
from socratic.teacher.replies import BadReplyError, Reply, content, likeliest, parse_reply
from socratic.types import Chain, Problem, Step, UserError

Form = Literal["json_schema", "json_object", "text"]
"""How an endpoint is asked to reply: held to a schema, to any JSON object, or to nothing."""

_MOST_ATTEMPTS = 12
_MOST_OVERLOADS = 20
_REFUSALS = 20
_UNREACHED = 8


class ReplySettings(Settings):
    """What decides a reply, apart from the problem and the teacher."""

    style: Style | Literal["zero-shot-cot"] = Field("socratic", description="what the teacher writes")
    temperature: float | None = Field(0.7, ge=0, description="0 is greedy; null leaves it to the endpoint")
    max_tokens: int = Field(1024, ge=1, description="of one reply")
    seed: int | None = Field(0, description="of the first sample, the others count up; null sends none")
    hint_answer: bool = Field(False, description="give the right answer as a hint (Magister et al. 2212.08410)")
    hint_failed: bool = Field(False, description="ask once more with that hint where the chain would be rejected")
    extra: dict[str, Any] = Field({}, description="further fields of the request, such as {top_p: 0.9}")

    @field_validator("hint_answer", "hint_failed")
    @classmethod
    def _has_a_place(cls, hint: bool, info: ValidationInfo) -> bool:
        if hint and info.data.get("style") == "zero-shot-cot":
            raise ValueError("style zero-shot-cot has no place for a hint; take style cot, or leave it out")
        if hint and info.data.get("hint_answer"):
            raise ValueError("hint_answer gives it to every problem already; leave one of the two out")
        return hint

    @field_validator("extra")
    @classmethod
    def _is_json(cls, extra: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(extra, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"it cannot be sent as JSON ({error}); mend it") from None
        if extra.get("stream") or extra.get("n", 1) != 1:
            raise ValueError("a reply is read whole, and one choice of it; leave stream and n out, and give --samples")
        return extra


class TeachSettings(ReplySettings):
    """What decides a reply, apart from the problem."""

    model: str = Field(description="the teacher's name at its endpoint, or MODEL of a local one")


@dataclass(frozen=True)
class Job:
    """One sample of one problem; ``given`` are the steps that the styles `answers` and `questions` start from."""

    problem: Problem
    sample: int
    given: tuple[Step, ...] = ()


@dataclass
class Tally:
    """How far an annotation is: ``kept`` chains would pass `curate`, ``failed`` counts the others by reason."""

    done: int = 0
    kept: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    asked: int = 0


class Teacher(Protocol):
    """Where requests go."""

    url: str

    async def send(self, body: Mapping[str, Any], sample: int) -> Received:
        """Ask once."""

    async def close(self) -> None:
        """Give back what it holds."""


_BLANK = Problem("", "", "", "", "")

Conversation = Generator[dict[str, Any], dict[str, Any], Chain]


@dataclass(frozen=True)
class Lesson:
    """What all jobs of an annotation have in common; ``prompt`` is None for two-step zero-shot chain of thought."""

    settings: TeachSettings
    prompt: TeacherPrompt | None
    form: Form

    def conversation(self, job: Job) -> Conversation:
        """Request bodies of a job, one after the other; is sent raw replies. Raises `BadReplyError`."""
        settings = self.settings
        if not settings.hint_answer:
            try:
                chain = _chain(job, settings, (yield from self._turns(job, hint_answer=False)))
            except BadReplyError:
                if not settings.hint_failed:
                    raise
            else:
                if not settings.hint_failed or check(chain) is None:
                    return chain
        hinted = _chain(job, settings, (yield from self._turns(job, hint_answer=True)))
        return replace(hinted, metadata={**hinted.metadata, "hinted": True})

    def record(self) -> dict[str, Any]:
        """What decides the replies, to be compared where an annotation is resumed."""
        shown = self.prompt and [self.prompt.messages(_BLANK, self._reply_form), self.prompt.hint, self.prompt.schema]
        return {**self.settings.model_dump(), "form": self.form, "prompt": hash_json(shown)[:16]}

    @property
    def _reply_form(self) -> ReplyForm:
        return "text" if self.form == "text" else "json"

    def _turns(self, job: Job, hint_answer: bool) -> Generator[dict[str, Any], dict[str, Any], Reply]:
        if self.prompt is None:
            return (yield from self._zero_shot(job.problem, job.sample))
        messages = self.prompt.messages(job.problem, self._reply_form, job.given, hint_answer)
        body = self._body(messages, job.sample)
        if self.form == "json_schema":
            body["response_format"] = _schema_format("chain", self.prompt.schema)
        elif self.form == "json_object":
            body["response_format"] = {"type": "json_object"}
        raw = yield body
        reply = parse_reply(content(raw), self.prompt.style, job.given)
        if self.prompt.style == "answers" and job.problem.dataset == "strategyqa":  # #1 is there the first answer
            steps = resolve([step.question for step in reply.steps], [step.answer for step in reply.steps])
            reply = Reply(tuple(steps), reply.answer)
        return replace(reply, tokens=likeliest(raw))

    def _zero_shot(self, problem: Problem, sample: int) -> Generator[dict[str, Any], dict[str, Any], Reply]:
        """The rationale first, then the answer (Kojima et al. 2205.11916, as in Ho et al. 2212.10071, section 3).

        As there, a rationale that was cut off stands: the answer is asked for all the same.
        """
        chat = [{"role": "user", "content": ZERO_SHOT_COT.problem(problem)}]
        raw = yield self._body(chat, sample)
        rationale = content(raw, cut_stands=True).strip()
        chat = [
            *chat,
            {"role": "assistant", "content": rationale},
            {"role": "user", "content": ZERO_SHOT_COT.markers["final"].strip()},
        ]
        said = content((yield self._body(chat, sample)))
        answer = extract(said, problem.answer_type, problem.choices).predicted
        if answer is None:
            raise BadReplyError("no_answer", said[:200])
        return Reply((Step("", rationale),), answer, likeliest(raw))

    def _body(self, chat: list[dict[str, str]], sample: int) -> dict[str, Any]:
        settings = self.settings
        body: dict[str, Any] = {"model": settings.model, "messages": chat, "max_completion_tokens": settings.max_tokens}
        if settings.temperature is not None:
            body["temperature"] = settings.temperature
        if settings.seed is not None:
            body["seed"] = settings.seed + sample
        return {**body, **settings.extra}


def standing(
    job: Job, lesson: Lesson, ledger: Ledger
) -> tuple[tuple[str, dict[str, Any]] | None, Chain | BadReplyError | None]:
    """The first request (key, body) of a job that the ledger has no reply to, or what the job came to; asks nobody."""
    talk = lesson.conversation(job)
    try:
        body = next(talk)
        while True:
            key = request_key(body, job.sample)
            raw = ledger.reply(key)
            if raw is None:
                return (key, body), None
            body = talk.send(raw)
    except StopIteration as end:
        return None, end.value
    except BadReplyError as fault:
        return None, fault


def _chain(job: Job, settings: TeachSettings, reply: Reply) -> Chain:
    chain = gold_chain(job.problem, reply.steps, split=job.problem.split)
    metadata = {**chain.metadata, TOKENS: reply.tokens} if reply.tokens else chain.metadata
    source = f"teacher:{settings.model}"
    return replace(chain, source=source, sample=job.sample, final_answer=reply.answer, metadata=metadata)


class _StoppedError(Exception):
    """Nothing may be sent any more."""


class _GivenUpError(Exception):
    """A request that got no reply; its reason."""


class Asking:
    """Drives jobs against a teacher until each has a chain or a named failure, or until it is told to stop.

    ``may_spend`` is asked before each request, with the number under way.
    """

    def __init__(
        self,
        teacher: Teacher,
        ledger: Ledger,
        pace: Pace,
        *,
        may_spend: Callable[[int], bool] = lambda under_way: True,
        retry_failed: bool = False,
        on_change: Callable[[Tally], None] = lambda tally: None,
    ) -> None:
        self.teacher, self.ledger, self.pace = teacher, ledger, pace
        self.may_spend, self.retry_failed, self.on_change = may_spend, retry_failed, on_change
        self.tally = Tally()
        self.why_stopped: str | None = None
        self._stopping = asyncio.Event()
        self._asked: dict[str, asyncio.Lock] = {}
        self._got_one = False
        self._refusals = self._unreached = 0

    def stop(self, why: str) -> None:
        """Send nothing more; what is under way may come to its end."""
        if self.why_stopped is None:
            self.why_stopped = why
            self._stopping.set()
            self.pace.wake_all()

    async def run(self, jobs: Sequence[Job], lesson: Lesson) -> None:
        """Ask for all ``jobs`` that the ledger has no reply to."""
        waiting = iter(jobs)

        async def work() -> None:
            for job in waiting:
                if self.why_stopped is not None:
                    return
                with suppress(_StoppedError):
                    await self._converse(job, lesson)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(jobs), 2 * self.pace.most)):  # twice, as some only wait for their next attempt
                group.create_task(work())

    async def _converse(self, job: Job, lesson: Lesson) -> None:
        talk = lesson.conversation(job)
        crash_point("job-begun")
        reason: str | None
        try:
            body = next(talk)
            while True:
                body = talk.send(await self.reply(body, job.sample))
                crash_point("next-turn")
        except StopIteration as end:
            reason = check(end.value)
        except BadReplyError as fault:
            reason = fault.fault
        except _GivenUpError as given_up:
            reason = str(given_up)
        self.tally.done += 1
        if reason is None:
            self.tally.kept += 1
        else:
            self.tally.failed[reason] += 1
        crash_point("job-done")
        self.on_change(self.tally)

    async def reply(
        self, body: Mapping[str, Any], sample: int, attempts: int = _MOST_ATTEMPTS, *, anew: bool = False
    ) -> dict[str, Any]:
        """The stored reply, else a new one; raises `_GivenUpError` or `_StoppedError`."""
        key = request_key(body, sample)
        async with self._asked.setdefault(key, asyncio.Lock()):  # problems that read the same are asked for once
            return await self._reply(key, body, sample, attempts, anew)

    async def _reply(self, key: str, body: Mapping[str, Any], sample: int, attempts: int, anew: bool) -> dict[str, Any]:
        if (stored := self.ledger.reply(key) if key in self.ledger.replied else None) is not None:
            await asyncio.sleep(0)  # many stored ones in a row would keep signals and replies waiting
            return stored
        before = self.ledger.failures.get(key)
        if before and before.final and not (self.retry_failed or anew):
            raise _GivenUpError(before.reason)
        for attempt in range(attempts):
            got = await self._send(body, sample, key)
            for times in range(_MOST_OVERLOADS):  # which says little of this request: the pace counts these
                if got.outcome != "overloaded":
                    break
                await self.rest(self.pace.back_off(times))
                got = await self._send(body, sample, key)
            if got.outcome == "reply":
                return json.loads(got.raw)  # type: ignore[no-any-return]
            if got.outcome in ("refused", "denied", "overloaded"):
                break
            if attempt < attempts - 1:
                await self.rest(self.pace.back_off(attempt))
        raise _GivenUpError(got.reason)

    async def _send(self, body: Mapping[str, Any], sample: int, key: str) -> Received:
        """One attempt, on record before and after; its place is another's only when it is.

        So requests whose outcome is not on the ledger, and whose cost is not known, are no more than the pace allows.
        """
        try:
            entered = await self.pace.enter()
        except EndpointDownError:
            self.stop(f"{self.teacher.url} has failed for minutes; run the command again when it works")
            raise _StoppedError from None
        outcome: Outcome | None = None
        try:
            if self.ledger.full:
                self.stop(f"the disk of {self.ledger.path} is full; free space and run the command again")
            if self.why_stopped is None and not self.may_spend(self.pace.under_way):
                self.stop("the limit of --max-cost is reached; raise it and run the command again")
            if self.why_stopped is not None:
                raise _StoppedError
            number = await self.ledger.begin(key)
            if not await self.pace.opened():  # it may have closed meanwhile
                await self.ledger.fail(key, number, "not_sent", "", final=False)
                raise _StoppedError
            self.tally.asked += 1
            got = await self.teacher.send(body, sample)
            crash_point("request-ended")
            outcome = got.outcome
            self._consider(got)
            if got.outcome == "reply":
                await self.ledger.keep(key, got.raw, got.tokens)
            else:
                final = got.outcome == "refused"
                await self.ledger.fail(key, number, got.reason, got.detail, final=final, tokens=got.tokens)
        finally:
            self.pace.leave(entered, outcome)
        if got.outcome == "reply":
            self.pace.heed(got.headers, sum(self.ledger.tokens) / len(self.ledger.replied))
        if got.outcome == "stop":
            raise _StoppedError
        return got

    def _consider(self, got: Received) -> None:
        """Wait where the endpoint says so, and stop where a failure says that others will fail as well."""
        if got.outcome == "reply":
            self._got_one, self._refusals = True, 0
        if got.outcome == "overloaded" and (seconds := retry_after(got.headers)) is not None:
            self.pace.close_for(seconds)
        self._refusals += got.outcome in ("refused", "denied")
        self._unreached += got.reason == "connection"
        url = self.teacher.url
        if got.outcome == "stop":
            self.stop(f"{url} {got.reason} ({got.detail})")
        if self._refusals >= _REFUSALS:
            self.stop(f"{url} refused {_REFUSALS} requests in a row ({got.detail}); mend that first")
        if self._unreached >= _UNREACHED and not self._got_one:
            self.stop(f"{url} cannot be reached ({got.detail}); start it, or correct --base-url")

    async def rest(self, seconds: float) -> None:
        """Wait, but no longer than until the run is stopped."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def probe(self, settings: TeachSettings) -> Form:
        """The strictest form of reply that the endpoint keeps to; the ledger remembers what it said.

        Raises `UserError` where it replies to none.
        """
        text = {"type": "string"}
        schema = {"type": "object", "properties": {"sum": text}, "required": ["sum"], "additionalProperties": False}
        wanted: dict[Form, dict[str, Any]] = {
            "json_schema": {"response_format": _schema_format("sum", schema)},
            "json_object": {"response_format": {"type": "json_object"}},
            "text": {},
        }
        question = 'What is 2 + 3? Reply with JSON alone: {"sum": "..."}'
        common = {"model": settings.model, "messages": [{"role": "user", "content": question}], **settings.extra}
        bodies = {form: {**common, "max_completion_tokens": settings.max_tokens, **how} for form, how in wanted.items()}
        before = [self.ledger.failures.get(request_key(body, 0)) for body in bodies.values()]
        anew = all(failure is not None and failure.final for failure in before)  # it may have been mended since
        why = ""
        for form, body in bodies.items():
            try:
                raw = await self.reply(body, 0, attempts=3, anew=anew)  # some servers fail where they should refuse
            except _GivenUpError as given_up:
                why = f"{given_up} ({self.ledger.failures[request_key(body, 0)].detail})"
            except _StoppedError:
                raise UserError(self.why_stopped or "") from None
            else:
                if form == "text" or _keeps_to(raw):
                    return form
        raise UserError(f"{self.teacher.url} does not reply to {settings.model!r}: {why}")


def _schema_format(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}


def _keeps_to(raw: Mapping[str, Any]) -> bool:
    try:
        said = json.loads(content(raw))
    except (BadReplyError, ValueError, RecursionError):
        return False
    return isinstance(said, dict) and isinstance(said.get("sum"), str)
