from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from test_teach import PENS, RIGHT, STEPS, WRONG, lesson, raw

from socratic.teacher import batch
from socratic.teacher.batch import ask_in_batches
from socratic.teacher.client import Endpoint
from socratic.teacher.ledger import Ledger, request_key
from socratic.teacher.pace import Pace
from socratic.teacher.teach import Asking, Job, Lesson, standing
from socratic.types import Chain, UserError

KEY = "sk-proj-Kx7Qw2Zr9Tb4Lm6NpVd8"
Line = Callable[[dict[str, Any], int], Any]
"""What an output file says of a line of the input, the n-th time it is handed in: JSON, bytes, or None for nothing."""


def good(line: dict[str, Any], time: int) -> Any:
    return said(line, 200, raw(RIGHT))


def said(line: dict[str, Any], status: int, body: Any) -> dict[str, Any]:
    response = {"status_code": status, "request_id": "r", "body": body}
    return {"id": "x", "custom_id": line["custom_id"], "response": response, "error": None}


class Service:
    """Files and batches; ``status`` is what a batch comes to, after ``polls`` looks at it."""

    def __init__(self, answer: Line = good, status: str = "completed", polls: int = 1) -> None:
        self.answer, self.status, self.polls = answer, status, polls
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.times: Counter[str] = Counter()
        self.faults: list[int | str] = []
        """What the next requests come to in place of what they ask for: a status, ``lost``, ``page``, or ``""``."""
        self.requests = 0

    @property
    def handed_in(self) -> list[list[dict[str, Any]]]:
        """The lines of each batch."""
        inputs = (self.files[made["input_file_id"]] for made in self.batches.values())
        return [[json.loads(line) for line in text.splitlines()] for text in inputs]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        fault = self.faults.pop(0) if self.faults else ""
        if isinstance(fault, int):
            message = f"no: {request.headers['authorization']}"
            return web.json_response({"error": {"message": message}}, status=fault)
        if fault == "page":
            return web.Response(text="<html>", content_type="text/html")
        made = await self.do(request)
        if fault == "lost":
            assert request.transport is not None
            request.transport.abort()
        return web.Response(body=made) if isinstance(made, bytes) else web.json_response(made)

    async def do(self, request: web.Request) -> Any:
        path = request.path.removeprefix("/v1/")
        if path == "files":
            form = await request.post()
            assert form["purpose"] == "batch"
            sent = form["file"]
            assert isinstance(sent, web.FileField)
            return self.store(sent.file.read())
        if path.startswith("files/"):
            return self.files[path.split("/")[1]]
        if path == "batches" and request.method == "POST":
            return self.create(await request.json())
        if path == "batches":  # pages of two, the latest first
            made = list(self.batches.values())[::-1]
            after = request.query.get("after")
            start = 1 + [one["id"] for one in made].index(after) if after else 0
            return {"object": "list", "data": made[start : start + 2], "has_more": len(made) > start + 2}
        return self.look(self.batches[path.split("/")[1]])

    def store(self, content: bytes) -> dict[str, Any]:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return {"id": name, "object": "file", "bytes": len(content), "filename": "f", "purpose": "batch"}

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        name = f"batch_{len(self.batches)}"
        self.batches[name] = {"id": name, "object": "batch", "status": "validating", "polls": self.polls, **body}
        return self.batches[name]

    def look(self, made: dict[str, Any]) -> dict[str, Any]:
        made["polls"] -= 1
        if made["polls"] >= 0 or made["status"] == self.status:
            return made
        made["status"] = self.status
        if self.status == "failed":
            errors = [{"code": "x", "message": f"line 1 is bad {KEY}"}, {"message": None}]
            made["errors"] = {"object": "list", "data": errors}
            return made
        lines: list[bytes] = []
        for text in self.files[made["input_file_id"]].splitlines():
            line = json.loads(text)
            self.times[line["custom_id"]] += 1
            says = self.answer(line, self.times[line["custom_id"]])
            if says is not None:
                lines.append(says if isinstance(says, bytes) else json.dumps(says).encode())
        if lines:
            made["output_file_id"] = self.store(b"\n".join(lines) + b"\n")["id"]
        return made


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("socratic.teacher.ledger._GROUP_SECONDS", 0.0005)
    made = Ledger(tmp_path / "ledger.sqlite")
    yield made
    made.close()


