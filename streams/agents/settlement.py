"""Decider `settlement`, step 8 (Settle): fills merchants' daily windows, closes days behind barriers, cuts chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import assert_never

from streams.agents.messages import message_of
from streams.domain.batches import (
    CHUNK_MAX,
    Batch,
    Days,
    Item,
    Window,
    batch_completed,
    chunk_events,
    day_closed,
)
from streams.domain.envelope import Value
from streams.domain.settlement import (
    DayBarrier,
    EntryAdded,
    EntryFailed,
    EntryRemoved,
    EntrySettled,
    SettlementCommand,
)
from streams.exactly_once.effects import Effects, State
from streams.exactly_once.errors import Poison
from streams.exactly_once.records import TIMERS, Output, Record
from streams.exactly_once.table_spec import prefix_end
from tables.settlement import (
    BATCHES,
    DAYS,
    DAYS_KEY,
    ENTRIES,
    WINDOWS,
    entry_key,
    entry_prefix,
    window_key,
    window_prefix,
)

KINDS: Mapping[str, type[SettlementCommand]] = {
    kind.__name__: kind for kind in (EntryAdded, EntryRemoved, EntrySettled, EntryFailed, DayBarrier)
}

STEPS_MAX = 4
"""Chunks (or days without any) per call: 2,000 entries read, so that other merchants' entries never wait long."""

CUT = "cut"
"""Name of the timer that goes on where a call has stopped."""


class SettlementOutputs(Value, frozen=True, kw_only=True):
    """Where the agent writes: settlement.requests, settlement.events."""

    requests: Output
    events: Output


