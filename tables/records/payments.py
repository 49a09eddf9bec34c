"""Payments and their history (step 3, Record), and the reads of the API.

Every write is the whole snapshot of a revision at `created_at + revision` microseconds: whatever arrives again or
late changes nothing. Transactions only become more, so no row of an earlier revision is ever left over. Payment,
transactions and history share the partition key: one mutation carries all three.
"""

from __future__ import annotations

import builtins
import zlib
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

import msgspec

from streams.domain.payment import Payment
from tables.records import cql
from tables.records.payment_rows import SELECT_PAYMENT, payment_of_rows, payment_statements
from tables.records.session import Mutation, RecordsSession

SHARDS = 8  # per merchant and day: at 1 KiB a row, 100 MiB partitions hold 800,000 payments of a merchant a day

_DAY_US = 86_400_000_000
END_OF_TIME = 253_402_300_799_000_000  # the last second of the year 9999, in microseconds

_INSERT_HISTORY = cql.insert(
    "payment_history",
    "payment_id, revision, event_id, event, type, version, status, transition, occurred_at, actor_identity,"
    " actor_role, request_id, command_id, snapshot",
)
_INSERT_BY_MERCHANT = cql.insert(
    "payments_by_merchant",
    "merchant_id, day, shard, created_at, payment_id, status, revision, last_event_id, snapshot",
)
_INSERT_DAY = cql.insert("payment_days_by_merchant", "merchant_id, day")

_SELECT_HISTORY = cql.select("*", "payment_history", "WHERE payment_id = ?")
_SELECT_REVISION = cql.select("snapshot", "payment_history", "WHERE payment_id = ? AND revision = ?")
_SELECT_DAYS = cql.select("day", "payment_days_by_merchant", "WHERE merchant_id = ? AND day >= ? AND day <= ?")
_ALL_SHARDS = ", ".join(map(str, range(SHARDS)))
_SELECT_LIST = cql.select(
    "created_at, payment_id, status, snapshot",
    "payments_by_merchant",
    f"WHERE merchant_id = ? AND day = ? AND shard IN ({_ALL_SHARDS})"
    " AND (created_at, payment_id) < (?, ?) AND (created_at) > (?)"
    " ORDER BY created_at DESC, payment_id DESC LIMIT ?",
)

