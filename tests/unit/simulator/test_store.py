"""The simulator's store: groups of jobs share a commit, and never each other's failures."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from ops.simulator.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "state" / "ledger.sqlite")
    store.open()
    yield store
    store.close()


def keep(connection: sqlite3.Connection, token: str, fail: bool = False) -> str:
    connection.execute("INSERT INTO tokens VALUES (?, 'pm_card_visa')", (token,))
    if fail:
        raise ValueError(token)
    return token


def kept(connection: sqlite3.Connection) -> list[str]:
    return [row["token"] for row in connection.execute("SELECT token FROM tokens ORDER BY token")]


async def test_a_job_that_raises_undoes_itself_and_nobody_else(store: Store) -> None:
    jobs = [store.transact(partial(keep, token=f"pm_{n:03}", fail=n % 3 == 0)) for n in range(100)]
    results = await asyncio.gather(*jobs, return_exceptions=True)
    good = [f"pm_{n:03}" for n in range(100) if n % 3]
    assert [result for result in results if isinstance(result, str)] == good
    assert sum(isinstance(result, ValueError) for result in results) == 34
    assert await store.transact(kept) == good


async def test_nothing_is_answered_before_its_group_is_on_disk(store: Store) -> None:
    loop = asyncio.get_running_loop()

    class Held:
        """A job that tells that it runs, and runs until it is released."""

        def __init__(self) -> None:
            self.running, self.released = asyncio.Event(), threading.Event()

        def __call__(self, _: sqlite3.Connection) -> None:
            loop.call_soon_threadsafe(self.running.set)
            self.released.wait(10)

    before, last = Held(), Held()
    first = asyncio.create_task(store.transact(before))
    await before.running.wait()
    group = [asyncio.create_task(store.transact(job)) for job in (partial(keep, token="pm_1"), last)]
    await asyncio.sleep(0)  # both wait now, and so share the next commit
    before.released.set()
    await first
    await last.running.wait()
    assert not any(job.done() for job in group)
    last.released.set()
    await asyncio.gather(*group)


async def test_what_was_answered_is_there_after_opening_again(store: Store, tmp_path: Path) -> None:
    await store.transact(partial(keep, token="pm_1"))
    with sqlite3.connect(tmp_path / "state" / "ledger.sqlite") as other:
        assert other.execute("SELECT count(*) FROM tokens").fetchone() == (1,)
    other.close()


async def test_a_commit_that_fails_is_told_to_all_of_its_group_and_the_store_goes_on(store: Store) -> None:
    def break_commit(connection: sqlite3.Connection) -> None:
        connection.execute("COMMIT")  # what follows has no transaction to be part of

    with pytest.raises(sqlite3.Error):
        await store.transact(break_commit)
    assert await store.transact(partial(keep, token="pm_1")) == "pm_1"


async def test_a_cancelled_request_stops_nothing(store: Store) -> None:
    waiting = asyncio.create_task(store.transact(partial(keep, token="pm_1")))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await store.transact(kept) == ["pm_1"]


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        Store(tmp_path / "ledger.sqlite").open()
