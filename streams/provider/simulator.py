"""The provider port over the simulator's HTTP API: one pool of mutual-TLS connections, bounded in number and time."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Any

import aiohttp
import msgspec
from prometheus_client import CollectorRegistry, Histogram

from ops.runtime.metrics import LATENCY_BUCKETS_S
from streams.provider.classification import answer_of, query_answer_of, unavailable
from streams.provider.port import Answer, NotProcessed, QueryAnswer, SettlementItem, Unknown

CONCURRENCY_MAX = 64  # calls under way at once; more wait, outside of their time-out
IDLE_CONNECTION_S = 30.0  # below the server's keep-alive, so that a call seldom meets a connection that just closed
ANSWER_BYTES_MAX = 1024 * 1024  # a chunk of 500 items has about 150 KiB


class SimulatorProvider:
    """Provider over HTTP. A component of its service: `start` before the first call, `stop` after the last."""

    def __init__(
        self, url: str, *, timeout_s: float, tls: ssl.SSLContext, registry: CollectorRegistry | None = None
    ) -> None:
        self._url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._tls = tls
        self._places = asyncio.Semaphore(CONCURRENCY_MAX)
        self._session: aiohttp.ClientSession | None = None
        self._seconds = Histogram(
            "payments_provider_call_seconds",
            "Calls of the provider by operation and what they let us know",
            ["operation", "answer"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )

    async def start(self) -> None:
        """Open the pool; it connects when needed."""
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0, keepalive_timeout=IDLE_CONNECTION_S)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()
        )

    async def stop(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def authorize(
        self, key: str, *, payment_id: str, amount: int, currency: str, payment_method_token: str
    ) -> Answer:
        """As Provider.authorize."""
        body = {
            "payment_id": payment_id,
            "amount": amount,
            "currency": currency,
            "payment_method_token": payment_method_token,
        }
        return await self._post("authorizations", key, body)

    async def void(self, key: str, *, payment_id: str, authorization_key: str) -> Answer:
        """As Provider.void."""
        return await self._post("voids", key, {"payment_id": payment_id, "authorization_id": authorization_key})

    async def refund(self, key: str, *, payment_id: str, amount: int, currency: str) -> Answer:
        """As Provider.refund."""
        return await self._post("refunds", key, {"payment_id": payment_id, "amount": amount, "currency": currency})

    async def settle(self, key: str, *, batch_id: str, chunk: int, items: tuple[SettlementItem, ...]) -> Answer:
        """As Provider.settle."""
        return await self._post("settlements", key, {"batch_id": batch_id, "chunk": chunk, "items": items})

    async def query(self, key: str) -> QueryAnswer:
        """As Provider.query."""
        answered = await self._call("GET", "operations", params={"idempotency_key": key})
        if not isinstance(answered, tuple):
            return Unknown(error=answered.error)
        status, body, _ = answered
        return query_answer_of(status, body)

    async def check(self) -> None:
        """For readiness: raises unless the provider answers at all."""
        answered = await self._call("GET", "operations", params={"idempotency_key": "readiness"})
        if not isinstance(answered, tuple):
            raise ConnectionError(answered.error.message)

    async def _post(self, operation: str, key: str, body: dict[str, Any]) -> Answer:
        answered = await self._call(
            "POST",
            operation,
            data=msgspec.json.encode(body),
            headers={"Content-Type": "application/json", "Idempotency-Key": key},
        )
        return answered if not isinstance(answered, tuple) else answer_of(*answered)

    async def _call(
        self, method: str, operation: str, **arguments: Any
    ) -> tuple[int, bytes, str | None] | NotProcessed | Unknown:
        """Status, body and Retry-After; or what is known without an answer."""
        assert self._session is not None, "start() first"
        async with self._places:
            began = time.monotonic()
            answered: tuple[int, bytes, str | None] | NotProcessed | Unknown
            try:
                async with self._session.request(
                    method, f"{self._url}/v1/{operation}", allow_redirects=False, **arguments
                ) as response:
                    body = await response.content.read(ANSWER_BYTES_MAX)
                    while not response.content.at_eof() and len(body) < ANSWER_BYTES_MAX:
                        body += await response.content.read(ANSWER_BYTES_MAX - len(body))
                    answered = response.status, body, response.headers.get("Retry-After")
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
                answered = NotProcessed(error=unavailable("the provider cannot be reached"))
            except TimeoutError:
                answered = Unknown(error=unavailable("the provider did not answer in time"))
            except aiohttp.ClientError:
                answered = Unknown(error=unavailable("the connection to the provider broke"))
            label = str(answered[0]) if isinstance(answered, tuple) else type(answered).__name__
            self._seconds.labels(operation if method == "POST" else "query", label).observe(time.monotonic() - began)
            return answered
