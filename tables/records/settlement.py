"""Settlement as it is recorded (step 8): items of payments.events, batches, chunks and runs of settlement.events.

Items come from the payments' own events and never from the settlement agent, so that comparing them with its control
totals means something. Batches and runs are written at the midnight of their day plus their phase: a batch is only
ever closed and then completed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import Any

import msgspec

from tables.records import cql
from tables.records.payments import PaymentRecords
from tables.records.session import Mutation, RecordsSession, Row
from tables.records.settlement_items import ITEM_COLUMNS, SettlementItem, item_of_row, item_statement, items_of

_ANSWERED = frozenset({"SETTLED", "FAILED"})
_CLOSED, _COMPLETED = 1, 2  # phases of a batch, added to its day's midnight

_TOTALS = "count, amount, settled_count, failed_count, settled_amount, failed_amount, chunks"
_SUMMARY = f"batch_id, merchant_id, settlement_date, currency, status, {_TOTALS}"
_CHUNK = "chunk, chunk_count, chunk_amount, first_payment_id, last_payment_id"
_INSERT_BATCH = cql.insert("settlement_batches", f"{_SUMMARY}, last_event_id")
_INSERT_CHUNK = cql.insert("settlement_batches", f"batch_id, {_CHUNK}, chunk_event_id")
_INSERT_BY_DATE = cql.insert("settlement_batches_by_date", _SUMMARY)
_INSERT_BY_MERCHANT = cql.insert("settlement_batches_by_merchant", _SUMMARY)
_INSERT_RUN_PARTITION = cql.insert(
    "settlement_run_partitions", "settlement_date, partition, partitions, batches, closed_at, event_id"
)
_CREATE_RUN = cql.create("settlement_runs", "settlement_date, requested_at, requested_by, forced")
_SELECT_ITEMS = cql.select(ITEM_COLUMNS, "settlement_items", "WHERE batch_id = ?")
_SELECT_ITEM_RANGE = f"{_SELECT_ITEMS} AND payment_id >= ? AND payment_id <= ?"
_SELECT_ITEM_PAGE = f"{_SELECT_ITEMS} AND payment_id > ? LIMIT ?"
_SELECT_BATCH = cql.select(f"{_SUMMARY}, {_CHUNK}", "settlement_batches", "WHERE batch_id = ?")
_SELECT_BY_DATE = cql.select(_SUMMARY, "settlement_batches_by_date", "WHERE settlement_date = ?")
_SELECT_DATE_PAGE = f"{_SELECT_BY_DATE} AND batch_id > ? LIMIT ?"
_SELECT_DATES = cql.select("DISTINCT settlement_date", "settlement_batches_by_date")
_SELECT_BY_MERCHANT = cql.select(_SUMMARY, "settlement_batches_by_merchant", "WHERE merchant_id = ?")
_SELECT_MERCHANT_DATE = f"{_SELECT_BY_MERCHANT} AND settlement_date = ?"
_SELECT_RUN = cql.select("requested_at, requested_by, forced", "settlement_runs", "WHERE settlement_date = ?")
_SELECT_RUN_PARTITIONS = cql.select(
    "partition, partitions, batches, closed_at", "settlement_run_partitions", "WHERE settlement_date = ?"
)
_SELECT_REPORTED_DATES = cql.select("DISTINCT settlement_date", "settlement_run_partitions")


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """Part of a batch that goes to the provider in one call."""

    chunk: int
    count: int
    amount: int
    first_payment_id: str
    last_payment_id: str
    status: str  # SUBMITTED, COMPLETED


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A merchant's payments of one day and currency. `chunks` is empty in lists."""

    batch_id: str
    merchant_id: str
    settlement_date: str
    currency: str
    status: str  # SUBMITTING, COMPLETED
    count: int
    amount: int
    settled_count: int
    failed_count: int
    settled_amount: int
    failed_amount: int
    chunks: tuple[Chunk, ...] = ()


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The closing of a day. `totals`: currency -> SETTLED or FAILED -> {count, amount} of completed batches."""

    settlement_date: str
    status: str  # CLOSING, SUBMITTING, COMPLETED
    totals: dict[str, dict[str, dict[str, int]]]
    requested_at: int | None  # null for a day that a later day's closing closed


class SettlementRecords:
    """Reads and writes of the settlement tables."""

    def __init__(self, session: RecordsSession, payments: PaymentRecords) -> None:
        self._session = session
        self._payments = payments

    async def item_mutations(self, fields: Mapping[str, Any]) -> list[Mutation]:
        """What a payment's event means for the batches that the payment is, or was, in."""
        payment = fields["payment"]
        items = items_of(payment)
        if any(transaction["type"] == "VOID" for transaction in payment["transactions"]):
            # A payment that left its batch no longer names it: its own history does.
            history = await self._payments.history(payment["payment_id"])
            earlier = [entry.payment for entry in history if entry.revision < payment["revision"]]
            for batch_id in {was.batch_id for was in earlier if was.batch_id is not None}:
                items.setdefault(batch_id, ("REMOVED", None))
        return [[item_statement(fields, batch_id, *item)] for batch_id, item in sorted(items.items())]

    async def write_chunk_closed(self, fields: Mapping[str, Any]) -> None:
        """A chunk, and its batch as SUBMITTING with the totals of its window."""
        totals = (fields["control_count"], fields["control_amount"], 0, 0, 0, 0, 0)
        at = _midnight(fields["settlement_date"]) + _CLOSED
        chunk = (fields["batch_id"], fields["chunk"], fields["count"], fields["amount"])
        payments = (fields["first_payment_id"], fields["last_payment_id"], fields["id"])
        await self._write_batch(fields, "SUBMITTING", totals, at, (_INSERT_CHUNK, (*chunk, *payments, at)))

    async def write_batch_completed(self, fields: Mapping[str, Any]) -> None:
        """The batch as COMPLETED: nothing changes it any more."""
        totals = tuple(fields[name] for name in cql.names(_TOTALS))
        await self._write_batch(fields, "COMPLETED", totals, _midnight(fields["settlement_date"]) + _COMPLETED)

    async def write_day_closed(self, fields: Mapping[str, Any]) -> None:
        """One settlement partition's report that a day is closed."""
        values = (fields["date"], fields["partition"], fields["partitions"], fields["batches"], fields["occurred_at"])
        at = _midnight(fields["date"]) + _CLOSED
        await self._session.write([(_INSERT_RUN_PARTITION, (*values, fields["id"], at))])

    async def create_run(self, settlement_date: str, *, requested_at: int, requested_by: str, forced: bool) -> bool:
        """Note that a day's closing was asked for; False when it had been."""
        return await self._session.apply(_CREATE_RUN, (settlement_date, requested_at, requested_by, forced))

    async def run(self, settlement_date: str) -> Run | None:
        """The run of a day, or None when nobody asked for it and no partition has closed it."""
        requests = await self._session.execute(_SELECT_RUN, (settlement_date,))
        reports = {
            row.partition: row for row in await self._session.execute(_SELECT_RUN_PARTITIONS, (settlement_date,))
        }
        if not requests and not reports:
            return None
        completed = 0
        totals: dict[str, dict[str, dict[str, int]]] = {}
        async for batch in self.batches_of_date(settlement_date):
            if batch.status == "COMPLETED":
                completed += 1
                _add(totals, batch.currency, "SETTLED", batch.settled_count, batch.settled_amount)
                _add(totals, batch.currency, "FAILED", batch.failed_count, batch.failed_amount)
        return Run(
            settlement_date=settlement_date,
            status=await self._run_status(settlement_date, reports, completed),
            totals=totals,
            requested_at=requests[0].requested_at if requests else None,
        )

    async def _run_status(self, settlement_date: str, reports: Mapping[int, Row], completed: int) -> str:
        """A partition tells of days in their order, from its oldest window on.

        One that told of a later day and not of this one has nothing of this one.
        """
        through = dict(reports)
        if not _all_told(through):
            for later in await self._reported_dates(after=settlement_date):
                for row in await self._session.execute(_SELECT_RUN_PARTITIONS, (later,)):
                    through.setdefault(row.partition, row)
                if _all_told(through):
                    break
            else:
                return "CLOSING"
        return "COMPLETED" if completed >= sum(row.batches for row in reports.values()) else "SUBMITTING"

    async def _reported_dates(self, *, after: str) -> list[str]:
        """Days that some partition told of, oldest first."""
        pages = self._session.pages(_SELECT_REPORTED_DATES)
        return sorted([row.settlement_date async for rows in pages for row in rows if row.settlement_date > after])

    async def batch(self, batch_id: str) -> Batch | None:
        """The batch with its chunks, or None."""
        rows = await self._session.execute(_SELECT_BATCH, (batch_id,))
        if not rows:
            return None
        status = "COMPLETED" if rows[0].status == "COMPLETED" else "SUBMITTED"
        chunks = tuple(
            Chunk(
                chunk=row.chunk,
                count=row.chunk_count,
                amount=row.chunk_amount,
                first_payment_id=row.first_payment_id,
                last_payment_id=row.last_payment_id,
                status=status,
            )
            for row in rows
            if row.chunk is not None
        )
        return _batch_of_row(rows[0], chunks)

    async def batches_of_date(self, settlement_date: str) -> AsyncIterator[Batch]:
        """Every merchant's batches of a day, by batch id."""
        async for rows in self._session.pages(_SELECT_BY_DATE, (settlement_date,)):
            for row in rows:
                yield _batch_of_row(row)

    async def page_of_date(self, settlement_date: str, *, limit: int, starting_after: str = "") -> list[Batch]:
        """Up to `limit` batches of a day behind the batch id `starting_after`."""
        rows = await self._session.execute(_SELECT_DATE_PAGE, (settlement_date, starting_after, limit))
        return [_batch_of_row(row) for row in rows]

    async def page_of_all(self, *, limit: int, after: Batch | None = None) -> list[Batch]:
        """Up to `limit` batches of every merchant behind `after`: newest day first, by batch id within a day."""
        found: list[Batch] = []
        for day in await self.dates():
            if len(found) == limit:
                break
            if after is None or day <= after.settlement_date:
                behind = after.batch_id if after is not None and day == after.settlement_date else ""
                found += await self.page_of_date(day, limit=limit - len(found), starting_after=behind)
        return found

    async def dates(self) -> list[str]:
        """The days that have batches, newest first. One row of each is read: some hundred in a year."""
        pages = self._session.pages(_SELECT_DATES)
        return sorted([row.settlement_date async for rows in pages for row in rows], reverse=True)

    async def batches_of_merchant(self, merchant_id: str, settlement_date: str | None = None) -> list[Batch]:
        """A merchant's batches, newest day first: at most one per day and currency."""
        cql, values = _SELECT_BY_MERCHANT, [merchant_id]
        if settlement_date is not None:
            cql, values = _SELECT_MERCHANT_DATE, [merchant_id, settlement_date]
        return [_batch_of_row(row) async for rows in self._session.pages(cql, values) for row in rows]

    async def items(self, batch_id: str, *, limit: int, starting_after: str = "") -> list[SettlementItem]:
        """Up to `limit` items of a batch in payment_id order behind `starting_after`; removed ones left out."""
        found: list[SettlementItem] = []
        while len(found) < limit:
            wanted = limit - len(found)
            rows = await self._session.execute(_SELECT_ITEM_PAGE, (batch_id, starting_after, wanted))
            found.extend(item_of_row(row) for row in rows if row.status != "REMOVED")
            if len(rows) < wanted:
                break
            starting_after = rows[-1].payment_id
        return found

    async def items_between(self, batch_id: str, first: str, last: str) -> list[SettlementItem]:
        """The items of a chunk: those with first <= payment_id <= last, removed ones left out."""
        pages = self._session.pages(_SELECT_ITEM_RANGE, (batch_id, first, last))
        return [item_of_row(row) async for rows in pages for row in rows if row.status != "REMOVED"]

    async def is_answered(self, batch_id: str, chunk: Chunk) -> bool:
        """Whether the provider's answer for every payment of the chunk is recorded."""
        items = await self.items_between(batch_id, chunk.first_payment_id, chunk.last_payment_id)
        return sum(item.status in _ANSWERED for item in items) >= chunk.count

    async def _write_batch(
        self,
        fields: Mapping[str, Any],
        status: str,
        totals: Sequence[int],
        at: int,
        *also: tuple[str, Sequence[Any]],
    ) -> None:
        merchant_id, day = fields["merchant_id"], fields["settlement_date"]
        summary = (fields["batch_id"], merchant_id, day, fields["currency"], status, *totals)
        await self._session.write(
            [(_INSERT_BATCH, (*summary, fields["id"], at)), *also],
            [(_INSERT_BY_DATE, (*summary, at))],
            [(_INSERT_BY_MERCHANT, (*summary, at))],
        )


def _all_told(reports: Mapping[int, Row]) -> bool:
    return bool(reports) and len(reports) >= max(row.partitions for row in reports.values())


def _add(totals: dict[str, dict[str, dict[str, int]]], currency: str, status: str, count: int, amount: int) -> None:
    total = totals.setdefault(currency, {}).setdefault(status, {"count": 0, "amount": 0})
    total["count"] += count
    total["amount"] += amount


def _batch_of_row(row: Row, chunks: tuple[Chunk, ...] = ()) -> Batch:
    names = (name for name in Batch.__struct_fields__ if name != "chunks")
    return Batch(**{name: getattr(row, name) for name in names}, chunks=chunks)


def _midnight(day: str) -> int:
    """Microseconds of a UTC day's beginning."""
    return int(datetime.combine(date.fromisoformat(day), time(), UTC).timestamp()) * 1_000_000
