"""How long POST /payments takes, from the client's side, at a steady rate.

Open loop: requests leave on schedule whether or not earlier ones were answered, and a latency counts from the moment at
which its request was due, so a stall of the platform is paid for by every request that had to wait.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter

import aiohttp
import msgspec

from ops.demo.platform import Platform

REQUEST_S = 10.0
WARM_UP_S = 3.0  # connections, prepared statements, code paths: a warm stack is measured
CONNECTIONS = 2_000  # open loop: a request never waits for an earlier one


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a run; times in milliseconds."""

    rate_wanted: float  # requests per second
    rate_sent: float
    seconds: float
    requests: int
    statuses: dict[str, int]
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    client_cpu_ms: float  # the load generator's for a request, always the same work: how fast the machine was meanwhile


async def measure_creates(platform: Platform, rate: float, seconds: float) -> Latencies:
    """POST /payments over HTTPS at `rate` per second for `seconds`, after a warm-up at the same rate."""
    async with open_session(platform) as session:
        load = Load(session, platform.urls["api"], platform.secret_key)
        await load.run(rate, WARM_UP_S)
        load.forget()
        took_s = await load.run(rate, seconds)
    return load.latencies(rate, took_s)


def open_session(platform: Platform) -> aiohttp.ClientSession:
    """A client that trusts the platform's certificates."""
    connector = aiohttp.TCPConnector(limit=CONNECTIONS, ssl=platform.public)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=REQUEST_S))


class Load:
    """POST `api`/payments, on schedule."""

    def __init__(self, session: aiohttp.ClientSession, api: str, secret_key: str) -> None:
        self._session = session
        self._url = f"{api}/payments"
        self._authorization = f"Bearer {secret_key}"
        self._body = msgspec.json.encode(
            {
                "amount": 2500,
                "currency": "USD",
                "customer": {"email": "load@example.com", "name": "Ann Example"},
                "description": "a payment of the load generator",
                "metadata": {"order": "17"},
            }
        )
        self._statuses: Counter[str] = Counter()
        self._latencies_s: list[float] = []
        self._cpu_began_s = time.process_time()

    def forget(self) -> None:
        """The warm-up does not count."""
        self._statuses.clear()
        self._latencies_s.clear()
        self._cpu_began_s = time.process_time()

    async def run(self, rate: float, seconds: float) -> float:
        """Send `rate` * `seconds` requests on schedule; the seconds until the last one was sent."""
        began = time.perf_counter()
        async with asyncio.TaskGroup() as requests:
            for number in range(round(rate * seconds)):
                due = began + number / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                requests.create_task(self._create(due))
            return time.perf_counter() - began

    async def _create(self, due: float) -> None:
        headers = {
            "Authorization": self._authorization,
            "Content-Type": "application/json",
            "Idempotency-Key": str(uuid.uuid4()),
        }
        try:
            async with self._session.post(self._url, data=self._body, headers=headers) as response:
                await response.read()
                status = str(response.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            status = type(error).__name__
        self._latencies_s.append(time.perf_counter() - due)
        self._statuses[status] += 1

    def latencies(self, rate: float, took_s: float) -> Latencies:
        """Of the requests since the warm-up was forgotten."""
        cpu_s = time.process_time() - self._cpu_began_s
        ordered = sorted(self._latencies_s)
        return Latencies(
            rate_wanted=rate,
            rate_sent=round(len(ordered) / took_s, 1),
            seconds=round(took_s, 1),
            requests=len(ordered),
            statuses=dict(self._statuses),
            p50_ms=_percentile_ms(ordered, 0.50),
            p90_ms=_percentile_ms(ordered, 0.90),
            p99_ms=_percentile_ms(ordered, 0.99),
            max_ms=_percentile_ms(ordered, 1.0),
            client_cpu_ms=round(cpu_s / len(ordered) * 1000, 2),
        )


def _percentile_ms(ordered: list[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed."""
    position = max(0, -(-len(ordered) * share // 1) - 1)
    return round(ordered[int(position)] * 1000, 1)
