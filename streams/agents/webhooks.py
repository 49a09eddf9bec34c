"""Effector `webhooks`, step 7 (Notify): delivers each merchant's feed to the merchant's endpoints.

An event is only put into the queues of the endpoints that want it, with a timer that is due at once; the timer's
record, which has a key and so a concurrency of its own, makes the attempt. So a slow endpoint holds up neither its
merchant's feed nor another endpoint, and a failing payment's queue never blocks another payment's. Within a queue (one
endpoint, one subject) the head is delivered, or has FAILED, before the next one goes.

Timers have unique names, because an event and the attempt before it may run at the same time: no timer of one is ever
moved or cancelled by the other. A timer that finds nothing due does nothing.
"""

from __future__ import annotations

import math
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram

from ops.runtime.clock import Clock
from ops.runtime.encryption import EncryptionError
from ops.runtime.logs import exception_fields, log_context, logger
from ops.runtime.metrics import LATENCY_BUCKETS_S
from streams.domain import ids
from streams.domain.delivery import DISABLE_AFTER_MS, FeedEvent, is_wanted, retry_delay_ms
from streams.domain.retry import RetryPolicy, delay_ms
from streams.exactly_once.effects import Effects, State
from streams.exactly_once.errors import Poison
from streams.exactly_once.failpoints import failpoint
from streams.exactly_once.records import TIMERS, Output, Record
from streams.exactly_once.table_spec import prefix_end
from streams.webhooks.bodies import Bodies
from streams.webhooks.client import GONE, Attempt, WebhookClient
from streams.webhooks.directory import EndpointDirectory
from streams.webhooks.outcomes import Status, delivery_attempted, endpoint_disabled
from tables.deliveries import (
    DELIVERIES,
    Delivery,
    EndpointHealth,
    Position,
    Undistributed,
    delivery_key,
    health_key,
    position_key,
    queue_prefix,
    undistributed_key,
    undistributed_prefix,
)
from tables.records.endpoints import Endpoint
from tables.records.errors import RecordsUnavailable

KINDS = {"FeedEvent": FeedEvent}

DISTRIBUTE = "distribute"  # timer of a merchant: events wait for the records to come back
SHARE = "share"  # timer of a queue: its endpoint has as many attempts under way as it may
OUTAGE_RETRY_MS = 1_000
SHARE_MAX = 20  # attempts under way to one endpoint: a slow one takes no more of the lane's concurrency
SHARE_RETRY = RetryPolicy(first_delay_ms=500)  # doubling: the queues of an endpoint that hangs cost little
REARM_MS = 3_600_000  # a queue whose attempt met a bug is taken up again so much later


class _Queued(NamedTuple):
    """The head of a queue and where it is."""

    prefix: bytes
    key: bytes
    delivery: Delivery


