"""Operations at the provider: how one is begun, asked about again, and left alone. Which one is not decided here.

Each request arms a timer, which stages the request again should no outcome follow: an outcome that was lost (a dead
letter) never leaves a payment undecided.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from streams.domain import ids
from streams.domain.commands import AttemptFailed, ProviderOutcome, RequestDue
from streams.domain.decision import (
    CancelTimer,
    Context,
    Decision,
    SetTimer,
    answered,
    decided,
    revised,
)
from streams.domain.envelope import PAYMENT_WORKER, Command, ReplyTo, Value
from streams.domain.payment import (
    Payment,
    PaymentRow,
    ProviderError,
    ProviderOperation,
    Transaction,
    TransactionStatus,
    TransactionType,
)
from streams.domain.requests import AuthorizeRequest, ProviderRequest, RefundRequest, VoidRequest
from streams.domain.retry import answer_wait_ms, delay_ms

UNEXPLAINED = ProviderError(code="provider_unavailable", retryable=False, message="The provider gave no reason.")


class Begun(Value, frozen=True, kw_only=True, gc=False):
    """A new transaction, and what gets it under way."""

    transaction: Transaction
    operation: ProviderOperation
    request: ProviderRequest
    timer: SetTimer


def timer_name(transaction_id: str) -> str:
    """Name of the timer that asks the provider about this transaction again."""
    return f"request:{transaction_id}"


def begin(
    payment: Payment,
    kind: TransactionType,
    cause: Command,
    context: Context,
    *,
    amount: int,
    idempotency_key: str | None = None,
    reply_to: ReplyTo | None = None,
) -> Begun:
    """A PENDING transaction of this kind and its first request. `reply_to`: who waits for the provider's answer."""
    transaction = Transaction(
        transaction_id=ids.transaction_id(payment.payment_id, kind.value, payment.count(kind)),
        type=kind,
        status=TransactionStatus.PENDING,
        amount=amount,
        currency=payment.currency,
        idempotency_key=idempotency_key,
        created_at=context.now_us,
        updated_at=context.now_us,
    )
    first = _due(payment.payment_id, transaction.transaction_id, cause, context.now_us, reply_to=reply_to)
    return Begun(
        transaction=transaction,
        operation=ProviderOperation(transaction_id=transaction.transaction_id, attempt=1, in_doubt=False),
        request=request(payment, transaction, first, context),
        timer=answer_timer(first, context),
    )


def request(payment: Payment, transaction: Transaction, due: RequestDue, context: Context) -> ProviderRequest:
    """The request for a transaction, as `due` says; its id is the transaction's, the attempt's and the repetition's."""
    envelope: dict[str, Any] = {
        "id": f"{due.transaction_id}:{due.attempt}:{due.unanswered}",
        "occurred_at": context.now_us,
        "actor": PAYMENT_WORKER,
        "request_id": due.request_id,
        "traceparent": due.traceparent,
        "reply_to": due.reply_to,
        "payment_id": payment.payment_id,
        "merchant_id": payment.merchant_id,
        "transaction_id": transaction.transaction_id,
        "attempt": due.attempt,
        "query_first": due.query_first,
        "sends": transaction.attempts,
    }
    match transaction.type:
        case TransactionType.AUTHORIZATION:
            assert payment.payment_method_token is not None, "an authorisation without a card's token"
            token = payment.payment_method_token
            return AuthorizeRequest(
                amount=transaction.amount, currency=transaction.currency, payment_method_token=token, **envelope
            )
        case TransactionType.VOID:
            return VoidRequest(amount=payment.amount, currency=payment.currency, **_authorization(payment), **envelope)
        case TransactionType.REFUND:
            authorization = _authorization(payment)
            return RefundRequest(amount=transaction.amount, currency=transaction.currency, **authorization, **envelope)
        case TransactionType.SETTLEMENT | TransactionType.UNKNOWN:
            raise AssertionError(f"{transaction.type} is not asked for one by one")


def _authorization(payment: Payment) -> dict[str, Any]:
    """What a void or a refund goes back to: our id of the authorisation, and the provider's where it is known."""
    authorization_id = ids.transaction_id(payment.payment_id, TransactionType.AUTHORIZATION.value, 0)
    authorization = payment.transaction(authorization_id)
    reference = None if authorization is None else authorization.provider_reference
    return {"authorization_id": authorization_id, "authorization_reference": reference}


def answer_timer(due: RequestDue, context: Context) -> SetTimer:
    """Stage the request again, asking first, should no outcome follow `due` in time."""
    wait_us = answer_wait_ms(context.rules.retry, due.unanswered) * 1000
    again = replace(
        due,
        id=f"{due.transaction_id}:{due.attempt}:{due.unanswered + 1}:due",
        occurred_at=context.now_us,
        query_first=True,
        unanswered=due.unanswered + 1,
    )
    return SetTimer(name=timer_name(due.transaction_id), due_us=context.now_us + wait_us, command=again)


