"""Commands as clients and the provider send them, and payments in every state, brought there by commands."""

from __future__ import annotations

from typing import Any

from streams.domain import ids
from streams.domain.commands import (
    AttemptFailed,
    AuthorizationOutcome,
    CancelPayment,
    ConfirmPayment,
    CreatePayment,
    ExpiryDue,
    Idempotency,
    PaymentCommand,
    RefundOutcome,
    RefundPayment,
    RequestDue,
    SettlementOutcome,
    VoidOutcome,
)
from streams.domain.decide import decide
from streams.domain.decision import Context, Decision
from streams.domain.envelope import Actor, ReplyTo
from streams.domain.payment import Fingerprint, PaymentRow, ProviderError, Transaction, TransactionType

NOW_US = 1_790_000_000_000_000  # 2026-09-21T13:33:20Z
TODAY, TOMORROW = "2026-09-21", "2026-09-22"
MERCHANT = ids.derived(ids.MERCHANT, "one")
PAYMENT = ids.payment_id(MERCHANT, "order 17")
AMOUNT = 2500
CLIENT = Actor(identity="key_1", role="secret")
GATEWAY = Actor(identity="provider-gateway", role="service")
REPLY_TO = ReplyTo(partition=1, correlation_id="waiting")

DECLINED = ProviderError(code="card_declined", decline_code="insufficient_funds", retryable=False, message="no funds")
REFUSED = ProviderError(code="refused", retryable=False, message="no")
BUSY = ProviderError(code="provider_unavailable", retryable=True, message="503")


def context(**changes: Any) -> Context:
    """The context of a decision made at NOW_US in a lane that has closed no day."""
    return Context(**{"now_us": NOW_US, "highest_us": NOW_US, "last_closed_date": None, **changes})


def idempotency(key: str, request: str = "") -> Idempotency:
    """A client's key and request, as the API would hash them."""
    mac = f"mac of {request or key}".encode()
    return Idempotency(key_hash=key.encode().ljust(32, b"."), fingerprints=(Fingerprint(key_id="fk_1", mac=mac),))


def envelope(name: str, actor: Actor = CLIENT, **fields: Any) -> dict[str, Any]:
    """The fields with which a command begins."""
    begin = {"id": f"cmd_{name}", "occurred_at": NOW_US, "actor": actor, "request_id": f"req_{name}"}
    return {**begin, "payment_id": PAYMENT, "reply_to": REPLY_TO, **fields}


def create(key: str | None = "order 17", **fields: Any) -> CreatePayment:
    """Step 1."""
    defaults = {
        "merchant_id": MERCHANT,
        "amount": AMOUNT,
        "currency": "USD",
        "client_secret_key_id": "cs_1",
        "expires_at": NOW_US + 86_400_000_000,
        "idempotency": None if key is None else idempotency(key),
    }
    return CreatePayment(**{**envelope(f"create:{key}"), **defaults, **fields})


def confirm(key: str = "confirm", **fields: Any) -> ConfirmPayment:
    """Step 5."""
    return ConfirmPayment(**{**_keyed(key), "payment_method_token": "pm_card_visa", **fields})


def cancel(key: str = "cancel", **fields: Any) -> CancelPayment:
    """The merchant cancels."""
    return CancelPayment(**{**_keyed(key), **fields})


def refund(amount: int | None = None, key: str = "refund", **fields: Any) -> RefundPayment:
    """The merchant gives back."""
    return RefundPayment(**{**_keyed(key), "amount": amount, **fields})


def _keyed(key: str) -> dict[str, Any]:
    keys = {"merchant_id": MERCHANT, "idempotency_key": key, "idempotency": idempotency(key)}
    return {**envelope(key), **keys}


def transaction(row: PaymentRow, kind: TransactionType) -> Transaction:
    """The payment's last transaction of this kind."""
    return [each for each in row.payment.transactions if each.type is kind][-1]


def transaction_id(kind: TransactionType, number: int = 0) -> str:
    """The id that the payment's `number`th transaction of this kind has, or would have."""
    return ids.transaction_id(PAYMENT, kind.value, number)


def _outcome(kind: TransactionType, number: int, succeeded: bool, error: ProviderError) -> dict[str, Any]:
    name = f"{kind.value}:{number}:{succeeded}"
    return envelope(
        name,
        GATEWAY,
        transaction_id=transaction_id(kind, number),
        succeeded=succeeded,
        provider_reference="ref" if succeeded else None,
        error=None if succeeded else error,
        attempts=1,
    )


def authorized(**fields: Any) -> AuthorizationOutcome:
    """Step 6: the money is held."""
    return AuthorizationOutcome(**{**_outcome(TransactionType.AUTHORIZATION, 0, True, DECLINED), **fields})


