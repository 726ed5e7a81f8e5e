"""Kills `annotate` at named points and at random, and holds its ledger against what the fault server billed.

``python tests/teacher/campaign.py --kills 1000 --out results/teacher-kills.json``. A round is a fresh annotation that
is killed once or more, again while it recovers, and then runs to its end. SIGKILL leaves the page cache alone, so
nothing here says that what was committed survives a power cut.
"""

from __future__ import annotations

import argparse
import http.client
import importlib.metadata
import json
import multiprocessing
import os
import platform
import random
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from socratic.prompts import load_prompt
from socratic.store import read_jsonl
from socratic.teacher import annotate as annotating
from socratic.teacher import batch, crash, ledger, pace, teach
from socratic.teacher.annotate import AskSettings, annotate, teacher_folder
from socratic.teacher.teach import Job, TeachSettings
from socratic.types import Problem

HERE = Path(__file__).resolve().parent
MODULES: tuple[ModuleType, ...] = (annotating, batch, ledger, teach)
KEY = "sk-planted-7hG2kQ9vXw4pLm8s"
CONCURRENCY = 4
JOBS = 8
POINTS = tuple(
    sorted(
        {
            name
            for module in MODULES
            for name in re.findall(r'crash_point\("([a-z-]+)"\)', Path(module.__file__ or "").read_text("utf-8"))
        }
    )
)
"""Every point named in the source."""
RECOVERING = {"batch-found": "batch-created"}
"""Points of a run that continues one killed at the other point."""
SIGNALLED = ("signal-taken",)
_MOST_RUNS = 6

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    [
        "socratic.teacher.annotate",
        "openai.lib.streaming.chat",
        "openai.resources.chat.completions",
        "openai.resources.batches",
        "openai.resources.files",
        "httpcore2",
        "anyio._backends._asyncio",
        "truststore",
        "yaml",
    ]
)


@dataclass(frozen=True)
class Mode:
    """A way of asking."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    how: Mapping[str, Any] = field(default_factory=dict)


MODES = {
    "asked": Mode(how={"form": "text"}),
    "hinted": Mode({"hint_failed": True}, {"form": "json_schema"}),
    "probed": Mode(),
    "two-turn": Mode({"style": "zero-shot-cot"}),
    "batch": Mode(how={"form": "json_object", "batch": True, "poll_seconds": 0.03}),
}


@dataclass(frozen=True)
class Task:
    """One run of `annotate` in a process of its own, armed to die at ``crash``."""

    mode: str
    model: str
    url: str
    out: Path
    crash: str = ""
    survey: Path | None = None


def problems(count: int) -> list[Problem]:
    """Sums, all different."""
    return [
        Problem(
            id=f"sum-{i}",
            dataset="sums",
            split="train",
            question=f"What is {7 * i + 21}+{i + 2}?",
            answer=str(8 * i + 23),
        )
        for i in range(count)
    ]


def run_task(task: Task) -> None:
    """The process: what it prints goes into a file beside ``out``; back-off is shortened."""
    log = os.open(task.out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["OPENAI_API_KEY"] = KEY
    pace.Pace.back_off = lambda self, attempt: 0.01  # type: ignore[method-assign]
    if task.survey:
        _survey(task.survey)
    crash.arm(task.crash)
    mode = MODES[task.mode]
    settings = TeachSettings(**{"model": task.model, **mode.settings})
    prompt = None if settings.style == "zero-shot-cot" else load_prompt(settings.style, "sums")
    if prompt:
        prompt = replace(prompt, examples=prompt.examples[:1])
    how = AskSettings(**{"base_url": task.url, "concurrency": CONCURRENCY, "timeout": 0.5, **mode.how})
    try:
        done = annotate([Job(problem, 0) for problem in problems(JOBS)], settings, prompt, task.out, how)
    except KeyboardInterrupt:  # before there was anything to interrupt
        sys.exit(130)
    sys.exit(128 + done.signal if done.signal else 0)


def _survey(file: Path) -> None:
    """Count into ``file`` how often each point is reached."""
    reached = Counter[str]()

    def count(name: str) -> None:
        reached[name] += 1
        file.write_text(json.dumps(reached))

    for module in MODULES:
        if hasattr(module, "crash_point"):
            module.crash_point = count  # type: ignore[attr-defined]


class Server:
    """The fault server, in a process of its own, and its bills by model and request."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.ledger = folder / "bills.jsonl"
        self.log = folder / "server.log"
        words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        command = [sys.executable, str(HERE / "fault_server.py"), "--ledger", str(self.ledger), *words]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._read = 0
        self._bills: dict[str, list[dict[str, Any]]] = {}

    def bills(self, model: str) -> list[dict[str, Any]]:
        """All that was billed so far for ``model``."""
        with self.ledger.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        self._read += len(new)
        for bill in map(json.loads, new.splitlines()):
            self._bills.setdefault(bill["model"], []).append(bill)
        return self._bills.get(model, [])

    def settle(self) -> None:
        """Return when what a killed process had sent has been read and billed."""
        for _ in range(3):  # each is a turn of the server's loop and more
            with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
                connection.request("GET", "/v1/batches")
                connection.getresponse().read()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


