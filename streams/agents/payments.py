"""Decider `payments`, step 2 (Decide): a payment's commands in order, all that follows from one staged at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from streams.agents.messages import message_of
from streams.domain import ids
from streams.domain.commands import (
    AttemptFailed,
    AuthorizationOutcome,
    CancelPayment,
    CloseSettlementDay,
    ConfirmPayment,
    CreatePayment,
    ExpiryDue,
    PaymentCommand,
    RefundOutcome,
    RefundPayment,
    RequestDue,
    SettlementOutcome,
    TimedCommand,
    VoidOutcome,
)
from streams.domain.creation import EXPIRY
from streams.domain.decide import decide
from streams.domain.decision import CancelTimer, Context, Decision, Rules, SetTimer
from streams.domain.envelope import Actor, Value
from streams.domain.events import CommandFailed
from streams.domain.settlement_days import is_date
from streams.domain.settling import close_day
from streams.exactly_once.agent import DeadLetter
from streams.exactly_once.effects import Effects, State
from streams.exactly_once.errors import Poison
from streams.exactly_once.records import TIMERS, Output, Record
from streams.exactly_once.table_spec import TableSpec
from tables.payments import DAYS, LAST_CLOSED, ClosedDay

COMMANDS, INTAKE, OUTCOMES, CLOSINGS = (
    "payments.commands",
    "payments.intake",
    "provider.outcomes",
    "settlement.closings",
)

KINDS: Mapping[str, Mapping[str, type[Any]]] = {
    COMMANDS: {kind.__name__: kind for kind in (CreatePayment, ConfirmPayment, CancelPayment, RefundPayment)},
    INTAKE: {"CreatePayment": CreatePayment},
    OUTCOMES: {
        kind.__name__: kind
        for kind in (AuthorizationOutcome, VoidOutcome, RefundOutcome, SettlementOutcome, AttemptFailed)
    },
    CLOSINGS: {"CloseSettlementDay": CloseSettlementDay},
}
"""What each input may say. Kafka's ACLs hold a writer to its topic, this holds it to the topic's records."""

WRITERS: Mapping[str, Actor] = {
    INTAKE: Actor(identity="internal-producer", role="service"),
    OUTCOMES: Actor(identity="provider-gateway", role="service"),
    CLOSINGS: Actor(identity="batch-processor", role="service"),
}
"""The actor of an internal command is its topic's writer, whatever the record claims. The API names its clients."""

REARM_MS = 300_000
"""After a timer's command raised (a bug) it is tried again so much later: the payment must not be forgotten."""

GIVEN_UP = "GivenUp"
"""The `error_class` of an operation at the provider that is not tried any more."""

_decode_expiry = msgspec.msgpack.Decoder(ExpiryDue).decode
_decode_request = msgspec.msgpack.Decoder(RequestDue).decode


class PaymentsOutputs(Value, frozen=True, kw_only=True):
    """Where the agent writes: payments.events, provider.requests, settlement.entries, provider.outcomes.dlq."""

    events: Output
    requests: Output
    entries: Output
    given_up: Output  # takes DeadLetter