def jobs(count: int = 1) -> list[Job]:
    return [Job(PENS, sample) for sample in range(count)]


def key_of(sample: int, taught: Lesson | None = None) -> str:
    return request_key(next((taught or lesson()).conversation(Job(PENS, sample))), sample)


def ask(service: Service, ledger: Ledger, count: int = 1, taught: Lesson | None = None, **how: Any) -> Asking:
    """What came of asking for so many jobs; ``stop_at`` ends it when the service has had so many requests."""
    stop_at = how.pop("stop_at", None)

    async def run() -> Asking:
        app = web.Application()
        app.router.add_route("*", "/v1/{rest:.*}", service.serve)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        endpoint = Endpoint(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", 4, 20)
        asking = Asking(endpoint, ledger, Pace(4), **how)
        try:
            asked = asyncio.create_task(ask_in_batches(asking, endpoint, jobs(count), taught or lesson(), 0.001))
            while stop_at and service.requests < stop_at:
                await asyncio.sleep(0.001)
            if stop_at:
                asking.stop("enough")
            await asyncio.wait_for(asked, 30)
        finally:
            await endpoint.close()
            await runner.cleanup()
        return asking

    return asyncio.run(run())


def test_all_go_in_together_and_come_back_as_chains(ledger: Ledger) -> None:
    service = Service(polls=3)
    asking = ask(service, ledger, 5)
    [lines] = service.handed_in
    assert [line["custom_id"] for line in lines] == [key_of(sample) for sample in range(5)]
    assert lines[0] == {
        "custom_id": key_of(0),
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": next(lesson().conversation(Job(PENS, 0))),
    }
    [made] = service.batches.values()
    assert (made["endpoint"], made["completion_window"]) == ("/v1/chat/completions", "24h")
    assert (asking.tally.done, asking.tally.kept, asking.why_stopped) == (5, 5, None)
    assert ledger.open_batches() == []
    assert ledger.tokens == (500, 100)
    _, chain = standing(Job(PENS, 4), lesson(), ledger)
    assert isinstance(chain, Chain)
    assert chain.steps == STEPS


def test_what_has_a_reply_is_not_handed_in_again(ledger: Ledger) -> None:
    service = Service()
    ask(service, ledger, 2)
    assert ask(service, ledger, 3).tally.kept == 3
    assert [[line["custom_id"] for line in lines] for lines in service.handed_in] == [
        [key_of(0), key_of(1)],
        [key_of(2)],
    ]
    ask(service, ledger, 3)
    assert len(service.batches) == 2


def test_further_turns_go_into_the_next_batch(ledger: Ledger) -> None:
    taught = lesson(hint_failed=True)
    service = Service(lambda line, time: said(line, 200, raw(RIGHT if "The right" in str(line) else WRONG)))
    asking = ask(service, ledger, 2, taught)
    assert (asking.tally.kept, [len(lines) for lines in service.handed_in]) == (2, [2, 2])
    assert "The right answer is 36" in service.handed_in[1][0]["body"]["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (lambda line, time: said(line, 500, {"error": {"message": "oh"}}), "status_500"),
        (lambda line, time: said(line, 429, {}), "status_429"),
        (lambda line, time: said(line, 200, {"error": {"message": "oh"}}), "error_body"),
        (lambda line, time: said(line, 200, {"choices": []}), "no_choices"),
        (lambda line, time: said(line, 200, None), "error_body"),
        (lambda line, time: {"custom_id": line["custom_id"], "error": {"code": "batch_expired"}}, "batch_expired"),
        (lambda line, time: {"custom_id": line["custom_id"], "response": None, "error": None}, "no_response"),
        (lambda line, time: {"custom_id": line["custom_id"], "response": None, "error": "oh"}, "no_response"),
        (lambda line, time: {"custom_id": line["custom_id"], "response": 3}, "no_response"),
    ],
)
def test_a_line_that_failed_goes_in_again_but_not_for_ever(ledger: Ledger, line: Line, reason: str) -> None:
    service = Service(lambda one, time: line(one, time) if one["custom_id"] == key_of(0) else good(one, time))
    asking = ask(service, ledger, 2)
    assert [len(lines) for lines in service.handed_in] == [2, 1, 1]
    assert (asking.tally.kept, asking.why_stopped) == (1, None)
    failure = ledger.failures[key_of(0)]
    assert (failure.reason, failure.final, failure.number) == (reason, False, 3)
    service.answer = good
    assert ask(service, ledger, 2).tally.kept == 2
    assert len(service.batches) == 4


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_line_that_was_refused_goes_in_again_only_when_wanted(ledger: Ledger, status: int) -> None:
    service = Service(lambda line, time: said(line, status, {"error": {"message": f"no {KEY}"}}))
    for _ in range(2):
        ask(service, ledger)
        assert len(service.batches) == 1
    [failure] = ledger.failures.values()
    assert (failure.reason, failure.final) == (f"status_{status}", True)
    assert KEY not in failure.detail
    ask(service, ledger, retry_failed=True)
    assert len(service.batches) == 2


