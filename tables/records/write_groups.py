"""Writes of the same moment share requests: each one costs both sides as much as a dozen of rows.

What is handed in during one turn of the event loop goes out in unlogged batches. A batch promises nothing more than its
writes do one by one: each is acknowledged or not, and says so to its own caller. Sizes stay below what Cassandra
refuses, and below what ops/local/cassandra.py lets it warn of (its own defaults warn from 5 KiB and 10 partitions on).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cassandra import ConsistencyLevel
from cassandra.query import BatchStatement, BatchType, BoundStatement, Statement

from tables.records.errors import RecordsRefused

GROUP_BYTES_MAX = 24_000  # of values; Cassandra refuses a batch of over 50 KiB that touches several partitions
GROUP_STATEMENTS_MAX = 60

Mutation = Sequence[BoundStatement]
"""Statements of one partition: they become visible as a whole."""


@dataclass(slots=True, eq=False)
class _Write:
    statements: list[BoundStatement]
    size: int  # bytes
    written: asyncio.Future[None]


class WriteGroups:
    """`send` starts a request; its future has the result, or raises RecordsUnavailable or RecordsRefused."""

    def __init__(self, loop: asyncio.AbstractEventLoop, send: Callable[[Statement], asyncio.Future[object]]) -> None:
        self._loop = loop
        self._send = send
        self._waiting: list[_Write] = []

    async def write(self, mutations: Sequence[Mutation]) -> None:
        """Returns when all are acknowledged. Raises what the first that was not does: the others may have been."""
        written = [self._hand_in(statements) for statements in _requests(mutations)]
        for outcome in await asyncio.gather(*written, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    def _hand_in(self, statements: list[BoundStatement]) -> asyncio.Future[None]:
        write = _Write(statements, _size(statements), self._loop.create_future())
        if not self._waiting:
            self._loop.call_soon(self._go)
        self._waiting.append(write)
        return write.written

    def _go(self) -> None:
        waiting, self._waiting = self._waiting, []
        group: list[_Write] = []
        size = statements = 0
        for write in waiting:
            size, statements = size + write.size, statements + len(write.statements)
            if group and (size > GROUP_BYTES_MAX or statements > GROUP_STATEMENTS_MAX):
                self._request(group)
                group, size, statements = [], write.size, len(write.statements)
            group.append(write)
        self._request(group)

    def _request(self, group: list[_Write]) -> None:
        try:
            answer = self._send(_statement([statement for write in group for statement in write.statements]))
        except Exception as error:  # nobody else would tell those who wait
            _tell(group, error)
        else:
            answer.add_done_callback(lambda answer: self._answered(group, answer.exception()))

    def _answered(self, group: list[_Write], failure: BaseException | None) -> None:
        if isinstance(failure, RecordsRefused) and len(group) > 1:
            for write in group:  # one of them is at fault, and the others must not suffer for it
                self._request([write])
        else:
            _tell(group, failure)


def _tell(group: list[_Write], failure: BaseException | None) -> None:
    for write in group:
        if write.written.cancelled():  # its caller has gone
            continue
        if failure is None:
            write.written.set_result(None)
        else:
            write.written.set_exception(failure)


def _requests(mutations: Sequence[Mutation]) -> Iterator[list[BoundStatement]]:
    """Statements that go out together: all, unless they are too many for that. One mutation is never torn apart."""
    if sum(map(_size, mutations)) <= GROUP_BYTES_MAX:
        yield [statement for mutation in mutations for statement in mutation]
    else:
        yield from map(list, mutations)


def _size(statements: Sequence[BoundStatement]) -> int:
    return sum(len(value) for statement in statements for value in statement.values if isinstance(value, bytes))


def _statement(statements: list[BoundStatement]) -> Statement:
    if len(statements) == 1:
        return statements[0]
    batch = BatchStatement(batch_type=BatchType.UNLOGGED, consistency_level=ConsistencyLevel.LOCAL_QUORUM)
    for statement in statements:
        batch.add(statement)
    return batch
