"""Payments and their history (step 3, Record), and the reads of the API.

Every write is the whole snapshot of a revision at `created_at + revision` microseconds: whatever arrives again or
late changes nothing. Transactions only become more, so no row of an earlier revision is ever left over. Payment,
transactions and history share the partition key: one mutation carries all three.
"""

from __future__ import annotations

import builtins
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from streams.domain.payment import Payment
from tables.records import cql
from tables.records.session import Mutation, RecordsSession, Row

SHARDS = 8  # per merchant and day: at 1 KiB a row, 100 MiB partitions hold 800,000 payments of a merchant a day

END_OF_TIME = 253_402_300_799_000_000  # the last second of the year 9999, in microseconds

_PAYMENT_COLUMNS = (
    "merchant_id, status, amount, amount_refunded, currency, personal_data, payment_method_token,"
    " client_secret_key_id, batch_id, settlement_date, version, revision, created_at, updated_at, expires_at, failure,"
    " last_event_id"
)
_TRANSACTION_COLUMNS = (
    "position, transaction_id, transaction_type, transaction_status, transaction_amount, transaction_currency,"
    " idempotency_key, provider_reference, attempts, error, transaction_created_at, transaction_updated_at"
)


_INSERT_PAYMENT = cql.insert("payments", f"payment_id, {_PAYMENT_COLUMNS}")
_INSERT_PAYMENT_AND_TRANSACTION = cql.insert("payments", f"payment_id, {_PAYMENT_COLUMNS}, {_TRANSACTION_COLUMNS}")
_INSERT_TRANSACTION = cql.insert("payments", f"payment_id, {_TRANSACTION_COLUMNS}")
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

_SELECT_PAYMENT = cql.select(f"{_PAYMENT_COLUMNS}, {_TRANSACTION_COLUMNS}", "payments", "WHERE payment_id = ?")
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
        rows = await self._session.execute(_SELECT_PAYMENT, (payment_id,))
        return _payment_of_rows(payment_id, rows) if rows else None

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
            [*_payment_statements(payment, fields["id"], at), _history_statement(event, fields, snapshot, at)],
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
    return datetime.fromtimestamp(at // 1_000_000, UTC).strftime("%Y-%m-%d")


def timestamp_of(payment: Mapping[str, Any]) -> int:
    """The write timestamp of a snapshot: it rises with the revision and compares no clocks."""
    return int(payment["created_at"] + payment["revision"])


def shard_of(payment_id: str) -> int:
    """Where in its merchant's day a payment is listed."""
    return zlib.crc32(payment_id.encode()) % SHARDS


def error_tuple(error: Mapping[str, Any] | None) -> tuple[Any, ...] | None:
    """A ProviderError as CQL's provider_error."""
    return None if error is None else (error["code"], error["decline_code"], error["retryable"], error["message"])


def _payment_statements(payment: Mapping[str, Any], event_id: str, at: int) -> list[tuple[str, Sequence[Any]]]:
    payment_id = payment["payment_id"]
    values = _payment_values(payment, event_id)
    transactions = payment["transactions"]
    if not transactions:
        return [(_INSERT_PAYMENT, (payment_id, *values, at))]
    first = (payment_id, *values, *_transaction_values(0, transactions[0]), at)
    return [
        (_INSERT_PAYMENT_AND_TRANSACTION, first),
        *(
            (_INSERT_TRANSACTION, (payment_id, *_transaction_values(position, transaction), at))
            for position, transaction in enumerate(transactions[1:], start=1)
        ),
    ]


def _payment_values(payment: Mapping[str, Any], event_id: str) -> tuple[Any, ...]:
    personal = payment["personal_data"]
    return (
        payment["merchant_id"],
        payment["status"],
        payment["amount"],
        payment["amount_refunded"],
        payment["currency"],
        None if personal is None else (personal["key_id"], personal["nonce"], personal["ciphertext"]),
        payment["payment_method_token"],
        payment["client_secret_key_id"],
        payment["batch_id"],
        payment["settlement_date"],
        payment["version"],
        payment["revision"],
        payment["created_at"],
        payment["updated_at"],
        payment["expires_at"],
        error_tuple(payment["failure"]),
        event_id,
    )


def _transaction_values(position: int, transaction: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        position,
        transaction["transaction_id"],
        transaction["type"],
        transaction["status"],
        transaction["amount"],
        transaction["currency"],
        transaction["idempotency_key"],
        transaction["provider_reference"],
        transaction["attempts"],
        error_tuple(transaction["error"]),
        transaction["created_at"],
        transaction["updated_at"],
    )


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


def _payment_of_rows(payment_id: str, rows: Sequence[Row]) -> Payment:
    """The struct of a partition: its static columns are the same in every row."""
    head = rows[0]
    fields: dict[str, Any] = {name: getattr(head, name) for name in _PAYMENT_FIELDS}
    fields["payment_id"] = payment_id
    fields["personal_data"] = _struct(head.personal_data)
    fields["failure"] = _struct(head.failure)
    fields["transactions"] = [_transaction_of_row(row) for row in rows if row.position is not None]
    return msgspec.convert(fields, Payment, strict=False)


_PAYMENT_FIELDS = [name for name in cql.names(_PAYMENT_COLUMNS) if name != "last_event_id"]


def _transaction_of_row(row: Row) -> dict[str, Any]:
    return {
        "transaction_id": row.transaction_id,
        "type": row.transaction_type,
        "status": row.transaction_status,
        "amount": row.transaction_amount,
        "currency": row.transaction_currency,
        "idempotency_key": row.idempotency_key,
        "provider_reference": row.provider_reference,
        "attempts": row.attempts,
        "error": _struct(row.error),
        "created_at": row.transaction_created_at,
        "updated_at": row.transaction_updated_at,
    }


def _struct(value: Any) -> dict[str, Any] | None:
    return None if value is None else value._asdict()
