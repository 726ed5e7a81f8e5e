"""The short campaign: every named crash point, kills at random, and second kills during recovery."""

from __future__ import annotations

from pathlib import Path

import pytest
from campaign import CONCURRENCY, POINTS, SERVER, Round, campaign, read_ledger, serving


def test_every_crash_point_and_random_kills_are_survived(tmp_path: Path) -> None:
    done = campaign(tmp_path, kills=len(POINTS) + 12, seed=0)  # which raises at the first broken promise
    assert set(done["kills_by_point"]) == set(POINTS)
    assert len(POINTS) >= 25
    assert done["kills_while_recovering"] >= 5
    assert done["extra_bills_of_a_kill_at_most"] <= CONCURRENCY


@pytest.mark.parametrize(
    ("mode", "point", "table"),
    [
        ("asked", "attempt-committed", "sent"),
        ("asked", "reply-committed", "replies"),
        ("asked", "job-done", "replies"),
        ("two-turn", "next-turn", "replies"),
        ("asked", "failure-committed", "failures"),
        ("batch", "batch-uploaded", "sent"),
    ],
)
def test_what_a_point_says_is_on_the_disk(tmp_path: Path, mode: str, point: str, table: str) -> None:
    options = {**SERVER, "faults": 0.5, "kinds": "500", "bad": 0} if table == "failures" else {"latency": 0.01}
    with serving(tmp_path, **options) as server:
        round = Round(server, mode, "m", tmp_path)
        round.run(f"{point}:1")
        assert round.kills == 1
        assert getattr(read_ledger(round.out), table)
