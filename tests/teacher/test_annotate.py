"""Disk full, signals, two processes, other settings, another prompt, and the key: what `teach` does at each."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from campaign import CONCURRENCY, KEY, Server, ended, problems, read_ledger, start
from openai.resources.batches import AsyncBatches

from socratic import cli as command_line
from socratic.prompts import PROMPTS_DIR, TeacherPrompt, load_prompt
from socratic.store import read_jsonl, write_jsonl
from socratic.teacher import ledger, pace, teach
from socratic.teacher.annotate import FAULTS, LEDGER, Annotation, AskSettings, annotate, teacher_folder
from socratic.teacher.batch import Batches
from socratic.teacher.client import Endpoint, Received
from socratic.teacher.teach import Job, TeachSettings
from socratic.types import Problem, UserError

JOBS = 8
PROMPT = load_prompt("socratic", "sums")
Serve = Callable[..., Server]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(pace.Pace, "back_off", lambda self, attempt: 0.01)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts fault servers."""
    servers: list[Server] = []

    def begin(**options: object) -> Server:
        folder = tmp_path / f"server-{len(servers)}"
        folder.mkdir()
        servers.append(Server(folder, **options))
        return servers[-1]

    yield begin
    for server in servers:
        server.close()
        assert server.log.read_text() == ""


def ask(
    out: Path, server: Server, prompt: TeacherPrompt = PROMPT, asked: list[Problem] | None = None, **options: Any
) -> Annotation:
    """`annotate` in this process."""
    given = {
        "base_url": server.url,
        "concurrency": CONCURRENCY,
        "timeout": 0.5,
        "form": "text",
        "model": "m",
        **options,
    }
    settings = TeachSettings(**{name: value for name, value in given.items() if name in TeachSettings.model_fields})
    how = AskSettings(**{name: value for name, value in given.items() if name in AskSettings.model_fields})
    return annotate([Job(problem, 0) for problem in asked or problems(JOBS)], settings, prompt, out, how)


def nothing() -> None:
    """No preparation."""


def run_command(log: Path, words: list[str], prepare: Callable[[], None]) -> None:
    """The command line in a process of its own; what it prints goes into ``log``."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ["OPENAI_API_KEY"] = KEY
    sys.argv = ["socratic", *words]
    prepare()
    command_line.main()


@dataclass
class Commands:
    """``socratic teach`` on the sums."""

    folder: Path
    server: Server

    @property
    def out(self) -> Path:
        return self.folder / "chains.jsonl"

    def start(self, *more: str, prepare: Callable[[], None] = nothing, log: str = "first") -> BaseProcess:
        data = self.folder / "sums.jsonl"
        write_jsonl(data, (problem.to_json() for problem in problems(JOBS)))
        words = ["teach", str(data), "--out", str(self.out), "--model", "m", "--base-url", self.server.url]
        words += ["--concurrency", str(CONCURRENCY), *more]
        return start(run_command, self.folder / f"{log}.log", words, prepare)

    def said(self, log: str = "first") -> str:
        return (self.folder / f"{log}.log").read_text("utf-8")

    def wait_for_bills(self, count: int) -> None:
        until = time.monotonic() + 20
        while len(self.server.bills("m")) < count:
            assert time.monotonic() < until
            time.sleep(0.01)

    def lost(self) -> int:
        """Requests that were billed and are neither a reply nor a failure on the ledger."""
        bills, standing = Counter(keys(self.server)), read_ledger(self.out)
        return (bills - Counter(standing.replies.keys()) - standing.failures).total()


def keys(server: Server) -> list[str]:
    """What was billed, in order."""
    return [bill["key"] for bill in server.bills("m")]


# Disk full


def fill_disk() -> None:
    """Let the ledger's file grow no further than its empty tables, for good."""
    _limit_pages(None)


def fill_disk_for_a_while() -> None:
    """The same until the third look."""
    _limit_pages(3)


