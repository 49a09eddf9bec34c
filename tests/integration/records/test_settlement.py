"""Settlement in real Cassandra: items follow the payments' own events, batches and runs only go forward."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from streams.agents.records import Records
from streams.domain import ids
from streams.exactly_once.records import Output
from streams.exactly_once.testing import Bench
from tables.records.errors import ItemsMissing
from tables.records.settlement_items import SettlementItem
from tables.records.store import RecordStore
from topics.codec import Message

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

EventOf = Callable[..., tuple[str, dict[str, Any]]]
TransactionOf = Callable[..., dict[str, Any]]
REFUSED = {"code": "settlement_failed", "decline_code": None, "retryable": True, "message": "later"}


async def _write(store: RecordStore, event: tuple[str, dict[str, Any]]) -> None:
    await store.payments.write_event(*event, *await store.settlement.item_mutations(event[1]))


async def _statuses(store: RecordStore, *batch_ids: str) -> list[str]:
    rows = [
        row
        for batch_id in batch_ids
        for row in await store.session.execute("SELECT status FROM settlement_items WHERE batch_id = ?", (batch_id,))
    ]
    return [row.status for row in rows]


async def test_an_item_follows_its_payment_from_authorised_to_settled(
    store: RecordStore, payment_event: EventOf, transaction: TransactionOf, merchant_id: str
) -> None:
    batch_id = ids.batch_id(merchant_id, "USD", "2026-11-22")
    window = {"batch_id": batch_id, "settlement_date": "2026-11-22"}
    held = transaction("AUTHORIZATION", "SUCCEEDED", provider_reference="ch_1")
    settled = transaction("SETTLEMENT", "SUCCEEDED", idempotency_key=f"{batch_id}:3")
    authorized = payment_event("PaymentAuthorized", 3, transactions=[held], **window)
    done = payment_event("PaymentSettled", 4, transactions=[held, settled], **window)
    await _write(store, authorized)
    (item,) = await store.settlement.items(batch_id, limit=10)
    payment_id = authorized[1]["payment"]["payment_id"]
    assert item == SettlementItem(
        batch_id=batch_id,
        payment_id=payment_id,
        merchant_id=merchant_id,
        currency="USD",
        amount=2500,
        status="PENDING",
        chunk=None,
        transaction_id=None,
        authorization_id="txn_authorization",
        authorization_reference="ch_1",
        error=None,
        revision=3,
    )
    await _write(store, done)
    await _write(store, authorized)  # a straggler
    (item,) = await store.settlement.items(batch_id, limit=10)
    assert (item.status, item.chunk, item.transaction_id, item.revision) == ("SETTLED", 3, "txn_settlement", 4)


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_a_voided_payment_leaves_its_batch_in_every_order_of_repetition(
    store: RecordStore, payment_event: EventOf, transaction: TransactionOf, merchant_id: str, order: tuple[int, ...]
) -> None:
    batch_id = ids.batch_id(merchant_id, "USD", "2026-11-22")
    held = transaction("AUTHORIZATION", "SUCCEEDED")
    window = {"batch_id": batch_id, "settlement_date": "2026-11-22"}
    events = [
        payment_event("PaymentAuthorized", 3, transactions=[held], **window),
        payment_event("PaymentUpdated", 4, status="AUTHORIZED", transactions=[held, transaction("VOID", "PENDING")]),
        payment_event("PaymentCanceled", 5, transactions=[held, transaction("VOID", "SUCCEEDED")]),
    ]
    expected = [["PENDING"], ["REMOVED"], ["REMOVED"]]
    for event, statuses in zip(events, expected, strict=True):
        await _write(store, event)
        assert await _statuses(store, batch_id) == statuses
    for index in order:
        await _write(store, events[index])
        assert await _statuses(store, batch_id) == ["REMOVED"]
    assert await store.settlement.items(batch_id, limit=10) == []
    assert await store.settlement.items_between(batch_id, "pay_", "pay_z") == []


async def test_a_refused_void_brings_a_payment_back_into_an_open_batch(
    store: RecordStore, payment_event: EventOf, transaction: TransactionOf, merchant_id: str
) -> None:
    first, second = (ids.batch_id(merchant_id, "USD", day) for day in ("2026-11-22", "2026-11-23"))
    held, void = transaction("AUTHORIZATION", "SUCCEEDED"), transaction("VOID", "PENDING")
    refused = transaction("VOID", "FAILED", error={**REFUSED, "code": "void_refused"})
    await _write(store, payment_event("PaymentAuthorized", 3, transactions=[held], batch_id=first))
    await _write(store, payment_event("PaymentUpdated", 4, status="AUTHORIZED", transactions=[held, void]))
    back = payment_event("PaymentUpdated", 5, status="AUTHORIZED", transactions=[held, refused], batch_id=second)
    await _write(store, back)
    assert await _statuses(store, first, second) == ["REMOVED", "PENDING"]
    same_day = payment_event("PaymentUpdated", 6, status="AUTHORIZED", transactions=[held, refused], batch_id=first)
    await _write(store, same_day)
    assert await _statuses(store, first) == ["PENDING"], "the day was still open: the same batch again"


async def test_a_postponed_item_is_failed_in_the_old_batch_and_pending_in_the_new(
    store: RecordStore, payment_event: EventOf, transaction: TransactionOf, merchant_id: str
) -> None:
    first, second = (ids.batch_id(merchant_id, "USD", day) for day in ("2026-11-22", "2026-11-23"))
    held = transaction("AUTHORIZATION", "SUCCEEDED")
    refused = transaction("SETTLEMENT", "FAILED", idempotency_key=f"{first}:0", error=REFUSED)
    settled = transaction("SETTLEMENT", "SUCCEEDED", idempotency_key=f"{second}:1")
    await _write(store, payment_event("PaymentAuthorized", 3, transactions=[held], batch_id=first))
    postponed = payment_event("PaymentUpdated", 4, status="AUTHORIZED", transactions=[held, refused], batch_id=second)
    await _write(store, postponed)
    assert await _statuses(store, first, second) == ["FAILED", "PENDING"]
    (item,) = await store.settlement.items(first, limit=1)
    assert item.error == REFUSED
    await _write(store, payment_event("PaymentSettled", 5, transactions=[held, refused, settled], batch_id=second))
    assert await _statuses(store, first, second) == ["FAILED", "SETTLED"]


async def test_items_page_in_payment_order_and_count_as_a_chunk(
    store: RecordStore, payment_event: EventOf, transaction: TransactionOf, merchant_id: str
) -> None:
    batch_id = ids.batch_id(merchant_id, "USD", "2026-11-22")
    held = transaction("AUTHORIZATION", "SUCCEEDED")
    payment_ids = sorted(ids.payment_id(merchant_id, str(number)) for number in range(9))
    for number, payment_id in enumerate(payment_ids):
        transactions = [held, transaction("VOID", "PENDING")] if number == 4 else [held]
        fields = {"payment_id": payment_id, "batch_id": batch_id, "transactions": transactions, "amount": number}
        await _write(store, payment_event("PaymentAuthorized", 3, **fields))
    kept = [payment_id for number, payment_id in enumerate(payment_ids) if number != 4]
    paged: list[str] = []
    while page := await store.settlement.items(batch_id, limit=3, starting_after=paged[-1] if paged else ""):
        assert len(page) == 3 or len(paged) + len(page) == 8, "a removed item shortens no page but the last"
        paged.extend(item.payment_id for item in page)
    assert paged == kept
    chunk = await store.settlement.items_between(batch_id, payment_ids[2], payment_ids[6])
    assert [item.amount for item in chunk] == [2, 3, 5, 6]


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_a_batch_is_completed_whatever_arrives_again_or_late(
    store: RecordStore, merchant_id: str, order: tuple[int, ...]
) -> None:
    date = f"2027-01-0{1 + order[0] * 2 + (order[1] > order[2])}"
    batch_id = ids.batch_id(merchant_id, "USD", date)
    batch = {"batch_id": batch_id, "merchant_id": merchant_id, "currency": "USD", "settlement_date": date}
    chunk = {**batch, "control_count": 5, "control_amount": 50}
    chunks = [
        {**chunk, "id": "e1", "chunk": 0, "count": 3, "amount": 30, "first_payment_id": "a", "last_payment_id": "c"},
        {**chunk, "id": "e2", "chunk": 1, "count": 2, "amount": 20, "first_payment_id": "d", "last_payment_id": "e"},
    ]
    totals = {
        "count": 5,
        "amount": 50,
        "settled_count": 4,
        "failed_count": 1,
        "settled_amount": 40,
        "failed_amount": 10,
    }
    completed = {**batch, **totals, "id": "e3", "chunks": 2}
    settlement = store.settlement
    writes = [
        lambda: settlement.write_chunk_closed(chunks[0]),
        lambda: settlement.write_chunk_closed(chunks[1]),
        lambda: settlement.write_batch_completed(completed),
    ]
    assert await settlement.batch(batch_id) is None
    for index in order:
        await writes[index]()
    found = await settlement.batch(batch_id)
    assert found is not None
    assert (found.status, found.count, found.settled_amount, found.failed_count) == ("COMPLETED", 5, 40, 1)
    assert [(chunk.chunk, chunk.count, chunk.status) for chunk in found.chunks] == [
        (0, 3, "COMPLETED"),
        (1, 2, "COMPLETED"),
    ]
    (listed,) = await settlement.batches_of_merchant(merchant_id, date)
    assert (listed.batch_id, listed.status, listed.amount) == (batch_id, "COMPLETED", 50)
    assert [entry.batch_id for entry in await settlement.batches_of_merchant(merchant_id)] == [batch_id]
    assert batch_id in [entry.batch_id for entry in await settlement.page_of_date(date, limit=100)]
    days = await settlement.dates()
    assert date in days
    assert days == sorted(set(days), reverse=True)
    (first,) = await settlement.page_of_all(limit=1)
    assert first.settlement_date == days[0]
    assert batch_id in [entry.batch_id for entry in await settlement.page_of_all(limit=1_000)]
    assert batch_id not in [entry.batch_id for entry in await settlement.page_of_all(limit=1_000, after=found)]


async def test_a_batch_is_completed_after_the_last_of_its_items_and_no_earlier(
    store: RecordStore,
    payment_event: EventOf,
    transaction: TransactionOf,
    merchant_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    completion = Completion(store, merchant_id)
    first, second = completion.payment_ids
    held, tried = transaction("AUTHORIZATION", "SUCCEEDED"), {"idempotency_key": f"{completion.batch_id}:0"}
    settled = transaction("SETTLEMENT", "SUCCEEDED", **tried)
    refused = transaction("SETTLEMENT", "FAILED", error=REFUSED, **tried)
    in_batch = {"batch_id": completion.batch_id}
    await completion.cut()
    await _write(store, payment_event("PaymentSettled", 4, payment_id=first, transactions=[held, settled], **in_batch))

    monkeypatch.setattr("streams.agents.records.ITEMS_TIMEOUT_S", 0.2)
    with pytest.raises(ItemsMissing, match=f"chunk 0 of {completion.batch_id}"):
        await completion.handle()
    assert await completion.result() == ("SUBMITTING", 0), "an item that does not come holds its batch back"

    monkeypatch.setattr("streams.agents.records.ITEMS_TIMEOUT_S", 60.0)
    completing = asyncio.create_task(completion.handle())
    await _write(store, payment_event("PaymentUpdated", 4, payment_id=second, transactions=[held, refused], **in_batch))
    await completing
    assert await completion.result() == ("COMPLETED", 1)


async def test_a_run_completes_when_every_partition_and_every_batch_has(store: RecordStore, merchant_id: str) -> None:
    date = "2027-02-01"
    settlement = store.settlement
    assert await settlement.run(date) is None
    request: dict[str, Any] = {"requested_at": 1, "requested_by": "operator", "forced": False}
    assert await settlement.create_run(date, **request) is True
    assert await settlement.create_run(date, **request) is False
    day = {"date": date, "partitions": 2, "occurred_at": 5}
    await _expect_run(store, date, "CLOSING")
    await settlement.write_day_closed({**day, "id": "d0", "partition": 0, "batches": 0})
    await _expect_run(store, date, "CLOSING")
    await settlement.write_day_closed({**day, "id": "d1", "partition": 1, "batches": 2})
    await _expect_run(store, date, "SUBMITTING")
    for currency in ("EUR", "USD"):
        totals = {"count": 3, "amount": 30, "settled_count": 2, "failed_count": 1, "settled_amount": 20}
        await settlement.write_batch_completed(
            {
                "id": "b",
                "batch_id": ids.batch_id(merchant_id, currency, date),
                "merchant_id": merchant_id,
                "currency": currency,
                "settlement_date": date,
                "failed_amount": 10,
                "chunks": 1,
                **totals,
            }
        )
        await _expect_run(store, date, "SUBMITTING" if currency == "EUR" else "COMPLETED")
    run = await settlement.run(date)
    assert run is not None
    total = {"SETTLED": {"count": 2, "amount": 20}, "FAILED": {"count": 1, "amount": 10}}
    assert run.totals == {"EUR": total, "USD": total}


async def test_a_day_without_payments_completes_without_batches(store: RecordStore) -> None:
    closed = {"date": "2027-02-02", "partitions": 1, "occurred_at": 5, "id": "d", "partition": 0, "batches": 0}
    await store.settlement.write_day_closed(closed)
    await _expect_run(store, "2027-02-02", "COMPLETED")


async def test_a_day_that_partitions_have_passed_is_completed(store: RecordStore) -> None:
    """Days are told in order, from a partition's oldest window on: of what came before nobody will ever tell."""
    settlement, early, mixed = store.settlement, "2027-02-03", "2027-02-04"
    request: dict[str, Any] = {"requested_at": 1, "requested_by": "operator", "forced": False}
    for date in (early, mixed):
        await settlement.create_run(date, **request)
    told = {"partitions": 2, "occurred_at": 5, "batches": 0}
    await settlement.write_day_closed({**told, "id": "d0", "date": mixed, "partition": 0})
    for date in (early, mixed):
        await _expect_run(store, date, "CLOSING")
    await settlement.write_day_closed({**told, "id": "d1", "date": "2027-02-05", "partition": 1})
    for date in (early, mixed):
        await _expect_run(store, date, "COMPLETED")


