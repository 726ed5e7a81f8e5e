"""Progress bars of long work, with the time left; they write to the console given and nowhere else."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from socratic.evaluate import Metrics, Resume, evaluate
from socratic.loops import Solving
from socratic.train import TrainingRun, TrainSettings, train
from socratic.types import Problem, Score, Trace


def evaluate_with_bar(
    what: str,
    problems: Sequence[Problem],
    solving: Solving,
    out: Path,
    record: Mapping[str, Any],
    samples: int,
    resume: Resume,
    batch_size: int,
    console: Console,
) -> Metrics:
    """`evaluate` with ``solving``, whose own record joins ``record``; the bar also counts the right ones."""
    bar = _bar(console)
    task = bar.add_task(what, total=len(problems) * samples, note="")
    right = done = 0

    def solve(jobs: list[tuple[Problem, int]]) -> Iterator[Trace]:
        with bar:
            bar.update(task, completed=len(problems) * samples - len(jobs))
            yield from solving.run(jobs, batch_size)

    def on_trace(trace: Trace, score: Score) -> None:
        nonlocal right, done
        right, done = right + score.strict, done + 1
        bar.update(task, advance=1, note=f"{right}/{done} right")

    return evaluate(problems, solve, out, {**record, **solving.record()}, samples, resume, on_trace)


@dataclass(frozen=True)
class Training:
    """One call of `train`, with what to call it."""

    what: str
    run: TrainingRun
    settings: TrainSettings
    out: Path


def train_with_bars(trainings: Sequence[Training], jobs: int, console: Console) -> None:
    """`train` them all, ``jobs`` at a time in processes that share the cores; each has a bar.

    One that starts from another's folder waits for that one. Where one fails, those under way are finished first.
    """
    with _bar(console) as bar:
        tasks = {t.out: bar.add_task(t.what, total=None, note="waits", start=False) for t in trainings}

        def show(out: Path, done: int, of: int, note: str) -> None:
            if not bar.tasks[tasks[out]].started:
                bar.start_task(tasks[out])
            bar.update(tasks[out], completed=done, total=of, note=note)
            if note == _DONE and not console.is_terminal:  # where bars are shown at the end only
                console.print(f"{bar.tasks[tasks[out]].description}: {note}")

        jobs = min(jobs, len(trainings), os.cpu_count() or 1)
        if jobs > 1:
            _train_together(trainings, jobs, show)
        else:
            for training in trainings:
                _train_one(training, show)


_Show = Callable[[Path, int, int, str], None]
_DONE = "done"


def _train_one(training: Training, show: _Show) -> None:
    noted = ""

    def on_note(note: str) -> None:
        nonlocal noted
        if " left: " in note:
            noted = note.rpartition(" left: ")[2].split(",")[0]

    def on_progress(done: int, of: int) -> None:
        show(training.out, done, of, noted)

    train(training.run, training.settings, training.out, on_note, on_progress)
    show(training.out, 1, 1, _DONE)


def _train_together(trainings: Sequence[Training], jobs: int, show: _Show) -> None:
    context = multiprocessing.get_context("spawn")
    reports = context.SimpleQueue()
    waiting, under_way = list(trainings), dict[Future[None], Training]()
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))  # read when a child imports torch
    try:
        with ProcessPoolExecutor(jobs, context, _begin_child, (reports,)) as pool:
            while waiting or under_way:
                missing = {str(t.out) for t in (*waiting, *under_way.values())}
                for training in [t for t in waiting if t.run.student not in missing]:
                    waiting.remove(training)
                    under_way[pool.submit(_train_in_child, training)] = training
                ended, _ = wait(under_way, timeout=0.2, return_when=FIRST_COMPLETED)
                while not reports.empty():
                    show(*reports.get())
                for future in ended:
                    del under_way[future]
                    future.result()
    finally:
        if threads is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = threads


_reports: Any = None


def _begin_child(reports: Any) -> None:
    global _reports
    _reports = reports


def _train_in_child(training: Training) -> None:
    _train_one(training, lambda *report: _reports.put(report))


def _bar(console: Console) -> Progress:
    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    return Progress(TextColumn("{task.description}"), *columns, console=console)