def _limit_pages(looks: int | None) -> None:
    ledger._FULL_PATIENCE, ledger._RETRY_SECONDS = (0.3, 0.05) if looks is None else (20.0, 0.05)
    begin, has_no_room = ledger.Ledger.__init__, ledger._has_no_room
    opened: list[sqlite3.Connection] = []
    seen = 0

    def limited(self: ledger.Ledger, path: Path) -> None:
        begin(self, path)
        opened.append(self._base)
        (pages,) = self._base.execute("PRAGMA page_count").fetchone()
        self._base.execute(f"PRAGMA max_page_count={pages}")

    def look(error: sqlite3.OperationalError) -> bool:
        nonlocal seen
        seen += 1
        if seen == looks:
            opened[0].execute("PRAGMA max_page_count=1000000")
        return has_no_room(error)

    ledger.Ledger.__init__ = limited  # type: ignore[method-assign]
    ledger._has_no_room = look


def test_full_disk(serve: Serve, tmp_path: Path) -> None:
    commands = Commands(tmp_path, serve(latency=0.02))
    assert ended(commands.start(prepare=fill_disk)) == 2
    assert re.search(r"^socratic: the disk of .* is full; free space and run the command again$", commands.said(), re.M)
    assert "Traceback" not in commands.said()
    held = read_ledger(commands.out)  # which checks its integrity
    assert 0 < len(held.replies) <= JOBS  # of one more, with the trial of forms
    assert re.search(r"tokens +[1-9][\d,]* of prompts", commands.said())  # what was paid for is said
    assert commands.lost() <= CONCURRENCY
    bills = len(keys(commands.server))
    assert ended(commands.start()) == 0
    assert not set(keys(commands.server)[bills:]) & set(held.replies)
    assert len(list(read_jsonl(commands.out))) == JOBS


def test_disk_full_for_a_while(serve: Serve, tmp_path: Path) -> None:
    commands = Commands(tmp_path, serve(latency=0.02))
    assert ended(commands.start(prepare=fill_disk_for_a_while)) in (0, 2)  # 2 where something was to be sent meanwhile
    assert commands.lost() == 0
    assert ended(commands.start()) == 0
    assert len(keys(commands.server)) == len(set(keys(commands.server))) == JOBS + 1  # the form was tried out once
    assert len(list(read_jsonl(commands.out))) == JOBS


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_waits_for_what_is_under_way(serve: Serve, tmp_path: Path, number: signal.Signals) -> None:
    commands = Commands(tmp_path, serve(latency=0.6))
    process = commands.start("--set", "form=text")
    commands.wait_for_bills(CONCURRENCY)
    began = time.monotonic()
    os.kill(process.pid or 0, number)
    assert ended(process) == 128 + number
    assert time.monotonic() - began < 5
    assert "socratic: interrupted; the same command continues" in commands.said()
    assert "Traceback" not in commands.said()
    assert len(keys(commands.server)) == len(read_ledger(commands.out).replies) == CONCURRENCY
    assert len(list(read_jsonl(commands.out))) == CONCURRENCY
    assert ended(commands.start("--set", "form=text")) == 0
    assert len(set(keys(commands.server))) == len(keys(commands.server)) == JOBS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_the_form_is_tried_out(serve: Serve, tmp_path: Path, number: signal.Signals) -> None:
    commands = Commands(tmp_path, serve(latency=0.5))
    process = commands.start()
    commands.wait_for_bills(1)
    os.kill(process.pid or 0, number)
    assert ended(process) == 128 + number
    assert "Traceback" not in commands.said()
    assert commands.lost() == 0
    assert len(read_ledger(commands.out).replies) == len(keys(commands.server)) == 1


def test_second_signal_leaves_at_once(serve: Serve, tmp_path: Path) -> None:
    commands = Commands(tmp_path, serve(latency=8.0))
    process = commands.start("--set", "form=text")
    commands.wait_for_bills(CONCURRENCY)
    began = time.monotonic()
    for _ in range(2):
        os.kill(process.pid or 0, signal.SIGINT)
        time.sleep(0.1)
    assert ended(process) == 130
    assert time.monotonic() - began < 3
    assert "Traceback" not in commands.said()
    assert commands.lost() == CONCURRENCY


