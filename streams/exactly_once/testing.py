"""Bench: run a handler as the plain function it is, in memory, without Kafka or RocksDB."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from streams.exactly_once import timers
from streams.exactly_once.layers import Layers, Send, Stage
from streams.exactly_once.records import TIMERS, Record, TimerFired
from streams.exactly_once.table_spec import TableSpec

Decider = Callable[[Sequence[Record], Stage, Stage], None]
Effector = Callable[[Record, Stage, Stage], Awaitable[None]]


class MemoryBase:
    """Committed rows in dictionaries, decoded from bytes when another row is read, as the real store does."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[bytes, bytes]] = {}
        self._last_read: tuple[TableSpec | None, bytes, Any] = (None, b"", None)  # its table, bytes, decoded row

    def get(self, table: TableSpec, key: bytes) -> Any | None:
        """As Base.get."""
        encoded = self.rows.get(table.name, {}).get(key)
        if encoded is None:
            return None
        last_table, last_encoded, value = self._last_read
        if last_table is not table or last_encoded is not encoded:
            value = table.decode(encoded)
            self._last_read = (table, encoded, value)
        return value

    def scan(self, table: TableSpec, start: bytes, stop: bytes) -> Iterator[tuple[bytes, Any]]:
        """As Base.scan."""
        rows = self.rows.get(table.name, {})
        for key in sorted(key for key in rows if start <= key < stop):
            yield key, table.decode(rows[key])


class Bench:
    """One lane without servers: feed records, look at what was sent and kept, let time pass.

    A handler that raises leaves no trace, exactly as in a lane.
    """

    def __init__(self, *, partition: int = 0, now_ms: int = 1_767_225_600_000) -> None:
        self.partition = partition
        self.now_ms = now_ms
        self.sent: list[Send] = []
        self._timers = timers.timer_table("bench")
        self._base = MemoryBase()
        self._layers = Layers(self._base)
        self._offsets: dict[str, int] = {}
        self._highest_ms = 0

    def record(
        self, topic: str, key: bytes, value: Any, *, timestamp_ms: int | None = None, data: bytes | None = None
    ) -> Record:
        """The next record of `topic`, appended now unless said otherwise; `data` is what `value` was decoded from."""
        offset = self._offsets[topic] = self._offsets.get(topic, -1) + 1
        at_ms = self.now_ms if timestamp_ms is None else timestamp_ms
        return Record(topic, self.partition, offset, key, value, at_ms, data=data, received_s=self.now_ms / 1000)

    def decide(self, handler: Decider, *records: Record) -> list[Send]:
        """Run a decider over one batch and commit it; returns what this batch sent."""
        stage = self._stage(records)
        handler(records, stage, stage)
        return self._commit(stage)

    def effect(self, handler: Effector, record: Record) -> list[Send]:
        """Run an effector on one record and commit it; returns what it sent. Not for use inside a running loop."""
        return asyncio.run(self.effect_async(handler, record))

    async def effect_async(self, handler: Effector, record: Record) -> list[Send]:
        """As `effect`, for tests that run in a loop."""
        stage = self._stage([record])
        await handler(record, stage, stage)
        return self._commit(stage)

    def advance(self, milliseconds: int) -> list[Record]:
        """Let time pass; returns the timers that came due, in order, as records. They are gone from the table."""
        self.now_ms += milliseconds
        fired: list[Record] = []
        stage = self._stage([])
        for row_key, payload in list(stage.scan(self._timers, *timers.due_until(self.now_ms))):
            timer = timers.parse_due_row(row_key, payload)
            stage.cancel_timer(timer.key, timer.name)
            fired.append(Record(TIMERS, self.partition, -1, timer.key, timer, self.now_ms))
        self._commit(stage)
        return fired

    def timers(self) -> list[TimerFired]:
        """The timers that are set, in order of due time."""
        rows = self._base.scan(self._timers, timers.DUE, timers.IDENTITY)
        return [timers.parse_due_row(key, payload) for key, payload in rows]

    def row(self, table: TableSpec, key: bytes) -> Any | None:
        """A committed row."""
        return self._base.get(table, key)

    def rows(self, table: TableSpec) -> list[tuple[bytes, Any]]:
        """All committed rows of a table in order."""
        return list(self._base.scan(table, b"", b"\xff" * 64))

    def _stage(self, records: Sequence[Record]) -> Stage:
        for record in records:
            self._highest_ms = max(self._highest_ms, record.timestamp_ms)
        return Stage(
            self._layers,
            partition=self.partition,
            highest_timestamp_ms=self._highest_ms,
            timer_table=self._timers,
        )

    def _commit(self, stage: Stage) -> list[Send]:
        self.sent.extend(stage.layer.sends)
        for table, rows in stage.layer.rows.items():
            stored = self._base.rows.setdefault(table.name, {})
            for key, row in rows.items():
                if row.encoded is None:
                    stored.pop(key, None)
                else:
                    stored[key] = row.encoded
        return stage.layer.sends
