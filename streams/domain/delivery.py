"""Delivery of webhooks, step 7 (Notify), as pure rules: who gets an event, when to try again, when to give up."""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

from streams.domain.envelope import Value
from streams.domain.payment import Payment

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

RETRY_DELAYS_MS = (
    5 * SECOND_MS,
    30 * SECOND_MS,
    2 * MINUTE_MS,
    15 * MINUTE_MS,
    1 * HOUR_MS,
    4 * HOUR_MS,
    12 * HOUR_MS,
    24 * HOUR_MS,
    24 * HOUR_MS,
)
"""From the failure of attempt n (the first is at index 0) to the next attempt: the contract's table."""

ATTEMPTS_MAX = len(RETRY_DELAYS_MS) + 1
JITTER = 0.1  # to both sides, so that what failed together does not return together
RETRY_AFTER_MS_MAX = DAY_MS  # a receiver may ask for more time than the table gives, but not for ever
DISABLE_AFTER_MS = 5 * DAY_MS  # of failure without a single success


class BatchSummary(Value, frozen=True, kw_only=True, gc=False):
    """A completed settlement batch as its merchant sees it. Amounts in minor units."""

    batch_id: str
    settlement_date: str
    currency: str
    count: int
    amount: int
    settled_count: int
    failed_count: int


class MerchantEvent(Value, frozen=True, kw_only=True, gc=False):
    """Something that a merchant may see. `occurred_at` in epoch microseconds.

    Exactly one of `payment`, `batch` and `endpoint_id` says what it is about.
    """

    id: str
    type: str
    sequence: int
    occurred_at: int
    merchant_id: str
    payment: Payment | None = None
    batch: BatchSummary | None = None
    endpoint_id: str | None = None

    @property
    def subject_id(self) -> str:
        """What the event is about: deliveries are in order for each subject and endpoint."""
        if self.payment is not None:
            return self.payment.payment_id
        if self.batch is not None:
            return self.batch.batch_id
        return self.endpoint_id or self.id


class FeedEvent(MerchantEvent, frozen=True, kw_only=True, gc=False):
    """The same at its place in the merchant's feed: numbered from 1, without gaps."""

    feed_sequence: int


def is_wanted(event_type: str, patterns: Iterable[str]) -> bool:
    """Whether an endpoint that subscribed to `patterns` ("*", "payment.*", "payment.settled") gets the event."""
    family = event_type.partition(".")[0]
    return any(pattern in ("*", event_type, f"{family}.*") for pattern in patterns)


def retry_delay_ms(delivery_id: str, attempt: int, retry_after_ms: int | None = None) -> int | None:
    """Milliseconds from the failure of `attempt` (1 is the first) to the next; None when it was the last.

    The jitter is derived from the delivery and the attempt: a replay waits exactly as long.
    """
    if attempt >= ATTEMPTS_MAX:
        return None
    delay = RETRY_DELAYS_MS[attempt - 1]
    share = crc32(f"{delivery_id}/{attempt}".encode()) / 0xFFFFFFFF  # 0 to 1
    jittered = round(delay * (1 - JITTER + 2 * JITTER * share))
    return max(jittered, min(retry_after_ms or 0, RETRY_AFTER_MS_MAX))
