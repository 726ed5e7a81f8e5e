"""Named points at which a test may kill the process: ``SOCRATIC_CRASH=name``, or ``name:3`` for the third time."""

from __future__ import annotations

import os
import signal

_wanted = ""
_left = 0


def arm(where: str) -> None:
    """Die at ``name`` or ``name:count``; never at ``""``."""
    global _wanted, _left
    _wanted, _, count = where.partition(":")
    _left = int(count or 1)


def crash_point(name: str) -> None:
    """Die here, as by ``kill -9``, where that was asked for."""
    global _left
    if name == _wanted:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ.get("SOCRATIC_CRASH", ""))
