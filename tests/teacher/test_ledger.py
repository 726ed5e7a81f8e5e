from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from socratic.teacher import ledger as module
from socratic.teacher.ledger import DiskFullError, Failure, Ledger, request_key
from socratic.types import UserError

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "1+1?"}], "temperature": 0.7}
RAW = '{"choices": [{}]}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def reopened(path: Path) -> Iterator[Callable[..., Ledger]]:
    """Run writes on a ledger, close it, and open it again."""
    made: list[Ledger] = []

    def run(work: Callable[[Ledger], Coroutine[Any, Any, None]]) -> Ledger:
        ledger = Ledger(path)
        try:
            asyncio.run(asyncio.wait_for(work(ledger), 30))
        finally:
            ledger.close()
        made.append(Ledger(path))
        return made[-1]

    yield run
    for ledger in made:
        ledger.close()


def test_everything_survives_reopening(reopened: Callable[..., Ledger]) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.set("lesson", {"model": "m", "temperature": None})
        assert [await ledger.begin("a"), await ledger.begin("b"), await ledger.begin("b")] == [1, 1, 2]
        await ledger.fail("b", 1, "status_500", "oh", final=False)
        await ledger.fail("b", 2, "status_400", "no", final=True)
        await ledger.fail("a", 1, "deadline", "late", final=False)
        await ledger.begin("a")
        await ledger.keep("a", RAW, (100, 20))
        await ledger.keep("c", RAW, (1, 2))
        await ledger.note_batch("n1", ["a", "b"], None)
        await ledger.note_batch("n2", ["c"], None)
        await ledger.note_batch("n1", ["a", "b"], "batch_1")
        await ledger.note_batch("n2", ["c"], "batch_2", ended=True)
        check(ledger)

    def check(ledger: Ledger) -> None:
        assert ledger.settings == {"lesson": {"model": "m", "temperature": None}}
        assert ledger.replied == {"a", "c"}
        assert ledger.failures == {"b": Failure("status_400", "no", True, 2)}
        assert ledger.tokens == (101, 22)
        assert ledger.reply("a") == {"choices": [{}]}
        assert ledger.reply("b") is None
        assert ledger.open_batches() == [("n1", "batch_1", ["a", "b"])]
        assert ledger.unknown() == 0

    ledger = reopened(work)
    check(ledger)
    assert asyncio.run(ledger.begin("b")) == 3


def test_the_first_reply_stays_and_is_counted_once(reopened: Callable[..., Ledger]) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.keep("a", RAW, (100, 20))
        await ledger.keep("a", "{}", (7, 7))
        assert ledger.tokens == (100, 20)

    ledger = reopened(work)
    assert (ledger.reply("a"), ledger.tokens) == ({"choices": [{}]}, (100, 20))


def test_what_failed_and_is_billed_counts(reopened: Callable[..., Ledger]) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.fail("a", await ledger.begin("a"), "no_choices", "", final=False, tokens=(100, 0))
        await ledger.fail("a", await ledger.begin("a"), "no_choices", "", final=False, tokens=(100, 7))
        await ledger.keep("a", RAW, (100, 20))
        assert ledger.tokens == (300, 27)

    assert reopened(work).tokens == (300, 27)


def test_numbers_go_on_behind_failures_that_no_attempt_goes_with(reopened: Callable[..., Ledger]) -> None:
    async def work(ledger: Ledger) -> None:
        for number in (1, 2, 3):  # as batches once left them
            await ledger.fail("a", number, "status_500", "", final=False)

    ledger = reopened(work)
    assert asyncio.run(ledger.begin("a")) == 4


def test_another_programs_lock_is_waited_for_and_then_said(
    reopened: Callable[..., Ledger], path: Path, patience: pytest.MonkeyPatch
) -> None:
    async def work(ledger: Ledger) -> None:
        ledger._base.execute("PRAGMA busy_timeout = 1")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        patience.setattr(module, "_FULL_PATIENCE", 0.5)
        said = await asyncio.gather(*(ledger.keep(str(i), RAW, (1, 2)) for i in range(40)), return_exceptions=True)
        assert {type(error) for error in said} == {UserError}
        assert "is held by another program" in str(said[0])
        patience.setattr(module, "_FULL_PATIENCE", 60)
        waiting = asyncio.ensure_future(ledger.keep("b", RAW, (1, 2)))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        other.execute("ROLLBACK")
        other.close()
        await waiting

    assert reopened(work).replied == {"b"}


