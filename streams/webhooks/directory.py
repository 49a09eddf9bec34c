"""The endpoints of a merchant as the lane reads them: from the records, for a moment from memory, never stale for a
new event.

What is read after an event came in knows every endpoint that existed before it; so a merchant who creates an endpoint
and then a payment gets the payment's first event, however short the time between them. One read serves all events that
had come in before it began.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from ops.runtime.clock import Clock
from ops.runtime.encryption import Sealed
from tables.records.endpoints import Endpoint

CACHE_S = 3.0  # a changed, disabled or deleted endpoint is noticed within this time
CACHED_MERCHANTS_MAX = 10_000


class EndpointReads(Protocol):
    """Where endpoints are kept. Raises RecordsUnavailable during an outage."""

    async def of_merchant(self, merchant_id: str) -> Sequence[Endpoint]:
        """All endpoints of a merchant."""
        ...


class Opener(Protocol):
    """What decrypts. Raises EncryptionError, or the records' error when a data key cannot be read."""

    async def decrypt(self, belongs_to: str, sealed: Sealed) -> bytes:
        """The plaintext of what was sealed for the object with this id."""
        ...


class _Read(NamedTuple):
    began_s: float  # monotonic
    endpoints: Sequence[Endpoint]


class EndpointDirectory:
    """Endpoints by merchant, and the secrets that sign for them."""

    def __init__(
        self,
        endpoints: EndpointReads,
        opener: Opener,
        clock: Clock,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoints = endpoints
        self._opener = opener
        self._clock = clock
        self._monotonic_s = monotonic_s
        self._read: dict[str, _Read] = {}

    async def of_merchant(self, merchant_id: str, *, since_s: float = 0.0) -> Sequence[Endpoint]:
        """The merchant's endpoints, with all that existed at `since_s` (monotonic; infinite: now).

        Raises RecordsUnavailable.
        """
        now_s = self._monotonic_s()
        known = self._read.get(merchant_id)
        if known is not None and known.began_s > since_s and now_s - known.began_s <= CACHE_S:
            return known.endpoints
        endpoints = await self._endpoints.of_merchant(merchant_id)
        if len(self._read) >= CACHED_MERCHANTS_MAX:
            self._read.clear()
        self._read[merchant_id] = _Read(now_s, endpoints)
        return endpoints

    async def find(self, merchant_id: str, endpoint_id: str) -> Endpoint | None:
        """The endpoint as it was at most CACHE_S ago; None when it is gone. Raises RecordsUnavailable."""
        for endpoint in await self.of_merchant(merchant_id):
            if endpoint.endpoint_id == endpoint_id:
                return endpoint
        return None

    async def secrets(self, endpoint: Endpoint) -> list[str]:
        """The endpoint's live secrets, newest first. Raises EncryptionError or RecordsUnavailable."""
        now_us = self._clock.now_us()
        live = [secret for secret in endpoint.secrets if secret.expires_at is None or secret.expires_at > now_us]
        opened = []
        for secret in live:
            sealed = Sealed(key_id=secret.key_id, nonce=secret.nonce, ciphertext=secret.ciphertext)
            opened.append((await self._opener.decrypt(endpoint.endpoint_id, sealed)).decode())
        return opened
