"""What a route is: its path and handler, who may call it, what it takes and what it answers.

One table of routes serves three uses: the server dispatches by it, the gate checks by it, the OpenAPI document is made
from it; so they cannot differ.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from aiohttp import web

from api.calls import Call

Handler = Callable[[Call], Awaitable[web.StreamResponse]]


class IdempotencyKey(Enum):
    """What a route makes of the header Idempotency-Key."""

    IGNORED = "ignored"
    RECOMMENDED = "recommended"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class KeyAccess:
    """Public port: secret keys always; publishable ones where `publishable`; restricted ones with `scope`."""

    scope: str
    publishable: bool = False
    active_merchant: bool = False  # else a suspended or closed merchant may still call it


@dataclass(frozen=True, slots=True)
class OperatorAccess:
    """Internal port: the identities whose certificates may call it."""

    identities: frozenset[str]


@dataclass(frozen=True, slots=True)
class OpenAccess:
    """Anybody who reaches the port."""


OPERATORS = OperatorAccess(frozenset({"operator"}))
READERS = OperatorAccess(frozenset({"operator", "auditor"}))
SETTLEMENT_OPERATORS = OperatorAccess(frozenset({"operator", "settlement-operator"}))
SETTLEMENT_READERS = OperatorAccess(frozenset({"operator", "settlement-operator", "auditor"}))


Access = KeyAccess | OperatorAccess | OpenAccess


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation. `answers` maps each success status to its document's type (None: no body).

    A POST or PATCH that takes no fields has a `body` without fields and `body_optional`: what is sent is never ignored.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    access: Access
    answers: Mapping[int, Any]
    problems: frozenset[str] = field(default_factory=frozenset)  # codes beyond those that every route may give
    body: type[Any] | None = None
    body_optional: bool = False
    check: Callable[[Call], None] | None = None  # of the body's fields, what its type does not say; raises Problem
    query: Mapping[str, str] = field(default_factory=dict)  # parameter -> what it means
    query_of_secret_keys: frozenset[str] = frozenset()  # parameters that a publishable key may not use
    headers: Mapping[str, str] = field(default_factory=dict)  # request header -> what it means; never required
    idempotency_key: IdempotencyKey = IdempotencyKey.IGNORED
    cors: bool = False
    media_type: str = "application/json"

    def __post_init__(self) -> None:
        without_content = self.method in ("GET", "DELETE")
        assert without_content or self.body is not None, f"{self.path} would ignore the fields that a client sends"
