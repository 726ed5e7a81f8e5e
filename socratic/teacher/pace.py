"""How fast an endpoint may be asked: its own limits, its Retry-After, a concurrency that adapts, and a breaker."""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from socratic.teacher.client import Outcome

_LONGEST_GATE = 120.0
_FIRST_LIMIT = 16
_TOLERATED = 0.1
_BREAK_AFTER = 20
_MOST_BREAKS = 7
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?", re.ASCII)


class EndpointDownError(Exception):
    """The breaker has opened so often that the endpoint is given up."""


class Pace:
    """Lets at most `limit` requests be under way, and none before the gate opens.

    The limit begins low and doubles every round until more than a tenth of the requests were too much; from then on it
    grows by a tenth a round, less that share. After many failures in a row the breaker lets single requests through, at
    longer and longer intervals; in the end `enter` raises `EndpointDownError`.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(min(most, _FIRST_LIMIT))
        self.under_way = 0
        self.gate = 0.0
        self._growing = True
        self._ended = self._overloads = 0
        self._broken = 0.0
        self._ending = False
        self._failures = self._breaks = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._random = random.Random(0)

    async def enter(self) -> float:
        """Wait for a place; the time it was given, for `leave`."""
        while True:
            if self._breaks > _MOST_BREAKS:
                raise EndpointDownError
            now = time.monotonic()
            if self._ending or (now >= self.gate and self.under_way < int(self.limit)):
                self.under_way += 1
                return now
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            if now < self.gate:
                asyncio.get_running_loop().call_later(self.gate - now, self._wake)
            await waiter

    async def opened(self) -> bool:
        """Wait, with a place, until the gate is open; False where the run is stopped before."""
        while (left := self.gate - time.monotonic()) > 0:
            if self._ending:
                return False
            await asyncio.sleep(min(left, 0.1))
        return True

    def leave(self, entered: float, outcome: Outcome | None) -> None:
        """A request came to its end, None where it was not sent; ``overloaded``: the endpoint was asked too much."""
        self.under_way -= 1
        if outcome in ("reply", "overloaded"):
            self._adapt(outcome == "overloaded")
        if outcome == "reply":
            self._failures = self._breaks = 0
        elif outcome == "retry" and entered > self._broken:  # what was sent before it broke says nothing new
            self._fail()
        self._wake()

    def _adapt(self, overloaded: bool) -> None:
        """Once a round, as many requests as the limit: cut it by the share that was too much (as DCTCP does)."""
        self._ended += 1
        self._overloads += overloaded
        if self._ended >= int(self.limit):
            share = self._overloads / self._ended
            self._growing = self._growing and share <= _TOLERATED
            factor = 2.0 if self._growing else 1.0 + _TOLERATED - share
            self.limit = min(self.most, max(1.0, self.limit * factor))
            self._ended = self._overloads = 0
            if share == 1:
                self._fail()

    def _fail(self) -> None:
        """Count a failure; after many in a row let nothing through for a while, and then one request at a time."""
        self._failures += 1
        if self._failures >= _BREAK_AFTER:
            self._failures = _BREAK_AFTER - 1  # one more is enough the next time
            self._broken = time.monotonic()
            self.limit, self._growing = 1.0, True
            self.close_for(2.0**self._breaks)
            self._breaks += 1

    def close_for(self, seconds: float) -> None:
        """Let nothing be sent for so long, `_LONGEST_GATE` at most."""
        self.gate = max(self.gate, time.monotonic() + min(seconds, _LONGEST_GATE))

    def heed(self, headers: Mapping[str, str], tokens_each: float) -> None:
        """Wait where what is under way uses up the requests or tokens of this minute, by the endpoint's own headers.

        What is left comes back evenly until ``reset``, so only as long as it takes for one more request to fit.
        """
        for kind, each in (("requests", 1.0), ("tokens", tokens_each)):
            stated = [headers.get(f"x-ratelimit-{name}-{kind}", "") for name in ("limit", "remaining", "reset")]
            try:
                limit, left = float(stated[0]), float(stated[1])
            except ValueError:
                continue
            missing = (self.under_way + 1) * each - left
            if missing > 0 and limit > left:
                self.close_for(duration(stated[2]) * min(1.0, missing / (limit - left)))

    def back_off(self, attempt: int) -> float:
        """Seconds until the next attempt of one request: half as long again each time, jittered, a minute at most."""
        return min(60.0, 0.1 * 1.5**attempt) * self._random.uniform(0.5, 1.5)

    def wake_all(self) -> None:
        """Let everyone in from now on, as where the run is being stopped and nothing more is sent."""
        self._ending = True
        while self._waiting:
            self._pop()

    def _wake(self) -> None:
        free = int(self.limit) - self.under_way
        for _ in range(min(free, len(self._waiting))):
            self._pop()

    def _pop(self) -> None:
        waiter = self._waiting.popleft()
        if not waiter.done():
            waiter.set_result(None)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the endpoint asks for, by ``retry-after-ms`` or ``retry-after`` (seconds or a date); None for none.

    What is negative, not finite, absurdly far or no number is nonsense, and None as well.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        if not text:
            continue
        try:
            seconds = float(text) / unit
        except ValueError:
            try:
                seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
            except (ValueError, TypeError, OverflowError):
                continue
        if math.isfinite(seconds) and 0 <= seconds <= 86_400:
            return seconds
    return None


def duration(text: str) -> float:
    """Seconds of ``1h2m3.5s`` or ``20ms``, or of a bare number; 0 for what is neither, negative or not finite."""
    match = _DURATION.fullmatch(text.strip())
    try:
        if match and text.strip():
            hours, minutes, seconds, thousandths = (float(group or 0) for group in match.groups())
            stated = 3600 * hours + 60 * minutes + seconds + thousandths / 1000
        else:
            stated = float(text)
    except ValueError:
        return 0.0
    return max(0.0, stated) if math.isfinite(stated) else 0.0
