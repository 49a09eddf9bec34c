"""Step 8, Settle, for a merchant's day: windows fill, days close behind barriers, chunks are cut and answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from streams.domain import ids
from streams.domain.envelope import BATCH_PROCESSOR, Command, Value
from streams.domain.settlement import (
    BatchCompleted,
    ChunkClosed,
    DayBarrier,
    DayClosed,
    EntryFailed,
    EntrySettled,
    SettleChunkRequest,
)
from streams.domain.settlement_days import next_day

CHUNK_MAX = 500
"""Items of one submission: what the provider takes in one request."""


class Window(Value, frozen=True, kw_only=True, gc=False):
    """One merchant's payments in one currency that settle on one day (a tumbling window): the control totals."""

    merchant_id: str
    currency: str
    settlement_date: str
    count: int = 0
    amount: int = 0

    def with_payment(self, amount: int) -> Window:
        """The window with one payment more."""
        return replace(self, count=self.count + 1, amount=self.amount + amount)

    def without_payment(self, amount: int) -> Window:
        """The window with one payment less."""
        assert self.count > 0, "a payment leaves an empty window"
        return replace(self, count=self.count - 1, amount=self.amount - amount)


class Item(Value, frozen=True, kw_only=True, gc=False):
    """A payment in its window, until the provider's answer for it has been counted."""

    payment_id: str
    amount: int


class Batch(Value, frozen=True, kw_only=True, gc=False):
    """A closed window on its way through the provider. `last_cut`: the payment up to which chunks have been cut."""

    window: Window
    chunks: int = 0
    last_cut: str = ""
    cut_count: int = 0
    cut_amount: int = 0
    settled_count: int = 0
    settled_amount: int = 0
    failed_count: int = 0
    failed_amount: int = 0

    @property
    def batch_id(self) -> str:
        """Derived from merchant, currency and day."""
        return ids.batch_id(self.window.merchant_id, self.window.currency, self.window.settlement_date)

    @property
    def is_cut(self) -> bool:
        """True once every payment of the window is in a chunk. Asserts that the chunks come to the control totals."""
        if self.cut_count < self.window.count:
            return False
        assert (self.cut_count, self.cut_amount) == (self.window.count, self.window.amount), "chunks exceed the window"
        return True

    @property
    def is_completed(self) -> bool:
        """True once every payment of the window has been answered."""
        return self.settled_count + self.failed_count == self.window.count

    def with_chunk(self, items: Sequence[Item]) -> Batch:
        """The batch with one more chunk; `items` in payment_id order, behind `last_cut`."""
        assert items, "the window's totals promise more payments than there are"
        return replace(
            self,
            chunks=self.chunks + 1,
            last_cut=items[-1].payment_id,
            cut_count=self.cut_count + len(items),
            cut_amount=self.cut_amount + sum(item.amount for item in items),
        )

    def with_answer(self, answer: EntrySettled | EntryFailed) -> Batch:
        """The batch with one more payment answered."""
        assert answer.chunk < self.chunks, "an answer for a chunk that was never cut"
        if isinstance(answer, EntrySettled):
            settled_amount = self.settled_amount + answer.amount
            return replace(self, settled_count=self.settled_count + 1, settled_amount=settled_amount)
        failed_amount = self.failed_amount + answer.amount
        return replace(self, failed_count=self.failed_count + 1, failed_amount=failed_amount)