def request_due(row: PaymentRow, due: RequestDue, context: Context) -> Decision:
    """Steps 6 and later: the time has come to ask the provider (again), unless the answer has come meanwhile."""
    transaction, operation = row.payment.transaction(due.transaction_id), row.operation(due.transaction_id)
    if transaction is None or operation is None or operation.attempt != due.attempt:
        return Decision(event=None)
    after = None
    if due.unanswered and not operation.in_doubt:  # the lost answer may have been "unknown"
        after = replace(row, operations=with_operation(row, replace(operation, in_doubt=True)))
    return Decision(
        event=None,
        row=after,
        requests=(request(row.payment, transaction, due, context),),
        timers=(answer_timer(due, context),),
    )


def try_again(row: PaymentRow, failed: AttemptFailed, context: Context) -> Decision:
    """Another attempt after the back-off, the last error visible meanwhile; nothing is slept in memory.

    The last attempt asks first even without a doubt: a gateway that died before it could tell may have sent an earlier
    one, which the answers since ("not processed") know nothing of. So whoever gives up knows of every send.
    """
    transaction, operation = attempted(row, failed, context), next_operation(row, failed)
    wait_ms = delay_ms(context.rules.retry, failed.transaction_id, failed.attempt, failed.retry_after_ms)
    due = _due(
        row.payment.payment_id,
        failed.transaction_id,
        failed,
        context.now_us,
        reply_to=failed.reply_to,
        attempt=operation.attempt,
        query_first=operation.in_doubt or operation.attempt >= context.rules.retry.attempts_max,
    )
    return decided(
        row,
        revised(row.payment, context, transactions=answered(row.payment.transactions, transaction)),
        failed,
        reply_to=None,
        timers=(SetTimer(name=timer_name(due.transaction_id), due_us=context.now_us + wait_ms * 1000, command=due),),
        operations=with_operation(row, operation),
    )


def ask_again(payment: Payment, operation: ProviderOperation, cause: Command, context: Context) -> SetTimer:
    """The timer that asks the provider about a transaction whose fate is open, at the capped interval."""
    due = _due(
        payment.payment_id,
        operation.transaction_id,
        cause,
        context.now_us,
        reply_to=cause.reply_to,
        attempt=operation.attempt,
        query_first=True,
    )
    due_us = context.now_us + context.rules.retry.delay_ms_max * 1000
    return SetTimer(name=timer_name(operation.transaction_id), due_us=due_us, command=due)


def attempted(row: PaymentRow, failed: AttemptFailed, context: Context) -> Transaction:
    """The transaction with its sends so far and its last error."""
    transaction = row.payment.transaction(failed.transaction_id)
    assert transaction is not None, "an operation without its transaction"
    sends = failed.attempt if failed.sends is None else failed.sends
    attempts = max(transaction.attempts, sends)
    return replace(transaction, attempts=attempts, error=failed.error, updated_at=context.now_us)


def given_up(transaction: Transaction, failed: AttemptFailed) -> str:
    """Why `transaction` is not tried any more, for its dead letter: what of, how often sent, and the last error."""
    name = f"{transaction.type.value} {transaction.transaction_id}"
    return f"{name} is given up; sends: {transaction.attempts}; last error: {failed.error.message}"


def next_operation(row: PaymentRow, failed: AttemptFailed) -> ProviderOperation:
    """The operation on its next attempt; once in doubt, always in doubt."""
    operation = row.operation(failed.transaction_id)
    assert operation is not None, "an attempt of no operation"
    in_doubt = operation.in_doubt or not failed.outcome_known
    return ProviderOperation(transaction_id=failed.transaction_id, attempt=failed.attempt + 1, in_doubt=in_doubt)


def concluded(transaction: Transaction, outcome: ProviderOutcome, context: Context) -> Transaction:
    """The transaction with the provider's final answer."""
    return replace(
        transaction,
        status=TransactionStatus.SUCCEEDED if outcome.succeeded else TransactionStatus.FAILED,
        provider_reference=outcome.provider_reference or transaction.provider_reference,
        attempts=max(transaction.attempts, outcome.attempts),
        error=None if outcome.succeeded else outcome.error or UNEXPLAINED,
        updated_at=context.now_us,
    )


def with_operation(row: PaymentRow, operation: ProviderOperation) -> tuple[ProviderOperation, ...]:
    """The row's operations with this one in place of its earlier self."""
    return (*without_operation(row, operation.transaction_id), operation)


def without_operation(row: PaymentRow, transaction_id: str) -> tuple[ProviderOperation, ...]:
    """The row's operations without this transaction's: nobody asks about it any more."""
    return tuple(operation for operation in row.operations if operation.transaction_id != transaction_id)


def no_more(transaction_id: str) -> CancelTimer:
    """Stops the asking about a transaction."""
    return CancelTimer(name=timer_name(transaction_id))


def _due(
    payment_id: str,
    transaction_id: str,
    cause: Command,
    now_us: int,
    *,
    reply_to: ReplyTo | None,
    attempt: int = 1,
    query_first: bool = False,
) -> RequestDue:
    return RequestDue(
        id=f"{transaction_id}:{attempt}:0:due",
        occurred_at=now_us,
        actor=PAYMENT_WORKER,
        request_id=cause.request_id,
        traceparent=cause.traceparent,
        reply_to=reply_to,
        payment_id=payment_id,
        transaction_id=transaction_id,
        attempt=attempt,
        query_first=query_first,
        unanswered=0,
    )