class Payments:
    """The handler. Partitions of `payments` and of `settlement.entries` are the catalogue's."""

    def __init__(
        self,
        payments: TableSpec,
        outputs: PaymentsOutputs,
        *,
        partitions: int,
        entry_partitions: int,
        intake_merchants: frozenset[str] = frozenset(),
        rules: Rules | None = None,
    ) -> None:
        self.tables = (payments, DAYS)
        self._payments = payments
        self._outputs = outputs
        self._partitions = partitions
        self._entry_partitions = entry_partitions
        self._intake_merchants = intake_merchants
        self._rules = rules or Rules()

    def __call__(self, batch: Sequence[Record], state: State, effects: Effects) -> None:
        """Decide every record of the batch, each on what those before it have left."""
        for record in batch:
            command = command_of(record)
            if isinstance(command, CloseSettlementDay):
                self._close(record, command, state, effects)
            elif command is not None:
                self._decide(record, command, state, effects)

    def dead_letter(self, record: Record, error: Exception, state: State, effects: Effects) -> None:
        """Tell that a command could not be decided. What means nothing (poison) has nobody to tell."""
        if record.topic == TIMERS:
            timer = record.value
            effects.set_timer(record.key, timer.name, record.timestamp_ms + REARM_MS, timer.payload)
            return
        if isinstance(error, Poison):
            return
        command = command_of(record)
        if command is None or isinstance(command, CloseSettlementDay):
            return
        row = state.get(self._payments, record.key)
        failed = CommandFailed(
            id=ids.derived(ids.EVENT, command.id, "failed"),
            occurred_at=record.timestamp_ms * 1000,
            actor=command.actor,
            request_id=command.request_id,
            payment_id=command.payment_id,
            merchant_id=getattr(command, "merchant_id", "") if row is None else row.payment.merchant_id,
            command_id=command.id,
            command=type(command).__name__,
            error_class=type(error).__name__,
            reply_to=command.reply_to,
            traceparent=command.traceparent,
        )
        effects.send(self._outputs.events, message_of(failed), key=record.key)

    def _decide(self, record: Record, command: PaymentCommand, state: State, effects: Effects) -> None:
        row = state.get(self._payments, record.key)
        context = Context(
            now_us=record.timestamp_ms * 1000,
            highest_us=state.highest_timestamp_ms * 1000,
            last_closed_date=_last_closed(state),
            creates_for=self._intake_merchants if record.topic == INTAKE else None,
            rules=self._rules,
        )
        decision = decide(row, command, context)
        if decision.row is not None:
            expected = 0 if row is None else row.payment.revision
            effects.put(self._payments, record.key, decision.row, expected_version=expected)
        self._send(record.key, decision, effects)
        if decision.given_up is not None:
            effects.send(self._outputs.given_up, _given_up(record, decision.given_up), key=record.key)

    def _send(self, key: bytes, decision: Decision, effects: Effects) -> None:
        if decision.event is not None:
            effects.send(self._outputs.events, message_of(decision.event), key=key)
        for request in decision.requests:
            effects.send(self._outputs.requests, message_of(request), key=key)
        for entry in decision.entries:
            window = f"{entry.merchant_id}:{entry.currency}".encode()
            effects.send(self._outputs.entries, message_of(entry), key=window)
        for timer in decision.timers:
            match timer:
                case SetTimer():
                    due_ms = -(-timer.due_us // 1000)  # never early
                    effects.set_timer(key, timer.name, due_ms, msgspec.msgpack.encode(timer.command))
                case CancelTimer():
                    effects.cancel_timer(key, timer.name)

    def _close(self, record: Record, command: CloseSettlementDay, state: State, effects: Effects) -> None:
        """Step 8. No payment of this partition enters the day any more, and every settlement partition hears it."""
        if command.partition != state.partition:
            raise Poison(f"a close for partition {command.partition} in partition {state.partition}")
        if not is_date(command.date):
            raise Poison(f"a close of {command.date[:40]!r}, which is no date")
        barrier = close_day(
            _last_closed(state), command, partitions=self._partitions, now_us=record.timestamp_ms * 1000
        )
        if barrier is None:
            return
        effects.put(DAYS, LAST_CLOSED, ClosedDay(date=command.date))
        for partition in range(self._entry_partitions):
            effects.send(self._outputs.entries, message_of(barrier), key=barrier.id.encode(), partition=partition)


def command_of(record: Record) -> PaymentCommand | CloseSettlementDay | None:
    """What a record tells the agent to do; None for a record type of a newer release.

    Raises Poison for a record whose key is not its payment's id: it would be decided in another payment's place.
    """
    if record.topic == TIMERS:
        return _timed(record)
    command: PaymentCommand | CloseSettlementDay | None = record.value
    if command is None:
        return None
    if record.topic in WRITERS:
        command = msgspec.structs.replace(command, actor=WRITERS[record.topic])
    if not isinstance(command, CloseSettlementDay) and record.key != command.payment_id.encode():
        raise Poison(f"the key is not the payment's id: {record.key[:40]!r}")
    return command


def _given_up(record: Record, why: str) -> DeadLetter:
    """The answer that ended an operation without the provider's decision, for people to see.

    Replaying it is harmless: nobody awaits it any more, so it is recorded as CommandRepeated and changes nothing.
    """
    source = (record.topic, record.partition, record.offset)
    return DeadLetter(*source, record.key, record.data, record.headers, GIVEN_UP, why)


def _timed(record: Record) -> TimedCommand:
    payload: bytes = record.value.payload
    return _decode_expiry(payload) if record.value.name == EXPIRY else _decode_request(payload)


def _last_closed(state: State) -> str | None:
    closed: ClosedDay | None = state.get(DAYS, LAST_CLOSED)
    return None if closed is None else closed.date
