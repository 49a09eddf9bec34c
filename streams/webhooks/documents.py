"""How a payment, a batch and an event look to their merchant: the documents of the HTTP contract.

GET answers, webhook bodies and the feed show the same documents, so they are made here once. The same input gives the
same bytes, for ever: a webhook is repeated byte for byte.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ops.runtime.clock import to_rfc3339
from streams.domain.delivery import BatchSummary, FeedEvent
from streams.domain.payment import Payment, ProviderError, Transaction


class PersonalFields(msgspec.Struct, frozen=True, kw_only=True):
    """What a payment's personal data holds once decrypted; `metadata` maps text to text."""

    customer: dict[str, Any] | None = None
    description: str | None = None
    metadata: dict[str, str] = msgspec.field(default_factory=dict)


NO_PERSONAL_FIELDS = PersonalFields()
"""Of a payment that came without any (internal producers may send none)."""


def payment_document(payment: Payment, personal: PersonalFields) -> dict[str, Any]:
    """The payment as every merchant's reader sees it: `client_secret` is the API's to add."""
    return {
        "payment_id": payment.payment_id,
        "object": "payment",
        "status": payment.status.value,
        "amount": payment.amount,
        "amount_refunded": payment.amount_refunded,
        "currency": payment.currency,
        "customer": personal.customer,
        "description": personal.description,
        "metadata": personal.metadata,
        "payment_method_token": payment.payment_method_token,
        "batch_id": payment.batch_id,
        "settlement_date": payment.settlement_date,
        "version": payment.version,
        "created_at": to_rfc3339(payment.created_at),
        "updated_at": to_rfc3339(payment.updated_at),
        "failure": error_document(payment.failure),
        "transactions": [transaction_document(transaction) for transaction in payment.transactions],
    }


def transaction_document(transaction: Transaction) -> dict[str, Any]:
    """One transaction of a payment."""
    return {
        "transaction_id": transaction.transaction_id,
        "type": transaction.type.value,
        "status": transaction.status.value,
        "amount": transaction.amount,
        "currency": transaction.currency,
        "idempotency_key": transaction.idempotency_key,
        "provider_reference": transaction.provider_reference,
        "attempts": transaction.attempts,
        "error": error_document(transaction.error),
        "created_at": to_rfc3339(transaction.created_at),
        "updated_at": to_rfc3339(transaction.updated_at),
    }


def error_document(error: ProviderError | None) -> dict[str, Any] | None:
    """Why something failed; None when it did not."""
    if error is None:
        return None
    return {
        "code": error.code,
        "decline_code": error.decline_code,
        "retryable": error.retryable,
        "message": error.message,
    }


def batch_document(merchant_id: str, batch: BatchSummary) -> dict[str, Any]:
    """A completed batch as its event shows it (its chunks are GET's)."""
    return {
        "batch_id": batch.batch_id,
        "object": "settlement_batch",
        "merchant_id": merchant_id,
        "settlement_date": batch.settlement_date,
        "currency": batch.currency,
        "status": "COMPLETED",
        "count": batch.count,
        "amount": batch.amount,
        "settled_count": batch.settled_count,
        "failed_count": batch.failed_count,
    }


def event_document(event: FeedEvent, about: dict[str, Any]) -> dict[str, Any]:
    """The body of a webhook and, with its cursor, an entry of the feed; `about` is what it happened to."""
    return {
        "id": event.id,
        "type": event.type,
        "timestamp": to_rfc3339(event.occurred_at),
        "sequence": event.sequence,
        "data": {"object": about},
    }
