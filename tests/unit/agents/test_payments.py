"""Decider `payments`: one record in, everything that follows staged, in real Avro, without servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from streams.agents.messages import message_of
from streams.agents.payments import CLOSINGS, COMMANDS, GIVEN_UP, INTAKE, KINDS, OUTCOMES, Payments, PaymentsOutputs
from streams.app import dead_letter_output
from streams.domain import ids
from streams.domain.commands import AttemptFailed, CloseSettlementDay
from streams.domain.envelope import Actor, Command
from streams.domain.payment import PaymentRow, PaymentStatus, TransactionStatus, TransactionType
from streams.exactly_once.effects import Effects
from streams.exactly_once.errors import Poison
from streams.exactly_once.layers import Send
from streams.exactly_once.records import Output, Record
from streams.exactly_once.table_spec import TableSpec
from streams.exactly_once.testing import Bench
from tables.payments import DAYS, LAST_CLOSED, ClosedDay, payments_table
from tests.unit.agents.codecs import offline_codec
from tests.unit.domain.payments_in_states import (
    MERCHANT,
    NOW_US,
    PAYMENT,
    TODAY,
    TOMORROW,
    attempt_failed,
    authorized,
    cancel,
    confirm,
    create,
    refund,
    settled,
    transaction,
)
from topics.codec import Message

KEY = PAYMENT.encode()
NOW_MS = NOW_US // 1000


class PaymentsBench:
    """The agent in a lane, and its output decoded."""

    def __init__(self) -> None:
        self.codec = offline_codec()
        self.table = payments_table(self.codec)
        outputs = PaymentsOutputs(
            events=self._output("payments.events"),
            requests=self._output("provider.requests"),
            entries=self._output("settlement.entries"),
            given_up=dead_letter_output("payment-worker", OUTCOMES, self.codec),
        )
        self.agent = Payments(
            self.table, outputs, partitions=6, entry_partitions=3, intake_merchants=frozenset({MERCHANT})
        )
        self.bench = Bench(partition=4, now_ms=NOW_MS)

    def _output(self, topic: str) -> Output:
        return Output(topic, self.codec.encoder(topic))

    def record(self, command: Command, topic: str = COMMANDS, key: bytes = KEY) -> Record:
        """The record of a command, decoded from its own bytes."""
        message = message_of(command)
        data = self.codec.encode(topic, message.name, message.fields)
        return self.bench.record(topic, key, self.codec.value_decoder(topic, KINDS[topic])(data), data=data)

    def give(self, *records: Record) -> list[tuple[Send, Message]]:
        """Decide one batch: what was sent, with its messages."""
        sent = self.bench.decide(self.agent, *records)
        return [(send, self.codec.decode(send.topic, send.value)) for send in sent]

    def names(self, *records: Record) -> list[str]:
        """Decide one batch: the names of what was sent."""
        return [message.name for _, message in self.give(*records)]

    @property
    def row(self) -> PaymentRow:
        """The payment's row, decoded from its changelog's bytes."""
        row = self.bench.row(self.table, KEY)
        assert isinstance(row, PaymentRow)
        return row


@pytest.fixture
def payments() -> PaymentsBench:
    return PaymentsBench()


def test_a_payment_s_life_in_one_batch(payments: PaymentsBench) -> None:
    sent = payments.give(
        payments.record(create()),
        payments.record(confirm()),
        payments.record(authorized(), OUTCOMES),
        payments.record(settled(), OUTCOMES),
    )
    assert [(send.topic, message.name) for send, message in sent] == [
        ("payments.events", "PaymentCreated"),
        ("payments.events", "PaymentProcessing"),
        ("provider.requests", "AuthorizeRequest"),
        ("payments.events", "PaymentAuthorized"),
        ("settlement.entries", "EntryAdded"),
        ("payments.events", "PaymentSettled"),
        ("settlement.entries", "EntrySettled"),
    ]
    assert [message.fields["sequence"] for _, message in sent if message.name.startswith("Payment")] == [1, 2, 3, 4]
    assert {send.key for send, _ in sent if send.topic != "settlement.entries"} == {KEY}
    assert {send.key for send, _ in sent if send.topic == "settlement.entries"} == {f"{MERCHANT}:USD".encode()}
    assert payments.row.payment.status is PaymentStatus.SETTLED
    assert payments.row.payment.revision == 4
    assert payments.bench.timers() == []  # expiry and request are over


def test_the_row_survives_its_changelog(payments: PaymentsBench) -> None:
    payments.give(payments.record(create()), payments.record(confirm()))
    before = payments.row
    assert before.operations[0].attempt == 1
    assert [outcome.operation for outcome in before.idempotency] == ["create", "confirm"]
    assert payments.table.decode(payments.table.encode(before)) == before


def test_a_payment_that_nobody_confirms_expires_on_time(payments: PaymentsBench) -> None:
    payments.give(payments.record(create()))
    (timer,) = payments.bench.timers()
    assert timer.due_ms == NOW_MS + 86_400_000
    assert payments.bench.advance(86_399_999) == []
    assert payments.names(*payments.bench.advance(1)) == ["PaymentExpired"]
    assert payments.row.payment.status is PaymentStatus.EXPIRED


def test_a_failed_attempt_is_repeated_by_its_timer(payments: PaymentsBench) -> None:
    payments.give(payments.record(create()), payments.record(confirm()))
    assert payments.names(payments.record(attempt_failed(), OUTCOMES)) == ["PaymentUpdated"]

    ((send, message),) = payments.give(*payments.bench.advance(300))

    assert (send.topic, message.name) == ("provider.requests", "AuthorizeRequest")
    assert (message.fields["attempt"], message.fields["query_first"]) == (2, True)
    assert message.fields["reply_to"] == {"partition": 1, "correlation_id": "waiting"}


def test_a_lost_outcome_is_asked_for_again(payments: PaymentsBench) -> None:
    payments.give(payments.record(create()), payments.record(confirm()))
    assert payments.names(*payments.bench.advance(30_000)) == ["AuthorizeRequest"]
    assert payments.row.operations[0].in_doubt
    assert payments.names(*payments.bench.advance(60_000)) == ["AuthorizeRequest"]


AUTHORIZATION, VOID, REFUND = TransactionType.AUTHORIZATION, TransactionType.VOID, TransactionType.REFUND


def spend(payments: PaymentsBench, kind: TransactionType, *, known: bool) -> list[tuple[Send, Message]]:
    """All attempts of the operation under way fail; what the last one brings about."""
    for attempt in (1, 2, 3, 4):
        sent = payments.give(payments.record(attempt_failed(kind, attempt, known=known), OUTCOMES))
        assert [message.name for _, message in sent] == ["PaymentUpdated"]
        payments.give(*payments.bench.advance(60_000))
    return payments.give(payments.record(attempt_failed(kind, 5, known=known), OUTCOMES))


@pytest.mark.parametrize(
    ("kind", "steps", "known", "beside", "status"),
    [
        (AUTHORIZATION, [], True, ["PaymentFailed"], PaymentStatus.FAILED),
        (AUTHORIZATION, [], False, ["PaymentUpdated", "VoidRequest"], PaymentStatus.PROCESSING),
        (VOID, [authorized, cancel], True, ["PaymentUpdated", "EntryAdded"], PaymentStatus.AUTHORIZED),
        (REFUND, [authorized, settled, refund], True, ["PaymentUpdated"], PaymentStatus.SETTLED),
    ],
)
def test_an_operation_that_is_given_up_is_a_dead_letter_with_its_cause_whose_replay_changes_nothing(
    payments: PaymentsBench,
    kind: TransactionType,
    steps: list[Callable[[], Command]],
    known: bool,
    beside: list[str],
    status: PaymentStatus,
) -> None:
    topics = {authorized: OUTCOMES, settled: OUTCOMES}
    payments.give(payments.record(create()), payments.record(confirm()))
    payments.give(*(payments.record(step(), topics.get(step, COMMANDS)) for step in steps))

    *others, (send, letter) = spend(payments, kind, known=known)

    assert [message.name for _, message in others] == beside
    assert payments.row.payment.status is status
    assert (send.topic, send.key) == ("provider.outcomes.dlq", KEY)
    given_up = transaction(payments.row, kind)
    assert (letter.fields["error_class"], letter.fields["error_text"]) == (
        GIVEN_UP,
        f"{kind.value} {given_up.transaction_id} is given up; sends: 5; last error: 503",
    )
    assert (letter.fields["source_topic"], letter.fields["source_partition"], letter.fields["key"]) == (
        OUTCOMES,
        4,
        KEY,
    )
    value = letter.fields["value"]
    read = payments.codec.value_decoder(OUTCOMES, KINDS[OUTCOMES])(value)
    assert isinstance(read, AttemptFailed)
    assert (read.attempt, read.transaction_id) == (5, given_up.transaction_id)

    before, armed = payments.row, payments.bench.timers()
    assert payments.names(payments.bench.record(OUTCOMES, KEY, read, data=value)) == ["CommandRepeated"]
    assert (payments.row, payments.bench.timers()) == (before, armed)


def test_what_may_not_be_given_up_while_its_outcome_is_unknown_is_no_dead_letter(payments: PaymentsBench) -> None:
    for command, topic in (
        (create(), COMMANDS),
        (confirm(), COMMANDS),
        (authorized(), OUTCOMES),
        (settled(), OUTCOMES),
        (refund(), COMMANDS),
    ):
        payments.give(payments.record(command, topic))
    sent = spend(payments, REFUND, known=False)
    assert [message.name for _, message in sent] == ["PaymentUpdated"]
    assert transaction(payments.row, REFUND).status is TransactionStatus.PENDING


def test_internal_topics_are_their_writer_s_whatever_the_record_claims(payments: PaymentsBench) -> None:
    liar = Actor(identity="operator", role="admin")
    ((_, created),) = payments.give(payments.record(create(actor=liar), INTAKE))
    assert created.fields["actor"] == {"identity": "internal-producer", "role": "service"}
    payments.give(payments.record(confirm()))
    ((_, event), _) = payments.give(payments.record(authorized(actor=liar), OUTCOMES))
    assert event.fields["actor"] == {"identity": "provider-gateway", "role": "service"}


def test_an_internal_producer_creates_for_listed_merchants_only(payments: PaymentsBench) -> None:
    ((_, event),) = payments.give(payments.record(create(merchant_id="mer_other"), INTAKE))
    assert (event.name, event.fields["code"]) == ("CommandRejected", "forbidden")


def test_a_record_under_another_key_is_poison_and_leaves_no_trace(payments: PaymentsBench) -> None:
    stray = payments.record(create(), key=b"pay_other")
    with pytest.raises(Poison, match="not the payment's id"):
        payments.give(stray)
    assert payments.bench.rows(payments.table) == []
    payments.bench.decide(lambda batch, state, effects: payments.agent.dead_letter(stray, Poison("x"), state, effects))
    assert payments.bench.sent == []


def test_a_type_of_a_newer_release_is_skipped(payments: PaymentsBench) -> None:
    assert payments.give(payments.bench.record(COMMANDS, KEY, None)) == []


def _fail(payments: PaymentsBench, record: Record) -> list[tuple[Send, Message]]:
    error = AssertionError("a bug")
    sent = payments.bench.decide(
        lambda batch, state, effects: payments.agent.dead_letter(batch[0], error, state, effects), record
    )
    return [(send, payments.codec.decode(send.topic, send.value)) for send in sent]


def test_a_command_that_cannot_be_decided_is_answered(payments: PaymentsBench) -> None:
    payments.give(payments.record(create()))
    ((send, failed),) = _fail(payments, payments.record(confirm()))
    assert (send.topic, send.key, failed.name) == ("payments.events", KEY, "CommandFailed")
    told = (failed.fields["command"], failed.fields["error_class"], failed.fields["merchant_id"])
    assert told == ("ConfirmPayment", "AssertionError", MERCHANT)
    assert failed.fields["reply_to"] is not None
    assert payments.row.payment.version == 1


def test_a_timer_that_fails_is_set_again(payments: PaymentsBench) -> None:
    payments.give(payments.record(create()), payments.record(confirm()))
    (fired,) = payments.bench.advance(30_000)
    assert payments.bench.timers() == []
    assert _fail(payments, fired) == []
    assert [timer.name for timer in payments.bench.timers()] == [fired.value.name]


def close(day: str, partition: int = 4) -> CloseSettlementDay:
    return CloseSettlementDay(
        id=f"close:{day}:{partition}",
        occurred_at=NOW_US,
        actor=Actor(identity="batch-processor", role="service"),
        request_id="req_close",
        date=day,
        partition=partition,
    )


def test_closing_a_day_sends_a_barrier_to_every_partition_once(payments: PaymentsBench) -> None:
    sent = payments.give(payments.record(close(TODAY), CLOSINGS, key=b"close"))
    assert [send.partition for send, _ in sent] == [0, 1, 2]
    for _, barrier in sent:
        told = (barrier.fields["date"], barrier.fields["source_partition"], barrier.fields["source_partitions"])
        assert told == (TODAY, 4, 6)
    assert payments.bench.row(DAYS, LAST_CLOSED) == ClosedDay(date=TODAY)

    again = [payments.record(close(day), CLOSINGS, key=b"close") for day in (TODAY, "2026-09-01")]
    assert payments.give(*again) == []
    assert payments.bench.row(DAYS, LAST_CLOSED) == ClosedDay(date=TODAY)


def test_a_payment_authorised_in_the_batch_that_closes_its_day_settles_the_next(payments: PaymentsBench) -> None:
    payments.give(payments.record(create()), payments.record(confirm()))
    sent = payments.give(payments.record(close(TODAY), CLOSINGS, key=b"close"), payments.record(authorized(), OUTCOMES))
    assert [message.name for _, message in sent] == [*["DayBarrier"] * 3, "PaymentAuthorized", "EntryAdded"]
    assert sent[-1][1].fields["settlement_date"] == TOMORROW
    assert sent[-1][1].fields["transaction_id"] == ids.settlement_transaction_id(PAYMENT, TOMORROW)


def test_a_close_for_another_partition_is_poison(payments: PaymentsBench) -> None:
    with pytest.raises(Poison, match="for partition 1 in partition 4"):
        payments.give(payments.record(close(TODAY, partition=1), CLOSINGS, key=b"close"))


@pytest.mark.parametrize("date", ["soon", "20260921", "2026-02-30", ""])
def test_a_close_of_no_date_is_poison(payments: PaymentsBench, date: str) -> None:
    with pytest.raises(Poison, match="no date"):
        payments.give(payments.record(close(date), CLOSINGS, key=b"close"))
    assert payments.bench.rows(DAYS) == []


def test_each_put_names_the_revision_that_it_replaces(payments: PaymentsBench) -> None:
    named: list[int | None] = []

    class Recording:
        def __init__(self, effects: Effects) -> None:
            self._effects = effects

        def put(self, table: TableSpec, key: bytes, value: object, *, expected_version: int | None = None) -> None:
            named.append(expected_version)
            self._effects.put(table, key, value, expected_version=expected_version)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._effects, name)

    records = [payments.record(create()), payments.record(confirm()), payments.record(confirm(key="late"))]
    payments.bench.decide(lambda batch, state, effects: payments.agent(batch, state, Recording(effects)), *records)
    assert named == [0, 1, 2]


def test_commands_survive_the_wire(payments: PaymentsBench) -> None:
    command = confirm()
    assert payments.record(command).value == command
