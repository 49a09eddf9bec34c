"""Why a command is refused: in a fixed order of precedence, each with its stable code and HTTP status."""

from __future__ import annotations

from enum import Enum


class Rejection(Enum):
    """Of several that apply, the first listed here is given. The value is the contract's `code`."""

    AMOUNT_INVALID = "amount_invalid"
    """The amount is not within limits."""
    CURRENCY_INVALID = "currency_invalid"
    """Not an ISO 4217 code in which one can pay."""
    FORBIDDEN = "forbidden"
    """An internal producer created a payment for a merchant that its configuration does not list."""
    NOT_FOUND = "not_found"
    """There is no such payment, or it is another merchant's."""
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    """The key was used for another request."""
    INVALID_STATE = "invalid_state"
    """The payment is in a state in which the command has no effect."""
    PAYMENT_IN_SETTLEMENT = "payment_in_settlement"
    """Its settlement day has closed: it can be refunded once settled, but no longer voided."""
    AMOUNT_EXCEEDS_REFUNDABLE = "amount_exceeds_refundable"
    """More than is left after what has been refunded or reserved."""
    TOO_MANY_KEYS = "rate_limited"
    """The payment keeps as many idempotency keys as it may."""

    @property
    def status_code(self) -> int:
        """The HTTP status that answers it."""
        return _STATUS_CODES[self]

    @property
    def is_transient(self) -> bool:
        """True when the same command may be accepted later, so that it must not be kept."""
        return self is Rejection.TOO_MANY_KEYS

    @property
    def is_kept(self) -> bool:
        """True when the idempotency key is answered with it from now on: 409 and 422, but never for a key's misuse."""
        return self.status_code in (409, 422) and self is not Rejection.IDEMPOTENCY_KEY_REUSED


_STATUS_CODES = {
    Rejection.AMOUNT_INVALID: 400,
    Rejection.CURRENCY_INVALID: 400,
    Rejection.FORBIDDEN: 403,
    Rejection.NOT_FOUND: 404,
    Rejection.IDEMPOTENCY_KEY_REUSED: 422,
    Rejection.INVALID_STATE: 409,
    Rejection.PAYMENT_IN_SETTLEMENT: 409,
    Rejection.AMOUNT_EXCEEDS_REFUNDABLE: 422,
    Rejection.TOO_MANY_KEYS: 429,
}
