"""Who calls: the API key of a request, its merchant, and for how long their records may be believed.

Records are read at most every 3 s per key, so a revocation works within 5 s. While Cassandra is away, what was read
in the last 10 minutes still serves create and confirm: no revocation can have been acknowledged meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from api.api_key_texts import is_key_text, key_hashes
from api.calls import Principal
from api.problems import unauthenticated, unavailable
from ops.runtime.clock import Clock
from ops.runtime.secrets import SecretKeys
from tables.records.errors import RecordsUnavailable
from tables.records.merchants import ApiKey, Merchant

FRESH_S = 3.0
OUTAGE_S = 600.0
STALE_READ_TIMEOUT_S = 0.4  # with a cached answer at hand, a slow database is not waited for
RETRY_AFTER_OUTAGE_S = 1.0  # between two attempts to read while the database is away
CACHED_KEYS_MAX = 20_000
REFUSAL_S = 0.03  # every 401 takes this long, whatever was wrong and however quickly it was found


class AccessReads(Protocol):
    """The records that say who may call. Raise RecordsUnavailable during an outage."""

    async def by_hash(self, key_hash: bytes) -> ApiKey | None: ...

    async def merchant(self, merchant_id: str) -> Merchant | None: ...


@dataclass(slots=True)
class _Cached:
    principal: Principal
    ends_at: int | None  # epoch microseconds: expiry or revocation, whichever comes first
    read_at: float  # monotonic


class Authenticator:
    """Finds the principal of a request's `Authorization` header."""

    def __init__(
        self,
        reads: AccessReads,
        pepper: SecretKeys,
        mode: str,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reads = reads
        self._pepper = pepper
        self._mode = mode
        self._clock = clock
        self._monotonic = monotonic
        self._cache: OrderedDict[bytes, _Cached] = OrderedDict()
        self._reading: dict[bytes, asyncio.Task[_Cached | None]] = {}
        self._away_until = 0.0

    async def authenticate(self, header: str | None, *, survives_outage: bool) -> Principal:
        """The caller. `survives_outage`: the route works on cached access while Cassandra is away.

        Raises Problem: unauthenticated (always after the same time), unavailable.
        """
        began = self._monotonic()
        text = _bearer(header)
        found = await self._find(text, survives_outage) if text is not None else None
        if found is None or (found.ends_at is not None and found.ends_at <= self._clock.now_us()):
            await asyncio.sleep(max(0.0, began + REFUSAL_S - self._monotonic()))
            raise unauthenticated()
        return found.principal

    async def _find(self, text: str, survives_outage: bool) -> _Cached | None:
        if not is_key_text(text) or text.split("_")[1] != self._mode:
            return None
        hashes = key_hashes(text, self._pepper)
        cached = self._cache.get(hashes[0])
        age = self._monotonic() - cached.read_at if cached is not None else float("inf")
        if age < FRESH_S:
            return cached
        may_serve = cached if survives_outage and age < OUTAGE_S else None
        if may_serve is not None and self._monotonic() < self._away_until:
            return may_serve
        try:
            async with asyncio.timeout(STALE_READ_TIMEOUT_S if may_serve is not None else None):
                return await asyncio.shield(self._read_once(hashes))
        except (RecordsUnavailable, TimeoutError):
            self._away_until = self._monotonic() + RETRY_AFTER_OUTAGE_S
            if may_serve is not None:
                return may_serve
            raise unavailable("access cannot be checked at the moment") from None

    def _read_once(self, hashes: list[bytes]) -> asyncio.Task[_Cached | None]:
        """One read per key however many requests ask for it at once."""
        task = self._reading.get(hashes[0])
        if task is None:
            task = asyncio.create_task(self._read(hashes), name="read access")
            self._reading[hashes[0]] = task
            task.add_done_callback(lambda done: self._end_reading(hashes[0], done))
        return task

    def _end_reading(self, key_hash: bytes, task: asyncio.Task[_Cached | None]) -> None:
        self._reading.pop(key_hash, None)
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may have waited to the end

    async def _read(self, hashes: list[bytes]) -> _Cached | None:
        for key_hash in hashes:
            key = await self._reads.by_hash(key_hash)
            merchant = await self._reads.merchant(key.merchant_id) if key is not None else None
            if key is None or merchant is None:
                continue
            ends = [end for end in (key.expires_at, key.revoked_at) if end is not None]
            currencies = merchant.settlement_currencies
            principal = Principal(
                key_id=key.key_id,
                kind=key.kind,
                scopes=frozenset(key.scopes or ()),
                merchant_id=key.merchant_id,
                merchant_status=merchant.status,
                settlement_currencies=None if currencies is None else frozenset(currencies),
            )
            cached = _Cached(principal, min(ends, default=None), self._monotonic())
            self._cache[hashes[0]] = cached
            self._cache.move_to_end(hashes[0])
            if len(self._cache) > CACHED_KEYS_MAX:
                self._cache.popitem(last=False)
            return cached
        self._cache.pop(hashes[0], None)
        return None


def _bearer(header: str | None) -> str | None:
    """The token of `Authorization: Bearer <token>`; None for anything else."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token else None
