"""The committed students of SmolLM2, adapters on a base that is fetched once: shown at work, and checked.

They solve GSM8K-style problems that were written for this project and are in no training data; the traces that they
wrote of all 100, in fp32 on a CPU, are committed beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from socratic.evaluate import score_trace
from socratic.lm.bases import fetch_base, find_base
from socratic.lm.checkpoint import is_checkpoint, read_card
from socratic.lm.load import hush_transformers, load_lm
from socratic.progress import solve_with_bar
from socratic.report.paint import paint_beside
from socratic.solving import SolveSettings, Solving
from socratic.store import read_records, shipped
from socratic.tasks import load_problems
from socratic.types import Problem, Trace, UserError

if TYPE_CHECKING:
    from socratic.solving import Event

FOLDER = shipped("students") / "gsm8k-smollm2"
STUDENTS = ("qg-warm", "qa-warm", "cot")
SHOWN = 3
"""Bundled problems that are solved before the user's own."""


def bundled_problems() -> list[Problem]:
    """The 100 GSM8K-style problems that come with the package."""
    return load_problems(str(shipped("data") / "gsm8k-style.jsonl"), "test")


def open_students(progress: Console, device: str | None = None, dtype: str = "auto") -> dict[str, Solving]:
    """The committed students as solvers by name, their base fetched where it is not here yet.

    Raises `UserError` where the students are not there or the base cannot be had.
    """
    folders = [FOLDER / name for name in STUDENTS]
    if missing := [folder.name for folder in folders if not is_checkpoint(folder)]:
        raise UserError(
            f"{FOLDER} holds no {' and no '.join(missing)}; the students come with a clone of the repository"
        )
    base = read_card(folders[0]).base
    try:
        find_base(base, folders[0])
    except UserError:
        progress.print(f"fetching {base.location}, the students' base (once)", soft_wrap=True)
        fetch_base(base, progress.is_terminal)
    with progress.status("loading the students (the first time takes a minute)"):
        hush_transformers()
        qg, qa, cot = (load_lm(str(folder), device=device, dtype=dtype) for folder in folders)
    for note in dict.fromkeys(lm.note for lm in (qg, qa, cot) if lm.note):
        progress.print(note, soft_wrap=True)
    pair, single = (SolveSettings.parse({"solver": solver}) for solver in ("socratic", "cot"))
    return {"QG and QA": Solving(pair, qg=qg, qa=qa), "CoT": Solving(single, lm=cot)}


def show(console: Console, problem: Problem, students: Mapping[str, Solving]) -> None:
    """Solve a problem with each of ``students``, side by side; where its answer is known, say who has it."""
    traces: dict[str, Trace] = {}

    def kept(name: str, events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            if event.trace:
                traces[name] = event.trace
            yield event

    paint_beside(console, problem, {name: kept(name, s.stream(problem)) for name, s in students.items()})
    if problem.answer:
        said = (f"{n} {'right' if score_trace(problem, t).correct else 'wrong'}" for n, t in traces.items())
        console.print(Text(f"\nIt is {problem.answer}: {', '.join(said)}.\n", "bold"), soft_wrap=True)


def check(students: Mapping[str, Solving], problems: Sequence[Problem], progress: Console) -> dict[str, Any]:
    """Solve ``problems`` again and compare with the committed traces: all that is in them but the time taken.

    By name of the solver: how many are ``same`` and how many ``right``, and the ids of those that ``differ``.
    """
    found = {}
    for name, solving in students.items():
        committed = _committed(solving.name)
        made: list[Trace] = []
        solve_with_bar(problems, 1, solving, len(problems), made.append, progress)
        differ = [t.problem_id for t in made if replace(t, seconds=0.0) != committed.get(t.problem_id)]
        by_id = {problem.id: problem for problem in problems}
        right = sum(score_trace(by_id[trace.problem_id], trace).correct for trace in made)
        found[name] = {"same": len(made) - len(differ), "right": right, "differ": sorted(differ)}
    return found


def _committed(solver: str) -> dict[str, Trace]:
    """The committed traces of a solver by problem, their times taken out."""
    path = FOLDER / "traces" / f"{solver}.jsonl.gz"
    if not path.is_file():
        raise UserError(f"there are no traces {path} to compare with; get them from the repository")
    return {trace.problem_id: replace(trace, seconds=0.0) for trace in read_records(path, Trace)}
