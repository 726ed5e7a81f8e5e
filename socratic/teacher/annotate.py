"""`annotate`: one durable annotation from problems to a file of chains; what the command `teach` calls."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from socratic import store
from socratic.config import Settings, differences
from socratic.lm.base import LM
from socratic.prompts import TeacherPrompt
from socratic.teacher.client import Endpoint
from socratic.teacher.crash import crash_point
from socratic.teacher.estimate import estimate
from socratic.teacher.ledger import Ledger
from socratic.teacher.local import LocalTeacher
from socratic.teacher.pace import Pace
from socratic.teacher.teach import Asking, Form, Job, Lesson, Tally, TeachSettings, standing
from socratic.types import Chain, UserError

LEDGER = "ledger.sqlite"
FAULTS = "faults.jsonl"
_GRACE_SECONDS = 10.0
_FEW = 20
"""Replies from which on their mean cost is taken for what the next costs, whatever the estimate says."""


class AskSettings(Settings):
    """How a teacher is asked; of all this only ``form`` changes a reply."""

    base_url: str | None = Field(None, description="of the endpoint; OPENAI_BASE_URL or the SDK's default if unset")
    concurrency: int = Field(64, ge=1, le=10_000, description="requests under way at most")
    timeout: float = Field(120.0, gt=0, description="seconds of one request altogether")
    form: Form | None = Field(None, description="json_schema, json_object or text; tried out if unset")
    batch: bool = Field(False, description="by the endpoint's Batch API: within a day, at half the price")
    poll_seconds: float = Field(30.0, gt=0, description="between two looks at the batches under way")
    resume: Literal["never", "if-possible", "always"] = Field("if-possible", description="an annotation begun before")
    retry_failed: bool = Field(False, description="ask again what the endpoint refused, or was in a batch that is lost")
    prompt_price: float = Field(0.0, ge=0, description="dollars for a million prompt tokens")
    completion_price: float = Field(0.0, ge=0, description="dollars for a million completion tokens")
    max_cost: float | None = Field(None, gt=0, description="dollars to spend at most, over all calls")

    def cost(self, tokens: tuple[int, int]) -> float:
        """Dollars for prompt and completion tokens."""
        return (self.prompt_price * tokens[0] + self.completion_price * tokens[1]) / 1e6


@dataclass
class Annotation:
    """What came of it: ``faults`` counts jobs without a chain by reason, ``unasked`` those without a reply.

    Of the former asking again may mend ``for_now``, such as those whose attempts all ran into a server's error.
    ``tokens`` are those of prompts and of replies, ``unknown`` the requests whose outcome a kill had left open, and
    ``why_stopped`` and ``signal`` say what ended it early.
    """

    chains: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    for_now: int = 0
    unasked: int = 0
    tokens: tuple[int, int] = (0, 0)
    unknown: int = 0
    why_stopped: str | None = None
    signal: int | None = None


OnChange = Callable[[Tally, tuple[int, int]], None]


def annotate(
    jobs: Sequence[Job],
    settings: TeachSettings,
    prompt: TeacherPrompt | None,
    out: Path,
    how: AskSettings,
    *,
    lm: LM | None = None,
    replies: Path | None = None,
    on_change: OnChange = lambda tally, tokens: None,
) -> Annotation:
    """Ask for every job that has no reply yet, and write the chains of all of them to ``out``, in their order.

    Asked is the endpoint of ``how``, or the model ``lm`` here. Beside ``out``, in a folder with ``.teacher`` behind its
    name, lie the replies that are no chain, by reason, and the ledger, or that in the folder ``replies``, so that
    several annotations share what was bought. Interrupted, the same call continues. Raises `UserError` where another
    process is at it, where the ledger was begun with other settings (by ``how.resume``), and where the teacher cannot
    be used at all.
    """
    folder = teacher_folder(out)
    if how.max_cost is not None and not (how.prompt_price or how.completion_price):
        raise UserError(f"--max-cost {how.max_cost:g} needs the model's price; give --price PROMPT,COMPLETION")
    with store.lock(replies or folder):
        crash_point("lock-taken")
        ledger = Ledger((replies or folder) / LEDGER)
        try:
            if not how.batch and ledger.open_batches():
                raise UserError(f"{ledger.path} has batches under way, which are paid for; give --batch to fetch them")
            done, lesson = asyncio.run(_ask(jobs, settings, prompt, ledger, how, lm, on_change))
            done.tokens = ledger.tokens
            if lesson is None:
                done.unasked = len(jobs)
            elif not ledger.full:
                _write(jobs, lesson, ledger, out, done)
        finally:
            ledger.close()
    crash_point("lock-released")
    return done


def teacher_folder(out: Path) -> Path:
    """Where what belongs to the annotation into ``out`` lies: what is no chain, and the ledger if it has its own."""
    return out.with_name(f"{out.name}.teacher")


async def _ask(
    jobs: Sequence[Job],
    settings: TeachSettings,
    prompt: TeacherPrompt | None,
    ledger: Ledger,
    how: AskSettings,
    lm: LM | None,
    on_change: OnChange,
) -> tuple[Annotation, Lesson | None]:
    """What came of it so far, and the lesson unless a signal came before the form of replies was known."""
    teacher = LocalTeacher(lm) if lm else Endpoint(how.base_url, how.concurrency, how.timeout)
    done = Annotation(unknown=ledger.unknown())
    asking = Asking(
        teacher,
        ledger,
        Pace(how.concurrency),
        may_spend=lambda under_way: _affordable(how, ledger, under_way, guess),
        retry_failed=how.retry_failed,
        on_change=lambda tally: on_change(tally, ledger.tokens),
    )
    lesson: Lesson | None = None
    guess = 0.0  # dollars of a reply, before there is any

    async def ask() -> None:
        nonlocal lesson, guess
        form: Form | None = how.form or ("text" if prompt is None or lm else _form_before(ledger, settings))
        form = form or await asking.probe(settings)
        crash_point("form-known")
        taught = Lesson(settings, prompt, form)
        await _check_same(ledger, taught.record(), how.resume)
        crash_point("resume-checked")
        lesson = taught
        guess = how.cost(estimate(jobs[:1], lesson))
        asking.on_change(asking.tally)
        if how.batch and isinstance(teacher, Endpoint):
            from socratic.teacher.batch import ask_in_batches

            await ask_in_batches(asking, teacher, jobs, lesson, how.poll_seconds)
        else:
            await asking.run(jobs, lesson)

    try:
        await _until_signal(ask(), asking, done)
    except UserError:
        if done.signal is None:  # else it came while the form was being tried out
            raise
    finally:
        await teacher.close()
    done.why_stopped = asking.why_stopped
    return done, lesson


def _form_before(ledger: Ledger, settings: TeachSettings) -> Form | None:
    """The form found when the ledger was begun: an endpoint that failed then may keep to a stricter one today."""
    before = ledger.settings.get("lesson") or {}
    return before["form"] if before.get("model") == settings.model else None


def _affordable(how: AskSettings, ledger: Ledger, under_way: int, guess: float) -> bool:
    """Whether ``under_way`` requests, the next among them, keep within the limit; each is reckoned at the mean cost.

    Before there is a reply to go by, at ``guess``.
    """
    if how.max_cost is None:
        return True
    spent = how.cost(ledger.tokens) or guess * len(ledger.replied)  # some servers state no usage
    each = spent / len(ledger.replied) if ledger.replied else guess
    if len(ledger.replied) < _FEW:  # among them the short ones that tried out the form
        each = max(each, guess)
    return spent + under_way * each <= how.max_cost


async def _check_same(ledger: Ledger, wanted: dict[str, Any], resume: str) -> None:
    """Refuse, or keep, settings that differ from those the ledger was begun with."""
    before = ledger.settings.get("lesson")
    if before is not None:
        if resume == "never":
            raise UserError(f"{ledger.path} holds an annotation already; give another --out, or leave --resume out")
        changed = differences(before, wanted)
        if changed and resume == "if-possible":
            raise UserError(
                f"{ledger.path} was begun with other settings ({'; '.join(changed)}); give another --out, or "
                "--resume always to ask for what the change concerns"
            )
    if before != wanted:
        await ledger.set("lesson", wanted)


async def _until_signal(asked: Coroutine[Any, Any, None], asking: Asking, done: Annotation) -> None:
    """Let it run; on the first SIGINT or SIGTERM send nothing more and give what is under way some seconds.

    On the second, or when these are over, leave: what was sent and is not answered is then on the ledger as unknown.
    """
    loop = asyncio.get_running_loop()
    running = asyncio.create_task(asked)

    def leave(number: int) -> None:
        again, done.signal = done.signal is not None, number
        asking.stop("interrupted; the same command continues")
        crash_point("signal-taken")
        loop.call_later(0 if again else _GRACE_SECONDS, running.cancel)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, leave, number)
    try:
        with suppress(asyncio.CancelledError):
            await running
    except ExceptionGroup as group:  # of the jobs: a full disk, a damaged ledger
        if not isinstance(error := group.exceptions[0], UserError):
            raise
        asking.stop(str(error))
    finally:
        crash_point("asking-ended")
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _write(jobs: Sequence[Job], lesson: Lesson, ledger: Ledger, out: Path, done: Annotation) -> None:
    """Chains to ``out``, and what is no chain to the folder beside it."""
    chains: list[dict[str, Any]] = []
    faults: list[dict[str, Any]] = []
    for job in jobs:
        request, found = standing(job, lesson, ledger)
        failure = ledger.failures.get(request[0]) if request else None
        if isinstance(found, Chain):
            chains.append(found.to_json())
            continue
        if failure is not None:
            reason, detail = failure.reason, failure.detail
            done.for_now += not failure.final
        elif found is not None:
            reason, detail = found.fault, str(found)
        else:
            done.unasked += 1
            continue
        done.faults[reason] += 1
        faults.append({"problem_id": job.problem.id, "sample": job.sample, "reason": reason, "detail": detail})
    crash_point("chains-collected")
    store.write_jsonl(teacher_folder(out) / FAULTS, faults)
    crash_point("faults-written")
    store.write_jsonl(out, chains)
    crash_point("chains-written")
    done.chains = len(chains)
