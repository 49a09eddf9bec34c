"""How much one key and one address may ask for: token buckets, and requests in flight. Memory is bounded.

A bucket is one number, the time at which it is full again (the generic cell rate algorithm); the buckets that were used
longest ago are forgotten first, and those are full.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache

from api.problems import Problem
from ops.runtime.settings import Settings

BUCKETS_MAX = 20_000
KEY_REFUSED_COST = 10.0  # requests that one refused key counts for: guessing keys is dear, mistyping one is not


class TokenBuckets:
    """One bucket per name, all of one rate and size."""

    def __init__(self, per_s: float, burst: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._token_s = 1.0 / per_s
        self._size_s = burst / per_s
        self._monotonic = monotonic
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, name: str, tokens: float = 1.0) -> float:
        """Takes `tokens` and gives 0.0; or takes none and gives the seconds until they will be there."""
        now = self._monotonic()
        full_at = max(now, self._full_at.get(name, now)) + tokens * self._token_s
        wait_s = full_at - now - self._size_s
        if wait_s > 1e-9:
            return wait_s
        self._keep(name, full_at)
        return 0.0

    def charge(self, name: str, tokens: float) -> None:
        """Takes what is there of `tokens`."""
        now = self._monotonic()
        full_at = max(now, self._full_at.get(name, now)) + tokens * self._token_s
        self._keep(name, min(full_at, now + self._size_s))

    def _keep(self, name: str, full_at: float) -> None:
        self._full_at[name] = full_at
        self._full_at.move_to_end(name)
        if len(self._full_at) > BUCKETS_MAX:
            self._full_at.popitem(last=False)


class RateLimits:
    """The settings' limits for one port of the API. Raises Problem rate_limited with an honest Retry-After."""

    def __init__(self, settings: Settings, monotonic: Callable[[], float] = time.monotonic) -> None:
        per_s, burst = settings.address_requests_per_s, settings.address_requests_burst
        self._keys = TokenBuckets(settings.key_requests_per_s, settings.key_requests_burst, monotonic)
        self._addresses = TokenBuckets(per_s, burst, monotonic)
        self._in_flight: dict[str, int] = {}
        self._in_flight_max = settings.key_requests_in_flight

    def admit_address(self, address: str) -> None:
        """Before anything is read for the request."""
        wait_s = self._addresses.take(address)
        if wait_s > 0.0:
            raise _rate_limited("too many requests from this address", wait_s)

    def key_refused(self, address: str) -> None:
        """A request from `address` had no valid key: it counts for several."""
        self._addresses.charge(address, KEY_REFUSED_COST - 1.0)

    def begin(self, key_id: str) -> None:
        """One more request of the key is in flight, until `end`."""
        flying = self._in_flight.get(key_id, 0)
        if flying >= self._in_flight_max:
            raise _rate_limited("too many requests of this key at once", 1.0)
        wait_s = self._keys.take(key_id)
        if wait_s > 0.0:
            raise _rate_limited("too many requests with this key", wait_s)
        self._in_flight[key_id] = flying + 1

    def end(self, key_id: str) -> None:
        left = self._in_flight[key_id] - 1
        if left:
            self._in_flight[key_id] = left
        else:
            del self._in_flight[key_id]


def address_name(peer: object) -> str:
    """The name of a peer's bucket: its IPv4 address, or the /64 of its IPv6 one, which is a single subscriber's."""
    return _subscriber(str(peer[0])) if isinstance(peer, tuple) and peer else ""


@lru_cache(maxsize=4096)
def _subscriber(host: str) -> str:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
    return host


def _rate_limited(detail: str, wait_s: float) -> Problem:
    return Problem("rate_limited", detail, headers={"Retry-After": str(max(1, math.ceil(wait_s)))})
