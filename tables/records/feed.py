"""The merchant's feed (step 7, Notify): what GET /events and its stream read, in the order that the feed agent gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from streams.domain.payment import Payment
from tables.records import cql
from tables.records.session import RecordsSession, Row

BUCKET_EVENTS = 10_000  # a partition of about 10 MiB

_INSERT = cql.insert(
    "feed_events",
    "merchant_id, bucket, feed_sequence, event_id, type, sequence, occurred_at, payment, settlement_batch, endpoint_id",
)
_SELECT = cql.select(
    "feed_sequence, event_id, type, sequence, occurred_at, payment, settlement_batch, endpoint_id",
    "feed_events",
    "WHERE merchant_id = ? AND bucket = ? AND feed_sequence > ? LIMIT ?",
)
_decode_payment = msgspec.json.Decoder(Payment).decode


class FeedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One event as its merchant may see it; exactly one of payment, batch and endpoint_id is there."""

    feed_sequence: int  # from 1, without gaps: the cursor
    event_id: str  # also the webhook id
    type: str
    sequence: int
    occurred_at: int  # microseconds
    payment: Payment | None
    batch: dict[str, Any] | None
    endpoint_id: str | None


class FeedRecords:
    """Reads and writes of feed_events."""

    def __init__(self, session: RecordsSession) -> None:
        self._session = session

    async def write(self, fields: Mapping[str, Any]) -> None:
        """Store one FeedEvent; its row never changes."""
        sequence = fields["feed_sequence"]
        values = (
            fields["merchant_id"],
            sequence // BUCKET_EVENTS,
            sequence,
            fields["id"],
            fields["type"],
            fields["sequence"],
            fields["occurred_at"],
            _json(fields["payment"]),
            _json(fields["batch"]),
            fields["endpoint_id"],
            fields["occurred_at"],
        )
        await self._session.write([(_INSERT, values)])

    async def after(self, merchant_id: str, feed_sequence: int, *, limit: int) -> list[FeedEntry]:
        """Up to `limit` events behind the cursor (0: from the first), up to the first gap only.

        A gap is an event that is numbered but not yet recorded; nothing behind it is shown before it.
        """
        found: list[FeedEntry] = []
        expected = feed_sequence + 1
        while len(found) < limit:
            bucket, wanted = expected // BUCKET_EVENTS, limit - len(found)
            rows = await self._session.execute(_SELECT, (merchant_id, bucket, expected - 1, wanted))
            for row in rows:
                if row.feed_sequence != expected:
                    return found
                found.append(_entry_of_row(row))
                expected += 1
            if len(rows) < wanted and expected // BUCKET_EVENTS == bucket:
                break
        return found


def _json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _entry_of_row(row: Row) -> FeedEntry:
    return FeedEntry(
        feed_sequence=row.feed_sequence,
        event_id=row.event_id,
        type=row.type,
        sequence=row.sequence,
        occurred_at=row.occurred_at,
        payment=None if row.payment is None else _decode_payment(row.payment),
        batch=None if row.settlement_batch is None else msgspec.json.decode(row.settlement_batch),
        endpoint_id=row.endpoint_id,
    )
