"""Solutions on the terminal: texts wrapped under their labels while they are written, their arithmetic checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from socratic.calculator import Mark, checked
from socratic.prompts import render_problem
from socratic.report import visible
from socratic.report.problem import STOPPED
from socratic.types import Problem, Score, Trace

if TYPE_CHECKING:
    from socratic.solving import Event

_LABELS = {
    "problem": "Problem: ",
    "plan": "Plan: ",
    "question": "Q: ",
    "answer": "A: ",
    "final": "#### ",
    "cot": "CoT: ",
    "gold": "Gold: ",
}
_CALCULATES = ("answer", "cot", "gold")
_STYLES = {"question": "cyan", "final": "bold"}
_RIGHT, _WRONG = "green", "red"
_COLUMN = 36
"""Characters that a column of `paint_beside` takes at least."""
_HELD = 200
"""Characters after which a word or mark that does not end is shown all the same."""
_UNFINISHED = re.compile(r"(?>(?:<<[^<>]*>>|(?!<<)\S)*)(?:<<[^<>]*>?)?\Z")
_WORD = re.compile(r"(\s*)(\S+)|\s+")


class Slot:
    """One text while it is written: behind its label, further lines indented, complete marks coloured.

    ``kind`` is a slot's, ``problem``, ``gold`` or ``cot``; a step's ``number`` stands before its question. On a
    terminal words are wrapped; elsewhere lines are as the text has them.
    """

    def __init__(self, console: Console, kind: str, number: int = 0) -> None:
        place = f"{number}. " if number else ""
        self.label = (place if kind == "question" else " " * len(place)) + _LABELS[kind]
        self.kind = kind
        self.console, self.style, self.text = console, _STYLES.get(kind, ""), ""
        self._held = self._gap = ""
        self._column = 0

    def write(self, piece: str) -> None:
        """Show of the text what ends in a whole word; white space before it is left out."""
        self._held = self._held + piece if self.text else piece.lstrip()
        self.text += piece if self.text else self._held
        unfinished = _UNFINISHED.search(self._held[-_HELD:])
        whole = len(self._held) - (len(unfinished[0]) if unfinished and len(self._held) < _HELD else 0)
        self._show(self._held[:whole])
        self._held = self._held[whole:]

    def end(self, note: str = "") -> None:
        """Show the rest, of an answer whether it calculates rightly, and ``note``; of an empty text only a note."""
        self._show(self._held)
        found = list(checked(self.text)) if self.kind in _CALCULATES else []
        wrong = [complaint(mark) for mark, right in found if not right]
        line = Text()
        if found:
            line.append(" ✗" if wrong else " ✓", _WRONG if wrong else _RIGHT)
        for sentence in wrong:
            line.append(f"\n{' ' * len(self.label)}{visible(sentence)}", _WRONG)
        if note:
            line.append(f"  {note}" if self._column else f"{self.label}{note}", "dim")
        if self._column or line:
            self.console.print(line, soft_wrap=True)

    def _show(self, text: str) -> None:
        if not text:
            return
        limit = self.console.width if self.console.is_terminal else float("inf")
        painted = Text(visible(text), self.style)
        for mark, right in checked(painted.plain):
            if painted.plain.startswith("<<", mark.start):  # one in prose may only be complete in the next piece
                painted.stylize(_RIGHT if right else _WRONG, mark.start, mark.end)
        line = Text()
        if not self._column:
            line.append(self.label, f"bold {self.style}")
            self._column = len(self.label)
        for part in _WORD.finditer(painted.plain):
            self._gap += part[1] or ""
            if part[2] is None:
                self._gap += part[0]
                continue
            width = cell_len(part[2])
            if self._column + len(self._gap) + width > limit and self._column > len(self.label):
                self._gap = self._gap.strip(" ") or "\n"
            if breaks := self._gap.count("\n"):
                self._gap, self._column = "\n" * breaks + " " * len(self.label), 0
            line.append(self._gap, self.style).append_text(painted[part.start(2) : part.end(2)])
            self._column += cell_len(self._gap) + width
            self._gap = ""
        self.console.print(line, end="", soft_wrap=True)


def complaint(mark: Mark) -> str:
    """What is said of a calculation that is wrong."""
    return f"{mark.expr} is not {mark.result}"


def paint(console: Console, kind: str, text: str, number: int = 0, note: str = "") -> None:
    """A whole text, as `Slot` shows it, with ``note`` behind it."""
    slot = Slot(console, kind, number)
    slot.write(text)
    slot.end(note)


def shown_problem(problem: Problem) -> str:
    """A problem as the students read it, less the label that `paint` gives it."""
    return render_problem(problem).removeprefix(_LABELS["problem"])


def paint_solution(console: Console, problem: Problem, events: Iterable[Event]) -> None:
    """A problem and its solution as it is written, numbered steps, then why it stopped and what it took."""
    paint(console, "problem", shown_problem(problem))
    console.print()
    _paint_events(console, events)


def paint_beside(console: Console, problem: Problem, solutions: Mapping[str, Iterable[Event]]) -> None:
    """A problem and several solutions of it, by name, one written after the other.

    They stand in columns on a terminal that is wide enough, else below each other.
    """
    paint(console, "problem", shown_problem(problem))
    width = console.width // len(solutions) - 2
    if not console.is_terminal or width < _COLUMN:
        for name, events in solutions.items():
            console.print(Text(f"\n{visible(name)}", "bold"))
            _paint_events(console, events)
        return
    written = {name: StringIO() for name in solutions}

    def beside() -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name in written:
            table.add_column(Text(visible(name)), width=width)
        table.add_row(*(Text.from_ansi(column.getvalue()) for column in written.values()))
        return table

    console.print()
    with Live(console=console, auto_refresh=False) as live:

        def shown(events: Iterable[Event]) -> Iterator[Event]:
            for event in events:
                live.update(beside(), refresh=True)
                yield event

        for name, events in solutions.items():
            _paint_events(Console(file=written[name], width=width, force_terminal=True), shown(events))
        live.update(beside(), refresh=True)


def _paint_events(console: Console, events: Iterable[Event]) -> None:
    number, slot = 0, None
    for event in events:
        if event.trace is not None:
            _paint_end(console, event.trace)
            return
        if slot is None:
            number += event.kind == "question"
            slot = Slot(console, event.kind, number if event.kind != "final" else 0)
        slot.write(event.text)
        if event.done:
            slot.end(f"[dropped: {event.fault}]" if event.fault else "")
            slot = None


def paint_solved(console: Console, problem: Problem, traces: Sequence[tuple[Trace, Score | None]]) -> None:
    """A problem and what came of it in a run, sample by sample, against its gold answer."""
    console.print(Text(visible(f"{problem.id} ({problem.dataset}, {problem.split})"), "dim"), soft_wrap=True)
    paint(console, "problem", shown_problem(problem))
    paint(console, "gold", problem.answer)
    for trace, score in traces:
        how = f"\nSample {trace.sample}: {trace.solver}, calculator {'on' if trace.calculator else 'off'}"
        console.print(Text(how, "dim"), soft_wrap=True)
        if trace.plan is not None:
            paint(console, "plan", trace.plan or "(nothing)")
        for place, step in enumerate(trace.steps, start=1):
            paint(console, "question", step.question, place)
            paint(console, "answer", step.answer or "(nothing)", place if step.question else 0)
        if trace.rejected is not None:
            dropped = trace.rejected
            place = len(trace.steps) + 1 if dropped.question else 0
            is_final = not dropped.question and (bool(trace.steps) or not trace.solver.endswith("cot"))
            for kind, written in (("question", dropped.question), ("final" if is_final else "answer", dropped.answer)):
                if written:
                    paint(console, kind, written, place, "[dropped]")
        paint(console, "final", "(no answer)" if trace.answer is None else trace.answer)
        _paint_end(console, trace)
        console.print(_verdict(score), soft_wrap=True)
    if not traces:
        console.print("\nnot solved yet")


def _verdict(score: Score | None) -> Text:
    if score is None:
        return Text("not scored yet")
    strict = "" if score.correct == score.strict else ", strict wrong"
    said = "right" if score.correct else "wrong"
    style = _RIGHT if score.correct else _WRONG
    return Text(visible(f"{said}{strict} (read {score.predicted}, reason {score.reason})"), style)


def _paint_end(console: Console, trace: Trace) -> None:
    took = f"{trace.tokens} tokens, {trace.seconds:.1f} s"
    console.print(Text(f"\n({STOPPED[trace.stop_reason]}; {took})", "dim"), soft_wrap=True)
    if trace.error:
        console.print(Text(visible(trace.error), _WRONG), soft_wrap=True)