async def _expect_run(store: RecordStore, date: str, status: str) -> None:
    run = await store.settlement.run(date)
    assert run is not None
    assert run.status == status


class Completion:
    """A batch of two payments in one chunk, and the agent that hears that it is completed."""

    def __init__(self, store: RecordStore, merchant_id: str) -> None:
        date = "2027-03-01"
        self.batch_id = ids.batch_id(merchant_id, "USD", date)
        self.payment_ids = sorted(ids.payment_id(merchant_id, key) for key in ("1", "2"))
        self._fields = {"merchant_id": merchant_id, "currency": "USD", "settlement_date": date, "amount": 20}
        self._fields |= {"batch_id": self.batch_id, "count": 2}
        self._store, self._bench = store, Bench()
        inbox = Output("merchants.inbox", lambda _: b"")
        self._handler = Records(store, lambda *_: None, inbox, registry=CollectorRegistry())

    async def cut(self) -> None:
        first, last = self.payment_ids
        chunk = {"chunk": 0, "first_payment_id": first, "last_payment_id": last}
        control = {"control_count": 2, "control_amount": 20, "id": "e1"}
        await self._store.settlement.write_chunk_closed({**self._fields, **chunk, **control})

    async def handle(self) -> None:
        totals = {"settled_count": 1, "failed_count": 1, "settled_amount": 10, "failed_amount": 10, "chunks": 1}
        told = {"id": "e2", "type": "settlement_batch.completed", "occurred_at": 1}
        message = Message("BatchCompleted", {**self._fields, **totals, **told})
        await self._bench.effect_async(self._handler, self._bench.record("settlement.events", b"key", message))

    async def result(self) -> tuple[str, int]:
        """The batch's status, and how many events the merchant's feed got."""
        found = await self._store.settlement.batch(self.batch_id)
        assert found is not None
        return found.status, len(self._bench.sent)
