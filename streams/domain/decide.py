"""Step 2, Decide: one pure function from a payment and a command to everything that follows. No clock, no I/O."""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from streams.domain import idempotency
from streams.domain.authorization import authorization_outcome, confirm, give_up_authorization
from streams.domain.commands import (
    AttemptFailed,
    AuthorizationOutcome,
    CancelPayment,
    ConfirmPayment,
    CreatePayment,
    ExpiryDue,
    MerchantCommand,
    PaymentCommand,
    RefundOutcome,
    RefundPayment,
    RequestDue,
    SettlementOutcome,
    VoidOutcome,
)
from streams.domain.creation import create, expire, objection
from streams.domain.decision import Context, Decision, rejected, repeated, unchanged
from streams.domain.operations import request_due, try_again
from streams.domain.payment import PaymentRow, PaymentStatus, TransactionType
from streams.domain.refunds import give_up_refund, refund, refund_outcome
from streams.domain.rejections import Rejection
from streams.domain.settling import settlement_outcome
from streams.domain.transitions import ACCEPTED_IN
from streams.domain.voiding import cancel, give_up_void, void_outcome

_FromProvider = AuthorizationOutcome | VoidOutcome | RefundOutcome | SettlementOutcome | AttemptFailed


def decide(row: PaymentRow | None, command: PaymentCommand, context: Context) -> Decision:
    """What `command` does to the payment of `row` (None: there is none yet).

    Every command has exactly one event; timers may have none. A rejection is a decision too; a broken invariant is an
    AssertionError, which ends as CommandFailed.
    """
    if row is not None and context.now_us < row.payment.updated_at:  # another broker's clock: history never goes back
        context = replace(context, now_us=row.payment.updated_at)
    match command:
        case CreatePayment():
            return _create(row, command, context)
        case ConfirmPayment() | CancelPayment() | RefundPayment():
            return _of_merchant(row, command, context)
        case AuthorizationOutcome() | VoidOutcome() | RefundOutcome() | SettlementOutcome() | AttemptFailed():
            if row is None:
                return rejected(None, command, Rejection.NOT_FOUND, context)
            return _of_provider(row, command, context)
        case ExpiryDue():
            return Decision(event=None) if row is None else expire(row, command, context)
        case RequestDue():
            return Decision(event=None) if row is None else request_due(row, command, context)
        case _:
            assert_never(command)


def _create(row: PaymentRow | None, command: CreatePayment, context: Context) -> Decision:
    rejection = objection(command, context)
    if rejection is not None:
        return rejected(None, command, rejection, context)
    if row is None:
        return _accepted(None, command, create(command, context), context)
    return _known(row, command, context) or rejected(row, command, Rejection.INVALID_STATE, context)


def _of_merchant(row: PaymentRow | None, command: MerchantCommand, context: Context) -> Decision:
    if row is None:
        return rejected(None, command, Rejection.NOT_FOUND, context)
    known = _known(row, command, context)
    if known is not None:
        return known
    result = _apply(row, command, context)
    if isinstance(result, Rejection):
        return _refused(row, command, result, context)
    return _accepted(row, command, result, context)


def _known(row: PaymentRow, command: CreatePayment | MerchantCommand, context: Context) -> Decision | None:
    """The answer to a command that needs no deciding: another merchant's payment, or a key that was answered before."""
    if row.payment.merchant_id != command.merchant_id:
        return rejected(None, command, Rejection.NOT_FOUND, context)
    kept = idempotency.find(row.idempotency, command)
    if kept is None:
        return None
    if not idempotency.is_repeat(kept, command):
        return rejected(row, command, Rejection.IDEMPOTENCY_KEY_REUSED, context)
    return repeated(row, command, kept, context)


def _apply(row: PaymentRow, command: MerchantCommand, context: Context) -> Decision | Rejection:
    if row.payment.status not in ACCEPTED_IN[type(command)]:
        return Rejection.INVALID_STATE
    match command:
        case ConfirmPayment():
            return confirm(row, command, context)
        case CancelPayment():
            return cancel(row, command, context)
        case RefundPayment():
            return refund(row, command, context)
        case _:
            assert_never(command)


def _of_provider(row: PaymentRow, command: _FromProvider, context: Context) -> Decision:
    """An answer counts only while it is awaited: late, duplicate and contradicting ones change nothing."""
    if isinstance(command, SettlementOutcome):
        return settlement_outcome(row, command, context)
    transaction, operation = row.payment.transaction(command.transaction_id), row.operation(command.transaction_id)
    if transaction is None or operation is None:
        return unchanged(row, command, context)
    match command, transaction.type:
        case AuthorizationOutcome(), TransactionType.AUTHORIZATION:
            return authorization_outcome(row, transaction, command, context)
        case VoidOutcome(), TransactionType.VOID:
            return void_outcome(row, transaction, command, context)
        case RefundOutcome(), TransactionType.REFUND:
            return refund_outcome(row, transaction, command, context)
        case AttemptFailed(), kind if command.attempt == operation.attempt:
            return _attempt_failed(row, command, kind, context)
        case _:  # of another attempt, or another operation than its transaction's
            return unchanged(row, command, context)


def _attempt_failed(row: PaymentRow, failed: AttemptFailed, kind: TransactionType, context: Context) -> Decision:
    refused_for_good = failed.outcome_known and not failed.error.retryable
    if failed.attempt < context.rules.retry.attempts_max and not refused_for_good:
        return try_again(row, failed, context)
    match kind:
        case TransactionType.AUTHORIZATION:
            return give_up_authorization(row, failed, context)
        case TransactionType.VOID:
            return give_up_void(row, failed, context)
        case TransactionType.REFUND:
            return give_up_refund(row, failed, context)
        case TransactionType.SETTLEMENT | TransactionType.UNKNOWN:
            raise AssertionError(f"{kind} has no attempts of its own")
        case _:
            assert_never(kind)


def _accepted(
    row: PaymentRow | None, command: CreatePayment | MerchantCommand, decision: Decision, context: Context
) -> Decision:
    """Keep the acceptance under the command's key; without room for it the command has no effect."""
    assert decision.row is not None, "an accepted command changes its payment"
    payment = decision.row.payment
    at_once = isinstance(command, CancelPayment) and payment.status is PaymentStatus.CANCELED
    outcome = idempotency.outcome_of(
        command,
        status_code=201 if row is None else 200 if at_once else 202,
        payment_status=payment.status.value,
        revision=payment.revision,
    )
    kept = idempotency.keep(decision.row.idempotency, outcome)
    if kept is None:
        return rejected(row, command, Rejection.TOO_MANY_KEYS, context)
    return replace(decision, row=replace(decision.row, idempotency=kept))


def _refused(row: PaymentRow, command: MerchantCommand, rejection: Rejection, context: Context) -> Decision:
    """Keep the refusal under the command's key; without room for it, and for what passes, nothing is kept."""
    if not rejection.is_kept:
        return rejected(row, command, rejection, context)
    outcome = idempotency.outcome_of(
        command,
        status_code=rejection.status_code,
        code=rejection.value,
        payment_status=row.payment.status.value,
        revision=row.payment.revision,
    )
    kept = idempotency.keep(row.idempotency, outcome)
    if kept is None:
        return rejected(row, command, Rejection.TOO_MANY_KEYS, context)
    return rejected(row, command, rejection, context, kept=kept)
