"""Payments in real Cassandra: the newest revision wins whatever arrives when, and every earlier one can be read."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import msgspec
import pytest

from ops.local.layout import STACK_ADMIN
from streams.domain import ids
from streams.domain.payment import Payment
from tables.records.errors import RecordsRefused
from tables.records.session import CassandraAddress, RecordsSession
from tables.records.store import RecordStore

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

EventOf = Callable[..., tuple[str, dict[str, Any]]]
TransactionOf = Callable[..., dict[str, Any]]
DECLINE = {"code": "card_declined", "decline_code": "expired_card", "retryable": False, "message": "no"}
CREATED_AT = 1_795_372_800_000_000


@pytest.fixture
def life(payment_event: EventOf, transaction: TransactionOf) -> Callable[[str], list[tuple[str, dict[str, Any]]]]:
    """The events of a payment's life, each with something that the one before did not have, or the other way round."""

    def events(payment_id: str) -> list[tuple[str, dict[str, Any]]]:
        pending = transaction("AUTHORIZATION", "PENDING", idempotency_key="k-1", error=DECLINE)
        held = transaction("AUTHORIZATION", "SUCCEEDED", idempotency_key="k-1", provider_reference="ch_1")
        settled = transaction("SETTLEMENT", "SUCCEEDED", idempotency_key="sb_x:0")
        token = {"payment_id": payment_id, "payment_method_token": "pm_card_visa"}
        return [
            payment_event("PaymentCreated", 1, payment_id=payment_id),
            payment_event("PaymentProcessing", 2, failure=DECLINE, transactions=[pending], **token),
            payment_event("PaymentAuthorized", 3, batch_id="sb_x", transactions=[held], **token),
            payment_event("PaymentSettled", 4, personal_data=None, transactions=[held, settled], **token),
        ]

    return events


async def test_the_newest_revision_wins_in_every_order_of_arrival(
    store: RecordStore, life: Callable[[str], list[tuple[str, dict[str, Any]]]], merchant_id: str
) -> None:
    orders = list(permutations(range(4)))
    for number, order in enumerate(orders):
        events = life(ids.payment_id(merchant_id, str(number)))
        for index in order:
            await store.payments.write_event(*events[index])
    listed = {payment.payment_id: payment for payment in await store.payments.list(merchant_id, limit=100)}
    for number in range(len(orders)):
        payment_id = ids.payment_id(merchant_id, str(number))
        expected = _payment(life(payment_id)[-1])
        assert await store.payments.get(payment_id) == expected
        assert listed[payment_id] == expected
        assert [entry.revision for entry in await store.payments.history(payment_id)] == [1, 2, 3, 4]


async def test_what_a_later_revision_does_not_have_becomes_null(
    store: RecordStore, life: Callable[[str], list[tuple[str, dict[str, Any]]]], merchant_id: str
) -> None:
    payment_id = ids.payment_id(merchant_id, "nulls")
    _, processing, _, settled = life(payment_id)
    await store.payments.write_event(*processing)
    row = (await store.session.execute("SELECT failure, error FROM payments WHERE payment_id = ?", (payment_id,)))[0]
    assert row.failure is not None
    assert row.error is not None
    await store.payments.write_event(*settled)
    cql = "SELECT personal_data, failure, error, batch_id FROM payments WHERE payment_id = ?"
    rows = await store.session.execute(cql, (payment_id,))
    assert [tuple(row) for row in rows] == [(None, None, None, None), (None, None, None, None)]


async def test_writing_an_event_again_changes_nothing(
    store: RecordStore, life: Callable[[str], list[tuple[str, dict[str, Any]]]], merchant_id: str
) -> None:
    payment_id = ids.payment_id(merchant_id, "again")
    events = life(payment_id)
    for event in events:
        await store.payments.write_event(*event)
    before = await _everything(store, payment_id, merchant_id)
    for event in reversed(events):
        await store.payments.write_event(*event)
    assert await _everything(store, payment_id, merchant_id) == before
    assert f"{CREATED_AT + 4}" in before, "the timestamp of a write is its creation plus its revision"


async def test_every_field_comes_back_as_it_was_written(
    store: RecordStore, life: Callable[[str], list[tuple[str, dict[str, Any]]]], merchant_id: str
) -> None:
    payment_id = ids.payment_id(merchant_id, "fields")
    for revision, event in enumerate(life(payment_id), start=1):
        await store.payments.write_event(*event)
        assert await store.payments.get(payment_id) == _payment(event)
        assert await store.payments.at_revision(payment_id, revision) == _payment(event)
    assert await store.payments.get(ids.payment_id(merchant_id, "none")) is None
    assert await store.payments.at_revision(payment_id, 5) is None


