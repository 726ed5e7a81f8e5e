"""Progress bars of long work, with the time left; they write to the console given and nowhere else."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from socratic.evaluate import Metrics, Resume, evaluate
from socratic.loops import Solving
from socratic.train import TrainingRun, TrainSettings, train
from socratic.types import Problem, Score, Trace, UserError


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

    One that starts from another's folder waits for that one. Where one fails or is interrupted, the others end too; all
    can be continued. Raises `UserError` for one that was killed, and what `train` raises.
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
    waiting, under_way = list(trainings), dict[Any, tuple[Training, BaseProcess]]()
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))  # read when a child imports torch
    try:
        while waiting or under_way:
            missing = {str(t.out) for t in (*waiting, *(training for training, _ in under_way.values()))}
            ready = [training for training in waiting if training.run.student not in missing]
            for training in ready[: jobs - len(under_way)]:
                waiting.remove(training)
                reports, sender = context.Pipe(duplex=False)
                process = context.Process(target=_train_in_child, args=(training, sender), daemon=True)
                process.start()
                sender.close()  # the child's end is the only one left, so that reading ends when the child does
                under_way[reports] = training, process
            readable: list[Any] = connection.wait(list(under_way))
            for end in readable:
                try:
                    report = end.recv()
                except EOFError:
                    training, ended = under_way.pop(end)
                    ended.join()
                    if ended.exitcode:
                        raise UserError(
                            f"the training of {training.out} ended with exit code {ended.exitcode}, if below 0 because "
                            "it was killed, perhaps for want of memory; the same command continues it"
                        ) from None
                    continue
                if isinstance(report, UserError):
                    raise report
                show(*report)
    finally:
        for _, process_left in under_way.values():
            process_left.terminate()
        if threads is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = threads


def _train_in_child(training: Training, reports: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent as well, which ends its children
    parent = multiprocessing.parent_process()

    def show(*report: object) -> None:
        if parent is not None and not parent.is_alive():
            os._exit(1)
        reports.send(report)

    try:
        _train_one(training, show)
    except UserError as error:
        reports.send(error)


def _bar(console: Console) -> Progress:
    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    return Progress(TextColumn("{task.description}"), *columns, console=console)
