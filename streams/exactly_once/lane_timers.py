"""A lane's timers: which are due, which are being handled, and whether the clock they go by can be trusted.

Timers fire by the host's clock. One that is minutes off would expire payments early or retry them late, so the clock is
compared with the brokers' before the first timer of a lane fires and at every commit after that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain

import structlog

from streams.exactly_once import timers
from streams.exactly_once.layers import Layers, Row
from streams.exactly_once.records import TIMERS, Record
from streams.exactly_once.table_spec import TableSpec

log = structlog.get_logger(__name__)

TIMERS_AT_ONCE = 100  # due timers taken up in one go, so that a flood of them cannot starve the inputs
CLOCK_DIFFERENCE_MAX_MS = 300_000  # between host and broker; beyond it timers stand still and an alert is raised


class LaneTimers:
    """Reads the timer rows of one lane through its layers; the rows themselves are written by stages."""

    def __init__(
        self, lane: str, layers: Layers, table: TableSpec | None, partition: int, clock_ms: Callable[[], int]
    ) -> None:
        self.busy: set[tuple[bytes, str]] = set()  # taken up by a handler that has not come back
        self.halted = False
        self._lane = lane
        self._layers = layers
        self._table = table
        self._partition = partition
        self._clock_ms = clock_ms
        self._compared = False
        self._next_due_ms: int | None = None
        self._first = timers.DUE  # the base has no due row before it
        if table is not None:
            self._find_first(table)
        self.refresh()

    @property
    def next_due_ms(self) -> int | None:
        """When the next timer will fire (epoch ms); None when there is none, or while timers stand still."""
        return None if self.halted else self._next_due_ms

    @property
    def wants_comparison(self) -> bool:
        """Whether a timer is due and no commit has told the brokers' time yet."""
        return not self._compared and self._next_due_ms is not None and self._next_due_ms <= self._clock_ms()

    def due(self) -> list[Record]:
        """Up to TIMERS_AT_ONCE timers that are due, in order, as records; busy ones are left out."""
        now_ms = self._clock_ms()
        if self._table is None or self.halted or not self._compared:
            return []
        if self._next_due_ms is None or now_ms < self._next_due_ms:
            return []
        found: list[Record] = []
        start, stop = timers.due_until(now_ms)
        for row_key, payload in self._layers.scan(self._table, start, stop, base_start=min(self._first, stop)):
            timer = timers.parse_due_row(row_key, payload)
            if (timer.key, timer.name) in self.busy:
                continue
            found.append(Record(TIMERS, self._partition, -1, timer.key, timer, now_ms))
            if len(found) == TIMERS_AT_ONCE:
                break
        return found

    def is_set(self, timer: Record) -> bool:
        """Whether the timer that became this record is still set for the same time."""
        assert self._table is not None
        fired = timer.value
        return self._layers.get(self._table, timers.due_key(fired.due_ms, fired.key, fired.name)) is not None

    def refresh(self) -> None:
        """Find the next due time again, after timer rows or `busy` have changed."""
        self._next_due_ms = None
        if self._table is None:
            return
        rows = self._layers.scan(self._table, timers.DUE, timers.IDENTITY, base_start=self._first)
        for row_key, payload in rows:
            timer = timers.parse_due_row(row_key, payload)
            if (timer.key, timer.name) not in self.busy:
                self._next_due_ms = timer.due_ms
                return

    def applied(self, rows: Mapping[bytes, Row]) -> None:
        """Timer rows of a commit are in the base now.

        Timers are deleted where the next one is looked for, at the head of their order, and RocksDB would pass by all
        that it has not compacted yet, each time: milliseconds after some ten thousand timers.
        """
        assert self._table is not None
        added = (key for key, row in rows.items() if key.startswith(timers.DUE) and row.encoded is not None)
        self._first = min(chain((self._first,), added))
        head = rows.get(self._first)
        if head is not None and head.encoded is None:
            self._find_first(self._table)

    def _find_first(self, table: TableSpec) -> None:
        rows = self._layers.base.scan(table, self._first, timers.IDENTITY)
        self._first = next((key for key, _ in rows), timers.IDENTITY)

    def compare(self, broker_ms: int | None) -> None:
        """Take note of the brokers' time at a commit; None when the topics do not carry it (CreateTime)."""
        self._compared = True
        if broker_ms is None:
            return
        difference_ms = self._clock_ms() - broker_ms
        halted = abs(difference_ms) > CLOCK_DIFFERENCE_MAX_MS
        if halted and not self.halted:
            log.error("timers halted: set the host's clock", lane=self._lane, difference_ms=difference_ms)
        elif self.halted and not halted:
            log.info("timers go on", lane=self._lane, difference_ms=difference_ms)
        self.halted = halted
