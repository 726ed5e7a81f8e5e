from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from email.utils import formatdate
from itertools import cycle
from typing import Any

import pytest

from socratic.teacher import pace
from socratic.teacher.client import Outcome
from socratic.teacher.pace import EndpointDownError, Pace, duration, retry_after


class Clock:
    """Stands in for the module `time`, and for the loop's timers."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pace, "time", made)
    return made


def entered(coroutine: Coroutine[Any, Any, float]) -> bool:
    """Whether a place is given at once."""
    try:
        coroutine.send(None)
    except StopIteration:
        return True
    coroutine.close()
    return False


def is_open(paced: Pace) -> bool:
    """Whether one more could be sent; takes no place."""

    async def ask() -> bool:
        if not entered(paced.enter()):
            return False
        paced.under_way -= 1
        return True

    return asyncio.run(ask())


def take(paced: Pace, count: int = 1) -> list[float]:
    """Enter so often; there must be room."""

    async def enter() -> list[float]:
        return [await asyncio.wait_for(paced.enter(), 5) for _ in range(count)]

    return asyncio.run(enter())


def send(paced: Pace, clock: Clock, outcome: Outcome | None, count: int = 1) -> None:
    """Requests one after the other, past any gate."""
    for _ in range(count):
        clock.now = max(clock.now, paced.gate) + 0.001
        [began] = take(paced)
        clock.now += 0.001
        paced.leave(began, outcome)


def test_no_more_than_the_limit_are_under_way(clock: Clock) -> None:
    paced = Pace(3)
    began = take(paced, 3)
    assert not is_open(paced)
    paced.leave(began[0], "retry")
    assert is_open(paced)


def test_the_limit_doubles_every_round_up_to_the_most(clock: Clock) -> None:
    paced = Pace(100)
    limits = []
    for _ in range(4):
        began = take(paced, int(paced.limit))
        for one in began:
            paced.leave(one, "reply")
        limits.append(paced.limit)
    assert limits == [32, 64, 100, 100]


def round_of(paced: Pace, *outcomes: Outcome) -> float:
    """As many requests as the limit, with these outcomes over and over; the limit afterwards."""
    began = take(paced, int(paced.limit))
    for one, outcome in zip(began, cycle(outcomes), strict=False):
        paced.leave(one, outcome)
    return paced.limit


def test_the_limit_is_cut_by_the_share_that_was_too_much(clock: Clock) -> None:
    paced = Pace(1000)
    assert round_of(paced, "overloaded", "reply") == pytest.approx(16 * 0.6)
    assert round_of(paced, "overloaded") == 1
    assert [round_of(paced, "reply") for _ in range(9)][-1] == pytest.approx(1.1**9)


def test_few_that_were_too_much_keep_no_limit_down(clock: Clock) -> None:
    paced = Pace(1000)
    replies: list[Outcome] = ["reply"] * 15
    assert [round_of(paced, "overloaded", *replies) for _ in range(3)] == [32, 64, 128]


def test_a_burst_that_was_too_much_does_not_open_the_breaker(clock: Clock) -> None:
    paced = Pace(1000)
    send(paced, clock, "reply", 48)
    burst = take(paced, 64)
    clock.now += 1
    for one in burst:
        paced.leave(one, "overloaded")
    assert paced.limit == pytest.approx(6.4)
    assert paced.gate == 0


@pytest.mark.parametrize("outcome", ["refused", "denied", "stop", None])
def test_what_is_no_failure_of_the_endpoint_changes_no_limit(clock: Clock, outcome: Outcome | None) -> None:
    paced = Pace(64)
    send(paced, clock, outcome, 50)
    assert (paced.limit, paced.gate, paced.under_way) == (16, 0, 0)


@pytest.mark.parametrize(("outcome", "count"), [("retry", 20), ("overloaded", 16 + 19)])  # a round of 16 is one failure
def test_the_breaker_lets_single_requests_through_and_gives_up_in_the_end(
    clock: Clock, outcome: Outcome, count: int
) -> None:
    paced = Pace(64)
    send(paced, clock, outcome, count)
    pauses = [paced.gate - clock.now]
    while pauses[-1] < 100:
        assert not is_open(paced)
        assert paced.limit == 1
        send(paced, clock, outcome)
        pauses.append(paced.gate - clock.now)
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 64, 120])
    with pytest.raises(EndpointDownError):
        take(paced)


def test_one_reply_closes_the_breaker(clock: Clock) -> None:
    paced = Pace(64)
    send(paced, clock, "retry", 22)
    send(paced, clock, "reply", 3)
    assert paced.limit == 4
    send(paced, clock, "retry", 19)
    assert is_open(paced)
    send(paced, clock, "retry")
    assert paced.gate - clock.now == pytest.approx(1)


def test_many_that_fail_together_open_the_breaker_once(clock: Clock) -> None:
    paced = Pace(64)
    send(paced, clock, "reply", 48)
    together = take(paced, 64)
    clock.now += 1
    for one in together:
        paced.leave(one, "retry")
    assert paced.gate - clock.now == pytest.approx(1)
    clock.now = paced.gate
    assert is_open(paced)


def test_the_gate_is_capped_and_never_moves_closer(clock: Clock) -> None:
    paced = Pace(4)
    paced.close_for(5)
    paced.close_for(1)
    assert not is_open(paced)
    clock.now += 4.9
    assert not is_open(paced)
    clock.now += 0.1
    assert is_open(paced)
    paced.close_for(1e9)
    clock.now += 120
    assert is_open(paced)


def test_those_who_wait_enter_when_the_gate_opens() -> None:
    async def run() -> int:
        paced = Pace(3)
        paced.close_for(0.02)

        async def work() -> None:
            paced.leave(await paced.enter(), "reply")

        await asyncio.wait_for(asyncio.gather(*(work() for _ in range(20))), 30)
        return paced.under_way

    assert asyncio.run(run()) == 0


def test_waking_all_lets_everyone_in_for_good() -> None:
    async def run() -> int:
        paced = Pace(1)
        await paced.enter()
        paced.close_for(100)
        waiting = [asyncio.create_task(paced.enter()) for _ in range(5)]
        await asyncio.sleep(0)
        paced.wake_all()
        paced.close_for(100)  # as by a reply that was under way
        await asyncio.wait_for(asyncio.gather(*waiting), 30)
        return paced.under_way

    assert asyncio.run(run()) == 6


def limits(kind: str, limit: str, remaining: str, reset: str) -> dict[str, str]:
    return {f"x-ratelimit-{k}-{kind}": v for k, v in (("limit", limit), ("remaining", remaining), ("reset", reset))}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (limits("requests", "100", "50", "60s"), 0),
        (limits("requests", "100", "10", "60s"), 0),
        (limits("requests", "100", "9", "60s"), 60 / 91),
        (limits("requests", "10", "0", "6m0s"), 120),
        (limits("tokens", "10000", "1000", "9s"), 0),
        (limits("tokens", "10000", "900", "9.1s"), 0.1),
        (limits("requests", "100", "0", "10s") | limits("tokens", "10000", "0", "100s"), 10),
        (limits("requests", "100", "0", "soon"), 0),
        (limits("requests", "100", "0", "inf"), 0),
        (limits("requests", "100", "0", "-5"), 0),
        (limits("requests", "100", "0", ""), 0),
        (limits("requests", "many", "0", "60s"), 0),
        (limits("requests", "nan", "nan", "60s"), 0),
        (limits("requests", "inf", "0", "60s"), 0),
        (limits("requests", "0", "0", "60s"), 0),
        (limits("requests", "-1", "-1", "60s"), 0),
        ({"x-ratelimit-remaining-requests": "0"}, 0),
        ({}, 0),
    ],
)
def test_stated_limits_are_kept(clock: Clock, headers: dict[str, str], seconds: float) -> None:
    paced = Pace(64)
    take(paced, 9)
    paced.heed(headers, tokens_each=100.0)
    assert max(0, paced.gate - clock.now) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 0.05 "}, 0.05),
        ({"retry-after": "0"}, 0),
        ({"retry-after-ms": "50"}, 0.05),
        ({"retry-after-ms": "50", "retry-after": "7"}, 0.05),
        ({"retry-after-ms": "no", "retry-after": "7"}, 7),
        ({"retry-after-ms": "-1", "retry-after": "7"}, 7),
        *(
            ({"retry-after": text}, None)
            for text in (
                "-1",
                "NaN",
                "inf",
                "-inf",
                "1e9",
                "1e999",
                "soon",
                "",
                "Thu, 01 Jan 1970 00:00:00 GMT",
                "Fri, 01 Jan 9999 00:00:00 GMT",
                "Fri, 01 Jan 99999999999999999999 00:00:00 GMT",
                "Fri, 01 Jan 2100 00:00:00 +99999999999999999999",
                "Fri, 01 Jan 2100 00:00:00 -0000",
                "9" * 5000,
            )
        ),
        ({}, None),
    ],
)
def test_retry_after_is_read_or_is_nonsense(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_as_a_date() -> None:
    import time

    said = retry_after({"retry-after": formatdate(time.time() + 3600, usegmt=True)})
    assert said is not None
    assert 3000 < said <= 3600


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("24h0m0s", 86400),
        ("1m30s250ms", 90.25),
        ("59", 59),
        (" 0.5 ", 0.5),
        ("-3", 0),
        ("3s2m", 0),
        ("soon", 0),
        ("", 0),
        (" ", 0),
        ("nan", 0),
        ("inf", 0),
        ("9" * 400 + "s", 0),
        ("2026-01-01T00:00:00Z", 0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


def test_back_off_grows_with_jitter_up_to_a_minute() -> None:
    paced = Pace(4)
    for attempt in range(20):
        middle = min(60, 0.1 * 1.5**attempt)
        waits = {paced.back_off(attempt) for _ in range(20)}
        assert middle / 2 <= min(waits) < max(waits) <= 1.5 * middle
