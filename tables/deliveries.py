"""Rows of the `webhooks` agent, step 7 (Notify): queues of deliveries by endpoint and subject, and endpoints' health.

Keys, in bytewise order:
    b"d" endpoint 0 subject 0 feed_sequence (8 bytes, big-endian)  ->  Delivery: a queue, its head first
    b"h" endpoint                                                  ->  EndpointHealth
    b"p" merchant                                                  ->  Position: how far the feed has been queued
    b"i" merchant 0 feed_sequence (8 bytes, big-endian)            ->  FeedEvent not yet distributed
Events stay as they came, personal data encrypted. Values are MessagePack: no reader but this agent.
"""

from __future__ import annotations

import struct

import msgspec

from streams.domain.delivery import FeedEvent
from streams.domain.envelope import Value
from streams.exactly_once.table_spec import TableSpec

_SEPARATOR = b"\0"  # ids hold none


class Delivery(Value, frozen=True, kw_only=True, gc=False, tag="delivery"):
    """One event on its way to one endpoint. `attempts` made so far; not due before `due_ms` (epoch milliseconds)."""

    delivery_id: str
    endpoint_id: str
    event: FeedEvent
    attempts: int = 0
    due_ms: int = 0


class EndpointHealth(Value, frozen=True, kw_only=True, gc=False, tag="health"):
    """What the lane remembers of an endpoint between attempts; no row while all is well.

    `failing_since_ms`: of the first failure since the last success. `disabled_at`: epoch microseconds; it holds until
    the endpoint's own record changes after it.
    """

    failing_since_ms: int | None = None
    disabled_at: int | None = None


class Position(Value, frozen=True, kw_only=True, gc=False, tag="position"):
    """The last event of a merchant's feed that was queued: what comes again after a crash is not queued again.

    `waits`: events of the merchant are not yet distributed, and what comes waits behind them.
    """

    feed_sequence: int
    waits: bool = False


class Undistributed(Value, frozen=True, kw_only=True, gc=False, tag="undistributed"):
    """An event whose merchant's endpoints could not be read yet."""

    event: FeedEvent


DELIVERIES = TableSpec(
    name="deliveries",
    encode=msgspec.msgpack.encode,
    decode=msgspec.msgpack.Decoder(Delivery | EndpointHealth | Position | Undistributed).decode,
)


def queue_prefix(endpoint_id: str, subject_id: str) -> bytes:
    """With what the keys of all deliveries of a subject to an endpoint begin."""
    return b"d" + endpoint_id.encode() + _SEPARATOR + subject_id.encode() + _SEPARATOR


def delivery_key(endpoint_id: str, event: FeedEvent) -> bytes:
    """Key of an event's delivery to an endpoint: behind all earlier ones of its subject."""
    return queue_prefix(endpoint_id, event.subject_id) + struct.pack(">Q", event.feed_sequence)


def health_key(endpoint_id: str) -> bytes:
    """Key of an endpoint's health."""
    return b"h" + endpoint_id.encode()


def position_key(merchant_id: str) -> bytes:
    """Key of a merchant's position."""
    return b"p" + merchant_id.encode()


def undistributed_prefix(merchant_id: str) -> bytes:
    """With what the keys of a merchant's undistributed events begin."""
    return b"i" + merchant_id.encode() + _SEPARATOR


def undistributed_key(event: FeedEvent) -> bytes:
    """Key of an undistributed event: in the order of the feed."""
    return undistributed_prefix(event.merchant_id) + struct.pack(">Q", event.feed_sequence)
