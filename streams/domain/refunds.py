"""A merchant gives money back: reserved on acceptance, released if the provider refuses."""

from __future__ import annotations

from msgspec.structs import replace

from streams.domain.authorization import unavailable
from streams.domain.commands import AttemptFailed, RefundOutcome, RefundPayment
from streams.domain.decision import Context, Decision, advanced, answered, decided, revised
from streams.domain.operations import (
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
    Payment,
    PaymentRow,
    PaymentStatus,
    ProviderError,
    Transaction,
    TransactionStatus,
    TransactionType,
)
from streams.domain.rejections import Rejection


def refundable(payment: Payment) -> int:
    """What is left after what has been refunded and what is reserved, in minor units."""
    reserved = sum(
        transaction.amount
        for transaction in payment.transactions
        if transaction.type is TransactionType.REFUND and transaction.status is TransactionStatus.PENDING
    )
    return payment.amount - payment.amount_refunded - reserved


def refund(row: PaymentRow, command: RefundPayment, context: Context) -> Decision | Rejection:
    """SETTLED: a REFUND under way, its amount reserved."""
    payment = row.payment
    left = refundable(payment)
    amount = left if command.amount is None else command.amount
    if not 0 < amount <= left:
        return Rejection.AMOUNT_EXCEEDS_REFUNDABLE
    begun = begin(
        payment,
        TransactionType.REFUND,
        command,
        context,
        amount=amount,
        idempotency_key=command.idempotency_key,
    )
    return decided(
        row,
        revised(payment, context, transactions=(*payment.transactions, begun.transaction)),
        command,
        reply_to=command.reply_to,
        requests=(begun.request,),
        timers=(begun.timer,),
        operations=with_operation(row, begun.operation),
    )


def refund_outcome(row: PaymentRow, transaction: Transaction, outcome: RefundOutcome, context: Context) -> Decision:
    """SETTLED -> SETTLED, or REFUNDED once nothing is left; a refusal only releases the amount."""
    payment = row.payment
    ended = concluded(transaction, outcome, context)
    if not outcome.succeeded:
        message = "The provider refused the refund." if outcome.error is None else outcome.error.message
        error = ProviderError(code="refund_refused", retryable=False, message=message)
        return _released(row, replace(ended, error=error), outcome, context)
    amount_refunded = payment.amount_refunded + transaction.amount
    assert amount_refunded <= payment.amount, "more was refunded than was settled"
    status = PaymentStatus.REFUNDED if amount_refunded == payment.amount else PaymentStatus.SETTLED
    after = advanced(
        payment,
        status,
        context,
        amount_refunded=amount_refunded,
        transactions=answered(payment.transactions, ended),
    )
    return decided(
        row,
        after,
        outcome,
        reply_to=outcome.reply_to,
        timers=(no_more(transaction.transaction_id),),
        operations=without_operation(row, transaction.transaction_id),
    )


def give_up_refund(row: PaymentRow, failed: AttemptFailed, context: Context) -> Decision:
    """The attempts are spent: it ends only if the provider surely processed none of them."""
    if next_operation(row, failed).in_doubt:
        return try_again(row, failed, context)
    ended = replace(attempted(row, failed, context), status=TransactionStatus.FAILED, error=unavailable(failed.error))
    return _released(row, ended, failed, context)


def _released(row: PaymentRow, ended: Transaction, cause: RefundOutcome | AttemptFailed, context: Context) -> Decision:
    return decided(
        row,
        revised(row.payment, context, transactions=answered(row.payment.transactions, ended)),
        cause,
        reply_to=cause.reply_to,
        timers=(no_more(ended.transaction_id),),
        given_up=given_up(ended, cause) if isinstance(cause, AttemptFailed) else None,
        operations=without_operation(row, ended.transaction_id),
    )