def commit_slowly() -> None:
    """Let replies wait for their commit."""
    ledger._GROUP_SECONDS = 1.0


def test_second_signal_keeps_what_waits_for_its_commit(serve: Serve, tmp_path: Path) -> None:
    commands = Commands(tmp_path, serve(latency=0.0))
    process = commands.start("--set", "form=text", prepare=commit_slowly)
    commands.wait_for_bills(CONCURRENCY)
    time.sleep(0.4)  # the replies are there and queued
    for _ in range(2):
        os.kill(process.pid or 0, signal.SIGTERM)
        time.sleep(0.1)
    assert ended(process) == 143
    assert "Traceback" not in commands.said()
    assert len(read_ledger(commands.out).replies) == len(keys(commands.server)) == CONCURRENCY


# Two processes


def test_two_processes_on_one_file(serve: Serve, tmp_path: Path) -> None:
    commands = Commands(tmp_path, serve(latency=1.0))
    first = commands.start("--set", "form=text")
    commands.wait_for_bills(1)
    os.kill(first.pid or 0, signal.SIGSTOP)  # else it might be done before the second one has come up
    assert ended(commands.start("--set", "form=text", log="second")) == 2
    assert re.fullmatch(
        rf"socratic: {commands.out}.teacher is in use by process {first.pid} \(.*\); .*\n", commands.said("second")
    )
    os.kill(first.pid or 0, signal.SIGKILL)
    ended(first)
    held = set(read_ledger(commands.out).replies)
    assert ended(commands.start("--set", "form=text")) == 0  # the lock died with its holder
    asked = Counter(keys(commands.server))
    assert all(asked[key] == 1 for key in held)
    assert asked.total() <= JOBS + CONCURRENCY


# Other settings, another prompt

CHANGES = {
    "model": "m-2",
    "style": "cot",
    "temperature": 0.5,
    "max_tokens": 512,
    "seed": 7,
    "hint_answer": True,
    "hint_failed": True,
    "extra": {"top_p": 0.9},
}


