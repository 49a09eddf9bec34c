"""What the `payments` agent is told: commands of clients, outcomes from the provider, and its own timers."""

from __future__ import annotations

from streams.domain.envelope import Command, Value
from streams.domain.payment import Fingerprint, PersonalData, ProviderError


class Idempotency(Value, frozen=True, kw_only=True, gc=False):
    """A client's key, hashed, and the request's fingerprint under each live fingerprint key, the newest first."""

    key_hash: bytes
    fingerprints: tuple[Fingerprint, ...]


class CreatePayment(Command, frozen=True, kw_only=True, gc=False):
    """Step 1, Accept. `amount` in minor units; `personal_data` is encrypted already."""

    type: str = "payment.create"
    payment_id: str
    merchant_id: str
    amount: int
    currency: str
    personal_data: PersonalData | None = None
    client_secret_key_id: str
    expires_at: int
    idempotency: Idempotency | None = None


class ConfirmPayment(Command, frozen=True, kw_only=True, gc=False):
    """Step 5, Confirm: the customer has chosen a card, of which we know a token."""

    type: str = "payment.confirm"
    payment_id: str
    merchant_id: str
    payment_method_token: str
    idempotency_key: str
    idempotency: Idempotency


class CancelPayment(Command, frozen=True, kw_only=True, gc=False):
    """The merchant wants no money: at once while PENDING, by a void while AUTHORIZED."""

    type: str = "payment.cancel"
    payment_id: str
    merchant_id: str
    idempotency_key: str
    idempotency: Idempotency


class RefundPayment(Command, frozen=True, kw_only=True, gc=False):
    """The merchant gives `amount` back (minor units); None: all that is left."""

    type: str = "payment.refund"
    payment_id: str
    merchant_id: str
    amount: int | None = None
    idempotency_key: str
    idempotency: Idempotency


class ProviderOutcome(Command, frozen=True, kw_only=True, gc=False):
    """The provider's final answer to one operation. `attempts` counts sends, not status queries."""

    payment_id: str
    transaction_id: str
    succeeded: bool
    provider_reference: str | None = None
    error: ProviderError | None = None
    attempts: int


class AuthorizationOutcome(ProviderOutcome, frozen=True, kw_only=True, gc=False):
    """Step 6, Authorise: the money is held, or it is not."""

    type: str = "authorization.outcome"


class VoidOutcome(ProviderOutcome, frozen=True, kw_only=True, gc=False):
    """The hold is released (or will never come to be), or the provider refuses to release it."""

    type: str = "void.outcome"


class RefundOutcome(ProviderOutcome, frozen=True, kw_only=True, gc=False):
    """The money is on its way back, or the provider refuses."""

    type: str = "refund.outcome"


class SettlementOutcome(Command, frozen=True, kw_only=True, gc=False):
    """Step 8, Settle: the provider's answer for this payment as an item of a chunk."""

    type: str = "settlement.outcome"
    payment_id: str
    transaction_id: str
    batch_id: str
    chunk: int
    succeeded: bool
    provider_reference: str | None = None
    error: ProviderError | None = None


class AttemptFailed(Command, frozen=True, kw_only=True, gc=False):
    """One round ended without a final answer. `outcome_known`: the provider surely did not process it (429, 503).

    `attempt` is the round's number; `sends` counts the sends so far, and is None in records of older releases.
    """

    type: str = "attempt.failed"
    payment_id: str
    transaction_id: str
    operation: str
    attempt: int
    outcome_known: bool
    error: ProviderError
    retry_after_ms: int | None = None
    sends: int | None = None


class CloseSettlementDay(Command, frozen=True, kw_only=True, gc=False):
    """Step 8, Settle: no payment of this partition enters `date` (YYYY-MM-DD) or a day before it any more."""

    type: str = "settlement_day.close"
    date: str
    partition: int


class ExpiryDue(Command, frozen=True, kw_only=True, gc=False):
    """A timer: the payment has been PENDING for as long as it may."""

    type: str = "payment.expire"
    payment_id: str


class RequestDue(Command, frozen=True, kw_only=True, gc=False):
    """A timer: the provider is to be asked (again) for this transaction.

    `unanswered` counts the requests of this attempt that no outcome has followed in time.
    """

    type: str = "provider_request.due"
    payment_id: str
    transaction_id: str
    attempt: int
    query_first: bool
    unanswered: int


MerchantCommand = ConfirmPayment | CancelPayment | RefundPayment
TimedCommand = ExpiryDue | RequestDue
PaymentCommand = (
    CreatePayment
    | ConfirmPayment
    | CancelPayment
    | RefundPayment
    | AuthorizationOutcome
    | VoidOutcome
    | RefundOutcome
    | SettlementOutcome
    | AttemptFailed
    | ExpiryDue
    | RequestDue
)
