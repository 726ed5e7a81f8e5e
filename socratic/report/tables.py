"""The look of every table: names from disk shown as text, shares in per cent, at most 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from socratic.report import visible


def new_table(title: str, columns: Sequence[str], first: str = "run") -> Table:
    """An empty table: ``first`` names the rows, all other columns stand to the right."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    made.add_column(first, overflow="fold")
    for column in columns:
        made.add_column(column, justify="left" if column in ("solver", "against") else "right", no_wrap=True)
    return made


def text(value: str) -> Text:
    """``value`` as it stands, never as markup or control sequence."""
    return Text(visible(value))


def interval(rate: dict[str, Any]) -> str:
    """``rate`` with ``low`` and ``high``, in per cent."""
    return f"{percent(rate['rate'])} [{percent(rate['low'])}, {percent(rate['high'])}]"


def percent(share: float) -> str:
    """With one decimal."""
    return f"{100 * share:.1f}"


def points(difference: float, low: float, high: float) -> str:
    """A difference of shares with its interval, in percentage points."""
    return f"{100 * difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def p_value(p: float) -> str:
    """Three decimals, or the order of magnitude."""
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"
