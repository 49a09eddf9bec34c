"""The records of webhooks.outcomes: what became of an attempt, and an endpoint that its failures disabled."""

from __future__ import annotations

from typing import Literal

import msgspec

from streams.domain import ids
from streams.domain.envelope import Actor
from streams.webhooks.client import GONE, Attempt
from tables.deliveries import Delivery
from tables.records.endpoints import Endpoint
from topics.codec import Message

WEBHOOK_DISPATCHER = Actor(identity="webhook-dispatcher", role="service")
"""Actor of what the `webhooks` agent causes."""

Status = Literal["PENDING", "DELIVERED", "FAILED"]


def delivery_attempted(
    delivery: Delivery, status: Status, attempt: Attempt, *, now_us: int, next_attempt_ms: int | None
) -> Message:
    """The attempt after those that `delivery` counts; `status` is the delivery's after it. Times since the epoch."""
    event, number = delivery.event, delivery.attempts + 1
    fields = {
        "id": ids.derived(ids.EVENT, delivery.delivery_id, str(number)),
        "type": "webhook_delivery.attempted",
        "sequence": None,
        "occurred_at": now_us - attempt.latency_ms * 1000,
        "actor": msgspec.to_builtins(WEBHOOK_DISPATCHER),
        "request_id": event.id,
        "merchant_id": event.merchant_id,
        "endpoint_id": delivery.endpoint_id,
        "delivery_id": delivery.delivery_id,
        "event_id": event.id,
        "event_type": event.type,
        "payment_id": event.payment.payment_id if event.payment is not None else None,
        "attempt": number,
        "status": status,
        "http_status": attempt.http_status,
        "latency_ms": attempt.latency_ms,
        "error": attempt.error,
        "next_attempt_at": None if next_attempt_ms is None else next_attempt_ms * 1000,
    }
    return Message("DeliveryAttempted", fields)


def endpoint_disabled(endpoint: Endpoint, attempt: Attempt, *, now_us: int, failing_since_ms: int) -> Message:
    """The endpoint as its owner last left it is disabled: the same id whichever delivery's failure did it."""
    fields = {
        "id": ids.derived(ids.EVENT, endpoint.endpoint_id, "disabled", str(endpoint.updated_at)),
        "type": "webhook_endpoint.disabled",
        "sequence": None,
        "occurred_at": now_us,
        "actor": msgspec.to_builtins(WEBHOOK_DISPATCHER),
        "request_id": endpoint.endpoint_id,
        "merchant_id": endpoint.merchant_id,
        "endpoint_id": endpoint.endpoint_id,
        "reason": "gone" if attempt.http_status == GONE else "failing",
        "failing_since": failing_since_ms * 1000,
    }
    return Message("EndpointDisabled", fields)
