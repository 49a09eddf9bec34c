"""Feed and deliveries in real Cassandra: no gap is ever skipped, attempts come back in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tables.records.feed import BUCKET_EVENTS
from tables.records.store import RecordStore

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

EventOf = Callable[..., tuple[str, dict[str, Any]]]


def _feed_event(merchant_id: str, feed_sequence: int, **subject: Any) -> dict[str, Any]:
    nothing = {"payment": None, "batch": None, "endpoint_id": None}
    return {
        "id": f"evt_{feed_sequence}",
        "type": "payment.created",
        "sequence": 1,
        "occurred_at": 1_795_372_800_000_000 + feed_sequence,
        "merchant_id": merchant_id,
        "feed_sequence": feed_sequence,
        **nothing,
        **subject,
    }


async def test_nothing_is_shown_behind_a_gap_until_it_is_filled(store: RecordStore, merchant_id: str) -> None:
    for feed_sequence in (1, 2, 4, 5):
        await store.feed.write(_feed_event(merchant_id, feed_sequence, endpoint_id="we_1"))
    assert [entry.feed_sequence for entry in await store.feed.after(merchant_id, 0, limit=10)] == [1, 2]
    assert await store.feed.after(merchant_id, 2, limit=10) == []
    await store.feed.write(_feed_event(merchant_id, 3, endpoint_id="we_1"))
    assert [entry.feed_sequence for entry in await store.feed.after(merchant_id, 0, limit=10)] == [1, 2, 3, 4, 5]
    assert [entry.feed_sequence for entry in await store.feed.after(merchant_id, 1, limit=2)] == [2, 3]
    assert await store.feed.after(merchant_id, 5, limit=10) == []


async def test_a_feed_goes_on_over_the_border_of_its_partitions(store: RecordStore, merchant_id: str) -> None:
    border = range(BUCKET_EVENTS - 2, BUCKET_EVENTS + 3)
    for feed_sequence in border:
        await store.feed.write(_feed_event(merchant_id, feed_sequence))
    found = await store.feed.after(merchant_id, border[0] - 1, limit=10)
    assert [entry.feed_sequence for entry in found] == list(border)
    assert len(await store.feed.after(merchant_id, border[0] - 1, limit=2)) == 2


async def test_what_the_feed_carries_comes_back(store: RecordStore, merchant_id: str, payment_event: EventOf) -> None:
    _, event = payment_event("PaymentCreated", 1)
    batch = {"batch_id": "sb_1", "settlement_date": "2026-11-22", "currency": "USD", "count": 1, "amount": 2500}
    await store.feed.write(_feed_event(merchant_id, 1, payment=event["payment"]))
    await store.feed.write(_feed_event(merchant_id, 2, batch=batch))
    first, second = await store.feed.after(merchant_id, 0, limit=10)
    assert first.payment is not None
    assert first.payment.payment_id == event["payment"]["payment_id"]
    assert first.payment.personal_data is not None
    assert first.payment.personal_data.ciphertext == event["payment"]["personal_data"]["ciphertext"]
    assert (second.payment, second.batch, second.event_id) == (None, batch, "evt_2")


def _attempt(merchant_id: str, delivery: int, attempt: int, status: str, at: int) -> dict[str, Any]:
    return {
        "id": f"evt_a{delivery}_{attempt}",
        "occurred_at": at,
        "merchant_id": merchant_id,
        "endpoint_id": f"we_{merchant_id}",
        "delivery_id": f"wd_{merchant_id}_{delivery}",
        "event_id": f"evt_{delivery}",
        "event_type": "payment.created",
        "payment_id": "pay_1",
        "attempt": attempt,
        "status": status,
        "http_status": 200 if status == "DELIVERED" else None,
        "latency_ms": 12,
        "error": None if status == "DELIVERED" else "connection refused",
        "next_attempt_at": None if status == "DELIVERED" else at + 5_000_000,
    }


async def test_a_delivery_shows_its_last_state_and_all_attempts(store: RecordStore, merchant_id: str) -> None:
    at = 1_795_372_800_000_000
    attempts = [_attempt(merchant_id, 1, 1, "PENDING", at), _attempt(merchant_id, 1, 2, "DELIVERED", at + 5_000_000)]
    for attempt in (*attempts, attempts[0]):  # the first one comes again
        await store.deliveries.write_attempt(attempt)
    delivery = await store.deliveries.get(attempts[0]["delivery_id"])
    assert delivery is not None
    assert (delivery.status, delivery.next_attempt_at) == ("DELIVERED", None)
    assert [(a.attempt, a.http_status, a.error) for a in delivery.attempts] == [
        (1, None, "connection refused"),
        (2, 200, None),
    ]
    assert await store.deliveries.get("wd_none") is None


async def test_deliveries_are_listed_newest_first_over_days_and_filtered(store: RecordStore, merchant_id: str) -> None:
    hour = 3_600_000_000
    for number in range(12):
        status = "DELIVERED" if number % 2 else "FAILED"
        await store.deliveries.write_attempt(
            _attempt(merchant_id, number, 1, status, 1_795_372_800_000_000 + number * 9 * hour)
        )
    endpoint_id = f"we_{merchant_id}"
    expected = [f"wd_{merchant_id}_{number}" for number in reversed(range(12))]
    paged: list[str] = []
    last = None
    while page := await store.deliveries.newest(endpoint_id, limit=5, starting_after=last):
        paged.extend(delivery.delivery_id for delivery in page)
        last = page[-1]
    assert paged == expected
    failed = await store.deliveries.newest(endpoint_id, limit=4, status="FAILED")
    assert [delivery.delivery_id for delivery in failed] == expected[1::2][:4]
