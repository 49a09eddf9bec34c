"""Calls of a provider over HTTP: one pool of connections, bounded in time; a call without an answer is a value too.

How many calls are under way at once is the business of `breaker`. Nothing of a request or an answer is logged here.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import aiohttp
from prometheus_client import CollectorRegistry, Histogram

from ops.runtime.metrics import LATENCY_BUCKETS_S
from streams.provider.classification import unavailable
from streams.provider.port import NotProcessed, Unknown

IDLE_CONNECTION_S = 30.0  # below the server's keep-alive, so that a call seldom meets a connection that just closed
ANSWER_BYTES_MAX = 1024 * 1024  # a chunk of 500 items has about 150 KiB


class HttpAnswer(NamedTuple):
    """What came back."""

    status: int
    body: bytes
    headers: Mapping[str, str]  # case-insensitive


class HttpCalls:
    """A component: `start` before the first call, `stop` after the last."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        tls: ssl.SSLContext,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._tls = tls
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

    async def call(
        self, method: str, path: str, *, operation: str, **arguments: Any
    ) -> HttpAnswer | NotProcessed | Unknown:
        """The answer; or what is known without one. `operation` names the call in the metrics."""
        assert self._session is not None, "start() first"
        began = time.monotonic()
        answered: HttpAnswer | NotProcessed | Unknown
        try:
            async with self._session.request(method, self._url + path, allow_redirects=False, **arguments) as response:
                body = await response.content.read(ANSWER_BYTES_MAX)
                while not response.content.at_eof() and len(body) < ANSWER_BYTES_MAX:
                    body += await response.content.read(ANSWER_BYTES_MAX - len(body))
                answered = HttpAnswer(response.status, body, response.headers)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            answered = NotProcessed(error=unavailable("the provider cannot be reached"))
        except TimeoutError:
            answered = Unknown(error=unavailable("the provider did not answer in time"))
        except aiohttp.ClientError:
            answered = Unknown(error=unavailable("the connection to the provider broke"))
        label = str(answered.status) if isinstance(answered, HttpAnswer) else type(answered).__name__
        self._seconds.labels(operation, label).observe(time.monotonic() - began)
        return answered
