"""Writes of one moment share requests; each of them hears of its own fate."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from cassandra.cqltypes import BytesType
from cassandra.protocol import ColumnMetadata
from cassandra.query import BatchStatement, PreparedStatement

from tables.records.errors import RecordsRefused, RecordsUnavailable
from tables.records.write_groups import GROUP_BYTES_MAX, GROUP_STATEMENTS_MAX, WriteGroups

PREPARED = PreparedStatement([ColumnMetadata("k", "t", "c", BytesType)], b"", None, "", "k", 5, None, None)


class Server:
    """Notes what every request carries, and answers when it is told to."""

    def __init__(self, refuses: str = "") -> None:
        self.requests: list[list[str]] = []
        self.answers: list[asyncio.Future[object]] = []
        self._refuses = refuses

    def send(self, statement: Any) -> asyncio.Future[object]:
        parts = statement._statements_and_parameters if isinstance(statement, BatchStatement) else None
        values = [statement.values] if parts is None else [values for _, _, values in parts]
        names = [value.decode().strip() for (value,) in values]
        self.requests.append(names)
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        if self._refuses in names and self._refuses:
            answer.set_exception(RecordsRefused(f"{self._refuses} is no good"))
        self.answers.append(answer)
        return answer

    def acknowledge(self) -> None:
        for answer in self.answers:
            if not answer.done():
                answer.set_result(None)


def write(groups: WriteGroups, *mutations: Sequence[str], size: int = 100) -> asyncio.Task[None]:
    bound = [[PREPARED.bind([name.encode().ljust(size)]) for name in mutation] for mutation in mutations]
    return asyncio.create_task(groups.write(bound))


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_writes_of_one_moment_are_one_request_and_later_ones_another() -> None:
    server = Server()
    groups = WriteGroups(asyncio.get_running_loop(), server.send)
    first = [write(groups, ["a", "b"], ["c"]), write(groups, ["d"])]
    await turns()
    second = write(groups, ["e"])
    await turns()
    assert server.requests == [["a", "b", "c", "d"], ["e"]]
    assert not any(task.done() for task in (*first, second))
    server.acknowledge()
    await asyncio.gather(*first, second)


@pytest.mark.parametrize(
    ("count", "size"), [(3 * GROUP_STATEMENTS_MAX, 10), (40, GROUP_BYTES_MAX // 10)], ids=["many", "large"]
)
async def test_a_request_is_no_larger_than_cassandra_takes_and_nothing_is_left_out(count: int, size: int) -> None:
    server = Server()
    groups = WriteGroups(asyncio.get_running_loop(), server.send)
    names = [str(number) for number in range(count)]
    tasks = [write(groups, [name], size=size) for name in names]
    await turns()
    server.acknowledge()
    await asyncio.gather(*tasks)
    assert [name for request in server.requests for name in request] == names
    assert max(map(len, server.requests)) <= min(GROUP_STATEMENTS_MAX, GROUP_BYTES_MAX // size)
    assert len(server.requests) < count


async def test_what_one_partition_gets_is_never_torn_apart_however_large() -> None:
    server = Server()
    groups = WriteGroups(asyncio.get_running_loop(), server.send)
    task = write(groups, ["a", "b"], ["c"], size=GROUP_BYTES_MAX)
    await turns()
    server.acknowledge()
    await task
    assert server.requests == [["a", "b"], ["c"]]


async def test_a_write_that_is_refused_takes_no_other_with_it() -> None:
    server = Server(refuses="bad")
    groups = WriteGroups(asyncio.get_running_loop(), server.send)
    good, bad, other = write(groups, ["good"]), write(groups, ["bad"]), write(groups, ["other"])
    await turns()
    assert server.requests == [["good", "bad", "other"], ["good"], ["bad"], ["other"]]
    server.acknowledge()
    await asyncio.gather(good, other)
    with pytest.raises(RecordsRefused, match="bad is no good"):
        await bad


async def test_an_error_that_nobody_foresaw_is_heard_too() -> None:
    def send(_statement: Any) -> asyncio.Future[object]:
        raise AttributeError("a bug")

    with pytest.raises(AttributeError, match="a bug"):
        await write(WriteGroups(asyncio.get_running_loop(), send), ["a"], ["b"])


async def test_an_outage_is_heard_by_all_and_a_caller_that_has_gone_by_nobody() -> None:
    server = Server()
    groups = WriteGroups(asyncio.get_running_loop(), server.send)
    gone, stays = write(groups, ["a"]), write(groups, ["b"])
    await turns()
    gone.cancel()
    await turns()
    server.answers[0].set_exception(RecordsUnavailable("away"))
    with pytest.raises(RecordsUnavailable, match="away"):
        await stays
    assert gone.cancelled()