async def test_a_payment_can_be_seen_as_it_was(
    store: RecordStore,
    life: Callable[[str], list[tuple[str, dict[str, Any]]]],
    payment_event: EventOf,
    merchant_id: str,
) -> None:
    payment_id = ids.payment_id(merchant_id, "was")
    events = life(payment_id)
    # An attempt between two transitions: revision 5 still is version 4.
    updated = payment_event(
        "PaymentUpdated",
        5,
        transition=False,
        payment_id=payment_id,
        version=4,
        status="SETTLED",
        transactions=events[3][1]["payment"]["transactions"],
    )
    for event in (*events, updated):
        await store.payments.write_event(*event)
    reads = store.payments
    assert await reads.at_version(payment_id, 0) is None
    assert await reads.at_version(payment_id, 2) == _payment(events[1])
    assert await reads.at_version(payment_id, 4) == _payment(events[3])
    assert await reads.at_version(payment_id, 99) == _payment(updated)
    assert await reads.at_time(payment_id, CREATED_AT) is None
    assert await reads.at_time(payment_id, CREATED_AT + 2_000_000) == _payment(events[1])
    assert await reads.at_time(payment_id, CREATED_AT + 2_999_999) == _payment(events[1])
    assert await reads.at_time(payment_id, 2**60) == _payment(updated)
    history = await reads.history(payment_id)
    assert [(entry.event, entry.version, entry.transition) for entry in history][-2:] == [
        ("PaymentSettled", 4, True),
        ("PaymentUpdated", 4, False),
    ]


async def test_lists_are_newest_first_page_without_gaps_and_filter(
    store: RecordStore, payment_event: EventOf, merchant_id: str
) -> None:
    hour = 3_600_000_000
    expected = []
    for number in range(30):  # 30 payments, 10 hours apart: over 13 days, some at the same instant
        at = CREATED_AT - (number // 2) * 20 * hour
        status = "DECLINED" if number % 3 == 0 else "AUTHORIZED"
        event = payment_event(
            "PaymentCreated", 1, payment_id=ids.payment_id(merchant_id, f"l{number}"), created_at=at, status=status
        )
        await store.payments.write_event(*event)
        expected.append(_payment(event))
    expected.sort(key=lambda payment: (payment.created_at, payment.payment_id), reverse=True)
    for limit in (1, 7, 30, 31):
        paged: list[Payment] = []
        while page := await store.payments.list(merchant_id, limit=limit, starting_after=paged[-1] if paged else None):
            paged.extend(page)
        assert paged == expected, f"pages of {limit}"
    declined = [payment for payment in expected if payment.status.value == "DECLINED"]
    assert await store.payments.list(merchant_id, limit=100, status="DECLINED") == declined
    assert await store.payments.list(merchant_id, limit=3, status="DECLINED") == declined[:3]
    bounds: dict[str, Any] = {"created_after": CREATED_AT - 60 * hour, "created_before": CREATED_AT}
    between = [payment for payment in expected if CREATED_AT - 60 * hour < payment.created_at < CREATED_AT]
    assert len(between) == 4
    assert await store.payments.list(merchant_id, limit=100, **bounds) == between
    assert await store.payments.list("mer_other", limit=100) == []


async def test_the_server_has_nothing_to_warn_of(
    address_of: Callable[[str], CassandraAddress],
    keyspace: str,
    payment_event: EventOf,
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = await RecordsSession.connect(address_of(STACK_ADMIN), keyspace, timeout_s=20)
    try:
        name, fields = payment_event("PaymentCreated", 1)
        await RecordStore(session).payments.write_event(name, fields)
        assert await RecordStore(session).payments.get(fields["payment"]["payment_id"]) is not None
    finally:
        await session.close()
    assert [record.message for record in caplog.records if record.name.startswith("cassandra")] == []


async def test_a_value_that_does_not_fit_is_refused_not_an_outage(store: RecordStore, payment_event: EventOf) -> None:
    with pytest.raises(RecordsRefused):
        await store.payments.write_event(*payment_event("PaymentCreated", 1, amount="many"))
    with pytest.raises(RecordsRefused):
        await store.payments.write_event(*payment_event("PaymentCreated", 1, version=2**40))


def _payment(event: tuple[str, dict[str, Any]]) -> Payment:
    return msgspec.convert(event[1]["payment"], Payment, strict=False)


async def _everything(store: RecordStore, payment_id: str, merchant_id: str) -> str:
    """Rows and write times of all that a payment's events wrote."""
    payments = await store.session.execute(
        "SELECT position, status, revision, writetime(status), writetime(transaction_status), writetime(failure)"
        " FROM payments WHERE payment_id = ?",
        (payment_id,),
    )
    history = await store.session.execute(
        "SELECT revision, snapshot, writetime(snapshot) FROM payment_history WHERE payment_id = ?", (payment_id,)
    )
    listed = await store.session.execute(
        "SELECT payment_id, snapshot, writetime(snapshot) FROM payments_by_merchant"
        " WHERE merchant_id = ? AND day = ? AND shard IN (0, 1, 2, 3, 4, 5, 6, 7)",
        (merchant_id, "2026-11-22"),
    )
    return repr((payments, history, listed))
