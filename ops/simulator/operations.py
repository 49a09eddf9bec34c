"""What the simulated acquirer does with money: one function per operation, each run inside one transaction.

It is a lenient acquirer on purpose: a second authorisation or capture of a payment under another idempotency key is
carried out and stays in the ledger, where the platform's checker must find it. Only idempotency keys protect.
"""

from __future__ import annotations

import hashlib
import sqlite3

import msgspec
import uuid_utils

from ops.simulator.behaviours import BEHAVIOURS, DECLINE_MESSAGES, UNKNOWN_TOKEN, Behaviour
from ops.simulator.documents import (
    Authorization,
    Fault,
    Item,
    ItemResult,
    Kind,
    Operation,
    Refund,
    Refusal,
    Settlement,
    Verdict,
    Void,
)


class KeyReusedError(Exception):
    """The idempotency key belongs to another request."""


VOIDED = Refusal(code="authorization_voided", message="A void of this key came first.")


def behaviour_of(connection: sqlite3.Connection, token: str) -> tuple[str | None, Behaviour]:
    """The magic token that a payment-method token behaves like (None: unknown, declines), and its behaviour."""
    if token not in BEHAVIOURS:
        row = connection.execute("SELECT behaves_like FROM tokens WHERE token = ?", (token,)).fetchone()
        token = row["behaves_like"] if row else ""
    return (token, BEHAVIOURS[token]) if token in BEHAVIOURS else (None, UNKNOWN_TOKEN)


def authorize(connection: sqlite3.Connection, key: str, body: Authorization, now_us: int) -> Verdict:
    """Count a send of an authorisation and decide it, unless its token's fault comes first."""
    token, behaviour = behaviour_of(connection, body.payment_method_token)
    operation = _receive(connection, "authorization", key, body, now_us, token)
    if operation.status == "failed":
        return Verdict(operation, Fault.NONE)
    if operation.status is None:
        if behaviour.always_unavailable:
            return Verdict(operation, Fault.UNAVAILABLE)
        if operation.requests <= behaviour.refusals:
            return Verdict(operation, Fault.RATE_LIMITED if behaviour.refusal_status == 429 else Fault.ERROR)
        if not behaviour.charges:
            return Verdict(operation, Fault.SILENCE)
        if behaviour.decide_after_s:
            return Verdict(operation, Fault.DELAY, behaviour.decide_after_s)
        operation = decide_authorization(connection, key, behaviour, now_us)
    fault = Fault.SILENCE if not behaviour.answers else Fault.RESET if behaviour.resets else Fault.NONE
    return Verdict(operation, fault)


def decide_authorization(connection: sqlite3.Connection, key: str, behaviour: Behaviour, now_us: int) -> Operation:
    """Approve or decline an authorisation that was received; one that is final (voided meanwhile) stays as it is."""
    operation = _known(connection, key)
    if operation.status is not None:
        return operation
    if (code := behaviour.decline_code) is not None:
        refusal = Refusal(code="card_declined", decline_code=code, message=DECLINE_MESSAGES[code])
        return _finish(connection, key, refusal)
    _move(connection, operation.operation_id, "authorization", operation, now_us)
    return _finish(connection, key, None)


def void(connection: sqlite3.Connection, key: str, body: Void, now_us: int) -> Operation:
    """Undo an authorisation by its idempotency key; one never seen, or not yet processed, is refused for ever."""
    operation = _receive(connection, "void", key, body, now_us)
    if operation.status is not None:
        return operation
    authorization = find(connection, body.authorization_id)
    if authorization is None or authorization.status is None:
        _close_key(connection, body, now_us)
        return _finish(connection, key, None)
    if authorization.status == "failed" or _moved(connection, "void", authorization.payment_id):
        return _finish(connection, key, None)  # there is no hold (any more)
    if authorization.type != "authorization" or authorization.payment_id != body.payment_id:
        return _finish(connection, key, Refusal(code="void_refused", message="No such authorization of this payment."))
    if _behaviour_of_payment(connection, body.payment_id).voids_refused:
        return _finish(connection, key, Refusal(code="void_refused", message="The issuer refused the void."))
    if _moved(connection, "capture", body.payment_id):
        return _finish(connection, key, Refusal(code="void_refused", message="The authorization was captured."))
    _move(connection, operation.operation_id, "void", authorization, now_us, key=key)
    return _finish(connection, key, None)


