"""The `records` agent: write, then reply, then pass on; wait through outages, never through bad data."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from streams.agents.records import Records
from streams.domain import ids
from streams.domain.envelope import Actor, ReplyTo
from streams.domain.events import (
    CommandFailed,
    CommandRejected,
    CommandRepeated,
    PaymentAuthorized,
    PaymentCreated,
    PaymentEvent,
    PaymentUpdated,
)
from streams.domain.payment import Payment, PaymentStatus
from streams.exactly_once.layers import Send
from streams.exactly_once.records import Output
from streams.exactly_once.testing import Bench
from tables.records.errors import RecordsRefused, RecordsUnavailable
from tables.records.session import Mutation
from tables.records.store import RecordStore
from topics import catalog
from topics.codec import Codec, Message
from topics.schemas import subjects

NOW = 1_795_372_800_000_000
MERCHANT, PAYMENT = ids.derived(ids.MERCHANT, "one"), ids.derived(ids.PAYMENT, "one")
CODEC = Codec({s.name: n for n, s in enumerate(subjects(catalog.all_topics()), 1)}, lambda _: None)
SNAPSHOT = Payment(
    payment_id=PAYMENT,
    merchant_id=MERCHANT,
    status=PaymentStatus.PENDING,
    amount=2500,
    currency="USD",
    client_secret_key_id="k1",
    version=1,
    revision=1,
    created_at=NOW,
    updated_at=NOW,
    expires_at=NOW + 1,
)
CAUSE: dict[str, Any] = {"occurred_at": NOW, "actor": Actor(identity="key_1", role="secret"), "request_id": "req_1"}
COMMAND: dict[str, Any] = {
    "payment_id": PAYMENT,
    "merchant_id": MERCHANT,
    "command_id": "cmd_1",
    "command": "ConfirmPayment",
}
WAITING = ReplyTo(partition=2, correlation_id="c-7")


class ScriptedSession:
    """Stands for Cassandra's session: keeps what is written, and fails as it is told, in turn."""

    def __init__(self, journal: list[Any], *failures: Exception) -> None:
        self._journal = journal
        self._failures = list(failures)

    async def write(self, *mutations: Mutation) -> None:
        if self._failures:
            raise self._failures.pop(0)
        self._journal.append(("written", {cql.split()[2] for mutation in mutations for cql, _ in mutation}))

    async def execute(self, _cql: str, _values: Sequence[Any] = ()) -> list[Any]:
        return []

    async def apply(self, _cql: str, _values: Sequence[Any] = ()) -> bool:
        raise AssertionError("no lightweight transaction is expected here")


class Bed:
    """One `records` handler over a scripted session; `journal` has writes and replies in their order."""

    def __init__(self, *failures: Exception) -> None:
        self.journal: list[Any] = []
        self.registry = CollectorRegistry()
        session: Any = ScriptedSession(self.journal, *failures)
        inbox = Output("merchants.inbox", CODEC.encoder("merchants.inbox"))
        self.handler = Records(RecordStore(session), self._reply, inbox, registry=self.registry)
        self.bench = Bench()

    def _reply(self, partition: int, reply: Message) -> None:
        decoded = CODEC.decode("payments.replies", CODEC.encoder("payments.replies")(reply))
        assert decoded == reply, "the schema has exactly these fields"
        self.journal.append(("replied", partition, reply.fields))

    async def handle(self, event: Any, topic: str = "payments.events") -> list[Send]:
        fields = event if isinstance(event, Message) else Message(type(event).__name__, _fields(event))
        message = CODEC.decode(topic, CODEC.encoder(topic)(fields))
        return await self.bench.effect_async(self.handler, self.bench.record(topic, PAYMENT.encode(), message))


def _fields(event: Any) -> dict[str, Any]:
    """As the codec decodes it: arrays are lists."""
    fields: dict[str, Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(event))
    return fields


def created(**fields: Any) -> PaymentEvent:
    return PaymentCreated(
        **{"id": "evt_1", "sequence": 1, "payment": SNAPSHOT, "command_id": "cmd_1", **CAUSE, **fields}
    )


def inbox_event(send: Send) -> dict[str, Any]:
    assert (send.topic, send.key) == ("merchants.inbox", MERCHANT.encode())
    return dict(CODEC.decode(send.topic, send.value).fields)


async def test_the_reply_follows_the_write_and_the_merchants_event_goes_with_the_commit() -> None:
    bed = Bed()
    sends = await bed.handle(created(reply_to=WAITING))
    written, (_, partition, reply) = bed.journal
    tables = {"payments", "payment_history", "payments_by_merchant", "payment_days_by_merchant"}
    assert written == ("written", tables)
    assert (partition, reply["correlation_id"]) == (2, "c-7")
    assert (reply["outcome"], reply["event"], reply["revision"], reply["payment_status"]) == (
        "accepted",
        "PaymentCreated",
        1,
        "PENDING",
    )
    assert reply["payment"] == _fields(SNAPSHOT)
    (send,) = sends
    event = inbox_event(send)
    assert (event["id"], event["type"], event["sequence"]) == ("evt_1", "payment.created", 1)
    assert event["payment"] == _fields(SNAPSHOT)
    assert (event["batch"], event["endpoint_id"]) == (None, None)


async def test_nobody_waits_nobody_is_answered() -> None:
    bed = Bed()
    await bed.handle(created())
    assert [entry[0] for entry in bed.journal] == ["written"]


