"""What is counted and logged of each request, on every port of the API.

Requests are noted as they are answered and written down a little later, many at once: one by one, each after a pause
in which other programs had the core's caches, this took a tenth of what a whole request costs.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram

from ops.runtime.clock import Clock, to_rfc3339
from ops.runtime.logs import logger
from ops.runtime.metrics import LATENCY_BUCKETS_S

WRITE_AFTER_S = 0.2  # what a process that is killed may owe its log


class Answered(NamedTuple):
    """A request that has its answer. No field holds a client's text: method and route are the table's or say so."""

    request_id: str
    trace_id: str
    method: str
    route: str
    status: int
    seconds: float  # from its head to its answer
    caller: str | None
    merchant_id: str | None
    payment_id: str | None


class RequestLog:
    """Counts and lines of requests. A component, only for what its `stop` writes; touched by the event loop alone."""

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self._requests = Counter(
            "payments_http_requests", "Requests answered", ["method", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "payments_http_request_seconds",
            "From a request's head to its answer",
            ["method", "route"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._clock = clock
        self._noted: list[tuple[int, Answered]] = []

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        self.write()

    def note(self, answered: Answered) -> None:
        """The request is counted and logged within WRITE_AFTER_S."""
        if not self._noted:
            asyncio.get_running_loop().call_later(WRITE_AFTER_S, self.write)
        self._noted.append((self._clock.now_us(), answered))

    def write(self) -> None:
        """Everything noted so far."""
        noted, self._noted = self._noted, []
        for at, answered in noted:
            self._requests.labels(answered.method, answered.route, str(answered.status)).inc()
            self._seconds.labels(answered.method, answered.route).observe(answered.seconds)
            logger().info(
                "request",
                at=to_rfc3339(at),
                request_id=answered.request_id,
                trace_id=answered.trace_id,
                method=answered.method,
                route=answered.route,
                status=answered.status,
                duration_ms=round(answered.seconds * 1_000, 1),
                caller=answered.caller,
                merchant_id=answered.merchant_id,
                payment_id=answered.payment_id,
            )