def refund(connection: sqlite3.Connection, key: str, body: Refund, now_us: int) -> Operation:
    """Pay back up to what was captured and not yet paid back."""
    operation = _receive(connection, "refund", key, body, now_us)
    if operation.status is not None:
        return operation
    left = _moved(connection, "capture", body.payment_id) - _moved(connection, "refund", body.payment_id)
    if _behaviour_of_payment(connection, body.payment_id).refunds_refused:
        return _finish(connection, key, Refusal(code="refund_refused", message="The issuer refused the refund."))
    if body.amount > left:
        return _finish(connection, key, Refusal(code="refund_refused", message="More than what was captured is left."))
    _move(connection, operation.operation_id, "refund", operation, now_us)
    return _finish(connection, key, None)


def settle(connection: sqlite3.Connection, key: str, body: Settlement, now_us: int) -> Operation:
    """Capture each item of a chunk, each with a result of its own."""
    operation = _receive(connection, "settlement", key, body, now_us)
    if operation.status is not None:
        return operation
    results = [_capture(connection, key, body.batch_id, item, now_us) for item in body.items]
    connection.execute(
        "UPDATE operations SET items = ? WHERE idempotency_key = ?", (msgspec.json.encode(results).decode(), key)
    )
    return _finish(connection, key, None)


def find(connection: sqlite3.Connection, key: str) -> Operation | None:
    """What is known under an idempotency key; its status is None while nothing was processed."""
    row = connection.execute("SELECT * FROM operations WHERE idempotency_key = ?", (key,)).fetchone()
    if row is None:
        return None
    return Operation(
        operation_id=row["operation_id"],
        type=row["type"],
        idempotency_key=key,
        payment_id=row["payment_id"],
        amount=row["amount"],
        currency=row["currency"],
        status=row["status"],
        requests=row["requests"],
        error=msgspec.json.decode(row["error"], type=Refusal) if row["error"] else None,
        items=msgspec.json.decode(row["items"], type=list[ItemResult]) if row["items"] else None,
        created_at=row["created_at"],
    )


def _capture(connection: sqlite3.Connection, key: str, batch_id: str, item: Item, now_us: int) -> ItemResult:
    refusal = _capture_refusal(connection, item)
    if refusal is not None:
        return ItemResult(payment_id=item.payment_id, status="failed", operation_id=None, error=refusal)
    operation_id = _new_operation_id()
    _insert_movement(
        connection, operation_id, "capture", key, item.payment_id, item.amount, item.currency, batch_id, now_us
    )
    return ItemResult(payment_id=item.payment_id, status="succeeded", operation_id=operation_id, error=None)


def _capture_refusal(connection: sqlite3.Connection, item: Item) -> Refusal | None:
    held = _moved(connection, "authorization", item.payment_id) - _moved(connection, "void", item.payment_id)
    if item.amount > held:
        return Refusal(code="settlement_failed", message="No authorization holds this amount.")
    failures = _behaviour_of_payment(connection, item.payment_id).settlement_failures
    row = connection.execute(
        "SELECT refusals FROM settlement_refusals WHERE payment_id = ?", (item.payment_id,)
    ).fetchone()
    if (row["refusals"] if row else 0) >= failures:
        return None
    connection.execute(
        "INSERT INTO settlement_refusals VALUES (?, 1) ON CONFLICT (payment_id) DO UPDATE SET refusals = refusals + 1",
        (item.payment_id,),
    )
    return Refusal(code="settlement_failed", retryable=True, message="The acquirer could not capture; try again.")