@contextmanager
def serving(folder: Path, **options: object) -> Iterator[Server]:
    """A `Server` until the end of the block."""
    server = Server(folder, **options)
    try:
        yield server
    finally:
        server.close()


class ViolationError(AssertionError):
    """A promise was broken."""


def promise(kept: bool, what: str) -> None:
    """Raise `ViolationError` unless ``kept``."""
    if not kept:
        raise ViolationError(what)


@dataclass(frozen=True)
class Standing:
    """What a ledger holds: raw replies and failed attempts by request, and how often each was to be sent."""

    replies: dict[str, str]
    failures: Counter[str]
    sent: Counter[str]


def read_ledger(out: Path) -> Standing:
    """The ledger of ``out``, read from a copy, so that its own process is the one to recover it."""
    found = teacher_folder(out)
    with tempfile.TemporaryDirectory() as folder:
        for path in found.glob(f"{annotating.LEDGER}*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, folder)
        with closing(sqlite3.connect(Path(folder) / annotating.LEDGER)) as base:
            promise(base.execute("PRAGMA integrity_check").fetchone() == ("ok",), "the ledger is damaged")
            if not base.execute("SELECT 1 FROM sqlite_master WHERE name = 'batches'").fetchone():
                return Standing({}, Counter(), Counter())
            sent = Counter[str](key for (key,) in base.execute("SELECT key FROM attempts"))
            for (keys,) in base.execute("SELECT keys FROM batches"):
                sent.update(json.loads(keys))
            failures = Counter(key for (key,) in base.execute("SELECT key FROM failures"))
            return Standing(dict(base.execute("SELECT key, raw FROM replies")), failures, sent)


Result = tuple[str, dict[str, str]]
"""The file of chains, the model's name apart, and the reasons of the problems without one."""


def read_result(out: Path, model: str) -> Result:
    """What an annotation came to."""
    failed = {fault["problem_id"]: fault["reason"] for fault in read_jsonl(teacher_folder(out) / annotating.FAULTS)}
    return out.read_text("utf-8").replace(model, "MODEL"), failed


class Round:
    """One annotation, killed as often as wanted; every look at it checks the promises."""

    def __init__(self, server: Server, mode: str, model: str, folder: Path) -> None:
        self.server, self.mode, self.model = server, mode, model
        self.out = folder / f"{model}.jsonl"
        self.kills = self.extra = self.most_extra = 0
        self.kept: dict[str, tuple[str, int]] = {}

    def run(self, crash: str = "", after: float | None = None, number: int = signal.SIGKILL) -> int:
        """Run it, armed with ``crash`` and sent the signal ``number`` ``after`` seconds; its exit code."""
        task = Task(self.mode, self.model, self.server.url, self.out, crash)
        process = start(run_task, task)
        if after is not None:
            process.join(after)
            with suppress(ProcessLookupError):
                if process.exitcode is None and process.pid:
                    os.kill(process.pid, number)
        code = ended(process)
        killed = code == -signal.SIGKILL
        self.kills += killed
        before = self.extra
        self.look()
        if self.mode != "batch":  # whose lines are under way at the endpoint until `finish`
            most = CONCURRENCY if killed else 0
            promise(self.extra - before <= most, f"{self.extra - before} extra bills with {most} requests in flight")
            self.most_extra = max(self.most_extra, self.extra - before)
        log = self.out.with_suffix(".log")
        said = log.read_text("utf-8") if log.exists() else ""
        promise(not said, f"it printed {said[-2000:]!r}")
        promise(killed or code in (0, 128 + number, -number), f"it ended with {code}")
        return code

    def look(self) -> None:
        """Check ledger and bills against each other and against what they were."""
        self.server.settle()
        bills = Counter[str](bill["key"] for bill in self.server.bills(self.model))
        standing = read_ledger(self.out) if teacher_folder(self.out).exists() else Standing({}, Counter(), Counter())
        for key, (raw, count) in self.kept.items():
            promise(standing.replies.get(key) == raw, f"the reply to {key} was lost or changed")
            promise(bills[key] == count, f"{key} was asked again although its reply was committed")
        self.kept = {key: (raw, bills[key]) for key, raw in standing.replies.items()}
        unannounced = bills - standing.sent
        promise(not unannounced, f"sent but not on the ledger: {dict(unannounced)}")
        self.extra = (bills - Counter(standing.replies.keys()) - standing.failures).total()

    def finish(self, expected: Result) -> None:
        """Let it run to its end; a request that failed at every attempt is for the next call, as it is for a user."""
        for _ in range(_MOST_RUNS):
            self.run()
            if read_result(self.out, self.model) == expected:
                break
        else:
            raise ViolationError(f"other chains than undisturbed: {read_result(self.out, self.model)}")
        if self.mode == "batch":
            promise(self.extra == 0, f"{self.extra} lines of batches were paid for and not taken")


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """``target`` in a process forked from one that has imported everything."""
    process = FORKSERVER.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def ended(process: BaseProcess, within: float = 60.0) -> int:
    """The exit code."""
    process.join(within)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise ViolationError(f"it did not end within {within:g} s")
    return process.exitcode


class Campaign:
    """Rounds against one server, and what came of them."""

    def __init__(self, server: Server, folder: Path, seed: int) -> None:
        self.server, self.folder, self.seed = server, folder, seed
        self.points, self.others = Counter[str](), Counter[str]()
        self.rounds = self.recovering = self.extra = self.most_extra = 0
        self.bills, self.replies = 0, 0
        self.faults = Counter[str]()
        self.reached: dict[str, dict[str, int]] = {}
        self.expected: dict[str, Result] = {}
        self.seconds: dict[str, float] = {}
        for mode in MODES:
            self._undisturbed(mode)

    def _undisturbed(self, mode: str) -> None:
        """What an annotation comes to, how long it takes, and how often it reaches each point."""
        model = f"{mode}-undisturbed"
        survey = self.folder / f"{model}.json"
        task = Task(mode, model, self.server.url, self.folder / f"{model}.jsonl", survey=survey)
        began = time.monotonic()
        promise(ended(start(run_task, task)) == 0, "it fails even undisturbed")
        self.seconds[mode] = time.monotonic() - began
        self.reached[mode] = json.loads(survey.read_text())
        found = None
        while found != (found := read_result(task.out, model)):  # until nothing is left that another call would mend
            promise(ended(start(run_task, replace(task, survey=None))) == 0, "it fails even undisturbed")
        self.expected[mode] = found

    def kills(self) -> int:
        return self.points.total() + self.others["SIGKILL"]

    def at(self, point: str, draw: random.Random) -> None:
        """A round whose first kill is at ``point``."""
        later = RECOVERING.get(point)
        modes = [mode for mode, reached in self.reached.items() if (later or point) in reached or point in SIGNALLED]
        round = self._round(draw.choice(modes))
        if later:
            self._disturb(round, later)
        if point in SIGNALLED:
            self._disturb(round, point, draw.uniform(0.1, 0.5) * self.seconds[round.mode], signal.SIGINT)
        else:
            most = 1 if later else min(30, self.reached[round.mode][point])
            self._disturb(round, f"{point}:{draw.randint(1, most)}")
        self._again(round, draw)

    def anywhere(self, draw: random.Random) -> None:
        """A round whose first kill, or signal, comes at any time."""
        round = self._round(draw.choice(list(MODES)))
        number = draw.choice((signal.SIGKILL,) * 6 + (signal.SIGINT, signal.SIGTERM))
        self._disturb(round, "", draw.uniform(0.02, 1.0) * self.seconds[round.mode], number)
        self._again(round, draw)

    def _round(self, mode: str) -> Round:
        self.rounds += 1
        return Round(self.server, mode, f"{mode}-{self.rounds}", self.folder)

    def _again(self, round: Round, draw: random.Random) -> None:
        """Perhaps kill it again as it recovers, then let it end."""
        for _ in range(draw.choice((0, 1, 1, 2))):
            if draw.random() < 0.5:
                self._disturb(round, "", draw.uniform(0.02, 0.8) * self.seconds[round.mode])
            else:
                point, reached = draw.choice(list(self.reached[round.mode].items()))
                self._disturb(round, f"{point}:{draw.randint(1, min(5, reached))}")
        round.finish(self.expected[round.mode])
        self._add(round)

    def _disturb(self, round: Round, crash: str, after: float | None = None, number: int = signal.SIGKILL) -> None:
        recovering = round.kills > 0
        code = round.run(crash, after, number)
        name = crash.partition(":")[0]
        if code == -signal.SIGKILL:
            self.recovering += recovering
            if name:
                self.points[name] += 1
            else:
                self.others["SIGKILL"] += 1
        elif code:
            self.others[signal.Signals(code - 128 if code > 0 else -code).name] += 1

    def _add(self, round: Round) -> None:
        bills = self.server.bills(round.model)
        self.bills += len(bills)
        self.replies += len(round.kept)
        self.faults.update(bill["fault"] or "none" for bill in bills)
        self.extra += round.extra
        self.most_extra = max(self.most_extra, round.most_extra)
        for path in self.folder.glob(f"{round.model}.*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def record(self) -> dict[str, Any]:
        """Counts for the result file."""
        return {
            "kills": self.kills(),
            "kills_while_recovering": self.recovering,
            "kills_by_point": dict(sorted(self.points.items())),
            "random_kills": self.others["SIGKILL"],
            "signals": {name: count for name, count in self.others.items() if name != "SIGKILL"},
            "rounds": self.rounds,
            "bills": self.bills,
            "replies": self.replies,
            "requests_in_flight": CONCURRENCY,
            "extra_bills": self.extra,
            "extra_bills_of_a_kill_at_most": self.most_extra,
            "faults": dict(self.faults.most_common()),
        }


SERVER = {"faults": 0.12, "bursts": 0.05, "bad": 0.2, "latency": 0.005, "batch_seconds": 0.05}


def campaign(folder: Path, kills: int, seed: int, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """At least one kill at every point, and in the end ``kills`` of them; raises `ViolationError`."""
    began = time.monotonic()
    with serving(folder, seed=seed, **SERVER) as server:
        done = Campaign(server, folder, seed)
        while done.kills() < kills or set(POINTS) - set(done.points):
            promise(done.rounds < 3 * len(POINTS) + 3 * kills, f"never reached: {set(POINTS) - set(done.points)}")
            draw = random.Random(f"{seed}|{done.rounds}")
            missing = [point for point in POINTS if not done.points[point]]
            if missing:
                done.at(missing[done.rounds % len(missing)], draw)
            elif draw.random() < 0.6:
                done.at(draw.choice(POINTS), draw)
            else:
                done.anywhere(draw)
            say(f"{time.monotonic() - began:6.1f} s: {done.rounds} rounds, {done.kills()} kills")
        said = server.log.read_text()
        promise(not said, f"the server printed {said[-2000:]}")
        return {**done.record(), "seed": seed, "server": SERVER, "seconds": round(time.monotonic() - began, 1)}


def main() -> None:
    """A long campaign, its result written to a file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = campaign(Path(folder), arguments.kills, arguments.seed, lambda text: print(text, flush=True))
    versions = {name: importlib.metadata.version(name) for name in ("openai", "httpx2", "aiohttp")}
    versions |= {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version, "linux": platform.release()}
    done = {"command": shlex.join(["python", *sys.argv]), **done, "violations": 0, "versions": versions}
    arguments.out.write_text(json.dumps(done, indent=2) + "\n")


if __name__ == "__main__":
    main()