class Webhooks:
    """The handler of merchants.events and of its own timers; attempts are told to `outcomes`, keyed by merchant."""

    def __init__(
        self,
        directory: EndpointDirectory,
        bodies: Bodies,
        client: WebhookClient,
        outcomes: Output,
        clock: Clock,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._directory = directory
        self._bodies = bodies
        self._client = client
        self._outcomes = outcomes
        self._clock = clock
        self._under_way: Tally[str] = Tally()  # attempts by endpoint, in this process; not state
        self._attempts = Counter(
            "payments_webhook_attempts_total", "Attempts to deliver a webhook", ["status"], registry=registry
        )
        self._seconds = Histogram(
            "payments_webhook_attempt_seconds", "Duration of attempts", buckets=LATENCY_BUCKETS_S, registry=registry
        )

    async def __call__(self, record: Record, state: State, effects: Effects) -> None:
        """Queue an event, or make the attempt that is due."""
        if record.topic != TIMERS:
            event: FeedEvent | None = record.value
            if event is not None:
                await self._take_in(event, record, state, effects)
        elif record.value.name == DISTRIBUTE:
            await self._distribute_waiting(record, state, effects)
        else:
            await self._attempt_head(record, state, effects)

    def rearm(self, record: Record, error: Exception, _state: State, effects: Effects) -> None:
        """For a timer's record that became a dead letter: its queue is not forgotten."""
        if record.topic == TIMERS:
            logger().error("webhook queue put off", timer=record.value.name, **exception_fields(error))
            effects.set_timer(record.key, record.value.name, self._now_ms() + REARM_MS)

    # Distribution

    async def _take_in(self, event: FeedEvent, record: Record, state: State, effects: Effects) -> None:
        """Queue an event, once; behind those that still wait for the records, so that the feed's order holds."""
        if record.key != event.merchant_id.encode():
            raise Poison(f"the key is not the merchant's id: {record.key[:40]!r}")
        position: Position | None = state.get(DELIVERIES, position_key(event.merchant_id))
        if position is not None and event.feed_sequence <= position.feed_sequence:
            return  # it runs again after a crash: it was queued, and may have been delivered since
        endpoints: Sequence[Endpoint] = ()
        waits = position is not None and position.waits
        if not waits:
            try:
                endpoints = await self._directory.of_merchant(event.merchant_id, since_s=record.received_s)
            except RecordsUnavailable:
                effects.set_timer(record.key, DISTRIBUTE, self._now_ms() + OUTAGE_RETRY_MS)
                waits = True
        if waits:
            effects.put(DELIVERIES, undistributed_key(event), Undistributed(event=event))
        else:
            self._enqueue(event, endpoints, state, effects)
        effects.put(
            DELIVERIES, position_key(event.merchant_id), Position(feed_sequence=event.feed_sequence, waits=waits)
        )

    async def _distribute_waiting(self, record: Record, state: State, effects: Effects) -> None:
        merchant_id = record.key.decode()
        try:
            endpoints = await self._directory.of_merchant(merchant_id, since_s=math.inf)
        except RecordsUnavailable:
            effects.set_timer(record.key, DISTRIBUTE, self._now_ms() + OUTAGE_RETRY_MS)
            return
        prefix = undistributed_prefix(merchant_id)
        for key, waiting in list(state.scan(DELIVERIES, prefix, prefix_end(prefix))):
            self._enqueue(waiting.event, endpoints, state, effects)
            effects.delete(DELIVERIES, key)
        position: Position | None = state.get(DELIVERIES, position_key(merchant_id))
        if position is not None:
            effects.put(DELIVERIES, position_key(merchant_id), Position(feed_sequence=position.feed_sequence))

    def _enqueue(self, event: FeedEvent, endpoints: Sequence[Endpoint], state: State, effects: Effects) -> None:
        for endpoint in endpoints:
            if not is_wanted(event.type, endpoint.event_types) or not self._is_enabled(endpoint, state):
                continue
            delivery = Delivery(
                delivery_id=ids.derived(ids.DELIVERY, endpoint.endpoint_id, event.id),
                endpoint_id=endpoint.endpoint_id,
                event=event,
            )
            effects.put(DELIVERIES, delivery_key(endpoint.endpoint_id, event), delivery)
            queue = queue_prefix(endpoint.endpoint_id, event.subject_id)
            effects.set_timer(queue, f"new:{event.feed_sequence}", self._now_ms())

    # Attempts

    async def _attempt_head(self, record: Record, state: State, effects: Effects) -> None:
        """One attempt on the head of the queue that is the timer's key, if it is due."""
        head = _head(record.key, state)
        if head is None or head.delivery.due_ms > self._now_ms():
            return
        delivery = head.delivery
        with log_context(delivery_id=delivery.delivery_id, endpoint_id=delivery.endpoint_id):
            try:
                endpoint = await self._directory.find(delivery.event.merchant_id, delivery.endpoint_id)
                if endpoint is None or not self._is_enabled(endpoint, state):
                    self._give_up(head, "endpoint_disabled" if endpoint else "endpoint_deleted", state, effects)
                    return
                if self._under_way[endpoint.endpoint_id] >= SHARE_MAX:
                    self._wait_for_place(head, record, effects)
                    return
                with self._place_of(endpoint.endpoint_id):
                    attempt = await self._attempt(delivery, endpoint)
            except RecordsUnavailable:
                effects.set_timer(head.prefix, "outage", self._now_ms() + OUTAGE_RETRY_MS)
                return
            self._conclude(head, endpoint, attempt, state, effects)

    async def _attempt(self, delivery: Delivery, endpoint: Endpoint) -> Attempt:
        try:
            body = await self._bodies.body(delivery.event)
            signing = await self._directory.secrets(endpoint)
        except EncryptionError as error:  # a key that is not here (yet): as visible, and as patient, as any failure
            logger().error("webhook cannot be made", **exception_fields(error))
            return Attempt(latency_ms=0, error="internal_error")
        attempt = await self._client.deliver(endpoint.url, delivery.event.id, body, signing)
        failpoint("after_webhook")
        self._seconds.observe(attempt.latency_ms / 1000)
        return attempt

    def _wait_for_place(self, head: _Queued, record: Record, effects: Effects) -> None:
        """Come back when others may have finished; the timer's payload counts how often it has been in vain."""
        in_vain = int(record.value.payload or b"0") + 1 if record.value.name == SHARE else 1
        due_ms = self._now_ms() + delay_ms(SHARE_RETRY, head.delivery.delivery_id, in_vain)
        effects.set_timer(head.prefix, SHARE, due_ms, str(in_vain).encode())

    def _conclude(self, head: _Queued, endpoint: Endpoint, attempt: Attempt, state: State, effects: Effects) -> None:
        """Stage what an attempt means for the delivery, its queue and its endpoint."""
        delivery, number, now_ms = head.delivery, head.delivery.attempts + 1, self._now_ms()
        if attempt.error is None:
            self._tell(delivery, "DELIVERED", attempt, effects)
            health = state.get(DELIVERIES, health_key(endpoint.endpoint_id))
            if health is not None and self._is_enabled(endpoint, state):
                effects.delete(DELIVERIES, health_key(endpoint.endpoint_id))
            self._advance(head, state, effects)
            return
        logger().warning("webhook attempt failed", attempt=number, reason=attempt.error, latency_ms=attempt.latency_ms)
        disabled = self._note_failure(endpoint, attempt, now_ms, state, effects)
        wait_ms = None if disabled else retry_delay_ms(delivery.delivery_id, number, attempt.retry_after_ms)
        if wait_ms is None:
            self._tell(delivery, "FAILED", attempt, effects)
            self._advance(head, state, effects)
            return
        due_ms = now_ms + wait_ms
        self._tell(delivery, "PENDING", attempt, effects, next_attempt_ms=due_ms)
        effects.put(DELIVERIES, head.key, msgspec.structs.replace(delivery, attempts=number, due_ms=due_ms))
        effects.set_timer(head.prefix, f"retry:{delivery.event.feed_sequence}:{number}", due_ms)

    def _give_up(self, head: _Queued, reason: str, state: State, effects: Effects) -> None:
        """End a delivery that has nowhere to go any more."""
        self._tell(head.delivery, "FAILED", Attempt(latency_ms=0, error=reason), effects)
        self._advance(head, state, effects)

    def _advance(self, head: _Queued, state: State, effects: Effects) -> None:
        """Take the head off its queue and let the next one go."""
        effects.delete(DELIVERIES, head.key)
        following = _head(head.prefix, state)
        if following is not None:
            effects.set_timer(head.prefix, f"next:{following.delivery.event.feed_sequence}", self._now_ms())

    # Endpoints

    def _is_enabled(self, endpoint: Endpoint, state: State) -> bool:
        """What the records say, and what this lane knows before them: a failure that disabled the endpoint holds until
        the endpoint's owner has changed it."""
        health: EndpointHealth | None = state.get(DELIVERIES, health_key(endpoint.endpoint_id))
        disabled_at = None if health is None else health.disabled_at
        return endpoint.status == "ENABLED" and not (disabled_at is not None and disabled_at >= endpoint.updated_at)

    def _note_failure(self, endpoint: Endpoint, attempt: Attempt, now_ms: int, state: State, effects: Effects) -> bool:
        """Remember since when an endpoint fails; True when it is disabled now: by 410, or after days of failure."""
        if not self._is_enabled(endpoint, state):
            return True  # by another delivery's failure, meanwhile
        known: EndpointHealth | None = state.get(DELIVERIES, health_key(endpoint.endpoint_id))
        since_ms = now_ms
        if known is not None and known.disabled_at is None and known.failing_since_ms is not None:
            since_ms = known.failing_since_ms
        gone = attempt.http_status == GONE
        disable = gone or now_ms - since_ms >= DISABLE_AFTER_MS
        health = EndpointHealth(failing_since_ms=since_ms, disabled_at=now_ms * 1000 if disable else None)
        effects.put(DELIVERIES, health_key(endpoint.endpoint_id), health)
        if disable:
            told = endpoint_disabled(endpoint, attempt, now_us=now_ms * 1000, failing_since_ms=since_ms)
            effects.send(self._outcomes, told, key=endpoint.merchant_id.encode())
        return disable

    @contextmanager
    def _place_of(self, endpoint_id: str) -> Iterator[None]:
        self._under_way[endpoint_id] += 1
        try:
            yield
        finally:
            self._under_way[endpoint_id] -= 1
            if not self._under_way[endpoint_id]:
                del self._under_way[endpoint_id]

    def _tell(
        self, delivery: Delivery, status: Status, attempt: Attempt, effects: Effects, next_attempt_ms: int | None = None
    ) -> None:
        told = delivery_attempted(
            delivery, status, attempt, now_us=self._clock.now_us(), next_attempt_ms=next_attempt_ms
        )
        effects.send(self._outcomes, told, key=delivery.event.merchant_id.encode())
        self._attempts.labels(status).inc()

    def _now_ms(self) -> int:
        return self._clock.now_us() // 1000


def _head(prefix: bytes, state: State) -> _Queued | None:
    for key, row in islice(state.scan(DELIVERIES, prefix, prefix_end(prefix)), 1):
        return _Queued(prefix, key, row)
    return None
