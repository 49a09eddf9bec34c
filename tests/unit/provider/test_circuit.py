"""The circuit as a table of what happens when, with times of its own; and a provider behind it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from streams.provider.breaker import BreakingProvider
from streams.provider.circuit import Circuit, CircuitPolicy, CircuitState, admit, answered, state_of
from streams.provider.classification import unavailable
from streams.provider.port import (
    Answer,
    NotFound,
    NotProcessed,
    Operation,
    QueryAnswer,
    Refund,
    Succeeded,
    Unknown,
)

POLICY = CircuitPolicy(failures_max=3, open_ms=1_000, probes_max=1)
FAIL, OK, LOST = True, False, None


def walk(*steps: tuple[int, bool | None]) -> list[str]:
    """What each step meets. A step: time in ms, and whether the call, if it goes out, fails."""
    circuit, met = Circuit(), []
    for now_ms, failed in steps:
        admission = admit(circuit, POLICY, now_ms)
        if admission.wait_ms is not None:
            met.append(f"wait {admission.wait_ms}")
            continue
        met.append("probe" if admission.is_probe else "out")
        circuit = answered(admission.circuit, POLICY, now_ms, is_probe=admission.is_probe, failed=failed)
    return met


@pytest.mark.parametrize(
    ("results", "met"),
    [
        ([(0, FAIL), (1, FAIL), (2, FAIL), (3, OK)], ["out", "out", "out", "wait 999"]),
        ([(0, FAIL), (1, FAIL), (2, OK), (3, FAIL), (4, FAIL), (5, OK)], ["out"] * 6),  # in a row, or not at all
        ([(0, FAIL), (1, LOST), (2, FAIL), (3, FAIL), (4, OK)], ["out"] * 4 + ["wait 999"]),
        ([(0, FAIL)] * 3 + [(999, OK), (1_000, OK), (1_001, OK)], ["out"] * 3 + ["wait 1", "probe", "out"]),
        ([(0, FAIL)] * 3 + [(1_000, FAIL), (1_001, OK), (2_000, OK)], ["out"] * 3 + ["probe", "wait 999", "probe"]),
        ([(0, FAIL)] * 3 + [(1_000, LOST), (1_001, OK), (1_002, FAIL)], ["out"] * 3 + ["probe", "probe", "out"]),
        (
            [(0, FAIL)] * 3 + [(1_000, OK), (1_001, FAIL), (1_002, FAIL), (1_003, OK)],
            ["out"] * 3 + ["probe"] + ["out"] * 3,
        ),
    ],
)
def test_what_a_call_meets(results: list[tuple[int, bool | None]], met: list[str]) -> None:
    assert walk(*results) == met


def test_only_so_many_probes_are_out_at_once() -> None:
    half_open = Circuit(failures=3, open_until_ms=0)
    first = admit(half_open, POLICY, 5)
    assert first.is_probe
    assert admit(first.circuit, POLICY, 6).wait_ms == POLICY.open_ms
    over = answered(first.circuit, POLICY, 7, is_probe=True, failed=None)
    assert admit(over, POLICY, 8).is_probe


@pytest.mark.parametrize("failed", [True, False])
def test_an_answer_from_before_it_opened_tells_nothing(failed: bool) -> None:
    opened = Circuit(failures=3, open_until_ms=1_000)
    assert answered(opened, POLICY, 500, is_probe=False, failed=failed) == opened
    assert state_of(opened, 500) is CircuitState.OPEN


class Acquirer:
    """Answers as told; counts what reaches it."""

    def __init__(self) -> None:
        self.answer: Any = Succeeded()
        self.reached = 0
        self.at_once = self.at_once_max = 0
        self.gate: asyncio.Event | None = None
        self.arrivals: asyncio.Queue[Operation] = asyncio.Queue()

    async def reached_by(self, count: int) -> None:
        """Returns once so many more sends have arrived."""
        for _ in range(count):
            await self.arrivals.get()

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def check(self) -> None: ...

    async def send(self, operation: Operation) -> Answer:
        self.reached += 1
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        self.arrivals.put_nowait(operation)
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.at_once -= 1
        answer: Answer = self.answer
        return answer

    async def query(self, operation: Operation) -> QueryAnswer:
        self.reached += 1
        return NotFound() if isinstance(self.answer, Succeeded) else Unknown(error=unavailable("away"))


REFUND = Refund(key="txn_1", payment_id="pay_1", amount=1, currency="USD")
AWAY = [Unknown(error=unavailable("time-out")), NotProcessed(error=unavailable("503"))]


class Stand:
    """A breaker over the acquirer, with a clock that stands still."""

    def __init__(self, places: int = 64) -> None:
        self.acquirer = Acquirer()
        self.now_s = 1_000.0
        self.registry = CollectorRegistry()
        self.provider = BreakingProvider(
            self.acquirer, policy=POLICY, places=places, monotonic_s=lambda: self.now_s, registry=self.registry
        )

    def state(self) -> list[str]:
        states = [state.value for state in CircuitState]
        name = "payments_provider_circuit"
        return [each for each in states if self.registry.get_sample_value(name, {name: each})]


@pytest.mark.parametrize("away", AWAY)
async def test_a_provider_that_is_away_is_left_alone_and_found_again(away: Answer) -> None:
    stand = Stand()
    stand.acquirer.answer = away
    for _ in range(3):
        assert await stand.provider.send(REFUND) == away
    assert stand.state() == ["open"]

    held_back = await stand.provider.send(REFUND)
    assert isinstance(held_back, NotProcessed)  # and never Unknown: nothing was sent
    assert (held_back.cause, held_back.retry_after_ms) == ("not_sent", 1_000)
    asked = await stand.provider.query(REFUND)
    assert isinstance(asked, Unknown)  # what was unknown stays so
    assert asked.retry_after_ms == 1_000
    assert stand.acquirer.reached == 3

    stand.now_s += 1
    stand.acquirer.answer = Succeeded()
    assert await stand.provider.query(REFUND) == NotFound()  # the probe
    assert stand.state() == ["closed"]
    assert await stand.provider.send(REFUND) == Succeeded()
    assert stand.registry.get_sample_value("payments_provider_held_back_total") == 2


@pytest.mark.parametrize("cause", ["limited", "rejected"])
async def test_a_provider_that_limits_or_refuses_us_is_there(cause: Any) -> None:
    stand = Stand()
    stand.acquirer.answer = NotProcessed(error=unavailable("no"), cause=cause)
    for _ in range(10):
        await stand.provider.send(REFUND)
    assert stand.acquirer.reached == 10


async def test_no_more_than_so_many_calls_are_under_way() -> None:
    stand = Stand(places=4)
    stand.acquirer.gate = asyncio.Event()
    calls = [asyncio.create_task(stand.provider.send(REFUND)) for _ in range(12)]
    await stand.acquirer.reached_by(4)
    assert stand.registry.get_sample_value("payments_provider_calls_under_way") == 4
    stand.acquirer.gate.set()
    await asyncio.gather(*calls)
    assert (stand.acquirer.reached, stand.acquirer.at_once_max) == (12, 4)


async def test_what_waits_for_a_place_while_the_circuit_opens_is_not_sent() -> None:
    stand = Stand(places=3)
    stand.acquirer.gate = asyncio.Event()
    stand.acquirer.answer = AWAY[0]
    calls = [asyncio.create_task(stand.provider.send(REFUND)) for _ in range(9)]
    await stand.acquirer.reached_by(3)
    stand.acquirer.gate.set()
    answers = await asyncio.gather(*calls)
    assert stand.acquirer.reached == 3
    assert [type(answer) for answer in answers] == [Unknown] * 3 + [NotProcessed] * 6


async def test_a_probe_that_is_cancelled_makes_room_for_the_next() -> None:
    stand = Stand()
    stand.acquirer.answer = AWAY[0]
    for _ in range(3):
        await stand.provider.send(REFUND)
    stand.now_s += 1
    stand.acquirer.gate = asyncio.Event()
    probe = asyncio.create_task(stand.provider.send(REFUND))
    await stand.acquirer.reached_by(4)
    assert stand.state() == ["half_open"]
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    stand.acquirer.gate, stand.acquirer.answer = None, Succeeded()
    assert await stand.provider.send(REFUND) == Succeeded()
    assert stand.state() == ["closed"]
