"""A terminal, or a pipe, on which a person and the tutor take turns: lines in, painted texts or JSON records out."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from rich.text import Text

from socratic.cli.shared import check_utf8, out, print_json
from socratic.report import visible
from socratic.report.paint import Slot, paint, shown_problem
from socratic.types import Problem, UserError

_STYLES = {"note": "dim", "error": "red", "right": "green", "wrong": "red", "hint": "yellow"}


class Screen:
    """Where lines are read from and texts are shown; with ``as_json`` every text is a record of its own."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.is_typed = sys.stdin is not None and sys.stdin.isatty()
        self._readline: Any = None
        if self.is_typed:
            with suppress(ImportError):
                import readline

                self._readline = readline  # gives `input` editing and a history
                readline.parse_and_bind("set enable-bracketed-paste on")  # a paste of several lines is then one

    def read(self, prompt: str, begin: str = "") -> str:
        """A line, without its end; where it is typed, ``begin`` stands there to be changed.

        What was pasted in several lines is one. Raises `EOFError` at the end, `UserError` for what is not UTF-8.
        """
        try:
            if not self.is_typed:
                line = _next_line()
            else:
                if begin and self._readline:
                    self._readline.set_startup_hook(lambda: self._readline.insert_text(begin))
                line = input("" if self.as_json else prompt)
        except UnicodeDecodeError:
            raise UserError("the line is not UTF-8; convert it") from None
        finally:
            if begin and self._readline:
                self._readline.set_startup_hook(None)
        return check_utf8(line, "the line")

    def has_more(self) -> bool:
        """Whether more was typed or pasted already."""
        return self.is_typed and bool(select.select([sys.stdin], [], [], 0.05)[0])

    def say(self, event: str, text: str, style: str = "", one_line: bool = False, **known: Any) -> None:
        """A sentence or a line; ``known`` goes into the record. On a terminal ``one_line`` cuts it at the width."""
        if self.as_json:
            print_json({"event": event, "text": text, **known})
            return
        painted = Text(visible(text), _STYLES.get(style or event, ""))
        if out.is_terminal:
            out.print(painted, no_wrap=one_line, overflow="ellipsis" if one_line else "fold")
        else:
            out.print(painted, soft_wrap=True)

    def show(self, event: str, kind: str, text: str, number: int = 0) -> None:
        """A text as `paint` shows it; its record says which slot it is of, and of which step."""
        if self.as_json:
            print_json({"event": event, "text": text, "kind": kind, "number": number or None})
        else:
            paint(out, kind, text, number)

    def show_problem(self, problem: Problem) -> None:
        """A problem, in a record with its id."""
        if self.as_json:
            print_json({"event": "problem", "text": shown_problem(problem), "id": problem.id})
        else:
            paint(out, "problem", shown_problem(problem))

    def stream(
        self, kind: str, pieces: Iterator[str], number: int, why_dropped: Callable[[], str | None]
    ) -> tuple[str, bool]:
        """Show a text as it is written; what was written, and whether it came to its end before Ctrl-C.

        ``why_dropped`` names afterwards why it cannot be used.
        """
        slot = Slot(out, kind, number)
        text, whole = "", True
        try:
            for piece in pieces:
                text += piece
                if not self.as_json:
                    slot.write(piece)
        except KeyboardInterrupt:
            whole = False
        fault = why_dropped() if whole else None
        if self.as_json:
            print_json({"event": kind, "text": text.strip(), "whole": whole, "fault": fault})
        else:
            slot.end(f"[dropped: {fault}]" if fault else "" if whole else "(stopped)")
        return text.strip(), whole


def _next_line() -> str:
    """A line of standard input, without its end, each decoded by itself: one that is not UTF-8 spoils no other."""
    if sys.stdin is None:
        raise EOFError
    source: Any = getattr(sys.stdin, "buffer", sys.stdin)
    line = source.readline()
    if not line:
        raise EOFError
    text: str = line.decode("utf-8") if isinstance(line, bytes) else line
    return text.removesuffix("\n").removesuffix("\r")