def declined(error: ProviderError = DECLINED) -> AuthorizationOutcome:
    """Step 6: it is not."""
    return AuthorizationOutcome(**_outcome(TransactionType.AUTHORIZATION, 0, False, error))


def voided(number: int = 0, *, succeeded: bool = True, **fields: Any) -> VoidOutcome:
    """The hold is released, or not."""
    return VoidOutcome(**{**_outcome(TransactionType.VOID, number, succeeded, REFUSED), **fields})


def refunded(number: int = 0, *, succeeded: bool = True, **fields: Any) -> RefundOutcome:
    """The money is given back, or not."""
    return RefundOutcome(**{**_outcome(TransactionType.REFUND, number, succeeded, REFUSED), **fields})


def settled(day: str = TODAY, *, error: ProviderError | None = None) -> SettlementOutcome:
    """Step 8: captured as an item of the batch of `day`; or, with an error, refused."""
    return SettlementOutcome(
        **envelope(f"settlement:{day}:{error}", GATEWAY),
        transaction_id=ids.settlement_transaction_id(PAYMENT, day),
        batch_id=ids.batch_id(MERCHANT, "USD", day),
        chunk=0,
        succeeded=error is None,
        provider_reference="cap",
        error=error,
    )


def attempt_failed(
    kind: TransactionType = TransactionType.AUTHORIZATION, attempt: int = 1, *, known: bool = False, **fields: Any
) -> AttemptFailed:
    """An attempt without a final answer: time-out (unknown) or 503 (known)."""
    named = envelope(f"failed:{kind.value}:{attempt}", GATEWAY, transaction_id=transaction_id(kind))
    rest = {"operation": kind.value, "attempt": attempt, "outcome_known": known, "error": BUSY}
    return AttemptFailed(**{**named, **rest, **fields})


def expiry_due() -> ExpiryDue:
    """The timer of a payment that stays PENDING."""
    return ExpiryDue(**envelope("expiry", reply_to=None))


def request_due(kind: TransactionType = TransactionType.AUTHORIZATION, attempt: int = 1) -> RequestDue:
    """The timer of an operation that got no answer."""
    named = envelope(f"due:{kind.value}", transaction_id=transaction_id(kind))
    return RequestDue(**named, attempt=attempt, query_first=True, unanswered=1)


def after(first: PaymentCommand, *commands: PaymentCommand) -> PaymentRow:
    """The row after these commands, each of which must have changed it."""
    created = decided_after(None, first).row
    assert created is not None, "nothing was created"
    return continued(created, *commands)


def continued(row: PaymentRow, *commands: PaymentCommand) -> PaymentRow:
    """The row after these further commands, each of which must have changed it."""
    for command in commands:
        decision = decided_after(row, command)
        assert decision.row is not None, f"{command} changed nothing: {decision.event}"
        row = decision.row
    return row


def decided_after(row: PaymentRow | None, command: PaymentCommand, **changes: Any) -> Decision:
    """The decision on one command."""
    return decide(row, command, context(**changes))


def spent(kind: TransactionType = TransactionType.AUTHORIZATION, *, known: bool = False) -> list[AttemptFailed]:
    """As many failed attempts as there may be."""
    return [attempt_failed(kind, attempt, known=known) for attempt in range(1, 6)]


PATHS: dict[str, list[PaymentCommand]] = {
    "PENDING": [create()],
    "PROCESSING": [create(), confirm()],
    "IN_DOUBT": [create(), confirm(), *spent()],
    "AUTHORIZED": [create(), confirm(), authorized()],
    "VOIDING": [create(), confirm(), authorized(), cancel()],
    "SETTLED": [create(), confirm(), authorized(), settled()],
    "REFUNDING": [create(), confirm(), authorized(), settled(), refund(1000)],
    "REFUNDED": [create(), confirm(), authorized(), settled(), refund(), refunded()],
    "DECLINED": [create(), confirm(), declined()],
    "FAILED": [create(), confirm(), *spent(known=True)],
    "RELEASING": [create(), confirm(), authorized(), settled(error=REFUSED)],
    "CANCELED": [create(), cancel()],
    "EXPIRED": [create(), expiry_due()],
}
"""How a payment comes to each state; IN_DOUBT is PROCESSING, VOIDING AUTHORIZED, RELEASING FAILED, with a void under
way, and REFUNDING is SETTLED with a refund under way."""


def row_in(state: str) -> PaymentRow | None:
    """A payment in this state; "NONE": no payment."""
    return None if state == "NONE" else after(*PATHS[state])
