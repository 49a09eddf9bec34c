"""What a decision is made of: the context it is made in, and what it stages."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from streams.domain import ids
from streams.domain.commands import PaymentCommand, TimedCommand
from streams.domain.envelope import ReplyTo, Value
from streams.domain.events import CommandRejected, CommandRepeated, Outcome, PaymentUpdated
from streams.domain.payment import KeptOutcome, Payment, PaymentRow, PaymentStatus, Transaction
from streams.domain.rejections import Rejection
from streams.domain.requests import ProviderRequest
from streams.domain.retry import RetryPolicy
from streams.domain.settlement import EntryAdded, EntryFailed, EntryRemoved, EntrySettled
from streams.domain.transitions import TRANSITIONS

PaymentEntry = EntryAdded | EntryRemoved | EntrySettled | EntryFailed


class Rules(Value, frozen=True, kw_only=True, gc=False):
    """What may be set differently from one installation to another."""

    retry: RetryPolicy = RetryPolicy()
    settlement_days_max: int = 3
    """On how many days a payment is tried for settlement."""


class Context(Value, frozen=True, kw_only=True, gc=False):
    """What a decision may know besides the row and the command; all of it came in with records."""

    now_us: int  # the record's broker time, or the time at which a timer fired
    highest_us: int  # the highest broker time that the lane has seen
    last_closed_date: str | None  # the last settlement day that this partition has closed
    creates_for: frozenset[str] | None = None  # merchants for whom this record's source may create; None: for all
    rules: Rules = Rules()


class SetTimer(Value, frozen=True, kw_only=True, gc=False):
    """Give `command` to the payment at `due_us`; moves the payment's timer of this name if it is set."""

    name: str
    due_us: int
    command: TimedCommand


class CancelTimer(Value, frozen=True, kw_only=True, gc=False):
    """Forget the payment's timer of this name."""

    name: str


class Decision(Value, frozen=True, kw_only=True, gc=False):
    """Everything that one command brings about, in one Kafka transaction.

    `event` is None for timers only: every command has exactly one. `row` is None when the row stays as it is.
    """

    event: Outcome | None
    row: PaymentRow | None = None
    requests: tuple[ProviderRequest, ...] = ()
    entries: tuple[PaymentEntry, ...] = ()
    timers: tuple[SetTimer | CancelTimer, ...] = ()
    given_up: str | None = None  # why the command's operation at the provider is not tried any more: a dead letter


def revised(payment: Payment, context: Context, **changes: Any) -> Payment:
    """The payment's next revision; its merchant sees no new version."""
    return replace(payment, revision=payment.revision + 1, updated_at=context.now_us, **changes)


def advanced(payment: Payment, status: PaymentStatus, context: Context, **changes: Any) -> Payment:
    """The payment one transition further: next version, next revision."""
    return revised(payment, context, status=status, version=payment.version + 1, **changes)


def answered(transactions: tuple[Transaction, ...], transaction: Transaction) -> tuple[Transaction, ...]:
    """`transactions` with this one in place of its earlier self."""
    return tuple(transaction if old.transaction_id == transaction.transaction_id else old for old in transactions)


def decided(
    before: PaymentRow | None,
    payment: Payment,
    command: PaymentCommand,
    *,
    reply_to: ReplyTo | None,
    requests: tuple[ProviderRequest, ...] = (),
    entries: tuple[PaymentEntry, ...] = (),
    timers: tuple[SetTimer | CancelTimer, ...] = (),
    given_up: str | None = None,
    **row_changes: Any,
) -> Decision:
    """The payment became `payment`: its event, which the transition table names, and its row."""
    earlier = None if before is None else before.payment
    is_transition = earlier is None or earlier.version != payment.version
    step = (None if earlier is None else earlier.status, payment.status)
    event_type = TRANSITIONS[step] if is_transition else PaymentUpdated
    event = event_type(
        id=ids.event_id(payment.payment_id, payment.revision),
        sequence=payment.version if is_transition else None,
        occurred_at=payment.updated_at,
        actor=command.actor,
        request_id=command.request_id,
        payment=payment,
        command_id=command.id,
        reply_to=reply_to,
        traceparent=command.traceparent,
    )
    if before is None:
        row = PaymentRow(payment=payment, last_event_id=event.id, **row_changes)
    else:
        row = replace(before, payment=payment, last_event_id=event.id, **row_changes)
    return Decision(event=event, row=row, requests=requests, entries=entries, timers=timers, given_up=given_up)


def rejected(
    row: PaymentRow | None,
    command: PaymentCommand,
    rejection: Rejection,
    context: Context,
    *,
    kept: tuple[KeptOutcome, ...] | None = None,
) -> Decision:
    """The command is refused; with `kept`, its key will be answered so from now on. The payment is not revised."""
    event = CommandRejected(
        id=ids.derived(ids.EVENT, command.id, "rejected"),
        occurred_at=context.now_us,
        actor=command.actor,
        request_id=command.request_id,
        payment_id=command.payment_id,
        merchant_id=getattr(command, "merchant_id", "") if row is None else row.payment.merchant_id,
        command_id=command.id,
        command=type(command).__name__,
        code=rejection.value,
        payment_status=None if row is None else row.payment.status.value,
        idempotency_kept=kept is not None,
        reply_to=command.reply_to,
        traceparent=command.traceparent,
    )
    if kept is None or row is None:
        return Decision(event=event)
    return Decision(event=event, row=replace(row, idempotency=kept))


def repeated(row: PaymentRow, command: PaymentCommand, kept: KeptOutcome, context: Context) -> Decision:
    """The command has had its outcome before: the same answer, and nothing done."""
    return _repeat(
        row,
        command,
        context,
        code=kept.code,
        status_code=kept.status_code,
        revision=kept.revision,
        payment_status=kept.payment_status,
        reply_to=command.reply_to,
    )


def unchanged(row: PaymentRow, command: PaymentCommand, context: Context) -> Decision:
    """A late, duplicate or contradicting answer of the provider: recorded, and nothing done. Nobody waits for it."""
    payment = row.payment
    return _repeat(
        row,
        command,
        context,
        code=None,
        status_code=200,
        revision=payment.revision,
        payment_status=payment.status.value,
        reply_to=None,
    )


def _repeat(row: PaymentRow, command: PaymentCommand, context: Context, **answer: Any) -> Decision:
    event = CommandRepeated(
        id=ids.derived(ids.EVENT, command.id, "repeated"),
        occurred_at=context.now_us,
        actor=command.actor,
        request_id=command.request_id,
        payment_id=command.payment_id,
        merchant_id=row.payment.merchant_id,
        command_id=command.id,
        command=type(command).__name__,
        traceparent=command.traceparent,
        **answer,
    )
    return Decision(event=event)
