"""Step 8, Settle, as records: entries from payments, barriers, chunks to submit, and what a day came to."""

from __future__ import annotations

from streams.domain.envelope import Command, Event


class Entry(Command, frozen=True, kw_only=True, gc=False):
    """Fields of all entries. `amount` in minor units; `settlement_date` names the window, never the record's time."""

    merchant_id: str
    currency: str
    settlement_date: str
    payment_id: str
    amount: int


class EntryAdded(Entry, frozen=True, kw_only=True, gc=False):
    """The payment enters the window; `transaction_id` is of the SETTLEMENT transaction to come."""

    type: str = "settlement_entry.added"
    transaction_id: str


class EntryRemoved(Entry, frozen=True, kw_only=True, gc=False):
    """The payment leaves the window, which is still open: it is being voided."""

    type: str = "settlement_entry.removed"
    transaction_id: str


class EntrySettled(Entry, frozen=True, kw_only=True, gc=False):
    """The provider captured the payment as an item of this chunk."""

    type: str = "settlement_entry.settled"
    batch_id: str
    chunk: int


class EntryFailed(Entry, frozen=True, kw_only=True, gc=False):
    """The provider refused it. `retryable`: the payment has entered a later window already."""

    type: str = "settlement_entry.failed"
    batch_id: str
    chunk: int
    retryable: bool


class DayBarrier(Command, frozen=True, kw_only=True, gc=False):
    """From now on this source partition adds nothing to the windows of `date` or before."""

    type: str = "settlement_day.barrier"
    date: str
    source_partition: int
    source_partitions: int


class SettleChunkRequest(Command, frozen=True, kw_only=True, gc=False):
    """Submit the items from first to last payment id (both included) once they come to `count` and `amount`."""

    type: str = "settlement_chunk.submit"
    batch_id: str
    chunk: int
    merchant_id: str
    currency: str
    settlement_date: str
    count: int
    amount: int
    first_payment_id: str
    last_payment_id: str


class ChunkClosed(Event, frozen=True, kw_only=True, gc=False):
    """A chunk was cut; the control totals are those of its whole window."""

    type: str = "settlement_chunk.closed"
    batch_id: str
    chunk: int
    merchant_id: str
    currency: str
    settlement_date: str
    count: int
    amount: int
    first_payment_id: str
    last_payment_id: str
    control_count: int
    control_amount: int


class BatchCompleted(Event, frozen=True, kw_only=True, gc=False):
    """Every item of the batch has been answered."""

    type: str = "settlement_batch.completed"
    batch_id: str
    merchant_id: str
    currency: str
    settlement_date: str
    count: int
    amount: int
    settled_count: int
    failed_count: int
    settled_amount: int
    failed_amount: int
    chunks: int


class DayClosed(Event, frozen=True, kw_only=True, gc=False):
    """A settlement partition has cut all its batches of the day; told even when there are none."""

    type: str = "settlement_day.closed"
    date: str
    partition: int
    partitions: int
    batches: int


SettlementCommand = EntryAdded | EntryRemoved | EntrySettled | EntryFailed | DayBarrier
