"""Asking a teacher: ``python -m benchmarks.teacher``, 256 requests in flight against a server that takes 200 ms.

The same chats to the same server, in turn, each contestant with a new client:

- ``socratic``: the whole annotation, from problems through ledger, parsing and checks to the file of chains;
- ``bare``: an `AsyncOpenAI` loop with as many connections kept alive as are in flight, no retries, nothing stored;
- ``gather``: `asyncio.gather` over all requests with the SDK's defaults, as most people write it;
- ``socratic-faults``: the first again, a fifth of the requests failing: 500, 503, resets, cut or odd bodies. No 429, as
  its Retry-After would be what is measured.

The server (``tests/teacher/fault_server.py``, in a process of its own) shares the cores with the client.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import openai

from socratic.prompts import load_prompt
from socratic.teacher.annotate import AskSettings, annotate
from socratic.teacher.teach import Job, Lesson, TeachSettings
from socratic.types import Problem

SERVER = Path(__file__).parent.parent / "tests" / "teacher" / "fault_server.py"
FAULTS = "500,503,reset,cut,error_body,no_choices,null_choices,not_json"


def main() -> None:
    """Race and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds of each reply")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file of the figures")
    arguments = parser.parse_args()
    os.environ["OPENAI_API_KEY"] = "none-is-needed"
    lesson = Lesson(TeachSettings.parse({"model": "race"}), load_prompt("socratic", "gsm8k"), "text")
    jobs = [_job(number) for number in range(arguments.requests)]
    in_flight = arguments.in_flight
    seconds: dict[str, list[float]] = {"socratic": [], "bare": [], "gather": [], "socratic-faults": []}
    attempts: list[float] = []
    for repeat in range(arguments.repeats):
        for name, times in seconds.items():
            with TemporaryDirectory() as folder, _server(Path(folder), arguments.latency, "faults" in name) as url:
                chats = [next(lesson.conversation(job)) for job in jobs]
                contestant: dict[str, Callable[[], object]] = {
                    "bare": lambda: asyncio.run(_bare(url, chats, in_flight)),  # noqa: B023
                    "gather": lambda: asyncio.run(_gather(url, chats)),  # noqa: B023
                }
                started = time.perf_counter()
                contestant.get(name, lambda: _annotation(url, jobs, lesson, in_flight, Path(folder)))()
                times.append(time.perf_counter() - started)
                if "faults" in name:
                    attempts.append((Path(folder) / "bill").read_bytes().count(b"\n") / len(jobs))
            print(f"{repeat + 1}: {name} {len(jobs) / times[-1]:.0f} replies/s", flush=True)
    ours = seconds["socratic"]
    rows = {name: _row(len(jobs), times, ours) for name, times in seconds.items()}
    rows["socratic-faults"]["attempts per reply"] = _span(attempts)
    for name, row in rows.items():
        print(name, json.dumps(row))
    if arguments.out:
        arguments.out.write_text(json.dumps({"arguments": {**vars(arguments), "out": None}, **rows}, indent=1) + "\n")


def _job(number: int) -> Job:
    question, answer = f"What is {number}+{number % 7}?", str(number + number % 7)
    return Job(Problem(f"sum/{number}", "sums", "train", question, answer), 0)


@contextlib.contextmanager
def _server(folder: Path, latency: float, with_faults: bool) -> Iterator[str]:
    """A server of its own process; its base URL."""
    command = [sys.executable, str(SERVER), "--ledger", str(folder / "bill"), "--latency", str(latency)]
    command += ["--faults", "0.2", "--kinds", FAULTS] if with_faults else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


def _annotation(url: str, jobs: Sequence[Job], lesson: Lesson, in_flight: int, folder: Path) -> None:
    how = AskSettings.parse({"base_url": url, "concurrency": in_flight, "form": "text"})
    done = annotate(jobs, lesson.settings, lesson.prompt, folder / "chains.jsonl", how)
    assert done.chains == len(jobs), done


async def _bare(url: str, chats: Sequence[dict[str, Any]], in_flight: int) -> None:
    limits = httpx2.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    async with httpx2.AsyncClient(limits=limits) as http:
        client = openai.AsyncOpenAI(base_url=url, max_retries=0, http_client=http)
        waiting = iter(chats)

        async def work() -> None:
            for chat in waiting:
                await client.chat.completions.create(**chat)

        await asyncio.gather(*(work() for _ in range(in_flight)))


async def _gather(url: str, chats: Sequence[dict[str, Any]]) -> None:
    client = openai.AsyncOpenAI(base_url=url)
    await asyncio.gather(*(client.chat.completions.create(**chat) for chat in chats))
    await client.close()


def _row(requests: int, times: Sequence[float], ours: Sequence[float]) -> dict[str, Any]:
    """Replies a second, and how many times as fast as this contestant socratic is, repeat by repeat."""
    ratios = [theirs / own for theirs, own in zip(times, ours, strict=True)]
    return {"replies/s": _span([requests / t for t in times], 0), "socratic is faster": _span(ratios)}


def _span(values: Sequence[float], digits: int = 2) -> list[float]:
    """Median, least and most."""
    return [round(value, digits) for value in (statistics.median(values), min(values), max(values))]


if __name__ == "__main__":
    main()
