"""How a payment becomes values of its partition, and its partition a payment again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from streams.domain.payment import Payment
from tables.records import cql
from tables.records.session import Row

_PAYMENT_COLUMNS = (
    "merchant_id, status, amount, amount_refunded, currency, personal_data, payment_method_token,"
    " client_secret_key_id, batch_id, settlement_date, version, revision, created_at, updated_at, expires_at, failure,"
    " last_event_id"
)
_TRANSACTION_COLUMNS = (
    "position, transaction_id, transaction_type, transaction_status, transaction_amount, transaction_currency,"
    " idempotency_key, provider_reference, attempts, error, transaction_created_at, transaction_updated_at"
)


_INSERT_PAYMENT = cql.insert("payments", f"payment_id, {_PAYMENT_COLUMNS}")
_INSERT_PAYMENT_AND_TRANSACTION = cql.insert("payments", f"payment_id, {_PAYMENT_COLUMNS}, {_TRANSACTION_COLUMNS}")
_INSERT_TRANSACTION = cql.insert("payments", f"payment_id, {_TRANSACTION_COLUMNS}")
SELECT_PAYMENT = cql.select(f"{_PAYMENT_COLUMNS}, {_TRANSACTION_COLUMNS}", "payments", "WHERE payment_id = ?")


def payment_statements(payment: Mapping[str, Any], event_id: str, at: int) -> list[tuple[str, Sequence[Any]]]:
    """The writes of one revision to `payments`, at `at` microseconds; absent columns are nulls."""
    payment_id = payment["payment_id"]
    values = _payment_values(payment, event_id)
    transactions = payment["transactions"]
    if not transactions:
        return [(_INSERT_PAYMENT, (payment_id, *values, at))]
    first = (payment_id, *values, *_transaction_values(0, transactions[0]), at)
    return [
        (_INSERT_PAYMENT_AND_TRANSACTION, first),
        *(
            (_INSERT_TRANSACTION, (payment_id, *_transaction_values(position, transaction), at))
            for position, transaction in enumerate(transactions[1:], start=1)
        ),
    ]


def _payment_values(payment: Mapping[str, Any], event_id: str) -> tuple[Any, ...]:
    personal = payment["personal_data"]
    return (
        payment["merchant_id"],
        payment["status"],
        payment["amount"],
        payment["amount_refunded"],
        payment["currency"],
        None if personal is None else (personal["key_id"], personal["nonce"], personal["ciphertext"]),
        payment["payment_method_token"],
        payment["client_secret_key_id"],
        payment["batch_id"],
        payment["settlement_date"],
        payment["version"],
        payment["revision"],
        payment["created_at"],
        payment["updated_at"],
        payment["expires_at"],
        error_tuple(payment["failure"]),
        event_id,
    )


def _transaction_values(position: int, transaction: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        position,
        transaction["transaction_id"],
        transaction["type"],
        transaction["status"],
        transaction["amount"],
        transaction["currency"],
        transaction["idempotency_key"],
        transaction["provider_reference"],
        transaction["attempts"],
        error_tuple(transaction["error"]),
        transaction["created_at"],
        transaction["updated_at"],
    )


def error_tuple(error: Mapping[str, Any] | None) -> tuple[Any, ...] | None:
    """A ProviderError as CQL's provider_error."""
    return None if error is None else (error["code"], error["decline_code"], error["retryable"], error["message"])


def payment_of_rows(payment_id: str, rows: Sequence[Row]) -> Payment:
    """The struct of a partition: its static columns are the same in every row."""
    head = rows[0]
    fields: dict[str, Any] = {name: getattr(head, name) for name in _PAYMENT_FIELDS}
    fields["payment_id"] = payment_id
    fields["personal_data"] = _struct(head.personal_data)
    fields["failure"] = _struct(head.failure)
    fields["transactions"] = [_transaction_of_row(row) for row in rows if row.position is not None]
    return msgspec.convert(fields, Payment, strict=False)


_PAYMENT_FIELDS = [name for name in cql.names(_PAYMENT_COLUMNS) if name != "last_event_id"]


def _transaction_of_row(row: Row) -> dict[str, Any]:
    return {
        "transaction_id": row.transaction_id,
        "type": row.transaction_type,
        "status": row.transaction_status,
        "amount": row.transaction_amount,
        "currency": row.transaction_currency,
        "idempotency_key": row.idempotency_key,
        "provider_reference": row.provider_reference,
        "attempts": row.attempts,
        "error": _struct(row.error),
        "created_at": row.transaction_created_at,
        "updated_at": row.transaction_updated_at,
    }


def _struct(value: Any) -> dict[str, Any] | None:
    return None if value is None else value._asdict()