class Settlement:
    """The handler. `partitions`: of settlement.entries, each of which tells of every day."""

    tables = (ENTRIES, WINDOWS, BATCHES, DAYS)

    def __init__(self, outputs: SettlementOutputs, *, partitions: int, chunk_max: int = CHUNK_MAX) -> None:
        self._outputs = outputs
        self._partitions = partitions
        self._chunk_max = chunk_max

    def __call__(self, batch: Sequence[Record], state: State, effects: Effects) -> None:
        """Take every record of the batch in its order."""
        for record in batch:
            if record.topic == TIMERS:
                self._close_days(record, state, effects)
                continue
            command: SettlementCommand | None = record.value
            if command is not None:  # else: of a newer release
                self._take(record, command, state, effects)

    def dead_letter(self, record: Record, error: Exception, state: State, effects: Effects) -> None:
        """Nobody waits for a record of this agent; closing days goes on, whatever failed."""
        effects.set_timer(DAYS_KEY, CUT, record.timestamp_ms + 1000)

    def _take(self, record: Record, command: SettlementCommand, state: State, effects: Effects) -> None:
        if not isinstance(command, DayBarrier) and record.key != f"{command.merchant_id}:{command.currency}".encode():
            raise Poison(f"the key is not the entry's merchant and currency: {record.key[:80]!r}")
        match command:
            case EntryAdded():
                self._add(command, state, effects)
            case EntryRemoved():
                self._remove(command, state, effects)
            case EntrySettled() | EntryFailed():
                self._count(record, command, state, effects)
            case DayBarrier():
                days = _days(state).with_barrier(command, first_window=_first_window_day(state))
                effects.put(DAYS, DAYS_KEY, days)
                self._close_days(record, state, effects)
            case _:
                assert_never(command)

    def _add(self, entry: EntryAdded, state: State, effects: Effects) -> None:
        """One row per entry, so that a repeated one is harmless."""
        key = entry_key(entry.merchant_id, entry.currency, entry.settlement_date, entry.payment_id)
        if state.get(ENTRIES, key) is not None:
            return
        assert not _days(state).is_final(entry.settlement_date), f"an entry for {entry.settlement_date}, which is final"
        effects.put(ENTRIES, key, Item(payment_id=entry.payment_id, amount=entry.amount))
        _put_window(_window(entry, state).with_payment(entry.amount), effects)

    def _remove(self, entry: EntryRemoved, state: State, effects: Effects) -> None:
        key = entry_key(entry.merchant_id, entry.currency, entry.settlement_date, entry.payment_id)
        item: Item | None = state.get(ENTRIES, key)
        if item is None:
            return
        assert not _days(state).is_final(entry.settlement_date), f"{entry.payment_id} leaves a final day"
        effects.delete(ENTRIES, key)
        _put_window(_window(entry, state).without_payment(item.amount), effects)

    def _count(self, record: Record, answer: EntrySettled | EntryFailed, state: State, effects: Effects) -> None:
        """Count the provider's answer once: the entry's row goes with it."""
        key = entry_key(answer.merchant_id, answer.currency, answer.settlement_date, answer.payment_id)
        if state.get(ENTRIES, key) is None:
            return
        batch_key = answer.batch_id.encode()
        batch: Batch | None = state.get(BATCHES, batch_key)
        assert batch is not None, f"an answer for {answer.batch_id}, which is not under way"
        effects.delete(ENTRIES, key)
        batch = batch.with_answer(answer)
        if not batch.is_completed:
            effects.put(BATCHES, batch_key, batch)
            return
        effects.delete(BATCHES, batch_key)
        completed = batch_completed(batch, answer, record.timestamp_ms * 1000)
        effects.send(self._outputs.events, message_of(completed), key=record.key)

    def _close_days(self, record: Record, state: State, effects: Effects) -> None:
        """Cut what is final, a few chunks at a time, day by day; a timer goes on with the rest."""
        now_us = record.timestamp_ms * 1000
        for _ in range(STEPS_MAX):
            if not self._close_step(now_us, state, effects):
                return
        effects.set_timer(DAYS_KEY, CUT, record.timestamp_ms)

    def _close_step(self, now_us: int, state: State, effects: Effects) -> bool:
        """Cut one chunk, or tell that a day has none left. False when no final day is left to tell of."""
        days = _days(state)
        day = days.to_close
        if day is None:
            return False
        prefix = window_prefix(day)
        window = next((window for _, window in state.scan(WINDOWS, prefix, prefix_end(prefix))), None)
        if window is not None:
            self._cut(window, days, now_us, state, effects)
            return True
        closed = day_closed(day, days, partition=state.partition, partitions=self._partitions, now_us=now_us)
        effects.send(self._outputs.events, message_of(closed), key=day.encode(), partition=state.partition)
        effects.put(DAYS, DAYS_KEY, days.with_told(day))
        return True

    def _cut(self, window: Window, days: Days, now_us: int, state: State, effects: Effects) -> None:
        """Cut the next chunk of a window, in payment_id order; the window's row goes with its last chunk."""
        identity = (window.merchant_id, window.currency, window.settlement_date)
        batch = Batch(window=window)
        batch = state.get(BATCHES, batch.batch_id.encode()) or batch
        prefix = entry_prefix(*identity)
        start = entry_key(*identity, batch.last_cut) + b"\0" if batch.last_cut else prefix
        items = [item for _, item in islice(state.scan(ENTRIES, start, prefix_end(prefix)), self._chunk_max)]
        batch = batch.with_chunk(items)
        effects.put(BATCHES, batch.batch_id.encode(), batch)
        closed, request = chunk_events(batch, items, days, now_us)
        effects.send(self._outputs.events, message_of(closed), key=f"{window.merchant_id}:{window.currency}".encode())
        effects.send(self._outputs.requests, message_of(request), key=request.id.encode())
        if batch.is_cut:
            effects.delete(WINDOWS, window_key(*identity))
            effects.put(DAYS, DAYS_KEY, days.with_batch())


def _days(state: State) -> Days:
    return state.get(DAYS, DAYS_KEY) or Days()


def _window(entry: EntryAdded | EntryRemoved, state: State) -> Window:
    identity = (entry.merchant_id, entry.currency, entry.settlement_date)
    window: Window | None = state.get(WINDOWS, window_key(*identity))
    if window is not None:
        return window
    return Window(merchant_id=entry.merchant_id, currency=entry.currency, settlement_date=entry.settlement_date)


def _put_window(window: Window, effects: Effects) -> None:
    """Keep the window; an empty one is no window: its merchant has no batch that day."""
    key = window_key(window.merchant_id, window.currency, window.settlement_date)
    if window.count:
        effects.put(WINDOWS, key, window)
    else:
        effects.delete(WINDOWS, key)


def _first_window_day(state: State) -> str | None:
    """The day of the oldest window; their keys begin with the day."""
    window = next((window for _, window in state.scan(WINDOWS, b"", b"\xff")), None)
    return None if window is None else window.settlement_date
