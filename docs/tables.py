"""Makes the tables of the pages on results again, from the committed traces: ``python docs/tables.py``, `make results`.

A block of ``text`` below ``<!-- made by: socratic compare … -->`` is what that command prints, run in the checkout;
behind ``| from TITLE`` only the part from the table of that title on. The data sets are needed, as for `socratic
data`. A test holds that the committed tables are what this writes.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import shlex
from pathlib import Path
from unittest.mock import patch

import socratic.report.interventions  # noqa: F401  (which would else take up the `load_run` that is kept here)
from socratic.cli import app
from socratic.cli.shared import out
from socratic.evaluate import load_run

CHECKOUT = Path(__file__).resolve().parent.parent
_WIDTH = 80
_BLOCK = re.compile(r"^(<!-- made by: socratic (?P<command>[^>]+) -->\n+```text\n)(?P<table>.*?)^```$", re.M | re.S)


def pages() -> list[Path]:
    """Every page that may have such a table."""
    return [*sorted(CHECKOUT.glob("docs/*.md")), *sorted(CHECKOUT.glob("results/**/*.md"))]


def committed() -> dict[str, set[str]]:
    """What stands below each command, on whatever page."""
    found: dict[str, set[str]] = {}
    for page in pages():
        for block in _BLOCK.finditer(page.read_text("utf-8")):
            found.setdefault(block["command"], set()).add(block["table"])
    return found


def remade(text: str) -> str:
    """A page with its tables made again; raises `UserError` where the data or a run is not there."""
    return _BLOCK.sub(lambda block: f"{block[1]}{printed(block['command'])}```", text)


_load_run = functools.lru_cache(maxsize=32)(load_run)  # tables share runs


@functools.cache  # pages share tables
def printed(command: str) -> str:
    """What ``socratic COMMAND`` prints, 80 columns wide, without white space at the ends of lines."""
    words, _, title = command.partition(" | from ")
    stream = io.StringIO()
    read = patch("socratic.evaluate.load_run", _load_run)
    with contextlib.chdir(CHECKOUT), contextlib.redirect_stdout(stream), patch.object(out, "_width", _WIDTH), read:
        app(shlex.split(words), standalone_mode=False)
    lines = [line.rstrip() for line in stream.getvalue().strip().splitlines()]
    first = next((place for place, line in enumerate(lines) if line.startswith(title)), None)
    if first is None:
        raise ValueError(f"socratic {words} prints no table {title!r}")
    return "".join(f"{line}\n" for line in lines[first:])


if __name__ == "__main__":
    for page in pages():
        page.write_text(remade(page.read_text("utf-8")), "utf-8")