def test_every_setting_that_can_change_is_tried() -> None:
    assert set(CHANGES) == set(TeachSettings.model_fields)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Server]]:
    """An annotation that came to its end, and its server."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", KEY)
        server = Server(folder, bad=0.3, seed=1)
        assert ask(folder / "chains.jsonl", server).unasked == 0
    yield folder / "chains.jsonl", server
    server.close()


def copy_of(begun: tuple[Path, Server], folder: Path) -> tuple[Path, Server]:
    """The same in a folder of its own."""
    out, server = begun
    shutil.copytree(teacher_folder(out), teacher_folder(folder / "chains.jsonl"))
    return folder / "chains.jsonl", server


@pytest.mark.parametrize("name", [*CHANGES, "form"])
def test_changed_setting_is_refused_and_shown(begun: tuple[Path, Server], tmp_path: Path, name: str) -> None:
    out, server = copy_of(begun, tmp_path)
    changed = CHANGES.get(name, "json_schema")
    before = len(server.ledger.read_text())
    with pytest.raises(UserError, match=rf"was begun with other settings \(.*{name}: .*, now .*\); .*--resume always"):
        ask(out, server, PROMPT, None, **{name: changed})
    with pytest.raises(UserError, match="holds an annotation already"):
        ask(out, server, resume="never")
    assert len(server.ledger.read_text()) == before
    assert ask(out, server).unasked == 0  # what was begun goes on as it was
    assert len(server.ledger.read_text()) == before


def test_resume_always_asks_only_for_what_changed(begun: tuple[Path, Server], tmp_path: Path) -> None:
    out, server = copy_of(begun, tmp_path)
    asked = len(keys(server))
    failed = sum(1 for _ in read_jsonl(teacher_folder(begun[0]) / FAULTS))
    assert 0 < failed < JOBS
    done = ask(out, server, hint_failed=True, resume="always")
    again = keys(server)[asked:]
    assert 0 < len(again) <= failed + 1  # and a wrong answer, which is a chain
    assert not set(again) & set(keys(server)[:asked])
    assert done.chains > JOBS - failed


def test_changed_prompt_is_refused_and_its_old_replies_are_left(serve: Serve, tmp_path: Path) -> None:
    server, out = serve(), tmp_path / "chains.jsonl"
    folder = tmp_path / "prompt"
    shutil.copytree(PROMPTS_DIR / "generic", folder)
    ask(out, server, load_prompt("socratic", "sums", folder))
    old = keys(server)
    (folder / "socratic.txt").write_text("Be brief.\n" + (folder / "socratic.txt").read_text())
    changed = load_prompt("socratic", "sums", folder)
    with pytest.raises(UserError, match=r"other settings \(prompt: '[0-9a-f]{16}', now '[0-9a-f]{16}'\)"):
        ask(out, server, changed)
    assert keys(server) == old
    ask(out, server, changed, resume="always")
    assert len(keys(server)) == 2 * JOBS
    assert not set(keys(server)[JOBS:]) & set(old)
    ask(out, server, replace(changed, examples=changed.examples[:1]), resume="always")
    assert len(set(keys(server))) == 3 * JOBS
    ask(out, server, changed, resume="always")  # whose replies are still there
    assert len(keys(server)) == 3 * JOBS


def test_form_found_once_stays(serve: Serve, tmp_path: Path) -> None:
    first, second, out = serve(forms="text,json_object"), serve(), tmp_path / "chains.jsonl"
    ask(out, first, asked=problems(3), form=None)
    with closing(sqlite3.connect(teacher_folder(out) / LEDGER)) as base:
        base.execute("UPDATE failures SET final = 0")  # as of an endpoint that was overloaded
        base.commit()
    assert ask(out, second, form=None).chains == JOBS
    assert len(keys(second)) == JOBS - 3


# The key


def log_everything() -> None:
    """As someone does who looks for a fault."""
    logging.basicConfig(level=logging.DEBUG)


def fail_at_a_refusal() -> None:
    """A traceback from where an error of the SDK has just been caught."""
    log_everything()

    def broken(self: Endpoint, error: Any) -> Any:
        raise RuntimeError("a fault of our own")

    Endpoint._refusal = broken  # type: ignore[method-assign]


def fail_at_a_reply() -> None:
    """A traceback from where a reply has just been received."""
    log_everything()

    def broken(raw: Mapping[str, Any]) -> str:
        raise RuntimeError("a fault of our own")

    vars(teach)["content"] = broken


@pytest.mark.parametrize(
    ("status", "prepare", "more"),
    [
        ("", log_everything, ["--set", "form=text"]),
        ("", log_everything, ["--batch", "--set", "poll_seconds=0.05"]),
        ("401", log_everything, []),
        ("403", log_everything, []),
        ("500", log_everything, ["--batch", "--set", "form=text", "--set", "poll_seconds=0.05"]),
        ("400", fail_at_a_refusal, []),
        ("", fail_at_a_reply, ["--set", "form=text"]),
    ],
)
def test_key_is_nowhere(
    serve: Serve, tmp_path: Path, status: str, prepare: Callable[[], None], more: list[str]
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    server = serve(status=status, faults=0.3, bad=0.3, kinds="500,429,error_body,no_choices,not_json,reset,400,403")
    commands = Commands(mine, server)
    code = ended(commands.start(*more, prepare=prepare))
    stops = status in ("401", "403")
    assert all(bill["authorized"] for bill in server.bills("m"))
    said = commands.said()
    assert ("RuntimeError: a fault of our own" in said) == (prepare is not log_everything)
    assert "DEBUG:" in said
    assert code == (1 if prepare is not log_everything else 2 if stops else 0)
    for path in mine.rglob("*"):
        if path.is_file():
            assert KEY[:8].encode() not in path.read_bytes(), path
    assert teacher_folder(commands.out).is_dir()


def test_key_with_a_newline_is_taken_without(monkeypatch: pytest.MonkeyPatch, serve: Serve, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    assert ask(tmp_path / "chains.jsonl", serve()).chains == JOBS
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}é")
    with pytest.raises(UserError, match="OPENAI_API_KEY") as raised:
        ask(tmp_path / "other.jsonl", serve())
    assert KEY[:8] not in str(raised.value)


# What an endpoint may do


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("500", "status_500"),
        ("reset", "connection"),
        ("cut", "connection"),
        ("stall", "deadline"),
        ("drip", "deadline"),
        ("error_body", "error_body"),
        ("no_choices", "no_choices"),
        ("null_choices", "no_choices"),
        ("not_json", "not_json"),
        ("400", "status_400"),
        ("404", "status_404"),
    ],
)
def test_every_fault_has_a_reason(
    monkeypatch: pytest.MonkeyPatch, serve: Serve, tmp_path: Path, fault: str, reason: str
) -> None:
    monkeypatch.setattr(teach.Asking.reply, "__defaults__", (2,))
    server = serve(status=fault)
    began = time.monotonic()
    done = ask(tmp_path / "chains.jsonl", server, asked=problems(2), timeout=0.3)
    assert time.monotonic() - began < 15  # not the 30 s for which a body drips
    assert done.faults == {reason: 2}
    assert len(keys(server)) == (2 if fault.startswith("40") else 4)
    assert done.why_stopped is None


def test_nothing_is_sent_while_the_gate_is_closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ledger, "_GROUP_SECONDS", 0.2)
    sent: list[float] = []

    class Overloaded:
        url = "overloaded"

        async def send(self, body: Mapping[str, Any], sample: int) -> Received:
            sent.append(time.monotonic())
            await asyncio.sleep(0.1)
            return Received("overloaded", reason="status_429", headers={"retry-after": "0.8"})

        async def close(self) -> None:
            pass

    async def send_two() -> None:
        held = ledger.Ledger(tmp_path / LEDGER)
        asking = teach.Asking(Overloaded(), held, pace.Pace(CONCURRENCY))
        first = asyncio.create_task(asking._send({}, 0, "a"))  # sent at 0.2 s, answered at 0.3 s
        await asyncio.sleep(0.25)
        await asyncio.gather(first, asking._send({}, 0, "b"))  # on the ledger at 0.45 s
        held.close()

    asyncio.run(send_two())
    assert sent[1] - sent[0] > 0.8


@pytest.mark.parametrize(("status", "why"), [("401", "refuses the key"), ("quota", "has no quota left")])
def test_what_no_retry_mends_stops_the_run(serve: Serve, tmp_path: Path, status: str, why: str) -> None:
    server = serve(status=status)
    done = ask(tmp_path / "chains.jsonl", server)
    assert done.why_stopped
    assert why in done.why_stopped
    assert len(keys(server)) <= CONCURRENCY


def test_attempts_for_each_reply_at_a_fifth_of_errors(serve: Serve, tmp_path: Path) -> None:
    kinds = "500,503,429,reset,cut,error_body,no_choices,not_json"
    server = serve(faults=0.2, kinds=kinds)
    done = ask(tmp_path / "chains.jsonl", server, asked=problems(80), concurrency=16)
    assert done.chains == 80
    assert len(keys(server)) <= 1.3 * 80
    assert len({bill["fault"] for bill in server.bills("m")}) > 6


def test_bad_replies_are_counted_by_reason(serve: Serve, tmp_path: Path) -> None:
    server = serve(bad=1.0)
    done = ask(tmp_path / "chains.jsonl", server, asked=problems(40))
    wrong = sum(bill["bad"] == "wrong_answer" for bill in server.bills("m"))
    assert set(done.faults) == {"truncated", "refused", "malformed", "empty", "status_400"}
    assert (done.chains, sum(done.faults.values())) == (wrong, 40 - wrong)
    assert ask(tmp_path / "chains.jsonl", server, asked=problems(40)).faults == done.faults
    assert len(keys(server)) == 40


def test_half_a_surrogate_pair_fails_alone(serve: Serve, tmp_path: Path) -> None:
    odd = replace(problems(1)[0], id="odd", question="What is \ud800?")
    done = ask(tmp_path / "chains.jsonl", serve(), asked=[odd, *problems(3)])
    assert (done.chains, done.faults) == (3, {"not_utf8": 1})


# Batches


def test_batches_with_lines_that_fail(serve: Serve, tmp_path: Path) -> None:
    server = serve(faults=0.3, bad=0.2, batch_seconds=0.1)
    done = ask(tmp_path / "chains.jsonl", server, asked=problems(40), batch=True, poll_seconds=0.05)
    assert done.unasked == 0
    asked = Counter(keys(server))
    held = read_ledger(tmp_path / "chains.jsonl")
    assert asked == Counter(held.replies.keys()) + held.failures
    assert {bill["fault"] for bill in server.bills("m")} == {None, "500", "429", "expired", "no_choices"}
    assert set(asked.values()) > {1, 2}
    assert max(asked.values()) <= 3


def test_body_that_is_no_batch(monkeypatch: pytest.MonkeyPatch, serve: Serve, tmp_path: Path) -> None:
    found = AsyncBatches.retrieve
    bodies: list[object] = ["<html>Bad gateway</html>", SimpleNamespace(error="overloaded")]

    async def retrieve(self: AsyncBatches, id: str) -> Any:
        return bodies.pop() if bodies else await found(self, id)

    monkeypatch.setattr(AsyncBatches, "retrieve", retrieve)
    server = serve()
    assert ask(tmp_path / "chains.jsonl", server, batch=True, poll_seconds=0.01).chains == JOBS
    assert len(keys(server)) == JOBS
    bodies += ["<html>"] * 9
    done = ask(tmp_path / "other.jsonl", server, batch=True, poll_seconds=0.01)
    assert "does not take or give batches" in (done.why_stopped or "")
    with pytest.raises(UserError, match="has batches under way, which are paid for; give --batch"):
        ask(tmp_path / "other.jsonl", server)


@pytest.mark.parametrize("line", ["[]", "7", "{", '{"custom_id": ["k"]}', '{"custom_id": "k", "error": "no"}', "NaN"])
def test_line_of_a_batch_that_is_none(tmp_path: Path, line: str) -> None:
    async def take() -> int:
        held = ledger.Ledger(tmp_path / LEDGER)
        endpoint = Endpoint("http://127.0.0.1:9/v1", 1, 1.0)
        await Batches(endpoint, held)._take(line.encode(), {"k"})
        await endpoint.close()
        held.close()
        return len(held.replied)

    assert asyncio.run(take()) == 0


def test_replies_are_stored_as_they_came(serve: Serve, tmp_path: Path) -> None:
    ask(tmp_path / "chains.jsonl", serve(), asked=problems(1))
    (raw,) = read_ledger(tmp_path / "chains.jsonl").replies.values()
    assert json.loads(raw)["system_fingerprint"] == "Bearer [key]"


def test_first_reply_to_a_request_stays(tmp_path: Path) -> None:
    async def keep() -> tuple[Any, tuple[int, int]]:
        held = ledger.Ledger(tmp_path / LEDGER)
        await held.keep("k", '{"said": "first"}', (3, 2))
        await held.keep("k", '{"said": "second"}', (3, 2))
        said = held.reply("k"), held.tokens
        held.close()
        return said

    assert asyncio.run(keep()) == ({"said": "first"}, (3, 2))
