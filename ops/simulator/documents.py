"""What travels over the provider's API: requests, operations, refusals; and the faults that can hide an answer."""

from __future__ import annotations

from enum import Enum, auto
from typing import Literal, NamedTuple

import msgspec

Kind = Literal["authorization", "void", "refund", "settlement"]


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why an operation failed, as the provider says it."""

    code: str
    decline_code: str | None = None
    retryable: bool = False
    message: str


class Authorization(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/authorizations."""

    payment_id: str
    amount: int
    currency: str
    payment_method_token: str


class Void(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/voids; `authorization_id` is the idempotency key of the authorisation to undo."""

    payment_id: str
    authorization_id: str


class Refund(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/refunds."""

    payment_id: str
    amount: int
    currency: str


class Item(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One payment to capture."""

    payment_id: str
    amount: int
    currency: str


class Settlement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /v1/settlements."""

    batch_id: str
    chunk: int
    items: list[Item]


class ItemResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one payment of a chunk; `operation_id` is that of its capture in the ledger."""

    payment_id: str
    status: Literal["succeeded", "failed"]
    operation_id: str | None
    error: Refusal | None


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider knows under one idempotency key."""

    operation_id: str
    type: Kind
    idempotency_key: str
    payment_id: str | None
    amount: int | None
    currency: str | None
    status: Literal["in_progress", "succeeded", "failed"] | None
    requests: int
    error: Refusal | None
    items: list[ItemResult] | None
    created_at: int


class Fault(Enum):
    """What the provider does instead of answering with the operation."""

    NONE = auto()
    UNAVAILABLE = auto()  # 503, not processed
    RATE_LIMITED = auto()  # 429, not processed
    ERROR = auto()  # 500, not processed, but the caller cannot know
    SILENCE = auto()  # no answer at all
    RESET = auto()  # the connection breaks
    DELAY = auto()  # in progress; decided later


class Verdict(NamedTuple):
    """The operation after a send, and the fault that hides it."""

    operation: Operation
    fault: Fault
    delay_s: float = 0.0