class Days(Value, frozen=True, kw_only=True, gc=False):
    """How far a settlement partition is with closing days.

    `barriers`: the last day that each source partition has closed, by its number; a day is final here once all
    sources have closed it. `next_date`: the first day whose DayClosed was not emitted, None before any day was final;
    `batches`: how many were cut of it so far.
    `request_id`, `traceparent`: of the close that came last.
    """

    barriers: Mapping[int, str] = msgspec.field(default_factory=dict)
    sources: int = 0
    next_date: str | None = None
    batches: int = 0
    request_id: str = ""
    traceparent: str | None = None

    @property
    def final(self) -> str | None:
        """The last day that is final, or None: a barrier for a day stands for all days before it."""
        if not self.sources or len(self.barriers) < self.sources:
            return None
        return min(self.barriers.values())

    def is_final(self, day: str) -> bool:
        """True when nothing can enter or leave the windows of `day` any more."""
        return self.final is not None and day <= self.final

    def with_barrier(self, barrier: DayBarrier, *, first_window: str | None) -> Days:
        """The days with one more barrier; one for a day that the source had closed changes nothing.

        `first_window`: the day of the oldest window there is: closing begins with it.
        """
        if barrier.date <= self.barriers.get(barrier.source_partition, ""):
            return self
        after = replace(
            self,
            barriers={**self.barriers, barrier.source_partition: barrier.date},
            sources=barrier.source_partitions,
            request_id=barrier.request_id,
            traceparent=barrier.traceparent,
        )
        if after.next_date is None and after.final is not None:
            return replace(after, next_date=min(first_window or after.final, after.final))
        return after

    def with_batch(self) -> Days:
        """The days with one more batch of the day that is being closed."""
        return replace(self, batches=self.batches + 1)

    def with_told(self, day: str) -> Days:
        """The days once the DayClosed of `day` was emitted."""
        return replace(self, next_date=next_day(day), batches=0)

    @property
    def to_close(self) -> str | None:
        """The first final day that was not told yet, or None."""
        if self.next_date is None or not self.is_final(self.next_date):
            return None
        return self.next_date


def chunk_events(
    batch: Batch, items: Sequence[Item], days: Days, now_us: int
) -> tuple[ChunkClosed, SettleChunkRequest]:
    """What tells of a batch's newest chunk, and what has it submitted; derived from batch and number alone."""
    chunk = batch.chunks - 1
    shared: dict[str, Any] = {
        "occurred_at": now_us,
        "actor": BATCH_PROCESSOR,
        "request_id": days.request_id,
        "batch_id": batch.batch_id,
        "chunk": chunk,
        **_identity(batch.window),
        "count": len(items),
        "amount": sum(item.amount for item in items),
        "first_payment_id": items[0].payment_id,
        "last_payment_id": items[-1].payment_id,
    }
    closed = ChunkClosed(
        id=ids.derived(ids.EVENT, batch.batch_id, str(chunk)),
        control_count=batch.window.count,
        control_amount=batch.window.amount,
        **shared,
    )
    return closed, SettleChunkRequest(id=f"{batch.batch_id}:{chunk}", traceparent=days.traceparent, **shared)


def batch_completed(batch: Batch, cause: Command, now_us: int) -> BatchCompleted:
    """What tells that every payment of the batch has been answered; `cause` is the last answer."""
    return BatchCompleted(
        id=ids.derived(ids.EVENT, batch.batch_id, "completed"),
        occurred_at=now_us,
        actor=BATCH_PROCESSOR,
        request_id=cause.request_id,
        batch_id=batch.batch_id,
        **_identity(batch.window),
        count=batch.window.count,
        amount=batch.window.amount,
        settled_count=batch.settled_count,
        failed_count=batch.failed_count,
        settled_amount=batch.settled_amount,
        failed_amount=batch.failed_amount,
        chunks=batch.chunks,
    )


def day_closed(day: str, days: Days, *, partition: int, partitions: int, now_us: int) -> DayClosed:
    """What tells that a settlement partition has cut all its batches of a day."""
    return DayClosed(
        id=ids.derived(ids.EVENT, "day", day, str(partition)),
        occurred_at=now_us,
        actor=BATCH_PROCESSOR,
        request_id=days.request_id,
        date=day,
        partition=partition,
        partitions=partitions,
        batches=days.batches,
    )


def _identity(window: Window) -> dict[str, Any]:
    return {
        "merchant_id": window.merchant_id,
        "currency": window.currency,
        "settlement_date": window.settlement_date,
    }
