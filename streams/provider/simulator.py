"""The provider port over the simulator's HTTP API, under mutual TLS."""

from __future__ import annotations

import ssl
from typing import Any, assert_never

import msgspec
from prometheus_client import CollectorRegistry

from streams.provider.classification import answer_of, query_answer_of
from streams.provider.http import HttpAnswer, HttpCalls
from streams.provider.port import (
    Answer,
    Authorize,
    Operation,
    QueryAnswer,
    Refund,
    Settle,
    SettlementItem,
    Unknown,
    Void,
)


class SimulatorProvider:
    """Provider over HTTP. A component of its service: `start` before the first call, `stop` after the last."""

    def __init__(
        self, url: str, *, timeout_s: float, tls: ssl.SSLContext, registry: CollectorRegistry | None = None
    ) -> None:
        self._http = HttpCalls(url, timeout_s=timeout_s, tls=tls, registry=registry)

    async def start(self) -> None:
        """Open the pool; it connects when needed."""
        await self._http.start()

    async def stop(self) -> None:
        """Close all connections."""
        await self._http.stop()

    async def send(self, operation: Operation) -> Answer:
        """As Provider.send."""
        name, body = _request(operation)
        answered = await self._http.call(
            "POST",
            f"/v1/{name}",
            operation=name,
            data=msgspec.json.encode(body),
            headers={"Content-Type": "application/json", "Idempotency-Key": operation.key},
        )
        if not isinstance(answered, HttpAnswer):
            return answered
        return answer_of(answered.status, answered.body, answered.headers.get("Retry-After"))

    async def query(self, operation: Operation) -> QueryAnswer:
        """As Provider.query."""
        answered = await self._query(operation.key)
        if not isinstance(answered, HttpAnswer):
            return Unknown(error=answered.error)
        return query_answer_of(answered.status, answered.body, answered.headers.get("Retry-After"))

    async def check(self) -> None:
        """For readiness: raises ConnectionError unless the provider answers at all."""
        answered = await self._query("readiness")
        if not isinstance(answered, HttpAnswer):
            raise ConnectionError(answered.error.message)

    async def _query(self, key: str) -> Any:
        return await self._http.call("GET", "/v1/operations", operation="query", params={"idempotency_key": key})


def _request(operation: Operation) -> tuple[str, dict[str, Any]]:
    """Path and body of an operation."""
    match operation:
        case Authorize():
            token = operation.payment_method_token
            return "authorizations", {**_money(operation), "payment_method_token": token}
        case Void():
            return "voids", {"payment_id": operation.payment_id, "authorization_id": operation.authorization_key}
        case Refund():
            return "refunds", _money(operation)
        case Settle():
            items = [_money(item) for item in operation.items]
            return "settlements", {"batch_id": operation.batch_id, "chunk": operation.chunk, "items": items}
        case _:
            assert_never(operation)


def _money(of: Authorize | Refund | SettlementItem) -> dict[str, Any]:
    return {"payment_id": of.payment_id, "amount": of.amount, "currency": of.currency}
