"""What every record begins with: who caused it, when, in which request, and who waits for the answer."""

from __future__ import annotations

import msgspec


class Value(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of the domain's values: immutable and without cycles, so the collector need not look at them."""


class Actor(Value, frozen=True, kw_only=True, gc=False):
    """Who caused something: an API key, a service or an operator, and the role it acted in."""

    identity: str
    role: str


class ReplyTo(Value, frozen=True, kw_only=True, gc=False):
    """Where a client waits: partition of `payments.replies` and the id under which the API instance waits."""

    partition: int
    correlation_id: str


class Command(Value, frozen=True, kw_only=True, gc=False):
    """The fields with which every command, outcome, request and settlement entry begins. Times: epoch microseconds."""

    id: str
    type: str
    occurred_at: int
    actor: Actor
    request_id: str
    traceparent: str | None = None
    reply_to: ReplyTo | None = None


class Event(Value, frozen=True, kw_only=True, gc=False):
    """The fields with which every event begins. `sequence` is the payment's version, None when it is no transition."""

    id: str
    type: str
    sequence: int | None = None
    occurred_at: int
    actor: Actor
    request_id: str


PAYMENT_WORKER = Actor(identity="payment-worker", role="service")
"""Actor of what the `payments` agent causes by itself: requests, settlement entries, timers."""

BATCH_PROCESSOR = Actor(identity="batch-processor", role="service")
"""Actor of what the `settlement` agent causes."""