def test_what_was_sent_without_an_outcome_is_unknown(reopened: Callable[..., Ledger]) -> None:
    async def work(ledger: Ledger) -> None:
        for key in ("lost", "failed", "failed then lost", "lost then answered"):
            await ledger.begin(key)
        await ledger.fail("failed", 1, "deadline", "", final=False)
        await ledger.fail("failed then lost", 1, "deadline", "", final=False)
        await ledger.begin("failed then lost")
        await ledger.begin("lost then answered")
        await ledger.keep("lost then answered", RAW, (1, 1))
        assert ledger.unknown() == 3

    assert reopened(work).unknown() == 3


def test_many_writes_at_once_share_commits_and_are_all_there(
    reopened: Callable[..., Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    commit = Ledger._commit_group

    def counted(self: Ledger, group: list[Any]) -> Exception | None:
        sizes.append(len(group))
        return commit(self, group)

    monkeypatch.setattr(Ledger, "_commit_group", counted)

    async def work(ledger: Ledger) -> None:
        await asyncio.gather(*(ledger.keep(str(i), RAW, (1, 2)) for i in range(2000)))

    ledger = reopened(work)
    assert ledger.replied == {str(i) for i in range(2000)}
    assert ledger.tokens == (2000, 4000)
    assert sum(sizes) == 2000
    assert len(sizes) < 500


def test_a_write_is_on_disk_when_it_returns(path: Path) -> None:
    ledger = Ledger(path)
    asyncio.run(ledger.keep("a", RAW, (1, 2)))
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT raw FROM replies").fetchall() == [(RAW,)]
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ledger._base.execute("PRAGMA synchronous").fetchone() == (2,)
    other.close()
    ledger.close()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_was_queued_is_committed_where_nobody_waits_any_more(
    reopened: Callable[..., Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GROUP_SECONDS", 0.1)

    async def work(ledger: Ledger) -> None:
        waiting = [asyncio.create_task(ledger.keep(str(i), RAW, (1, 2))) for i in range(3)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()

    assert reopened(work).replied == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ((dict(reversed(list(BODY.items()))), 0), True),
        ((BODY, 1), False),
        (({**BODY, "model": "n"}, 0), False),
        (({**BODY, "temperature": 0.8}, 0), False),
        (({**BODY, "seed": 0}, 0), False),
        (({**BODY, "messages": [{"role": "user", "content": "1+1? "}]}, 0), False),
        (({**BODY, "messages": [{"role": "system", "content": "1+1?"}]}, 0), False),
        (({**BODY, "response_format": {"type": "json_object"}}, 0), False),
    ],
)
def test_the_key_is_of_all_that_can_change_a_reply(other: tuple[dict[str, Any], int], same: bool) -> None:
    assert (request_key(*other) == request_key(BODY, 0)) is same


def test_the_key_stays_as_it_is() -> None:
    """Else all that is stored would be bought again."""
    assert request_key({"model": "m"}, 0) == "1c31024df860ec4ef71a165edad87f1bf6895149da8dd7f3cc0872b593e99e0a"


def filled(path: Path) -> bytes:
    """The file of a ledger with some pages of replies."""
    ledger = Ledger(path)

    async def work() -> None:
        await asyncio.gather(*(ledger.keep(f"{i:064}", RAW + " " * 6000, (1, 2)) for i in range(30)))

    asyncio.run(work())
    ledger.close()
    return path.read_bytes()


@pytest.mark.parametrize("damage", ["not a ledger", "header", "truncated", "first page", "values", "folder", "foreign"])
def test_a_file_that_is_no_whole_ledger_is_refused_in_one_sentence(path: Path, damage: str) -> None:
    whole = filled(path)
    if damage == "not a ledger":
        path.write_text("Q: How many?\n" * 1000)
    elif damage == "header":
        path.write_bytes(b"\xff" * 100 + whole[100:])
    elif damage == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "first page":
        path.write_bytes(whole[:100] + b"\xff" * 3996 + whole[4096:])
    elif damage == "values":
        with sqlite3.connect(path) as base:
            base.execute("INSERT INTO settings VALUES ('lesson', '{')")
        base.close()
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "foreign":
        path.unlink()
        with sqlite3.connect(path) as base:
            base.execute("CREATE TABLE replies (question TEXT)")
        base.close()
    with pytest.raises(UserError, match=r"ledger\.sqlite (is no readable ledger|cannot be used) \(.+\); ") as raised:
        Ledger(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("rot", [b"x", b"\xff"])
def test_a_damaged_reply_is_one_sentence_too(path: Path, rot: bytes) -> None:
    whole = filled(path)
    path.write_bytes(whole.replace(b" " * 3000, rot * 3000))
    ledger = Ledger(path)
    with pytest.raises(UserError, match=r"ledger\.sqlite is no readable ledger"):
        ledger.reply(f"{0:064}")
    ledger.close()


@pytest.mark.parametrize("bad", ["\ud800", 2**63])
def test_what_cannot_be_stored_is_raised_to_its_own_waiter_alone(reopened: Callable[..., Ledger], bad: Any) -> None:
    async def work(ledger: Ledger) -> None:
        writes = [ledger.keep(str(i), RAW, (1, 2)) for i in range(4)]
        worse = ledger.keep("bad", bad, (1, 2)) if isinstance(bad, str) else ledger.keep("bad", RAW, (bad, 2))
        outcomes = await asyncio.gather(*writes[:2], worse, *writes[2:], return_exceptions=True)
        assert [type(one) for one in outcomes if one is not None] == [type(outcomes[2])]
        assert isinstance(outcomes[2], UnicodeError | OverflowError)
        await ledger.keep("later", RAW, (1, 2))
        assert ledger.full is False

    assert reopened(work).replied == {"0", "1", "2", "3", "later"}


def limit_pages(ledger: Ledger, more: int) -> None:
    """Let the file grow by so many pages only."""
    (pages,) = ledger._base.execute("PRAGMA page_count").fetchone()
    ledger._base.execute(f"PRAGMA max_page_count = {pages + more}")


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(module, "_FULL_PATIENCE", 0.05)
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.01)
    return monkeypatch


def test_a_full_disk_stops_writes_and_harms_nothing(
    reopened: Callable[..., Ledger], patience: pytest.MonkeyPatch
) -> None:
    kept: set[str] = set()

    async def work(ledger: Ledger) -> None:
        async def fill() -> None:
            for i in range(100):
                await ledger.keep(str(i), RAW + " " * 4000, (1, 2))
                kept.add(str(i))

        limit_pages(ledger, 10)
        with pytest.raises(DiskFullError, match="is full; free space and run the command again"):
            await fill()
        assert ledger.full is True
        assert ledger.replied == kept

    ledger = reopened(work)
    assert 0 < len(kept) < 100
    assert ledger.replied == kept
    assert (ledger.full, ledger.tokens) == (False, (len(kept), 2 * len(kept)))
    with sqlite3.connect(ledger.path) as base:
        assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    base.close()


def test_replies_in_hand_are_committed_when_space_returns(
    reopened: Callable[..., Ledger], patience: pytest.MonkeyPatch
) -> None:
    patience.setattr(module, "_FULL_PATIENCE", 60)

    async def work(ledger: Ledger) -> None:
        limit_pages(ledger, 0)
        waiting = asyncio.gather(*(ledger.keep(str(i), RAW + " " * 4000, (1, 2)) for i in range(10)))
        while not ledger.full:
            await asyncio.sleep(0.005)
        assert not waiting.done()
        limit_pages(ledger, 1000)
        await waiting
        assert ledger.full is False

    assert reopened(work).replied == {str(i) for i in range(10)}
