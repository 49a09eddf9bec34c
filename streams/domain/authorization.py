"""Steps 5 and 6: the customer confirms, the provider holds the money, declines, or cannot be reached."""

from __future__ import annotations

from msgspec.structs import replace

from streams.domain import settling
from streams.domain.commands import AttemptFailed, AuthorizationOutcome, ConfirmPayment
from streams.domain.creation import NO_EXPIRY
from streams.domain.decision import Context, Decision, PaymentEntry, advanced, answered, decided, revised
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
    PaymentRow,
    PaymentStatus,
    ProviderError,
    Transaction,
    TransactionStatus,
    TransactionType,
)
from streams.domain.settlement_days import open_day


def confirm(row: PaymentRow, command: ConfirmPayment, context: Context) -> Decision:
    """Step 5. PENDING -> PROCESSING, with an AUTHORIZATION under way."""
    payment = replace(row.payment, payment_method_token=command.payment_method_token)
    begun = begin(
        payment,
        TransactionType.AUTHORIZATION,
        command,
        context,
        amount=payment.amount,
        idempotency_key=command.idempotency_key,
        reply_to=command.reply_to,
    )
    return decided(
        row,
        advanced(payment, PaymentStatus.PROCESSING, context, transactions=(*payment.transactions, begun.transaction)),
        command,
        reply_to=command.reply_to,
        requests=(begun.request,),
        timers=(NO_EXPIRY, begun.timer),
        operations=with_operation(row, begun.operation),
    )


def authorization_outcome(
    row: PaymentRow, transaction: Transaction, outcome: AuthorizationOutcome, context: Context
) -> Decision:
    """Step 6. PROCESSING -> AUTHORIZED and into a settlement window, or DECLINED, or FAILED."""
    payment = row.payment
    ended = concluded(transaction, outcome, context)
    transactions = answered(payment.transactions, ended)
    entries: tuple[PaymentEntry, ...] = ()
    if outcome.succeeded:
        day = open_day(outcome.occurred_at, highest_us=context.highest_us, last_closed_date=context.last_closed_date)
        window = settling.window(payment, day)
        after = advanced(payment, PaymentStatus.AUTHORIZED, context, transactions=transactions, **window)
        entries = (settling.entry_added(after, outcome),)
    else:
        declined = ended.error is not None and ended.error.decline_code is not None
        status = PaymentStatus.DECLINED if declined else PaymentStatus.FAILED
        after = advanced(payment, status, context, transactions=transactions, failure=ended.error)
    return decided(
        row,
        after,
        outcome,
        reply_to=outcome.reply_to,
        entries=entries,
        timers=(no_more(transaction.transaction_id),),
        operations=without_operation(row, transaction.transaction_id),
    )


def give_up_authorization(row: PaymentRow, failed: AttemptFailed, context: Context) -> Decision:
    """The attempts are spent. If the provider surely processed none: FAILED. Else only a confirmed void ends it.

    Where the provider has refused such a void, it is asked about the authorisation for as long as it takes.
    """
    if not next_operation(row, failed).in_doubt:
        return _fail(row, failed, context)
    if row.payment.count(TransactionType.VOID):
        return try_again(row, failed, context)
    return _void(row, failed, context)


def unavailable(error: ProviderError) -> ProviderError:
    """The error that ends an operation whose attempts are spent."""
    return replace(error, code="provider_unavailable", decline_code=None)


def _fail(row: PaymentRow, failed: AttemptFailed, context: Context) -> Decision:
    error = unavailable(failed.error)
    transaction = replace(attempted(row, failed, context), status=TransactionStatus.FAILED, error=error)
    transactions = answered(row.payment.transactions, transaction)
    return decided(
        row,
        advanced(row.payment, PaymentStatus.FAILED, context, transactions=transactions, failure=error),
        failed,
        reply_to=failed.reply_to,
        timers=(no_more(failed.transaction_id),),
        given_up=given_up(transaction, failed),
        operations=without_operation(row, failed.transaction_id),
    )


def _void(row: PaymentRow, failed: AttemptFailed, context: Context) -> Decision:
    payment = row.payment
    begun = begin(payment, TransactionType.VOID, failed, context, amount=payment.amount, reply_to=failed.reply_to)
    transaction = replace(attempted(row, failed, context), error=unavailable(failed.error))
    transactions = (*answered(payment.transactions, transaction), begun.transaction)
    return decided(
        row,
        revised(payment, context, transactions=transactions),
        failed,
        reply_to=None,
        requests=(begun.request,),
        timers=(no_more(failed.transaction_id), begun.timer),
        given_up=given_up(transaction, failed),
        operations=(*without_operation(row, failed.transaction_id), begun.operation),
    )
