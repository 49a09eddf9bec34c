"""A payment as it is kept and published: its state, its transactions, and the row of the `payments` table."""

from __future__ import annotations

from enum import Enum

from streams.domain.envelope import Value


class PaymentStatus(Enum):
    """Where a payment is in its life. Values are the symbols of the Avro enum."""

    UNKNOWN = "UNKNOWN"
    """Never kept: stands for a state newer than the reader's schema."""
    PENDING = "PENDING"
    """Created, waiting for its customer to confirm. Money untouched. Expires."""
    PROCESSING = "PROCESSING"
    """Confirmed: the provider has been, or will be, asked to hold the money. The answer may still be unknown."""
    AUTHORIZED = "AUTHORIZED"
    """The provider holds the money; the payment is in its merchant's settlement window, unless a void is under way."""
    SETTLED = "SETTLED"
    """Captured for the merchant. Part of it may have been refunded: see `amount_refunded`."""
    DECLINED = "DECLINED"
    """Final. The issuer said no; no money is held."""
    FAILED = "FAILED"
    """Final. The provider could not be brought to authorise or settle it; `failure` says why."""
    CANCELED = "CANCELED"
    """Final. Ended by its merchant before settlement; a hold has been voided."""
    EXPIRED = "EXPIRED"
    """Final. Never confirmed in time."""
    REFUNDED = "REFUNDED"
    """Final. Settled, and all of it given back."""


class TransactionType(Enum):
    """What a transaction does with the money."""

    UNKNOWN = "UNKNOWN"
    AUTHORIZATION = "AUTHORIZATION"
    """Holds the amount on the customer's card."""
    SETTLEMENT = "SETTLEMENT"
    """Captures the held amount, as an item of a day's batch."""
    VOID = "VOID"
    """Releases a hold, or refuses one that may still arrive (a tombstone)."""
    REFUND = "REFUND"
    """Gives back some or all of what was captured."""


class TransactionStatus(Enum):
    """PENDING until the provider's answer is known; both others are final."""

    UNKNOWN = "UNKNOWN"
    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


class PersonalData(Value, frozen=True, kw_only=True, gc=False):
    """Customer, description and metadata as one AES-256-GCM message; only API and webhooks can open it."""

    key_id: str
    nonce: bytes
    ciphertext: bytes


class ProviderError(Value, frozen=True, kw_only=True, gc=False):
    """Why a transaction failed. `decline_code` when the issuer said no; `message` is for people."""

    code: str
    decline_code: str | None = None
    retryable: bool
    message: str


class Transaction(Value, frozen=True, kw_only=True, gc=False):
    """One operation at the provider, which knows it by `transaction_id`. Amounts in minor units, times in µs."""

    transaction_id: str
    type: TransactionType
    status: TransactionStatus
    amount: int
    currency: str
    idempotency_key: str | None = None
    provider_reference: str | None = None
    attempts: int = 0
    error: ProviderError | None = None
    created_at: int
    updated_at: int


class Payment(Value, frozen=True, kw_only=True, gc=False):
    """The snapshot that every event carries.

    `version` counts what its merchant can see (= the event's sequence); `revision` counts every published change.
    """

    payment_id: str
    merchant_id: str
    status: PaymentStatus
    amount: int
    amount_refunded: int = 0
    currency: str
    personal_data: PersonalData | None = None
    payment_method_token: str | None = None
    client_secret_key_id: str
    batch_id: str | None = None
    settlement_date: str | None = None
    version: int
    revision: int
    created_at: int
    updated_at: int
    expires_at: int
    failure: ProviderError | None = None
    transactions: tuple[Transaction, ...] = ()

    def transaction(self, transaction_id: str) -> Transaction | None:
        """The transaction with this id, or None."""
        for transaction in self.transactions:
            if transaction.transaction_id == transaction_id:
                return transaction
        return None

    def pending(self, kind: TransactionType) -> Transaction | None:
        """The first transaction of this kind that has no answer yet, or None."""
        for transaction in self.transactions:
            if transaction.type is kind and transaction.status is TransactionStatus.PENDING:
                return transaction
        return None

    def count(self, kind: TransactionType) -> int:
        """How many transactions of this kind there are: the next one's number."""
        return sum(transaction.type is kind for transaction in self.transactions)


class Fingerprint(Value, frozen=True, kw_only=True, gc=False):
    """HMAC of a canonical request under the key with this id."""

    key_id: str
    mac: bytes


class KeptOutcome(Value, frozen=True, kw_only=True, gc=False):
    """What an idempotency key was answered: never a body, which is rebuilt from the history at `revision`.

    `fingerprint` is None for a create without a key, which is kept under its command's id.
    """

    operation: str
    key_hash: bytes
    fingerprint: Fingerprint | None = None
    status_code: int
    code: str | None = None
    payment_status: str
    revision: int


class ProviderOperation(Value, frozen=True, kw_only=True, gc=False):
    """A transaction under way at the provider.

    `attempt` (from 1) is the one whose answer is awaited. `in_doubt` once any attempt may have been processed without
    an answer: from then on the provider is asked before it is told again.
    """

    transaction_id: str
    attempt: int
    in_doubt: bool


class PaymentRow(Value, frozen=True, kw_only=True, gc=False):
    """Everything that the `payments` table keeps of one payment.

    `last_event_id` is of the event that told of the payment's revision. What is kept of refusals, and of doubts about
    operations, revises no payment: so every revision is published, and the fold of the events is the table.
    """

    payment: Payment
    idempotency: tuple[KeptOutcome, ...] = ()
    operations: tuple[ProviderOperation, ...] = ()
    settlement_attempts: int = 0
    last_event_id: str

    def operation(self, transaction_id: str) -> ProviderOperation | None:
        """The operation of this transaction, or None when it is not under way."""
        for operation in self.operations:
            if operation.transaction_id == transaction_id:
                return operation
        return None
