"""The Batch API as a backend: requests go in as files and come back within a day, at half the price.

A batch is on the ledger before it exists: first its mark (`nonce`) and the requests in it, then the id that it was
given. After a kill in between, the mark is looked for among the endpoint's batches, so none is paid for twice.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, Literal

import openai

from socratic.curate import check
from socratic.teacher.client import Endpoint, Received
from socratic.teacher.crash import crash_point
from socratic.teacher.ledger import Ledger
from socratic.teacher.replies import BadReplyError
from socratic.teacher.teach import Asking, Job, Lesson, Tally, standing
from socratic.types import UserError

_MOST_REQUESTS = 50_000
_MOST_BYTES = 150_000_000
_MARK = "socratic"
_URL: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_MOST_ROUNDS = 3
_MOST_FAULTS = 5
_LASTING = (400, 401, 403, 404, 405, 413, 422, 501)
_ENDED = ("completed", "failed", "expired", "cancelled")

Request = tuple[str, Mapping[str, Any]]
"""Key and body."""


async def ask_in_batches(
    asking: Asking, endpoint: Endpoint, jobs: Sequence[Job], lesson: Lesson, poll_seconds: float
) -> None:
    """Have ``endpoint`` answer all ``jobs`` by batches, one round after the other until nothing is missing.

    Stopped in between, the batches go on at the endpoint, and the next call takes what they brought.
    """
    batches = Batches(endpoint, asking.ledger)
    faults = 0
    counted: tuple[int, int] | None = None
    while asking.why_stopped is None:
        try:
            under_way = await batches.fetch(give_up=asking.retry_failed)
            known = len(asking.ledger.replied), len(asking.ledger.failures)
            if known != counted:  # all jobs are looked through, which is not for every poll
                asking.tally, counted = _tally(asking, jobs, lesson), known
                asking.on_change(asking.tally)
            if not under_way:
                missing = _missing(asking, jobs, lesson, batches.brought)
                if not missing:
                    return
                if not asking.may_spend(len(missing)):
                    asking.stop("the limit of --max-cost does not allow for the next batch; raise it")
                    return
                await batches.submit(missing)
            faults = 0
        except (openai.OpenAIError, AttributeError) as error:  # the SDK takes any body for a batch
            faults += 1
            if isinstance(error, openai.NotFoundError) and (lost := batches.asked_for) and not asking.retry_failed:
                asking.stop(
                    f"{endpoint.url} does not know batch {lost}, or what it brought, any more; give the key that began "
                    "it, or --retry-failed to ask, and pay, anew"
                )
                return
            transient = (
                isinstance(error, openai.APIConnectionError) or getattr(error, "status_code", 500) not in _LASTING
            )
            if not transient or faults == _MOST_FAULTS:
                said = endpoint.redact(str(error))[:300]
                asking.stop(f"{endpoint.url} does not take or give batches ({said}); run the command again")
                return
        await asking.rest(poll_seconds)


def _missing(asking: Asking, jobs: Sequence[Job], lesson: Lesson, brought: Counter[str]) -> list[Request]:
    """Requests without a reply that may still get one."""
    found: dict[str, Mapping[str, Any]] = {}
    for job in jobs:
        request, _ = standing(job, lesson, asking.ledger)
        if request is None or brought[request[0]] >= _MOST_ROUNDS:
            continue
        failure = asking.ledger.failures.get(request[0])
        if failure is None or not failure.final or (asking.retry_failed and not brought[request[0]]):
            found[request[0]] = request[1]
    return list(found.items())


def _tally(asking: Asking, jobs: Sequence[Job], lesson: Lesson) -> Tally:
    tally = Tally()
    for job in jobs:
        request, found = standing(job, lesson, asking.ledger)
        if request is None:
            tally.done += 1
            reason = found.fault if isinstance(found, BadReplyError) else found and check(found)
            if reason:
                tally.failed[reason] += 1
            else:
                tally.kept += 1
    tally.asked = len(asking.ledger.replied)
    return tally


class Batches:
    """The batches of one ledger; the endpoint's failures come out as the SDK's `openai.OpenAIError`."""

    def __init__(self, endpoint: Endpoint, ledger: Ledger) -> None:
        self.endpoint, self.ledger = endpoint, ledger
        self.brought = Counter[str]()  # in how many batches that ended a request was
        self.asked_for: str | None = None  # the batch that is being fetched
        self._client = endpoint.client

    async def submit(self, requests: Sequence[Request]) -> None:
        """Hand in ``requests``, in as many batches as their number and size take."""
        for keys, lines in _files(requests):
            nonce = uuid.uuid4().hex
            await self.ledger.note_batch(nonce, keys, None)
            source: str | None = None
            try:
                file = await self._client.files.create(file=(f"{nonce}.jsonl", b"".join(lines)), purpose="batch")
                source = file.id
                crash_point("batch-uploaded")
                made = await self._client.batches.create(
                    input_file_id=source,
                    endpoint=_URL,
                    completion_window="24h",
                    metadata={_MARK: nonce},
                )
            except (openai.OpenAIError, AttributeError) as error:  # the latter of a body that is no answer
                if source is None or getattr(error, "status_code", None) in _LASTING:  # surely no batch came to be
                    await self.ledger.note_batch(nonce, keys, None, ended=True)
                if isinstance(error, AttributeError):
                    raise UserError(f"{self.endpoint.url} has no Batch API; leave --batch out") from None
                raise
            crash_point("batch-created")
            await self.ledger.note_batch(nonce, keys, made.id)

    async def fetch(self, give_up: bool) -> int:
        """Take what ended batches brought onto the ledger; how many are still under way.

        One that the endpoint does not know any more is an error, or with ``give_up`` counts as ended.
        """
        under_way = 0
        for nonce, known, keys in self.ledger.open_batches():
            id = known or await self._find(nonce)
            if id is None:  # it never came to be
                await self.ledger.note_batch(nonce, keys, None, ended=True)
                continue
            self.asked_for = id
            try:
                ended = await self._bring(id, keys)
            except openai.NotFoundError:
                if not give_up:
                    raise
                await self._client.batches.list(limit=1)  # raises where it is the address that is wrong
                ended = True
            self.asked_for = None
            if not ended:
                under_way += 1
                continue
            crash_point("batch-taken")
            self.brought.update(keys)
            await self.ledger.note_batch(nonce, keys, id, ended=True)
        return under_way

    async def _bring(self, id: str, keys: Sequence[str]) -> bool:
        """Take what a batch brought onto the ledger, if it has ended; whether it has."""
        batch = await self._client.batches.retrieve(id)
        if batch.status not in _ENDED:
            return False
        wanted = set(keys)
        files = filter(None, (batch.output_file_id, batch.error_file_id))
        contents = [await self._client.files.content(file_id) for file_id in files]  # both, so that none is taken twice
        crash_point("batch-fetched")
        for content in contents:
            await asyncio.gather(*(self._take(line, wanted) for line in content.content.split(b"\n")))
        if batch.status == "failed":
            reasons = [error.message or "" for error in (batch.errors and batch.errors.data) or ()]
            detail = self.endpoint.redact("; ".join(reasons))[:300]
            for key in keys:
                await self._fail(key, Received("retry", reason="batch_failed", detail=detail))
        return True

    async def _find(self, nonce: str) -> str | None:
        async for batch in self._client.batches.list(limit=100):
            if (batch.metadata or {}).get(_MARK) == nonce:
                crash_point("batch-found")
                return batch.id
        return None

    async def _take(self, line: bytes, keys: Set[str]) -> None:
        """Commit one line of an output or error file; lines of other requests do not matter."""
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            return
        key = said.get("custom_id") if isinstance(said, dict) else None
        if not isinstance(key, str) or key not in keys:
            return
        response, error = (part if isinstance(part := said.get(name), dict) else {} for name in ("response", "error"))
        status, body = response.get("status_code"), response.get("body")
        if status == 200:
            got = self.endpoint.checked(json.dumps(body), {})
        else:
            code = self.endpoint.redact(str(error.get("code") or "no_response"))[:60]
            reason = f"status_{status}" if type(status) is int else code
            detail = self.endpoint.redact(json.dumps(body or said.get("error")))[:300]
            got = Received("refused" if status in (400, 413, 422) else "retry", reason=reason, detail=detail)
        if got.outcome == "reply":
            await self.ledger.keep(key, got.raw, got.tokens)
        else:
            await self._fail(key, got)

    async def _fail(self, key: str, got: Received) -> None:
        number = await self.ledger.begin(key)  # counted with the ordinary attempts
        await self.ledger.fail(key, number, got.reason, got.detail, final=got.outcome == "refused", tokens=got.tokens)


def _files(requests: Sequence[Request]) -> Iterator[tuple[list[str], list[bytes]]]:
    """Keys and lines of files as large as the endpoint takes."""
    keys: list[str] = []
    lines: list[bytes] = []
    size = 0
    for key, body in requests:
        line = {"custom_id": key, "method": "POST", "url": _URL, "body": body}
        written = json.dumps(line).encode() + b"\n"
        if keys and (len(keys) == _MOST_REQUESTS or size + len(written) > _MOST_BYTES):
            yield keys, lines
            keys, lines, size = [], [], 0
        keys.append(key)
        lines.append(written)
        size += len(written)
    if keys:
        yield keys, lines
