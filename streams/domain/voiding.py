"""A merchant cancels; and what becomes of a void, whoever wanted it: a cancel, a doubt, or a failed settlement."""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from streams.domain import settling
from streams.domain.authorization import unavailable
from streams.domain.commands import AttemptFailed, CancelPayment, VoidOutcome
from streams.domain.creation import NO_EXPIRY
from streams.domain.decision import (
    CancelTimer,
    Context,
    Decision,
    PaymentEntry,
    SetTimer,
    advanced,
    answered,
    decided,
    revised,
)
from streams.domain.operations import (
    ask_again,
    attempted,
    begin,
    concluded,
    given_up,
    next_operation,
    no_more,
    try_again,
    with_operation,
    without_operation,
)
from streams.domain.payment import (
    PaymentRow,
    PaymentStatus,
    ProviderError,
    ProviderOperation,
    Transaction,
    TransactionStatus,
    TransactionType,
)
from streams.domain.rejections import Rejection
from streams.domain.settlement_days import day_of, first_open


def cancel(row: PaymentRow, command: CancelPayment, context: Context) -> Decision | Rejection:
    """PENDING -> CANCELED. AUTHORIZED: leaves its window at once, with a VOID under way, while its day is open."""
    payment = row.payment
    if payment.status is PaymentStatus.PENDING:
        after = advanced(payment, PaymentStatus.CANCELED, context)
        return decided(row, after, command, reply_to=command.reply_to, timers=(NO_EXPIRY,))
    if payment.settlement_date is None:  # it has left its window: a void is under way
        return Rejection.INVALID_STATE
    if context.last_closed_date is not None and payment.settlement_date <= context.last_closed_date:
        return Rejection.PAYMENT_IN_SETTLEMENT
    begun = begin(
        payment,
        TransactionType.VOID,
        command,
        context,
        amount=payment.amount,
        idempotency_key=command.idempotency_key,
    )
    transactions = (*payment.transactions, begun.transaction)
    return decided(
        row,
        revised(payment, context, transactions=transactions, batch_id=None, settlement_date=None),
        command,
        reply_to=command.reply_to,
        requests=(begun.request,),
        entries=(settling.entry_removed(payment, command),),
        timers=(begun.timer,),
        operations=with_operation(row, begun.operation),
    )


def void_outcome(row: PaymentRow, transaction: Transaction, outcome: VoidOutcome, context: Context) -> Decision:
    """The provider has voided, or refuses to."""
    void = concluded(transaction, outcome, context)
    if outcome.succeeded:
        return _voided(row, void, outcome, context)
    message = "The provider refused the void." if outcome.error is None else outcome.error.message
    error = ProviderError(code="void_refused", retryable=False, message=message)
    return _refused(row, replace(void, error=error), outcome, context)


def give_up_void(row: PaymentRow, failed: AttemptFailed, context: Context) -> Decision:
    """The attempts are spent: only a cancel whose void surely was not processed may end; the others must succeed."""
    if row.payment.status is not PaymentStatus.AUTHORIZED or next_operation(row, failed).in_doubt:
        return try_again(row, failed, context)
    void = replace(attempted(row, failed, context), status=TransactionStatus.FAILED, error=unavailable(failed.error))
    return _refused(row, void, failed, context)


def _voided(row: PaymentRow, void: Transaction, outcome: VoidOutcome, context: Context) -> Decision:
    payment = row.payment
    transactions = answered(payment.transactions, void)
    match payment.status:
        case PaymentStatus.PROCESSING:  # given up while in doubt: now it can never be charged
            authorization = payment.pending(TransactionType.AUTHORIZATION)
            assert authorization is not None, "PROCESSING without an authorisation under way"
            ended = replace(authorization, status=TransactionStatus.FAILED, updated_at=context.now_us)
            after = advanced(
                payment,
                PaymentStatus.FAILED,
                context,
                transactions=answered(transactions, ended),
                failure=ended.error,
            )
        case PaymentStatus.AUTHORIZED:  # canceled
            after = advanced(payment, PaymentStatus.CANCELED, context, transactions=transactions)
        case PaymentStatus.FAILED:  # settlement was given up; the hold is released
            after = revised(payment, context, transactions=transactions)
        case (
            PaymentStatus.UNKNOWN
            | PaymentStatus.PENDING
            | PaymentStatus.SETTLED
            | PaymentStatus.DECLINED
            | PaymentStatus.CANCELED
            | PaymentStatus.EXPIRED
            | PaymentStatus.REFUNDED
        ):
            raise AssertionError(f"a void under way in {payment.status}")
        case _:
            assert_never(payment.status)
    return decided(
        row,
        after,
        outcome,
        reply_to=outcome.reply_to,
        timers=(no_more(void.transaction_id),),
        operations=without_operation(row, void.transaction_id),
    )


def _refused(row: PaymentRow, void: Transaction, outcome: VoidOutcome | AttemptFailed, context: Context) -> Decision:
    """The hold stays. A canceled payment re-enters settlement; one in doubt is asked about again, until answered."""
    payment = row.payment
    transactions = answered(payment.transactions, void)
    operations = without_operation(row, void.transaction_id)
    entries: tuple[PaymentEntry, ...] = ()
    timers: tuple[SetTimer | CancelTimer, ...] = (no_more(void.transaction_id),)
    after = revised(payment, context, transactions=transactions)
    if payment.status is PaymentStatus.AUTHORIZED:
        day = first_open(day_of(context.now_us), context.last_closed_date)
        after = replace(after, **settling.window(payment, day))
        entries = (settling.entry_added(after, outcome),)
    elif payment.status is PaymentStatus.PROCESSING:
        authorization = payment.pending(TransactionType.AUTHORIZATION)
        assert authorization is not None, "PROCESSING without an authorisation under way"
        rounds = max(context.rules.retry.attempts_max, authorization.attempts)  # so many were spent at least
        again = ProviderOperation(transaction_id=authorization.transaction_id, attempt=rounds + 1, in_doubt=True)
        operations = (*operations, again)
        timers = (*timers, ask_again(payment, again, outcome, context))
    return decided(
        row,
        after,
        outcome,
        reply_to=None,
        entries=entries,
        timers=timers,
        given_up=given_up(void, outcome) if isinstance(outcome, AttemptFailed) else None,
        operations=operations,
    )
