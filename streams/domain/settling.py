"""Step 8, Settle, for one payment: it enters a day's window, leaves it, and takes the provider's answer."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from streams.domain import ids
from streams.domain.commands import CloseSettlementDay, SettlementOutcome
from streams.domain.decision import Context, Decision, advanced, decided, revised, unchanged
from streams.domain.envelope import PAYMENT_WORKER, Command
from streams.domain.operations import begin, with_operation
from streams.domain.payment import (
    Payment,
    PaymentRow,
    PaymentStatus,
    ProviderError,
    Transaction,
    TransactionStatus,
    TransactionType,
)
from streams.domain.settlement import DayBarrier, EntryAdded, EntryFailed, EntryRemoved, EntrySettled
from streams.domain.settlement_days import first_open, next_day


def window(payment: Payment, day: str) -> dict[str, str]:
    """The payment's fields once it is in the window of `day`."""
    return {"batch_id": ids.batch_id(payment.merchant_id, payment.currency, day), "settlement_date": day}


def entry_added(payment: Payment, cause: Command) -> EntryAdded:
    """The payment, as it is now, enters its window."""
    return EntryAdded(transaction_id=_transaction_id(payment), **_entry(payment, cause, "added"))


def entry_removed(payment: Payment, cause: Command) -> EntryRemoved:
    """The payment, as it was, leaves its window."""
    return EntryRemoved(transaction_id=_transaction_id(payment), **_entry(payment, cause, "removed"))


def settlement_outcome(row: PaymentRow, outcome: SettlementOutcome, context: Context) -> Decision:
    """AUTHORIZED -> SETTLED; or another day's window; or FAILED, and the hold is voided."""
    payment = row.payment
    awaited = payment.status is PaymentStatus.AUTHORIZED and payment.batch_id == outcome.batch_id
    if not awaited or outcome.transaction_id != _transaction_id(payment):
        return unchanged(row, outcome, context)
    attempts = row.settlement_attempts + 1
    if outcome.succeeded:
        return _settled(row, outcome, context, attempts)
    retryable = outcome.error is not None and outcome.error.retryable
    if retryable and attempts < context.rules.settlement_days_max:
        return _postponed(row, outcome, context, attempts)
    return _failed(row, outcome, context, attempts)


def close_day(
    last_closed_date: str | None, command: CloseSettlementDay, *, partitions: int, now_us: int
) -> DayBarrier | None:
    """The barrier of this partition, for every partition of `settlement.entries`; None if the day had closed."""
    if last_closed_date is not None and command.date <= last_closed_date:
        return None
    return DayBarrier(
        id=f"barrier:{command.date}:{command.partition}",
        occurred_at=now_us,
        actor=PAYMENT_WORKER,
        request_id=command.request_id,
        traceparent=command.traceparent,
        date=command.date,
        source_partition=command.partition,
        source_partitions=partitions,
    )


def _settled(row: PaymentRow, outcome: SettlementOutcome, context: Context, attempts: int) -> Decision:
    payment = row.payment
    transactions = (*payment.transactions, _transaction(payment, outcome, context))
    entry = EntrySettled(batch_id=outcome.batch_id, chunk=outcome.chunk, **_entry(payment, outcome, "settled"))
    return decided(
        row,
        advanced(payment, PaymentStatus.SETTLED, context, transactions=transactions),
        outcome,
        reply_to=None,
        entries=(entry,),
        settlement_attempts=attempts,
    )


def _postponed(row: PaymentRow, outcome: SettlementOutcome, context: Context, attempts: int) -> Decision:
    payment = row.payment
    assert payment.settlement_date is not None, "an item of no window"
    day = first_open(next_day(payment.settlement_date), context.last_closed_date)
    transactions = (*payment.transactions, _transaction(payment, outcome, context))
    after = revised(payment, context, transactions=transactions, **window(payment, day))
    return decided(
        row,
        after,
        outcome,
        reply_to=None,
        entries=(_entry_failed(payment, outcome, retryable=True), entry_added(after, outcome)),
        settlement_attempts=attempts,
    )


def _failed(row: PaymentRow, outcome: SettlementOutcome, context: Context, attempts: int) -> Decision:
    payment = row.payment
    refused = _transaction(payment, outcome, context)
    assert refused.error is not None, "a refusal without its error"
    final = replace(refused.error, code="settlement_failed", retryable=False)
    begun = begin(payment, TransactionType.VOID, outcome, context, amount=payment.amount)
    after = advanced(
        payment,
        PaymentStatus.FAILED,
        context,
        transactions=(*payment.transactions, replace(refused, error=final), begun.transaction),
        failure=final,
    )
    return decided(
        row,
        after,
        outcome,
        reply_to=None,
        requests=(begun.request,),
        entries=(_entry_failed(payment, outcome, retryable=False),),
        timers=(begun.timer,),
        operations=with_operation(row, begun.operation),
        settlement_attempts=attempts,
    )


def _transaction(payment: Payment, outcome: SettlementOutcome, context: Context) -> Transaction:
    """The SETTLEMENT transaction, made and answered in one step: until then it is an item of its batch."""
    refusal = outcome.error or ProviderError(
        code="settlement_failed", retryable=False, message="The provider refused the settlement."
    )
    return Transaction(
        transaction_id=outcome.transaction_id,
        type=TransactionType.SETTLEMENT,
        status=TransactionStatus.SUCCEEDED if outcome.succeeded else TransactionStatus.FAILED,
        amount=payment.amount,
        currency=payment.currency,
        idempotency_key=f"{outcome.batch_id}:{outcome.chunk}",
        provider_reference=outcome.provider_reference,
        attempts=1,
        error=None if outcome.succeeded else refusal,
        created_at=context.now_us,
        updated_at=context.now_us,
    )


def _transaction_id(payment: Payment) -> str:
    assert payment.settlement_date is not None, "not in a window"
    return ids.settlement_transaction_id(payment.payment_id, payment.settlement_date)


def _entry_failed(payment: Payment, outcome: SettlementOutcome, *, retryable: bool) -> EntryFailed:
    entry = _entry(payment, outcome, "failed")
    return EntryFailed(batch_id=outcome.batch_id, chunk=outcome.chunk, retryable=retryable, **entry)


def _entry(payment: Payment, cause: Command, what: str) -> dict[str, Any]:
    return {
        "id": f"{payment.payment_id}:{payment.settlement_date}:{what}:{payment.revision}",
        "occurred_at": payment.updated_at,
        "actor": PAYMENT_WORKER,
        "request_id": cause.request_id,
        "traceparent": cause.traceparent,
        "merchant_id": payment.merchant_id,
        "currency": payment.currency,
        "settlement_date": payment.settlement_date,
        "payment_id": payment.payment_id,
        "amount": payment.amount,
    }
