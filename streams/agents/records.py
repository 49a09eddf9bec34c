"""Effector `records`: writes what was decided to Cassandra (step 3, Record), replies (4), passes on (7).

The order is the promise: first the write, then the reply, so that a GET right after the answer finds the payment, and
only then the merchant's event, so that no webhook arrives before the GET that it invites. While Cassandra is away a
record waits here, with its key's later ones behind it; nothing is skipped and nothing becomes a dead letter for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge

from ops.runtime.logs import log_context, logger
from streams.exactly_once.effects import Effects, State
from streams.exactly_once.failpoints import failpoint
from streams.exactly_once.records import Output, Record
from tables.records.errors import ItemsMissing, RecordsUnavailable
from tables.records.session import Mutation
from tables.records.settlement import Chunk
from tables.records.store import RecordStore
from topics.codec import Message

Reply = Callable[[int, Message], None]
"""Sends a CommandReply to a partition of payments.replies, at once and without waiting."""

BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 2.0  # a returning database is found within this time
ITEMS_TIMEOUT_S = 200.0  # of waiting for one chunk, outages apart; with the engine's retries, ten minutes

T = TypeVar("T")

PAYMENT_EVENTS = frozenset(
    f"Payment{what}"
    for what in (
        *("Created", "Processing", "Authorized", "Declined", "Failed"),
        *("Canceled", "Expired", "Settled", "Refunded", "Updated"),
    )
)
_OUTCOMES = {"CommandRejected": "rejected", "CommandRepeated": "repeated", "CommandFailed": "failed"}
_ENTERED_SETTLEMENT = frozenset({"AUTHORIZED", "SETTLED", "FAILED", "CANCELED"})


class Records:
    """The handler of payments.events, settlement.events, merchants.events and webhooks.outcomes.

    Their partition counts differ, so the app declares it more than once: `records` for the first, `merchant_records`
    for the topics by merchant, but for merchants.events, which `feed_records` has: they need no order.
    """

    def __init__(
        self, store: RecordStore, reply: Reply, inbox: Output, *, registry: CollectorRegistry | None = None
    ) -> None:
        self._store = store
        self._reply = reply
        self._inbox = inbox
        self._waiters = 0
        self._away_since = 0.0  # monotonic seconds
        self._waiting = Gauge(
            "payments_records_waiting", "Events that wait for Cassandra to come back", registry=registry
        )
        self._unavailable = Counter(
            "payments_records_unavailable_total", "Writes that were put off by an outage", registry=registry
        )
        self._handlers: dict[str, Callable[[str, Mapping[str, Any], Effects], Awaitable[None]]] = {
            **dict.fromkeys(PAYMENT_EVENTS, self._payment_event),
            **dict.fromkeys(_OUTCOMES, self._command_outcome),
            "ChunkClosed": self._chunk_closed,
            "BatchCompleted": self._batch_completed,
            "DayClosed": self._day_closed,
            "FeedEvent": self._feed_event,
            "DeliveryAttempted": self._delivery_attempted,
            "EndpointDisabled": self._endpoint_disabled,
        }

    async def __call__(self, record: Record, _state: State, effects: Effects) -> None:
        """Record one event; whatever is raised but an outage is the record's own fault."""
        message: Message = record.value
        handle = self._handlers.get(message.name)
        if handle is not None:  # else: of a newer release
            await handle(message.name, message.fields, effects)

    async def _payment_event(self, name: str, fields: Mapping[str, Any], effects: Effects) -> None:
        payment = fields["payment"]
        with log_context(request_id=fields["request_id"], payment_id=payment["payment_id"]):
            await self._until_done(lambda: self._write_payment(name, fields))
            failpoint("after_record")
            self._answer(name, fields, payment["payment_id"])
            failpoint("after_reply")
        if fields["sequence"] is not None:
            self._pass_on(effects, fields, payment["merchant_id"], fields["sequence"], payment=payment)

    async def _write_payment(self, name: str, fields: Mapping[str, Any]) -> None:
        items: list[Mutation] = []
        if fields["payment"]["status"] in _ENTERED_SETTLEMENT:
            items = await self._store.settlement.item_mutations(fields)
        await self._store.payments.write_event(name, fields, *items)

    async def _command_outcome(self, name: str, fields: Mapping[str, Any], _effects: Effects) -> None:
        """Nothing changed: what the answer rests on was recorded before, for it has the same key."""
        self._answer(name, fields, fields["payment_id"])

    def _answer(self, name: str, fields: Mapping[str, Any], payment_id: str) -> None:
        reply_to = fields["reply_to"]
        if reply_to is None:
            return
        payment = fields.get("payment")
        reply = {
            "id": fields["id"],
            "command_id": fields["command_id"],
            "correlation_id": reply_to["correlation_id"],
            "payment_id": payment_id,
            "outcome": _OUTCOMES.get(name, "accepted"),
            "event": name,
            "code": "internal_error" if name == "CommandFailed" else fields.get("code"),
            "status_code": fields.get("status_code"),
            "revision": fields.get("revision") if payment is None else payment["revision"],
            "payment_status": fields.get("payment_status") if payment is None else payment["status"],
            "payment": payment,
        }
        self._reply(reply_to["partition"], Message("CommandReply", reply))

    async def _chunk_closed(self, _name: str, fields: Mapping[str, Any], _effects: Effects) -> None:
        await self._until_done(lambda: self._store.settlement.write_chunk_closed(fields))

    async def _batch_completed(self, _name: str, fields: Mapping[str, Any], effects: Effects) -> None:
        """Last, for other lanes record its items: who reads COMPLETED or hears of it finds each payment as it ended."""
        batch = await self._until_done(lambda: self._store.settlement.batch(fields["batch_id"]))
        for chunk in batch.chunks if batch is not None else ():
            await self._until_answered(fields["batch_id"], chunk)
        await self._until_done(lambda: self._store.settlement.write_batch_completed(fields))
        names = ("batch_id", "settlement_date", "currency", "count", "amount", "settled_count", "failed_count")
        self._pass_on(effects, fields, fields["merchant_id"], 1, batch={name: fields[name] for name in names})

    async def _day_closed(self, _name: str, fields: Mapping[str, Any], _effects: Effects) -> None:
        await self._until_done(lambda: self._store.settlement.write_day_closed(fields))

    async def _feed_event(self, _name: str, fields: Mapping[str, Any], _effects: Effects) -> None:
        await self._until_done(lambda: self._store.feed.write(fields))

    async def _delivery_attempted(self, _name: str, fields: Mapping[str, Any], _effects: Effects) -> None:
        await self._until_done(lambda: self._store.deliveries.write_attempt(fields))

    async def _endpoint_disabled(self, _name: str, fields: Mapping[str, Any], effects: Effects) -> None:
        merchant_id, endpoint_id = fields["merchant_id"], fields["endpoint_id"]
        await self._until_done(
            lambda: self._store.endpoints.disable(
                merchant_id,
                endpoint_id,
                reason=fields["reason"],
                failing_since=fields["failing_since"],
                at=fields["occurred_at"],
            )
        )
        self._pass_on(effects, fields, merchant_id, 1, endpoint_id=endpoint_id)

    def _pass_on(
        self, effects: Effects, fields: Mapping[str, Any], merchant_id: str, sequence: int, **subject: Any
    ) -> None:
        """To the merchant's feed: exactly one of payment, batch and endpoint_id in `subject`."""
        event = {
            "id": fields["id"],
            "type": fields["type"],
            "sequence": sequence,
            "occurred_at": fields["occurred_at"],
            "merchant_id": merchant_id,
            "payment": None,
            "batch": None,
            "endpoint_id": None,
            **subject,
        }
        effects.send(self._inbox, Message("MerchantEvent", event), key=merchant_id.encode())

    async def _until_answered(self, batch_id: str, chunk: Chunk) -> None:
        """Wait for the lanes that record the chunk's items. Raises ItemsMissing when they do not come."""
        delay_s, waited_s = BACKOFF_FIRST_S, 0.0
        while not await self._until_done(lambda: self._store.settlement.is_answered(batch_id, chunk)):
            if waited_s > ITEMS_TIMEOUT_S:
                raise ItemsMissing(f"chunk {chunk.chunk} of {batch_id} is not answered: replay payments.events first")
            await asyncio.sleep(delay_s)
            waited_s += delay_s
            delay_s = min(2 * delay_s, BACKOFF_MAX_S)

    async def _until_done(self, call: Callable[[], Awaitable[T]]) -> T:
        """Write or read, through any outage: until it is done, or the lane is stopped and cancels this."""
        try:
            return await call()
        except RecordsUnavailable as outage:
            self._waiters += 1
            try:
                if self._waiters == 1:  # hundreds may meet the same outage: it is told once
                    self._away_since = time.monotonic()
                    logger().warning("records unavailable", reason=str(outage))
                with self._waiting.track_inprogress():
                    result = await self._try_again(call)
            finally:
                self._waiters -= 1
            if self._waiters == 0:
                logger().info("records available again", away_s=round(time.monotonic() - self._away_since, 1))
            return result

    async def _try_again(self, call: Callable[[], Awaitable[T]]) -> T:
        delay_s = BACKOFF_FIRST_S
        while True:
            self._unavailable.inc()
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, BACKOFF_MAX_S)
            try:
                return await call()
            except RecordsUnavailable:
                continue
