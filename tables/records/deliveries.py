"""Webhook deliveries and their attempts (step 7, Notify), as merchants and operators read them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tables.records import cql
from tables.records.payments import END_OF_TIME, day_of
from tables.records.session import Mutation, RecordsSession, Row

_BASE = 1_600_000_000_000_000  # a delivery's rows are written at this plus the attempt: no clock is compared

_INSERT = cql.insert(
    "webhook_deliveries",
    "delivery_id, merchant_id, endpoint_id, event_id, event_type, payment_id, status, next_attempt_at, last_event_id,"
    " attempt, at, http_status, latency_ms, error",
)
_INSERT_BY_ENDPOINT = cql.insert("webhook_deliveries_by_endpoint", "endpoint_id, day, first_attempt_at, delivery_id")
_INSERT_DAY = cql.insert("webhook_delivery_days_by_endpoint", "endpoint_id, day")
_SELECT = cql.select("*", "webhook_deliveries", "WHERE delivery_id = ?")
_SELECT_DAYS = cql.select("day", "webhook_delivery_days_by_endpoint", "WHERE endpoint_id = ? AND day <= ?")
_SELECT_LIST = cql.select(
    "first_attempt_at, delivery_id",
    "webhook_deliveries_by_endpoint",
    "WHERE endpoint_id = ? AND day = ? AND (first_attempt_at, delivery_id) < (?, ?) LIMIT ?",
)


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt. `http_status` None: no answer came."""

    attempt: int
    at: int  # microseconds
    http_status: int | None
    latency_ms: int
    error: str | None


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """An event on its way to an endpoint."""

    delivery_id: str
    merchant_id: str
    endpoint_id: str
    event_id: str
    event_type: str
    payment_id: str | None
    status: str  # PENDING, DELIVERED, FAILED
    next_attempt_at: int | None
    attempts: tuple[Attempt, ...]


class DeliveryRecords:
    """Reads and writes of webhook_deliveries and their lists by endpoint."""

    def __init__(self, session: RecordsSession) -> None:
        self._session = session

    async def write_attempt(self, fields: Mapping[str, Any]) -> None:
        """Store one DeliveryAttempted; the first attempt also lists the delivery."""
        at, attempt = fields["occurred_at"], fields["attempt"]
        timestamp = _BASE + attempt
        delivery = [fields[name] for name in ("delivery_id", "merchant_id", "endpoint_id", "event_id", "event_type")]
        state = [fields[name] for name in ("payment_id", "status", "next_attempt_at", "id")]
        result = [fields[name] for name in ("http_status", "latency_ms", "error")]
        mutations: list[Mutation] = [[(_INSERT, (*delivery, *state, attempt, at, *result, timestamp))]]
        if attempt == 1:
            endpoint_id, day = fields["endpoint_id"], day_of(at)
            mutations.append([(_INSERT_BY_ENDPOINT, (endpoint_id, day, at, fields["delivery_id"], timestamp))])
            mutations.append([(_INSERT_DAY, (endpoint_id, day, timestamp))])
        await self._session.write(*mutations)

    async def get(self, delivery_id: str) -> Delivery | None:
        """The delivery with all its attempts, or None."""
        rows = await self._session.execute(_SELECT, (delivery_id,))
        return _delivery_of_rows(rows) if rows else None

    async def newest(
        self, endpoint_id: str, *, limit: int, status: str | None = None, starting_after: Delivery | None = None
    ) -> list[Delivery]:
        """Up to `limit` deliveries of an endpoint, newest first, behind the last one of the page before."""
        before = (END_OF_TIME, "")
        if starting_after is not None:
            before = (starting_after.attempts[0].at, starting_after.delivery_id)
        found: list[Delivery] = []
        for row in await self._session.execute(_SELECT_DAYS, (endpoint_id, day_of(before[0]))):
            page_rows = limit
            while len(found) < limit and page_rows == limit:
                rows = await self._session.execute(_SELECT_LIST, (endpoint_id, row.day, *before, limit))
                page = await asyncio.gather(*(self.get(listed.delivery_id) for listed in rows))
                found.extend(d for d in page if d is not None and (status is None or d.status == status))
                page_rows = len(rows)
                before = (rows[-1].first_attempt_at, rows[-1].delivery_id) if rows else before
        return found[:limit]


def _delivery_of_rows(rows: Sequence[Row]) -> Delivery:
    head = rows[0]
    attempts = tuple(
        Attempt(attempt=r.attempt, at=r.at, http_status=r.http_status, latency_ms=r.latency_ms, error=r.error)
        for r in rows
    )
    names = (name for name in Delivery.__struct_fields__ if name != "attempts")
    return Delivery(**{name: getattr(head, name) for name in names}, attempts=attempts)