@pytest.mark.parametrize(
    "line",
    [
        None,
        b"",
        b"<html>",
        b"[" * 100_000,
        b"3",
        b'"x"',
        b"{}",
        b'{"custom_id": ["x"]}',
        b'{"custom_id": {}, "error": {}}',
        b'{"custom_id": "of another", "response": {"status_code": 200, "body": {"choices": [{}]}}}',
    ],
)
def test_lines_that_say_nothing_of_a_request_do_not_matter(ledger: Ledger, line: bytes | None) -> None:
    service = Service(lambda one, time: line if time == 1 else good(one, time))
    assert ask(service, ledger).tally.kept == 1
    assert (len(service.batches), ledger.replied) == (2, {key_of(0)})


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x1c", "\r"])
def test_a_line_ends_where_json_lines_end(ledger: Ledger, mark: str) -> None:
    def line(one: dict[str, Any], time: int) -> bytes:
        text = json.dumps(said(one, 200, raw(RIGHT.replace("pens.", "pens$"))), ensure_ascii=False)
        escaped = json.dumps(mark)[1:-1] if mark < " " else mark
        return text.replace("$", escaped).encode() + b"\r"

    service = Service(line)
    assert ask(service, ledger).tally.done == 1
    assert len(service.batches) == 1


def test_the_first_reply_of_two_stays(ledger: Ledger) -> None:
    service = Service(
        lambda line, time: json.dumps(good(line, 1)).encode() + b"\n" + json.dumps(good(line, 1)).encode()
    )
    assert ask(service, ledger).tally.kept == 1
    assert ledger.tokens == (100, 20)


def test_a_batch_that_failed_is_handed_in_three_times(ledger: Ledger) -> None:
    service = Service(status="failed")
    asking = ask(service, ledger, 3)
    assert (len(service.batches), asking.tally.done, ledger.open_batches()) == (3, 0, [])
    assert {(f.reason, f.detail, f.final) for f in ledger.failures.values()} == {
        ("batch_failed", "line 1 is bad [key]; ", False)
    }


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_what_a_batch_did_not_get_to_goes_into_the_next(ledger: Ledger, status: str) -> None:
    first = key_of(1)
    service = Service(lambda line, time: good(line, time) if time == 2 or line["custom_id"] == first else None, status)
    assert ask(service, ledger, 3).tally.kept == 3
    assert [len(lines) for lines in service.handed_in] == [3, 2]


def test_a_batch_whose_id_was_never_noted_is_found_by_its_mark(ledger: Ledger) -> None:
    service = Service()
    asyncio.run(ledger.note_batch("mark", [key_of(0)], None))
    line = {"custom_id": key_of(0), "body": {}}
    file = service.store(json.dumps(line).encode())
    service.create({"input_file_id": file["id"], "metadata": {"socratic": "mark"}})
    for other in ({"socratic": "another"}, None, {}):
        service.create({"input_file_id": file["id"], "metadata": other})
    assert ask(service, ledger).tally.kept == 1
    assert len(service.batches) == 4
    assert ledger.open_batches() == []


def test_one_that_never_came_to_be_is_submitted_anew(ledger: Ledger) -> None:
    service = Service()
    asyncio.run(ledger.note_batch("mark", [key_of(0)], None))
    assert ask(service, ledger).tally.kept == 1
    assert len(service.batches) == 1
    assert ledger.open_batches() == []


