"""Reading the ledger: every movement of money that the provider really made, in the order in which it made them."""

from __future__ import annotations

import sqlite3
from typing import Any

from ops.runtime.clock import to_rfc3339


class UnknownOperationError(Exception):
    """`after` names no operation of the ledger."""


def page(
    connection: sqlite3.Connection, *, after: str | None, limit: int, payment_id: str | None
) -> tuple[list[dict[str, Any]], bool]:
    """Up to `limit` movements after an operation, oldest first, and whether more follow.

    Raises UnknownOperationError.
    """
    sequence = 0
    if after is not None:
        row = connection.execute("SELECT sequence FROM ledger WHERE operation_id = ?", (after,)).fetchone()
        if row is None:
            raise UnknownOperationError(after)
        sequence = row["sequence"]
    if payment_id is None:
        query = "SELECT * FROM ledger WHERE sequence > ? ORDER BY sequence LIMIT ?"
        arguments: tuple[Any, ...] = (sequence, limit + 1)
    else:
        query = "SELECT * FROM ledger WHERE payment_id = ? AND sequence > ? ORDER BY sequence LIMIT ?"
        arguments = (payment_id, sequence, limit + 1)
    rows = connection.execute(query, arguments).fetchall()
    return [_document(row) for row in rows[:limit]], len(rows) > limit


def _document(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "operation_id": row["operation_id"],
        "type": row["type"],
        "idempotency_key": row["idempotency_key"],
        "payment_id": row["payment_id"],
        "amount": row["amount"],
        "currency": row["currency"],
        "batch_id": row["batch_id"],
        "created_at": to_rfc3339(row["created_at"]),
    }