_decode_payment = msgspec.json.Decoder(Payment).decode


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a payment and what the payment was after it."""

    payment_id: str
    revision: int
    event_id: str
    event: str  # record name: PaymentCreated, ...
    type: str  # payment.created, ...
    version: int
    status: str
    transition: bool  # False for PaymentUpdated, which no merchant sees
    occurred_at: int  # microseconds
    actor_identity: str
    actor_role: str
    request_id: str
    command_id: str
    snapshot: str  # JSON

    @property
    def payment(self) -> Payment:
        """The payment after this event."""
        return _decode_payment(self.snapshot)


class PaymentRecords:
    """Reads and writes of payments, payment_history, payments_by_merchant and payment_days_by_merchant."""

    def __init__(self, session: RecordsSession) -> None:
        self._session = session
        self._days_written: set[tuple[str, str]] = set()

    async def get(self, payment_id: str) -> Payment | None:
        """The payment as it is recorded, or None."""
        rows = await self._session.execute(SELECT_PAYMENT, (payment_id,))
        return payment_of_rows(payment_id, rows) if rows else None

    async def at_revision(self, payment_id: str, revision: int) -> Payment | None:
        """The payment right after the event of `revision` (idempotent answers are rebuilt from it)."""
        rows = await self._session.execute(_SELECT_REVISION, (payment_id, revision))
        return _decode_payment(rows[0].snapshot) if rows else None

    async def at_version(self, payment_id: str, version: int) -> Payment | None:
        """The payment right after the event that gave it `version`; a version beyond the last: as it is."""
        entries = [entry for entry in await self.history(payment_id) if entry.transition and entry.version <= version]
        if entries and entries[-1].version < version:
            return await self.get(payment_id)
        return entries[-1].payment if entries else None

    async def at_time(self, payment_id: str, at: int) -> Payment | None:
        """The payment at `at` (microseconds); None before its creation."""
        entries = [entry for entry in await self.history(payment_id) if entry.occurred_at <= at]
        return entries[-1].payment if entries else None

    async def history(self, payment_id: str) -> list[HistoryEntry]:
        """Every recorded event of the payment, oldest first; empty when it is not known."""
        rows = await self._session.execute(_SELECT_HISTORY, (payment_id,))
        return [HistoryEntry(**row._asdict()) for row in rows]

    async def write_event(self, event: str, fields: Mapping[str, Any], *also: Mutation) -> None:
        """Record what an event left its payment as; `also` are mutations that belong to the same event.

        `event` is the record's name, `fields` its Avro fields. Raises RecordsUnavailable, RecordsRefused, or KeyError
        for a field that is not there.
        """
        payment = fields["payment"]
        snapshot = msgspec.json.encode(payment).decode()
        at = payment["created_at"] + payment["revision"]
        mutations: list[Mutation] = [
            [*payment_statements(payment, fields["id"], at), _history_statement(event, fields, snapshot, at)],
            [_by_merchant_statement(payment, fields["id"], snapshot, at)],
            *also,
        ]
        day = (payment["merchant_id"], day_of(payment["created_at"]))
        if day not in self._days_written:
            mutations.append([(_INSERT_DAY, (*day, payment["created_at"]))])
        await self._session.write(*mutations)
        if len(self._days_written) > 100_000:  # bounds the memory; writing a day again is harmless
            self._days_written.clear()
        self._days_written.add(day)

    async def list(
        self,
        merchant_id: str,
        *,
        limit: int,
        status: str | None = None,
        created_after: int = 0,
        created_before: int | None = None,
        starting_after: Payment | None = None,
    ) -> Sequence[Payment]:
        """Up to `limit` payments of the merchant, newest first (ask for one more to know whether there are more).

        Bounds are microseconds and exclusive; `starting_after` is the last payment of the page before.
        """
        before = (END_OF_TIME if created_before is None else created_before, "")
        if starting_after is not None:
            before = min(before, (starting_after.created_at, starting_after.payment_id))
        found: builtins.list[Payment] = []
        days = await self._session.execute(_SELECT_DAYS, (merchant_id, day_of(created_after), day_of(before[0])))
        for row in days:
            await _list_day(self._session, found, merchant_id, row.day, before, created_after, status, limit)
            if len(found) >= limit:
                break
        return found


async def _list_day(
    session: RecordsSession,
    found: list[Payment],
    merchant_id: str,
    day: str,
    before: tuple[int, str],
    after: int,
    status: str | None,
    limit: int,
) -> None:
    while len(found) < limit:
        page = max(limit - len(found), 100 if status else 1)  # a filter may drop most of a page
        rows = await session.execute(_SELECT_LIST, (merchant_id, day, *before, after, page))
        wanted = [row for row in rows if status is None or row.status == status]
        found.extend(_decode_payment(row.snapshot) for row in wanted[: limit - len(found)])
        if len(rows) < page:
            return
        before = (rows[-1].created_at, rows[-1].payment_id)


def day_of(at: int) -> str:
    """The UTC date of a time in microseconds."""
    return _date_of(at // _DAY_US)


@lru_cache(maxsize=512)
def _date_of(days: int) -> str:
    return (date(1970, 1, 1) + timedelta(days)).isoformat()


def timestamp_of(payment: Mapping[str, Any]) -> int:
    """The write timestamp of a snapshot: it rises with the revision and compares no clocks."""
    return int(payment["created_at"] + payment["revision"])


def shard_of(payment_id: str) -> int:
    """Where in its merchant's day a payment is listed."""
    return zlib.crc32(payment_id.encode()) % SHARDS


def _history_statement(event: str, fields: Mapping[str, Any], snapshot: str, at: int) -> tuple[str, Sequence[Any]]:
    payment = fields["payment"]
    actor = fields["actor"]
    return _INSERT_HISTORY, (
        payment["payment_id"],
        payment["revision"],
        fields["id"],
        event,
        fields["type"],
        payment["version"],
        payment["status"],
        fields["sequence"] is not None,
        fields["occurred_at"],
        actor["identity"],
        actor["role"],
        fields["request_id"],
        fields["command_id"],
        snapshot,
        at,
    )


def _by_merchant_statement(
    payment: Mapping[str, Any], event_id: str, snapshot: str, at: int
) -> tuple[str, Sequence[Any]]:
    payment_id, created_at = payment["payment_id"], payment["created_at"]
    return _INSERT_BY_MERCHANT, (
        payment["merchant_id"],
        day_of(created_at),
        shard_of(payment_id),
        created_at,
        payment_id,
        payment["status"],
        payment["revision"],
        event_id,
        snapshot,
        at,
    )
