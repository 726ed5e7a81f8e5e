"""What was asked and what came back, in SQLite: a reply that was committed is never bought again.

An attempt is committed before it is sent and its raw reply before it is read, so after any kill the ledger names every
request whose outcome is unknown, and there are no more of those than were in flight. One thread writes; what arrives
within some milliseconds is committed together (WAL, ``synchronous=FULL``).
"""

from __future__ import annotations

import asyncio
import json
import queue
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from socratic.store import hash_json
from socratic.teacher.crash import crash_point
from socratic.types import UserError

_GROUP_SECONDS = 0.01
_RETRY_SECONDS = 1.0
_FULL_PATIENCE = 60.0
_NUMBERS = """SELECT key, MAX(number) FROM
    (SELECT key, number FROM attempts UNION ALL SELECT key, number FROM failures) GROUP BY key"""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS attempts (key TEXT NOT NULL, number INTEGER NOT NULL, sent REAL NOT NULL,
    PRIMARY KEY (key, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, received REAL NOT NULL, raw TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures (key TEXT NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL, reason TEXT NOT NULL,
    detail TEXT NOT NULL, final INTEGER NOT NULL, PRIMARY KEY (key, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (nonce TEXT PRIMARY KEY, keys TEXT NOT NULL, id TEXT, ended INTEGER NOT NULL)
    WITHOUT ROWID;
"""


def request_key(body: Mapping[str, Any], sample: int) -> str:
    """SHA-256 of what can change a reply: the canonical body, and which sample of it this is."""
    return hash_json({"body": dict(body), "sample": sample})


@dataclass(frozen=True)
class Failure:
    """Why the last attempt of a request came to nothing; a ``final`` one is not tried again unless asked for."""

    reason: str
    detail: str
    final: bool
    number: int


class DiskFullError(UserError):
    """Nothing more can be written."""


class Ledger:
    """The ledger in the file ``path``; which requests were answered, or failed, is held in memory as well.

    Every ``await`` of a write returns when it is on the disk. ``full`` is set while the disk has no room. Raises
    `UserError` for a damaged file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._base = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=FULL")
            crash_point("ledger-opened")
            self._base.executescript(_SCHEMA)
            crash_point("ledger-has-tables")
            self._reader = sqlite3.connect(path)  # which sees no transaction half done
            self._load()
        except sqlite3.OperationalError as error:  # no room, no permission, held by another
            raise UserError(f"{path} cannot be used ({error}); mend that and run the command again") from None
        except (sqlite3.Error, ValueError) as error:
            raise self._unreadable(error) from None
        self.full = False
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="ledger", daemon=True)
        self._writer.start()

    def _load(self) -> None:
        every = self._reader.execute
        self.settings: dict[str, Any] = {n: json.loads(v) for n, v in every("SELECT name, value FROM settings")}
        self.replied: set[str] = {key for (key,) in every("SELECT key FROM replies")}
        self._numbers: dict[str, int] = dict(every(_NUMBERS))
        latest = "SELECT key, reason, detail, final, MAX(number) FROM failures GROUP BY key"
        self.failures = {
            key: Failure(reason, detail, bool(final), number)
            for key, reason, detail, final, number in every(latest)
            if key not in self.replied
        }
        sums = "COALESCE(SUM(prompt_tokens), 0), COALESCE(SUM(completion_tokens), 0)"
        kept: tuple[int, int] = every(f"SELECT {sums} FROM replies").fetchone()
        lost = self.settings.get("lost_tokens", (0, 0))
        self.tokens: tuple[int, int] = kept[0] + lost[0], kept[1] + lost[1]

    def _unreadable(self, error: Exception) -> UserError:
        return UserError(f"{self.path} is no readable ledger ({error}); move it away to begin anew")

    def unknown(self) -> int:
        """Requests that were sent and neither answered nor failed, as after a kill."""
        sql = (  # a reply is that to the last attempt
            "SELECT COUNT(*) FROM attempts a WHERE NOT EXISTS (SELECT 1 FROM replies r WHERE r.key = a.key "
            "AND a.number = (SELECT MAX(number) FROM attempts WHERE key = a.key)) "
            "AND NOT EXISTS (SELECT 1 FROM failures f WHERE f.key = a.key AND f.number = a.number)"
        )
        (count,) = self._reader.execute(sql).fetchone()
        return int(count)

    def reply(self, key: str) -> dict[str, Any] | None:
        """The stored raw reply, or None."""
        try:
            row = self._reader.execute("SELECT raw FROM replies WHERE key = ?", (key,)).fetchone()
            return json.loads(row[0]) if row else None
        except (sqlite3.Error, ValueError) as error:
            raise self._unreadable(error) from None

    def open_batches(self) -> list[tuple[str, str | None, list[str]]]:
        """Nonce, id (None where the endpoint may not have got it) and request keys of each batch under way."""
        rows = self._reader.execute("SELECT nonce, id, keys FROM batches WHERE NOT ended").fetchall()
        return [(nonce, id, json.loads(keys)) for nonce, id, keys in rows]

    async def set(self, name: str, value: Any) -> None:
        """Keep a setting of the run."""
        self.settings[name] = value
        await self._commit("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, json.dumps(value)))
        crash_point("setting-committed")

    async def begin(self, key: str) -> int:
        """Note an attempt before it is sent; its number, from 1."""
        number = self._numbers.get(key, 0) + 1
        self._numbers[key] = number
        crash_point("attempt-made")
        await self._commit("INSERT INTO attempts VALUES (?, ?, ?)", (key, number, time.time()))
        crash_point("attempt-committed")
        return number

    async def keep(self, key: str, raw: str, tokens: tuple[int, int]) -> None:
        """Commit a raw reply, with its prompt and completion tokens."""
        crash_point("reply-received")
        await self._commit("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?)", (key, time.time(), raw, *tokens))
        if key not in self.replied:
            self.tokens = self.tokens[0] + tokens[0], self.tokens[1] + tokens[1]
        self.replied.add(key)
        self.failures.pop(key, None)
        crash_point("reply-committed")

    async def fail(
        self, key: str, number: int, reason: str, detail: str, *, final: bool, tokens: tuple[int, int] = (0, 0)
    ) -> None:
        """Commit why an attempt failed, and what was to be paid for it all the same."""
        crash_point("failure-seen")
        values = (key, number, time.time(), reason, detail, int(final))
        writes = [self._commit("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?, ?)", values)]
        if any(tokens):
            lost = self.settings.get("lost_tokens", (0, 0))
            self.tokens = self.tokens[0] + tokens[0], self.tokens[1] + tokens[1]
            writes.append(self.set("lost_tokens", [lost[0] + tokens[0], lost[1] + tokens[1]]))
        await asyncio.gather(*writes)
        self.failures[key] = Failure(reason, detail, final, number)
        crash_point("failure-committed")

    async def note_batch(self, nonce: str, keys: Sequence[str], id: str | None, *, ended: bool = False) -> None:
        """Commit what is known of a batch."""
        crash_point("batch-known")
        values = (nonce, json.dumps(list(keys)), id, int(ended))
        await self._commit("INSERT OR REPLACE INTO batches VALUES (?, ?, ?, ?)", values)
        crash_point("batch-committed")

    def close(self) -> None:
        """Commit what is queued and close the file."""
        crash_point("ledger-closing")
        self._queue.put(None)
        self._writer.join()
        self._base.close()
        self._reader.close()
        crash_point("ledger-closed")

    async def _commit(self, sql: str, values: tuple[Any, ...]) -> None:
        write = _Write(sql, values, asyncio.get_running_loop(), asyncio.get_running_loop().create_future())
        self._queue.put(write)
        await write.done

    def _write(self) -> None:
        ending = False
        while not ending:
            group, ending = self._next_group()
            if not group:
                continue
            error = self._commit_group(group)
            if error is None or isinstance(error, UserError):  # all of them have waited for it long enough
                _wake(group, error)
                continue
            for write in group:  # one that cannot be stored does not keep the others from it
                _wake([write], self._commit_group([write]))

    def _next_group(self) -> tuple[list[_Write], bool]:
        """What is queued until some milliseconds after the first; and whether the ledger is being closed."""
        first = self._queue.get()
        if first is None:
            return [], True
        group, until = [first], time.monotonic() + _GROUP_SECONDS
        while (left := until - time.monotonic()) > 0:
            try:
                write = self._queue.get(timeout=left)
            except queue.Empty:
                break
            if write is None:
                return group, True
            group.append(write)
        return group, False

    def _commit_group(self, group: list[_Write]) -> Exception | None:
        """Commit; where the disk is full (`full` meanwhile set) or held by another program, again for a while."""
        patience = time.monotonic() + _FULL_PATIENCE
        while True:
            try:
                self._base.execute("BEGIN IMMEDIATE")
                crash_point("transaction-begun")
                for write in group:
                    self._base.execute(write.sql, write.values)
                crash_point("transaction-written")
                self._base.execute("COMMIT")
                crash_point("transaction-committed")
                self.full = False
                return None
            except Exception as error:
                with suppress(sqlite3.Error):
                    self._base.execute("ROLLBACK")
                if not (isinstance(error, sqlite3.OperationalError) and (_has_no_room(error) or _is_held(error))):
                    return error  # to whoever waits for one of these writes
                self.full = _has_no_room(error)
                if time.monotonic() > patience and _is_held(error):
                    return UserError(f"{self.path} is held by another program; close that and run the command again")
                if time.monotonic() > patience:
                    return DiskFullError(f"the disk of {self.path} is full; free space and run the command again")
                time.sleep(_RETRY_SECONDS)


@dataclass(frozen=True)
class _Write:
    """One statement, and who waits for it."""

    sql: str
    values: tuple[Any, ...]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]


def _wake(group: list[_Write], error: Exception | None) -> None:
    """Tell all who wait for one of these writes, where anyone does still."""
    with suppress(RuntimeError):  # the loop is closed
        group[0].loop.call_soon_threadsafe(_finish, group, error)


def _finish(group: list[_Write], error: Exception | None) -> None:
    for write in group:
        if write.done.cancelled():
            continue
        if error is None:
            write.done.set_result(None)
        else:
            write.done.set_exception(error)


def _has_no_room(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def _is_held(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