def test_one_whose_reply_was_lost_is_not_made_twice(ledger: Ledger) -> None:
    service = Service()
    service.faults = ["", "lost"]  # of the upload, of the creation
    assert ask(service, ledger, 2).tally.kept == 2
    assert len(service.batches) == 1


def test_one_that_is_gone_is_asked_for_anew_only_where_that_is_wanted(ledger: Ledger) -> None:
    service = Service(polls=1000)
    ask(service, ledger, 2, stop_at=6)
    service.polls, service.faults = 0, [404]
    asking = ask(service, ledger, 2)
    assert asking.why_stopped is not None
    assert (
        "does not know batch batch_0, or what it brought, any more; give the key that began it, or --retry-failed"
        in asking.why_stopped
    )
    assert len(ledger.open_batches()) == 1
    service.faults = [404]
    assert ask(service, ledger, 2, retry_failed=True).tally.kept == 2
    assert (len(service.batches), ledger.open_batches()) == (2, [])


def test_what_was_under_way_is_taken_by_the_next_call(ledger: Ledger) -> None:
    service = Service(polls=1000)
    asking = ask(service, ledger, 2, stop_at=6)
    [(_, id, keys)] = ledger.open_batches()
    assert (asking.why_stopped, id, keys) == ("enough", "batch_0", [key_of(0), key_of(1)])
    service.polls = service.batches["batch_0"]["polls"] = 1
    assert ask(service, ledger, 3).tally.kept == 3
    assert [len(lines) for lines in service.handed_in] == [2, 1]


@pytest.mark.parametrize("faults", [[500, 500], [429], ["lost"], ["", 503, "", 429], ["", "", 500, "", 502]])
def test_transient_failures_of_the_service_are_survived(ledger: Ledger, faults: list[int | str]) -> None:
    service = Service()
    service.faults = faults
    asking = ask(service, ledger, 2)
    assert (asking.tally.kept, asking.why_stopped) == (2, None)
    assert len(service.batches) == 1


@pytest.mark.parametrize(("faults", "requests"), [([500] * 50, 5), ([401], 1), ([404], 1), ([403], 1)])
def test_a_service_that_does_not_work_stops_the_run(ledger: Ledger, faults: list[int | str], requests: int) -> None:
    service = Service()
    service.faults = list(faults)
    asking = ask(service, ledger, 2)
    assert asking.why_stopped is not None
    assert "does not take or give batches" in asking.why_stopped
    assert KEY[:8] not in asking.why_stopped
    assert service.requests == requests
    assert ask(service, ledger, 2).tally.kept == (2 if requests == 1 else 0)


def test_what_may_not_be_spent_is_not_handed_in(ledger: Ledger) -> None:
    service = Service()
    asking = ask(service, ledger, 7, may_spend=lambda under_way: under_way < 7)
    assert asking.why_stopped is not None
    assert "--max-cost" in asking.why_stopped
    assert service.requests == 0


@pytest.mark.parametrize("limit", ["_MOST_REQUESTS", "_MOST_BYTES"])
def test_files_are_no_larger_than_is_taken(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    service = Service()
    ask(service, ledger, 1)
    size = len(service.files["file-0"])
    monkeypatch.setattr(batch, limit, 2 if limit == "_MOST_REQUESTS" else 2 * size + 10)
    assert ask(service, ledger, 6).tally.kept == 6
    assert [len(lines) for lines in service.handed_in] == [1, 2, 2, 1]


def test_a_server_without_batches_does_not_hold_the_ledger(ledger: Ledger) -> None:
    service = Service()
    for faults in ([404], ["", 404], ["", 405], ["", 501]):  # no files; files, and no batches
        service.faults = [*faults]
        assert ask(service, ledger, 2).why_stopped
        assert ledger.open_batches() == []
    service.faults = ["page"]
    with pytest.raises(UserError, match="has no Batch API; leave --batch out"):
        ask(service, ledger, 2)
    assert ledger.open_batches() == []


def test_failures_of_batches_are_numbered_with_ordinary_ones(ledger: Ledger) -> None:
    asyncio.run(ledger.begin(key_of(0)))
    ask(Service(lambda line, time: said(line, 500, {"error": {"message": "oh"}})), ledger)
    assert ledger.failures[key_of(0)].number == 4
    assert ledger.unknown() == 1  # the first of all
