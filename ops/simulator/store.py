"""The simulator's durable store: one SQLite file, written by one thread that commits in groups.

SQLite in WAL mode with synchronous=FULL, rather than a log of our own: a commit is on disk before it is answered, a
kill -9 loses nothing, queries by key and by payment need no index in memory, and the whole costs a few MiB. Waiting
jobs share one commit, so the price of a flush is paid per group and not per request.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS operations (
    idempotency_key TEXT PRIMARY KEY,
    operation_id TEXT NOT NULL,
    type TEXT NOT NULL,             -- authorization, void, refund, settlement
    payment_id TEXT,                -- NULL for a settlement
    amount INTEGER,
    currency TEXT,
    token TEXT,                     -- what the authorisation's card behaves like; never card data
    fingerprint BLOB,               -- SHA-256 of the body; NULL for a key that a void closed before it was seen
    requests INTEGER NOT NULL,      -- sends seen
    status TEXT,                    -- NULL while nothing was processed; then succeeded or failed
    error TEXT,                     -- JSON
    items TEXT,                     -- JSON, the results of a settlement's items
    created_at INTEGER NOT NULL     -- microseconds since the epoch
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    operation_id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,             -- authorization, capture, void, refund
    idempotency_key TEXT NOT NULL,
    payment_id TEXT NOT NULL,
    amount INTEGER NOT NULL,
    currency TEXT NOT NULL,
    batch_id TEXT,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS ledger_by_payment ON ledger (payment_id, sequence);
CREATE INDEX IF NOT EXISTS operations_by_payment ON operations (payment_id) WHERE type = 'authorization';
CREATE TABLE IF NOT EXISTS settlement_refusals (
    payment_id TEXT PRIMARY KEY,
    refusals INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tokens (
    token TEXT PRIMARY KEY,
    behaves_like TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""

_GROUP_MAX = 64  # jobs per commit: bounds how long the first of a group waits for the last


class _Job:
    """One function to run inside a transaction, and the future that hears its result after the commit."""

    __slots__ = ("failure", "function", "future", "loop", "result")

    def __init__(self, function: Callable[[sqlite3.Connection], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.function = function
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.result: Any = None
        self.failure: BaseException | None = None

    def resolve(self) -> None:
        """Hand the result to the waiting coroutine, from the store's thread."""
        self.loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        if self.future.done():  # its request was cancelled; what it did is committed all the same
            return
        if self.failure is not None:
            self.future.set_exception(self.failure)
        else:
            self.future.set_result(self.result)


class Store:
    """Runs functions as transactions, in the order in which they were asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)

    def open(self) -> None:
        """Create the file if need be and start the thread. Raises sqlite3.Error when the file is no database."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = self._connect()
        try:
            connection.executescript(_SCHEMA)
        finally:
            connection.close()
        self._thread.start()

    def close(self) -> None:
        """Finish what was asked for, then end the thread."""
        self._jobs.put(None)
        self._thread.join()

    async def transact(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run `function` in a transaction and return once that is on disk. What it raises undoes it and is raised."""
        job = _Job(function, asyncio.get_running_loop())
        self._jobs.put(job)
        result: T = await job.future
        return result

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.row_factory = sqlite3.Row
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _work(self) -> None:
        connection = self._connect()
        try:
            while (job := self._jobs.get()) is not None:
                group = [job]
                closing = False
                while len(group) < _GROUP_MAX and not self._jobs.empty():
                    following = self._jobs.get()
                    if following is None:
                        closing = True
                        break
                    group.append(following)
                self._commit(connection, group)
                if closing:
                    return
        finally:
            connection.close()

    def _commit(self, connection: sqlite3.Connection, group: list[_Job]) -> None:
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in group:
                self._run(connection, job)
            connection.execute("COMMIT")
        except sqlite3.Error as error:  # disk full, file gone: nothing of the group happened, and each of it says so
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            for job in group:
                job.failure = error
        for job in group:
            job.resolve()

    @staticmethod
    def _run(connection: sqlite3.Connection, job: _Job) -> None:
        connection.execute("SAVEPOINT job")
        try:
            job.result = job.function(connection)
        except Exception as error:
            connection.execute("ROLLBACK TO job")
            job.failure = error
        connection.execute("RELEASE job")
