"""Any provider behind a circuit breaker and a bound on calls under way, so that an outage costs neither it nor us.

What an open circuit holds back was never sent: a send is NotProcessed and says when to come back, and what is asked
about stays as unknown as it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Enum, Gauge

from ops.runtime.logs import logger
from streams.provider.circuit import Circuit, CircuitPolicy, CircuitState, admit, answered, state_of
from streams.provider.classification import unavailable
from streams.provider.port import (
    Answer,
    NotProcessed,
    Operation,
    ProviderComponent,
    QueryAnswer,
    Unknown,
)

PLACES = 64  # calls under way at once: at 5 s time-outs 12 calls/s still get through a provider that only hangs

A = TypeVar("A")

HELD_BACK = unavailable("the provider is away; nothing was sent")


class BreakingProvider:
    """A provider that is left alone while it is away. `monotonic_s`: seconds of a clock that never goes back."""

    def __init__(
        self,
        provider: ProviderComponent,
        *,
        policy: CircuitPolicy | None = None,
        places: int = PLACES,
        monotonic_s: Callable[[], float] = time.monotonic,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._provider = provider
        self._policy = policy or CircuitPolicy()
        self._monotonic_s = monotonic_s
        self._circuit = Circuit()
        self._places = asyncio.Semaphore(places)
        self._state = Enum(
            "payments_provider_circuit",
            "What becomes of calls of the provider; open is an alert",
            states=[state.value for state in CircuitState],
            registry=registry,
        )
        self._held_back = Counter(
            "payments_provider_held_back_total", "Calls that an open circuit did not let out", registry=registry
        )
        self._under_way = Gauge("payments_provider_calls_under_way", "Calls of the provider now", registry=registry)

    async def start(self) -> None:
        """Start the provider."""
        await self._provider.start()

    async def stop(self) -> None:
        """Stop the provider."""
        await self._provider.stop()

    async def check(self) -> None:
        """As the provider's: readiness tells how it is, whatever the circuit believes."""
        await self._provider.check()

    async def send(self, operation: Operation) -> Answer:
        """As Provider.send; NotProcessed with the cause "not_sent" while the circuit is open."""

        def held_back(wait_ms: int) -> Answer:
            return NotProcessed(error=HELD_BACK, retry_after_ms=wait_ms, cause="not_sent")

        return await self._call(lambda: self._provider.send(operation), held_back)

    async def query(self, operation: Operation) -> QueryAnswer:
        """As Provider.query; Unknown with the time to come back while the circuit is open."""

        def held_back(wait_ms: int) -> QueryAnswer:
            return Unknown(error=HELD_BACK, retry_after_ms=wait_ms)

        return await self._call(lambda: self._provider.query(operation), held_back)

    async def _call(self, call: Callable[[], Awaitable[A]], held_back: Callable[[int], A]) -> A:
        async with self._places:  # waiting for a place is in nobody's time-out; the circuit may open meanwhile
            admission = admit(self._circuit, self._policy, self._now_ms())
            if admission.wait_ms is not None:
                self._held_back.inc()
                return held_back(admission.wait_ms)
            self._enter(admission.circuit)
            failed: bool | None = None
            try:
                with self._under_way.track_inprogress():
                    answer = await call()
                failed = _is_away(answer)
                return answer
            finally:
                after = answered(
                    self._circuit, self._policy, self._now_ms(), is_probe=admission.is_probe, failed=failed
                )
                self._enter(after)

    def _enter(self, circuit: Circuit) -> None:
        now_ms = self._now_ms()
        was, state = state_of(self._circuit, now_ms), state_of(circuit, now_ms)
        self._circuit = circuit
        self._state.state(state.value)
        if state is CircuitState.OPEN and was is not CircuitState.OPEN:
            logger().error("provider circuit opened", failures=circuit.failures, for_ms=self._policy.open_ms)
        elif state is CircuitState.CLOSED and was is not CircuitState.CLOSED:
            logger().info("provider circuit closed")

    def _now_ms(self) -> int:
        return int(self._monotonic_s() * 1000)


def _is_away(answer: object) -> bool:
    """Whether an answer is a sign that the provider is gone; one that limits or refuses us is there."""
    return isinstance(answer, Unknown) or (isinstance(answer, NotProcessed) and answer.cause == "unavailable")
