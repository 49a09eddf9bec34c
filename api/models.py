"""Request models: what a body may hold. The OpenAPI document is generated from these same types."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from streams.domain import money

AMOUNT_MAX = 99_999_999_999  # minor units; the contract's limit for every currency

Amount = Annotated[int, Meta(ge=1, le=AMOUNT_MAX, description="In minor units of the currency")]
Currency = Annotated[
    str,
    Meta(
        pattern=r"^[A-Z]{3}$(?!\n)",
        description="ISO 4217, upper case",
        extra_json_schema={"enum": sorted(money.exponents())},
    ),
]
Date = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$(?!\n)", description="UTC date")]
Token = Annotated[str, Meta(pattern=r"^pm_[A-Za-z0-9_-]{1,250}$(?!\n)", description="The vault's token of a card")]
PaymentId = Annotated[str, Meta(pattern=r"^pay_[a-z2-7]{26}$(?!\n)")]
Description = Annotated[str, Meta(max_length=500)]
Metadata = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=40)], Annotated[str, Meta(max_length=500)]], Meta(max_length=50)
]
ShortText = Annotated[str, Meta(min_length=1, max_length=255)]
EventType = Annotated[str, Meta(pattern=r"^(\*|[a-z_]+\.(\*|[a-z_]+))$(?!\n)", max_length=64)]

Scope = Literal["payments:read", "payments:write", "events:read", "webhooks:read", "webhooks:write", "settlement:read"]
MerchantStatus = Literal["ACTIVE", "SUSPENDED", "CLOSED"]
KeyKind = Literal["secret", "publishable", "restricted"]


class RequestModel(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Base of what clients send: a field that is not listed is refused."""


class Customer(RequestModel, frozen=True, kw_only=True, omit_defaults=True):
    """Who pays; at least one of the three."""

    id: ShortText | UnsetType = UNSET
    email: Annotated[str, Meta(min_length=3, max_length=254, pattern=r"^[^@\s]+@[^@\s]+$(?!\n)")] | UnsetType = UNSET
    name: ShortText | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.id is UNSET and self.email is UNSET and self.name is UNSET:
            raise ValueError("needs at least one of id, email, name")


class CreatePayment(RequestModel, frozen=True, kw_only=True):
    """POST /payments"""

    amount: Amount
    currency: Currency
    customer: Customer
    description: Description | None = None
    metadata: Metadata = msgspec.field(default_factory=dict)


class SealPersonalData(RequestModel, frozen=True, kw_only=True):
    """POST /personal_data, on the admin port: what an internal producer wants encrypted for a payment to be."""

    payment_id: PaymentId
    customer: Customer
    description: Description | None = None
    metadata: Metadata = msgspec.field(default_factory=dict)


class ConfirmPayment(RequestModel, frozen=True, kw_only=True):
    """POST /payments/{payment_id}/confirm"""

    payment_method_token: Token
    client_secret: str | UnsetType = UNSET  # of any length: a wrong one is 403


class CancelPayment(RequestModel, frozen=True, kw_only=True):
    """POST /payments/{payment_id}/cancel"""


class RefundPayment(RequestModel, frozen=True, kw_only=True):
    """POST /payments/{payment_id}/refunds"""

    amount: Amount | UnsetType = UNSET


class CreateMerchant(RequestModel, frozen=True, kw_only=True):
    """POST /merchants"""

    name: ShortText
    settlement_currencies: Annotated[list[Currency], Meta(min_length=1, max_length=200)] | UnsetType = UNSET


class UpdateMerchant(RequestModel, frozen=True, kw_only=True):
    """PATCH /merchants/{merchant_id}"""

    status: MerchantStatus


class CreateApiKey(RequestModel, frozen=True, kw_only=True):
    """POST /merchants/{merchant_id}/api_keys"""

    kind: KeyKind
    scopes: Annotated[list[Scope], Meta(max_length=6)] | UnsetType = UNSET
    expires_at: Annotated[str, Meta(max_length=40)] | UnsetType = UNSET


class RollApiKey(RequestModel, frozen=True, kw_only=True):
    """POST /merchants/{merchant_id}/api_keys/{key_id}/roll"""

    grace_seconds: Annotated[int, Meta(ge=0, le=2_592_000)] = 0


class StartSettlementRun(RequestModel, frozen=True, kw_only=True):
    """POST /settlement_batches"""

    settlement_date: Date
    force: bool = False


class CreateWebhookEndpoint(RequestModel, frozen=True, kw_only=True):
    """POST /webhook_endpoints"""

    url: Annotated[str, Meta(min_length=8, max_length=2048)]
    event_types: Annotated[list[EventType], Meta(min_length=1, max_length=32)]
    description: Annotated[str, Meta(max_length=500)] = ""


class UpdateWebhookEndpoint(RequestModel, frozen=True, kw_only=True):
    """PATCH /webhook_endpoints/{endpoint_id}"""

    url: Annotated[str, Meta(min_length=8, max_length=2048)] | UnsetType = UNSET
    event_types: Annotated[list[EventType], Meta(min_length=1, max_length=32)] | UnsetType = UNSET
    description: Annotated[str, Meta(max_length=500)] | UnsetType = UNSET
    status: Literal["ENABLED", "DISABLED"] | UnsetType = UNSET


class RotateSecret(RequestModel, frozen=True, kw_only=True):
    """POST /webhook_endpoints/{endpoint_id}/rotate_secret"""
