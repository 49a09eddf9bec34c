"""One request on its way through the API: who calls, what was asked, and how it is answered."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from ops.runtime.problem import REQUEST_ID_HEADER
from ops.runtime.tracing import Traceparent
from streams.domain.envelope import Actor

JSON_TYPE = "application/json"
_OPERATORS = frozenset({"operator", "settlement-operator", "auditor"})  # persons; other certificates are programs'


@dataclass(frozen=True, slots=True)
class Principal:
    """The API key that authenticated a request, and its merchant as it was at most a few seconds ago."""

    key_id: str
    kind: str  # secret, publishable, restricted
    scopes: frozenset[str]
    merchant_id: str
    merchant_status: str  # ACTIVE, SUSPENDED, CLOSED
    settlement_currencies: frozenset[str] | None  # None: all

    @property
    def actor(self) -> Actor:
        return Actor(identity=self.key_id, role=f"{self.kind}_key")


@dataclass(slots=True)
class Call:
    """A request that passed the gate. `body` is an instance of the route's model, None when it has none."""

    request: web.Request
    request_id: str
    traceparent: Traceparent
    caller: Principal | None = None  # on the public port
    operator: str | None = None  # on the internal port: the identity in the certificate
    body: Any = None
    query: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    started: float = field(default_factory=time.monotonic)
    payment_id: str | None = None  # for the log

    @property
    def principal(self) -> Principal:
        """The caller on the public port."""
        assert self.caller is not None
        return self.caller

    @property
    def actor(self) -> Actor:
        """Who is named as the cause of what this request does."""
        if self.caller is not None:
            return self.caller.actor
        assert self.operator is not None
        return Actor(identity=self.operator, role=self.operator if self.operator in _OPERATORS else "service")

    def path(self, name: str) -> str:
        """A segment of the path."""
        return self.request.match_info[name]

    def seconds_left(self, timeout_s: float) -> float:
        """What is left of `timeout_s` seconds since the request came in; never negative."""
        return max(0.0, self.started + timeout_s - time.monotonic())

    def wait_seconds(self, longest: int = 30) -> int | None:
        """N of `Prefer: wait=N`, at most `longest`; None when absent or malformed, which is ignored."""
        for preference in ",".join(self.request.headers.getall("Prefer", [])).split(","):
            name, _, value = preference.partition(";")[0].strip().partition("=")
            value = value.strip().strip('"')
            if name.strip().lower() == "wait" and value.isascii() and value.isdigit():
                return min(int(value[:9]), longest)
        return None

    def answer(self, status: int, document: Any, headers: Mapping[str, str] | None = None) -> web.Response:
        """A JSON answer. `document` is what msgspec encodes: the fields in the order of the contract."""
        return web.Response(
            status=status,
            body=msgspec.json.encode(document),
            content_type=JSON_TYPE,
            headers={REQUEST_ID_HEADER: self.request_id, "Cache-Control": "no-store", **(headers or {})},
        )

    def empty(self, status: int = 204) -> web.Response:
        """An answer without a body."""
        return web.Response(status=status, headers={REQUEST_ID_HEADER: self.request_id, "Cache-Control": "no-store"})
