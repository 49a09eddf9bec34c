"""What the API answers: one struct per documented object, its fields in the contract's order, and no others.

`T | UnsetType` marks what some callers do not see; it is absent from their answers, never null.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from streams.domain.payment import Payment
from streams.webhooks.documents import PersonalFields, payment_document


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all documents."""


class ErrorDocument(Document, frozen=True, kw_only=True):
    code: str
    decline_code: str | None
    retryable: bool
    message: str


class TransactionDocument(Document, frozen=True, kw_only=True):
    transaction_id: str
    type: str
    status: str
    amount: int
    currency: str
    idempotency_key: str | None
    provider_reference: str | None
    attempts: int
    error: ErrorDocument | None
    created_at: str
    updated_at: str


class PaymentDocument(Document, frozen=True, kw_only=True):
    payment_id: str
    object: str = "payment"
    status: str
    amount: int
    amount_refunded: int
    currency: str
    customer: dict[str, str] | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET
    metadata: dict[str, str] | UnsetType = UNSET
    payment_method_token: str | None
    client_secret: str | UnsetType = UNSET
    batch_id: str | None
    settlement_date: str | None
    version: int
    created_at: str
    updated_at: str
    failure: ErrorDocument | None
    transactions: list[TransactionDocument]


class AcceptedPaymentDocument(Document, frozen=True, kw_only=True):
    """A payment that is accepted but not yet recorded."""

    payment_id: str
    object: str = "payment"
    status: str = "PENDING"


class ActorDocument(Document, frozen=True, kw_only=True):
    identity: str
    role: str


class PaymentEventDocument(Document, frozen=True, kw_only=True):
    id: str
    type: str
    version: int
    status: str
    occurred_at: str
    actor: ActorDocument
    request_id: str


class ListDocument(Document, frozen=True, kw_only=True):
    """Any list. `data` holds documents of one kind."""

    object: str = "list"
    data: list[Any]
    has_more: bool


class MerchantDocument(Document, frozen=True, kw_only=True):
    merchant_id: str
    object: str = "merchant"
    name: str
    status: str
    settlement_currencies: list[str] | None
    created_at: str


class ApiKeyDocument(Document, frozen=True, kw_only=True):
    key_id: str
    object: str = "api_key"
    kind: str
    key: str | UnsetType = UNSET  # only in the answer to its making
    scopes: list[str]
    expires_at: str | None


class WebhookEndpointDocument(Document, frozen=True, kw_only=True):
    endpoint_id: str
    object: str = "webhook_endpoint"
    url: str
    event_types: list[str]
    description: str
    status: str
    created_at: str
    secret: str | UnsetType = UNSET  # only in the answers to its making and its rotation


class TotalDocument(Document, frozen=True, kw_only=True):
    count: int
    amount: int


class SettlementRunDocument(Document, frozen=True, kw_only=True):
    object: str = "settlement_run"
    settlement_date: str
    status: str
    totals: dict[str, dict[str, TotalDocument]] | UnsetType = UNSET


class ChunkDocument(Document, frozen=True, kw_only=True):
    chunk: int
    count: int
    amount: int
    status: str


class SettlementBatchDocument(Document, frozen=True, kw_only=True):
    batch_id: str
    object: str = "settlement_batch"
    merchant_id: str
    settlement_date: str
    currency: str
    status: str
    count: int
    amount: int
    settled_count: int
    failed_count: int
    chunks: list[ChunkDocument]


class SettlementItemDocument(Document, frozen=True, kw_only=True):
    payment_id: str
    amount: int
    currency: str
    status: str


class AuditEntryDocument(Document, frozen=True, kw_only=True):
    """`before` and `after` are documents of the subject; null: it did not exist, or is gone."""

    audit_id: str
    actor: ActorDocument
    act: str
    subject: str
    request_id: str
    at: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class IdempotencyKeyDocument(Document, frozen=True, kw_only=True):
    idempotency_key: str
    operation: str
    payment_id: str
    status_code: int
    created_at: str


def payment_answer(
    payment: Payment, personal: PersonalFields, *, for_browser: bool, client_secret: str | None = None
) -> dict[str, Any]:
    """A PaymentDocument for one caller. A browser sees neither customer nor metadata."""
    answer: dict[str, Any] = {}
    for name, value in payment_document(payment, personal).items():
        if for_browser and name in ("customer", "metadata"):
            continue
        answer[name] = value
        if name == "payment_method_token" and client_secret is not None:
            answer["client_secret"] = client_secret
    return answer
