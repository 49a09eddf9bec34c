"""One attempt to deliver a webhook, step 7 (Notify): signed, bounded in time and size, to a guarded destination.

Nothing of the answer is read but its head: an endless body costs nothing, and a redirect is a failure like any other.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from ops.runtime.clock import Clock
from streams.domain.envelope import Value
from streams.webhooks.destinations import Mode, Reach, RefusedDestination, is_allowed, reach_of
from streams.webhooks.signing import signed_headers

TIMEOUT_S = 10.0  # the contract's, from resolving the name to the last byte of the answer's head
CONNECTIONS_MAX = 200  # of all deliveries at once; each endpoint's share is the agent's to bound
LOOKUP_S = 1.0  # of the name of an endpoint to be: the answer is due within two seconds
GONE = 410


class Attempt(Value, frozen=True, kw_only=True, gc=False):
    """What one attempt came to. `error` is None when it was delivered (any 2xx)."""

    http_status: int | None = None
    latency_ms: int
    error: str | None = None
    retry_after_ms: int | None = None


class WebhookClient:
    """Delivers to merchants. A component of its service: `start` before the first delivery, `stop` after the last."""

    def __init__(self, mode: Mode, clock: Clock, *, timeout_s: float = TIMEOUT_S) -> None:
        self._mode = mode
        self._clock = clock
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._sessions: dict[Reach, aiohttp.ClientSession] = {}

    async def start(self) -> None:
        """Open the pools: one for each kind of destination, so that none can be reached through the other."""
        tls = ssl.create_default_context()
        for reach in ("public", "loopback"):
            self._sessions[reach] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=tls,
                    limit=CONNECTIONS_MAX,
                    use_dns_cache=False,
                    force_close=True,  # a kept connection may have just ended, which would look like a failed delivery
                    socket_factory=_guarded_socket(reach),
                ),
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )

    async def stop(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()

    async def deliver(self, url: str, event_id: str, body: bytes, endpoint_secrets: Sequence[str]) -> Attempt:
        """POST `body` to `url`, signed with each secret. Never raises for what a receiver does."""
        began = time.monotonic()
        status, error, retry_after = await self._post(url, event_id, body, endpoint_secrets)
        latency_ms = round((time.monotonic() - began) * 1000)
        return Attempt(
            http_status=status,
            latency_ms=latency_ms,
            error=error,
            retry_after_ms=_retry_after_ms(retry_after, self._clock.now_us()),
        )

    async def _post(
        self, url: str, event_id: str, body: bytes, endpoint_secrets: Sequence[str]
    ) -> tuple[int | None, str | None, str | None]:
        """Status, error and Retry-After."""
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "payments-webhooks/1",
            **signed_headers(event_id, self._clock.now_us() // 1_000_000, body, endpoint_secrets),
        }
        try:
            session = self._sessions[reach_of(url, self._mode)]
            async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                delivered = 200 <= response.status < 300
                error = None if delivered else f"answered {response.status}"
                return response.status, error, response.headers.get("Retry-After")
        except RefusedDestination:
            return None, "destination_refused", None
        except aiohttp.ClientConnectorError as failure:
            return None, _connection_error(failure), None
        except TimeoutError:
            return None, "timeout", None
        except (aiohttp.ClientError, ValueError):  # a broken connection, no HTTP, or a URL that is none to aiohttp
            return None, "invalid_answer", None


async def check_destination(url: str, mode: Mode) -> None:
    """Raises RefusedDestination when `url` may not be an endpoint's. A name that does not resolve is accepted.

    This is for a good error message when an endpoint is made; what protects is the check on connecting.
    """
    reach = reach_of(url, mode)
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(LOOKUP_S):
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # a TimeoutError is an OSError
        return
    if not all(is_allowed(str(address[0]), reach) for *_, address in found):
        raise RefusedDestination(f"not a {reach} address")


def _guarded_socket(reach: Reach) -> Callable[[Any], socket.socket]:
    """Makes the sockets of a pool. What is checked here is the very address that is connected to next."""

    def make(address_info: tuple[int, int, int, str, tuple[Any, ...]]) -> socket.socket:
        family, kind, protocol, _, address = address_info
        if not is_allowed(str(address[0]), reach):
            raise RefusedDestination(f"not a {reach} address")
        return socket.socket(family, kind, protocol)

    return make


def _connection_error(failure: aiohttp.ClientConnectorError) -> str:
    if isinstance(failure, aiohttp.ClientSSLError):
        return "tls_failed"
    if isinstance(failure.os_error, RefusedDestination):
        return "destination_refused"
    return "name_not_resolved" if isinstance(failure, aiohttp.ClientConnectorDNSError) else "connection_failed"


def _retry_after_ms(header: str | None, now_us: int) -> int | None:
    """Seconds or an HTTP date; None for anything else or a time that has passed."""
    if header is None:
        return None
    if header.isascii() and header.isdigit():
        return int(header[:9]) * 1000
    try:
        wanted = parsedate_to_datetime(header)
    except ValueError:
        return None
    now = datetime.fromtimestamp(now_us / 1_000_000, UTC)
    wait = wanted.replace(tzinfo=wanted.tzinfo or UTC) - now
    return max(0, round(wait.total_seconds() * 1000)) or None
