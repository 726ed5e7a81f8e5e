"""Progress bars of long work, with the time left; they write to the console given and nowhere else."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from socratic.evaluate import Metrics, Resume, evaluate
from socratic.lm.base import LM
from socratic.prepare import TrainingRun, TrainSettings
from socratic.prompts import TeacherPrompt
from socratic.solving import Solving
from socratic.teacher.annotate import Annotation, AskSettings, annotate
from socratic.teacher.teach import Job, Tally, TeachSettings
from socratic.train import train
from socratic.types import Problem, Score, Trace, UserError


def evaluate_with_bar(
    what: str,
    problems: Sequence[Problem],
    solving: Solving,
    out: Path,
    *,
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


def solve_with_bar(
    problems: Sequence[Problem],
    samples: int,
    solving: Solving,
    batch_size: int,
    on_trace: Callable[[Trace], None],
    console: Console | None,
) -> None:
    """Solve all of ``problems``; ``on_trace`` gets each trace as it comes. The bar needs a terminal as ``console``."""
    jobs = [(problem, sample) for problem in problems for sample in range(samples)]
    bar = _bar(console)
    bar.disable = console is None or not console.is_terminal
    task = bar.add_task("solved", total=len(jobs), note="")
    with bar:
        for trace in solving.run(jobs, batch_size):
            on_trace(trace)
            bar.advance(task)


def annotate_with_bar(
    what: str,
    jobs: Sequence[Job],
    settings: TeachSettings,
    prompt: TeacherPrompt | None,
    out: Path,
    how: AskSettings,
    *,
    lm: LM | None,
    replies: Path | None = None,
    console: Console,
) -> Annotation:
    """`annotate`; below the bar stand tokens, cost, rate, and what was kept or failed, by reason."""
    bar, below = _bar(console), Text()
    task = bar.add_task(what, total=len(jobs), note="")
    live = Live(Group(bar, below), console=console, refresh_per_second=4)
    began = time.monotonic()

    def on_change(tally: Tally, tokens: tuple[int, int]) -> None:
        live.start()  # not before there is something to do
        rate = tally.asked / (time.monotonic() - began)
        cost = f", ${how.cost(tokens):.2f}" if how.cost(tokens) else ""
        bar.update(task, completed=tally.done, note=f"{sum(tokens):,} tokens{cost}, {rate:.1f}/s")
        failed = [f"{count} {reason.replace('_', ' ')}" for reason, count in tally.failed.most_common()]
        below.plain = ", ".join([f"{tally.kept} kept", *failed])

    try:
        return annotate(jobs, settings, prompt, out, how, lm=lm, replies=replies, on_change=on_change)
    finally:
        if live.is_started:
            live.stop()
            if not console.is_terminal:
                console.line()


@dataclass(frozen=True)
class Training:
    """One call of `train`, with what to call it."""

    what: str
    run: TrainingRun
    settings: TrainSettings
    out: Path


def train_with_bars(trainings: Sequence[Training], jobs: int, console: Console) -> None:
    """`train` them all, ``jobs`` at a time in processes that share the cores; each has a bar.

    One that starts from another's folder stands behind it and waits for it. Where one fails or is interrupted, the
    others end too; all can be continued. Raises `UserError` for one that was killed, and what `train` raises.
    """
    with _bar(console) as bar:
        tasks = {t.out: bar.add_task(t.what, total=None, note="waits", start=False) for t in trainings}

        def report(out: Path, note: str, done: int | None = None, of: int | None = None) -> None:
            task = bar.tasks[tasks[out]]
            if done is None:
                console.print(f"{task.description}: {note}", soft_wrap=True)
                return
            if not task.started:
                bar.start_task(task.id)
            bar.update(task.id, completed=done, total=of, note=note)
            if note == _DONE and not console.is_terminal:  # where bars are shown at the end only
                console.print(f"{task.description}: {note}")

        jobs = min(jobs, len(trainings), os.cpu_count() or 1)
        if jobs > 1:
            _train_together(trainings, jobs, report)
        else:
            for training in trainings:
                _train_one(training, report)


_DONE = "done"


class _Report(Protocol):
    """Shows what is to be known of the training into ``out``: a line, or with ``done`` how far it is."""

    def __call__(self, out: Path, note: str, done: int | None = None, of: int | None = None) -> None: ...


def _train_one(training: Training, report: _Report) -> None:
    out = training.out
    train(
        training.run,
        training.settings,
        out,
        on_note=lambda note: report(out, note),
        on_progress=lambda done, of, note: report(out, note, done, of),
    )
    report(out, _DONE, 1, 1)


def _train_together(trainings: Sequence[Training], jobs: int, report: _Report) -> None:
    context = multiprocessing.get_context("spawn")
    waiting, busy = list(trainings), dict[Any, Training]()
    workers: dict[Any, BaseProcess] = {}
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))  # read when a child imports torch
    try:
        for _ in range(jobs):
            end, its_end = context.Pipe()
            process: BaseProcess = context.Process(target=_work, args=(its_end,), daemon=True)
            process.start()
            its_end.close()  # the worker's is the only one left, so that reading ends when the worker does
            workers[end] = process
        while waiting or busy:
            missing = {str(t.out) for t in (*waiting, *busy.values())}
            ready = [t for t in waiting if not missing & {t.run.student, t.settings.partner}]
            for end, training in zip([end for end in workers if end not in busy], ready, strict=False):
                waiting.remove(training)
                busy[end] = training
                with _expected_alive(workers[end], training):
                    end.send(training)
            readable: list[Any] = connection.wait(list(busy))
            for end in readable:
                with _expected_alive(workers[end], busy[end]):
                    said = end.recv()
                if isinstance(said, UserError):
                    raise said
                if said is None:
                    del busy[end]
                else:
                    report(*said)
    finally:
        for end, process in workers.items():
            end.close()  # at which an idle worker ends
            if end in busy:
                process.terminate()
        for process in workers.values():
            process.join()
        if threads is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = threads


@contextmanager
def _expected_alive(worker: BaseProcess, training: Training) -> Iterator[None]:
    """Name the training whose worker is found to have ended."""
    try:
        yield
    except (EOFError, ConnectionError):
        worker.join()
        if (code := worker.exitcode or 0) >= 0:
            raise RuntimeError(f"the training of {training.out} failed; its own message stands above") from None
        raise UserError(
            f"the training of {training.out} was killed (signal {-code}), perhaps for want of memory; the same command "
            "continues it"
        ) from None


def _work(orders: Any) -> None:
    """Train what comes, one after the other, until nothing more can; compiled layers serve all of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent as well, which ends its children
    parent = multiprocessing.parent_process()

    def report(out: Path, note: str, done: int | None = None, of: int | None = None) -> None:
        if parent is not None and not parent.is_alive():
            os._exit(1)
        orders.send((out, note, done, of))

    while True:
        try:
            training = orders.recv()
        except EOFError:
            return
        try:
            _train_one(training, report)
            orders.send(None)
        except UserError as error:
            orders.send(error)
        gc.collect()  # a trainer and its model refer to each other


def _bar(console: Console | None) -> Progress:
    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    return Progress(TextColumn("{task.description}", markup=False), *columns, console=console)
