"""A payment's place in settlement batches, read from its snapshot alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tables.records import cql
from tables.records.payment_rows import error_tuple
from tables.records.payments import timestamp_of
from tables.records.session import Row

ITEM_COLUMNS = (
    "batch_id, payment_id, merchant_id, currency, amount, status, chunk, transaction_id, authorization_id,"
    " authorization_reference, error, revision"
)
_INSERT_ITEM = cql.insert("settlement_items", f"{ITEM_COLUMNS}, last_event_id")


class SettlementItem(msgspec.Struct, frozen=True, kw_only=True):
    """A payment of a batch. `chunk` and `transaction_id` are null until its result is recorded."""

    batch_id: str
    payment_id: str
    merchant_id: str
    currency: str
    amount: int  # minor units
    status: str  # PENDING, SETTLED, FAILED; REMOVED by a void
    chunk: int | None
    transaction_id: str | None  # the SETTLEMENT transaction
    authorization_id: str | None  # transaction id of the AUTHORIZATION
    authorization_reference: str | None  # the provider's id of it
    error: dict[str, Any] | None
    revision: int


def items_of(payment: Mapping[str, Any]) -> dict[str, tuple[str, Mapping[str, Any] | None]]:
    """batch_id -> (status, SETTLEMENT transaction or None) of every batch that the snapshot names.

    A SETTLEMENT transaction's key is `<batch_id>:<chunk>`, so a snapshot names every batch that answered it.
    """
    items: dict[str, tuple[str, Mapping[str, Any] | None]] = {}
    void = False
    for transaction in payment["transactions"]:
        if transaction["type"] == "SETTLEMENT":
            batch_id, _, _ = transaction["idempotency_key"].rpartition(":")
            items[batch_id] = (_ITEM_STATUS[transaction["status"]], transaction)
        elif transaction["type"] == "VOID":
            void = transaction["status"] != "FAILED"
    if payment["batch_id"] is not None:
        items.setdefault(payment["batch_id"], ("REMOVED" if void else "PENDING", None))
    return items


_ITEM_STATUS = {"SUCCEEDED": "SETTLED", "FAILED": "FAILED", "PENDING": "PENDING", "UNKNOWN": "PENDING"}


def item_statement(
    fields: Mapping[str, Any], batch_id: str, status: str, settlement: Mapping[str, Any] | None
) -> tuple[str, Sequence[Any]]:
    payment = fields["payment"]
    authorization = next((t for t in payment["transactions"] if t["type"] == "AUTHORIZATION"), None)
    return _INSERT_ITEM, (
        batch_id,
        payment["payment_id"],
        payment["merchant_id"],
        payment["currency"],
        payment["amount"],
        status,
        None if settlement is None else int(settlement["idempotency_key"].rpartition(":")[2]),
        None if settlement is None else settlement["transaction_id"],
        None if authorization is None else authorization["transaction_id"],
        None if authorization is None else authorization["provider_reference"],
        None if settlement is None else error_tuple(settlement["error"]),
        payment["revision"],
        fields["id"],
        timestamp_of(payment),
    )


def item_of_row(row: Row) -> SettlementItem:
    fields = row._asdict()
    fields["error"] = None if row.error is None else row.error._asdict()
    return SettlementItem(**fields)