def _receive(
    connection: sqlite3.Connection,
    kind: Kind,
    key: str,
    body: Authorization | Void | Refund | Settlement,
    now_us: int,
    token: str | None = None,
) -> Operation:
    """Count a send under `key`. Raises KeyReusedError when the key belongs to another request."""
    fingerprint = hashlib.sha256(kind.encode() + b"\0" + msgspec.json.encode(body)).digest()
    row = connection.execute("SELECT type, fingerprint FROM operations WHERE idempotency_key = ?", (key,)).fetchone()
    if row is not None and (row["type"] != kind or row["fingerprint"] not in (None, fingerprint)):
        raise KeyReusedError
    payment_id, amount, currency = _subject(body)
    connection.execute(
        "INSERT INTO operations (idempotency_key, operation_id, type, payment_id, amount, currency, token, fingerprint,"
        " requests, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?)"
        " ON CONFLICT (idempotency_key) DO UPDATE SET requests = requests + 1",
        (key, _new_operation_id(), kind, payment_id, amount, currency, token, fingerprint, now_us),
    )
    return _known(connection, key)


def _subject(body: Authorization | Void | Refund | Settlement) -> tuple[str | None, int | None, str | None]:
    """Payment, amount in minor units and currency of a request, as far as it has one of each."""
    match body:
        case Authorization() | Refund():
            return body.payment_id, body.amount, body.currency
        case Void():
            return body.payment_id, None, None
        case Settlement():
            return None, sum(item.amount for item in body.items), None


def _close_key(connection: sqlite3.Connection, body: Void, now_us: int) -> None:
    """Keep a void of an authorisation that was never processed: whatever arrives under that key later is refused."""
    connection.execute(
        "INSERT INTO operations (idempotency_key, operation_id, type, payment_id, requests, status, error, created_at)"
        " VALUES (?, ?, 'authorization', ?, 0, 'failed', ?, ?)"
        " ON CONFLICT (idempotency_key) DO UPDATE SET status = excluded.status, error = excluded.error",
        (
            body.authorization_id,
            _new_operation_id(),
            body.payment_id,
            msgspec.json.encode(VOIDED).decode(),
            now_us,
        ),
    )


def _finish(connection: sqlite3.Connection, key: str, refusal: Refusal | None) -> Operation:
    connection.execute(
        "UPDATE operations SET status = ?, error = ? WHERE idempotency_key = ?",
        ("failed" if refusal else "succeeded", msgspec.json.encode(refusal).decode() if refusal else None, key),
    )
    return _known(connection, key)


def _known(connection: sqlite3.Connection, key: str) -> Operation:
    operation = find(connection, key)
    assert operation is not None
    return operation


def _behaviour_of_payment(connection: sqlite3.Connection, payment_id: str) -> Behaviour:
    """The behaviour of the card that the payment was authorised with; an ordinary one when there is none."""
    row = connection.execute(
        "SELECT token FROM operations WHERE payment_id = ? AND type = 'authorization' AND token IS NOT NULL LIMIT 1",
        (payment_id,),
    ).fetchone()
    return BEHAVIOURS[row["token"]] if row else Behaviour()


def _moved(connection: sqlite3.Connection, kind: str, payment_id: str | None) -> int:
    """The sum of a payment's movements of one kind, in minor units."""
    row = connection.execute(
        "SELECT coalesce(sum(amount), 0) AS moved FROM ledger WHERE payment_id = ? AND type = ?", (payment_id, kind)
    ).fetchone()
    return int(row["moved"])


def _move(
    connection: sqlite3.Connection,
    operation_id: str,
    kind: str,
    operation: Operation,
    now_us: int,
    key: str | None = None,
) -> None:
    assert operation.payment_id is not None
    assert operation.amount is not None
    assert operation.currency is not None
    _insert_movement(
        connection,
        operation_id,
        kind,
        key or operation.idempotency_key,
        operation.payment_id,
        operation.amount,
        operation.currency,
        None,
        now_us,
    )


def _insert_movement(
    connection: sqlite3.Connection,
    operation_id: str,
    kind: str,
    key: str,
    payment_id: str,
    amount: int,
    currency: str,
    batch_id: str | None,
    now_us: int,
) -> None:
    connection.execute(
        "INSERT INTO ledger (operation_id, type, idempotency_key, payment_id, amount, currency, batch_id, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (operation_id, kind, key, payment_id, amount, currency, batch_id, now_us),
    )


def _new_operation_id() -> str:
    return f"op_{uuid_utils.uuid7().hex}"