async def test_what_is_no_transition_is_recorded_and_answered_but_not_passed_on() -> None:
    bed = Bed()
    updated = PaymentUpdated(id="evt_1", payment=SNAPSHOT, command_id="cmd_1", reply_to=WAITING, **CAUSE)
    assert await bed.handle(updated) == []
    assert [entry[0] for entry in bed.journal] == ["written", "replied"]


async def test_an_authorised_payment_enters_the_items_of_its_batch() -> None:
    bed = Bed()
    payment = msgspec.structs.replace(SNAPSHOT, status=PaymentStatus.AUTHORIZED, batch_id="sb_1", version=3)
    await bed.handle(PaymentAuthorized(id="evt_3", sequence=3, payment=payment, command_id="c", **CAUSE))
    assert "settlement_items" in bed.journal[0][1]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            CommandRejected(
                id="e", code="invalid_state", payment_status="SETTLED", reply_to=WAITING, **COMMAND, **CAUSE
            ),
            {"outcome": "rejected", "code": "invalid_state", "payment_status": "SETTLED", "revision": None},
        ),
        (
            CommandRepeated(id="e", status_code=202, revision=4, code=None, reply_to=WAITING, **COMMAND, **CAUSE),
            {"outcome": "repeated", "code": None, "status_code": 202, "revision": 4},
        ),
        (
            CommandFailed(id="e", error_class="KeyError", reply_to=WAITING, **COMMAND, **CAUSE),
            {"outcome": "failed", "code": "internal_error", "revision": None},
        ),
    ],
)
async def test_what_changed_nothing_is_answered_only(event: Any, expected: dict[str, Any]) -> None:
    bed = Bed()
    assert await bed.handle(event) == []
    ((_, partition, reply),) = bed.journal
    assert partition == 2
    assert reply.items() >= {**expected, "payment": None, "payment_id": PAYMENT, "command_id": "cmd_1"}.items()


async def test_an_outage_is_waited_for_and_nothing_is_said_before_the_write() -> None:
    away = RecordsUnavailable("no quorum")
    bed = Bed(away, away, away)
    handling = asyncio.create_task(bed.handle(created(reply_to=WAITING)))
    while bed.registry.get_sample_value("payments_records_waiting") != 1.0:  # noqa: ASYNC110  a gauge has no event
        await asyncio.sleep(0.001)
    assert bed.journal == []
    assert bed.registry.get_sample_value("payments_records_waiting") == 1.0
    assert len(await handling) == 1
    assert [entry[0] for entry in bed.journal] == ["written", "replied"]
    assert bed.registry.get_sample_value("payments_records_waiting") == 0.0
    assert bed.registry.get_sample_value("payments_records_unavailable_total") == 3.0


async def test_a_stopped_lane_ends_the_wait_without_a_trace() -> None:
    bed = Bed(*[RecordsUnavailable("no quorum")] * 100)
    handling = asyncio.create_task(bed.handle(created(reply_to=WAITING)))
    while bed.registry.get_sample_value("payments_records_waiting") != 1.0:  # noqa: ASYNC110  a gauge has no event
        await asyncio.sleep(0.001)
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling
    assert (bed.journal, bed.bench.sent) == ([], [])


async def test_bad_data_is_raised_at_once_not_waited_for() -> None:
    bed = Bed(RecordsRefused("a value does not fit"))
    with pytest.raises(RecordsRefused):
        await bed.handle(created(reply_to=WAITING))
    assert (bed.journal, bed.bench.sent) == ([], [])


async def test_a_completed_batch_is_recorded_and_passed_on() -> None:
    bed = Bed()
    totals = {
        "count": 3,
        "amount": 30,
        "settled_count": 2,
        "failed_count": 1,
        "settled_amount": 20,
        "failed_amount": 10,
    }
    batch = {"batch_id": "sb_1", "merchant_id": MERCHANT, "currency": "USD", "settlement_date": "2026-11-22"}
    cause = {**CAUSE, "actor": {"identity": "batch-processor", "role": "service"}}
    envelope = {"id": "evt_b", "type": "settlement_batch.completed", "sequence": None, **cause}
    message = Message("BatchCompleted", {**envelope, **batch, **totals, "chunks": 1})
    (send,) = await bed.handle(message, "settlement.events")
    tables = {"settlement_batches", "settlement_batches_by_date", "settlement_batches_by_merchant"}
    assert bed.journal == [("written", tables)]
    event = inbox_event(send)
    assert (event["type"], event["sequence"], event["payment"]) == ("settlement_batch.completed", 1, None)
    assert event["batch"] == {
        **{name: batch[name] for name in ("batch_id", "settlement_date", "currency")},
        **{name: totals[name] for name in ("count", "amount", "settled_count", "failed_count")},
    }


async def test_a_record_of_a_newer_release_is_left_alone() -> None:
    bed = Bed()
    record = bed.bench.record("payments.events", b"pay_1", Message("PaymentTeleported", {}))
    assert await bed.bench.effect_async(bed.handler, record) == []
    assert bed.journal == []


@pytest.mark.parametrize("topic", ["payments.events", "settlement.events", "merchants.events", "webhooks.outcomes"])
def test_every_record_of_its_topics_has_a_handler(topic: str) -> None:
    bed = Bed()
    assert set(catalog.find(topic).records) <= set(bed.handler._handlers)
