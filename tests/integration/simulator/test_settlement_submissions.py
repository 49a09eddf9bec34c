"""Step 8 (Settle): `settlement_submissions` against the real simulator, with faulty records and a faulty network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aiohttp
import msgspec
import pytest

from ops.runtime.clock import SystemClock
from streams.agents.settlement_submissions import SettlementSubmissions
from streams.domain import ids
from streams.domain.envelope import BATCH_PROCESSOR
from streams.domain.retry import RetryPolicy
from streams.domain.settlement import SettleChunkRequest
from streams.exactly_once.records import Output, Record
from streams.exactly_once.testing import Bench
from streams.provider.classification import unavailable
from streams.provider.port import (
    Answer,
    Authorize,
    NotProcessed,
    Operation,
    QueryAnswer,
    Unknown,
)
from streams.provider.simulator import SimulatorProvider
from tables.records.errors import RecordsUnavailable
from topics.codec import Message

DAY = "2026-11-22"
BATCH = ids.batch_id("mer_1", "USD", DAY)
KEY = f"{BATCH}:0".encode()
LONGEST_MS = 60_000  # more than any wait of the policy


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A row of settlement_items."""

    payment_id: str
    amount: int
    currency: str
    authorization_reference: str | None = None


class Items:
    """What `records` has written so far; `away`: Cassandra is not there."""

    def __init__(self) -> None:
        self.rows: list[Item] = []
        self.away = False

    async def items_between(self, batch_id: str, first: str, last: str) -> Sequence[Item]:
        assert batch_id == BATCH
        if self.away:
            raise RecordsUnavailable("no quorum")
        return [row for row in self.rows if first <= row.payment_id <= last]


class FaultyNetwork:
    """The real provider behind a network that fails the next sends as told; queries always get through."""

    def __init__(self, provider: SimulatorProvider) -> None:
        self._provider = provider
        self.faults: list[str] = []  # "before": nothing arrives; "after": the answer is lost; "busy": 503
        self.asked: list[str] = []

    async def send(self, operation: Operation) -> Answer:
        self.asked.append("settle")
        fault = self.faults.pop(0) if self.faults else None
        if fault == "before":
            return Unknown(error=unavailable("reset"))
        if fault == "busy":
            return NotProcessed(error=unavailable("busy"), retry_after_ms=7_000)
        answer = await self._provider.send(operation)
        return Unknown(error=unavailable("time-out")) if fault == "after" else answer

    async def query(self, operation: Operation) -> QueryAnswer:
        self.asked.append("query")
        return await self._provider.query(operation)


class Chunk:
    """One chunk on a bench."""

    def __init__(self, provider: SimulatorProvider) -> None:
        self.items = Items()
        self.network = FaultyNetwork(provider)
        self.bench = Bench(now_ms=SystemClock().now_us() // 1000)
        outcomes = Output("provider.outcomes", msgspec.msgpack.encode)
        self.handle = SettlementSubmissions(
            self.network, self.items, outcomes, _BenchClock(self.bench), policy=RetryPolicy()
        )

    def request(self, count: int, amount: int) -> Record:
        request = SettleChunkRequest(
            id="cmd_1",
            occurred_at=1,
            actor=BATCH_PROCESSOR,
            request_id="req_1",
            batch_id=BATCH,
            chunk=0,
            merchant_id="mer_1",
            currency="USD",
            settlement_date=DAY,
            count=count,
            amount=amount,
            first_payment_id="pay_1",
            last_payment_id="pay_3",
        )
        return self.bench.record("settlement.requests", KEY, request)

    async def run(self, record: Record) -> list[dict[str, Any]]:
        """The outcomes that a record leads to, as fields."""
        sent = await self.bench.effect_async(self.handle, record)
        messages = [msgspec.msgpack.decode(send.value, type=Message) for send in sent if send.value is not None]
        assert {message.name for message in messages} <= {"SettlementOutcome"}
        return [dict(message.fields) for message in messages]

    async def run_timers(self, after_ms: int = LONGEST_MS) -> list[dict[str, Any]]:
        outcomes: list[dict[str, Any]] = []
        for timer in self.bench.advance(after_ms):
            outcomes += await self.run(timer)
        return outcomes


class _BenchClock:
    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def now_us(self) -> int:
        return self._bench.now_ms * 1000


@pytest.fixture
async def chunk(provider: SimulatorProvider) -> Chunk:
    """Three authorised payments, of which the second will be refused, all of them recorded."""
    chunk = Chunk(provider)
    for payment_id, token in {"pay_1": "pm_card_visa", "pay_2": "pm_settlement_fails", "pay_3": "pm_card_visa"}.items():
        key = f"txn_{payment_id}"
        await provider.send(
            Authorize(key=key, payment_id=payment_id, amount=100, currency="USD", payment_method_token=token)
        )
        chunk.items.rows.append(Item(payment_id=payment_id, amount=100, currency="USD"))
    return chunk


async def captures(gateway: aiohttp.ClientSession) -> list[str]:
    async with gateway.get("/v1/ledger", params={"limit": "100"}) as response:
        page = await response.json()
    return [movement["payment_id"] for movement in page["data"] if movement["type"] == "capture"]


def summary(outcomes: list[dict[str, Any]]) -> dict[str, bool]:
    return {outcome["payment_id"]: outcome["succeeded"] for outcome in outcomes}


SETTLED = {"pay_1": True, "pay_2": False, "pay_3": True}


async def test_a_matching_chunk_is_submitted_and_every_payment_told(
    chunk: Chunk, gateway: aiohttp.ClientSession
) -> None:
    outcomes = await chunk.run(chunk.request(3, 300))
    assert summary(outcomes) == SETTLED
    assert [outcome["transaction_id"] for outcome in outcomes] == [
        ids.settlement_transaction_id(payment_id, DAY) for payment_id in SETTLED
    ]
    assert outcomes[0]["provider_reference"]
    assert outcomes[1]["error"]["retryable"] is True
    assert await captures(gateway) == ["pay_1", "pay_3"]
    assert chunk.bench.timers() == []


async def test_run_twice_the_same_is_told_and_nothing_is_captured_twice(
    chunk: Chunk, gateway: aiohttp.ClientSession
) -> None:
    first = await chunk.run(chunk.request(3, 300))
    again = await chunk.run(chunk.request(3, 300))
    assert [outcome["id"] for outcome in again] == [outcome["id"] for outcome in first]
    assert await captures(gateway) == ["pay_1", "pay_3"]


@pytest.mark.parametrize(("count", "amount"), [(2, 300), (3, 299), (4, 300)])
async def test_a_chunk_that_differs_from_its_control_totals_waits_and_captures_nothing(
    chunk: Chunk, gateway: aiohttp.ClientSession, count: int, amount: int
) -> None:
    assert await chunk.run(chunk.request(count, amount)) == []
    for _ in range(10):
        assert await chunk.run_timers() == []
    assert await captures(gateway) == []
    assert len(chunk.bench.timers()) == 1


async def test_a_chunk_goes_out_as_soon_as_the_records_have_caught_up(
    chunk: Chunk, gateway: aiohttp.ClientSession
) -> None:
    late = chunk.items.rows.pop()
    assert await chunk.run(chunk.request(3, 300)) == []
    chunk.items.rows.append(late)
    assert summary(await chunk.run_timers(after_ms=1_000)) == SETTLED
    assert await captures(gateway) == ["pay_1", "pay_3"]


async def test_an_outage_of_the_records_is_waited_out(chunk: Chunk) -> None:
    chunk.items.away = True
    assert await chunk.run(chunk.request(3, 300)) == []
    assert await chunk.run_timers() == []
    chunk.items.away = False
    assert summary(await chunk.run_timers()) == SETTLED


@pytest.mark.parametrize(
    ("faults", "asked"),
    [
        (["after"], ["settle", "query"]),  # it was done: asking is enough
        (["before"], ["settle", "query", "settle"]),  # it was not: only then send again
        (["busy", "before", "after"], ["settle", "settle", "query", "settle", "query"]),
    ],
)
async def test_an_unknown_outcome_is_asked_about_before_anything_is_sent_again(
    chunk: Chunk, gateway: aiohttp.ClientSession, faults: list[str], asked: list[str]
) -> None:
    chunk.network.faults = list(faults)
    outcomes = await chunk.run(chunk.request(3, 300))
    for _ in faults:
        assert outcomes == []
        outcomes = await chunk.run_timers()
    assert summary(outcomes) == SETTLED
    assert chunk.network.asked == asked
    assert await captures(gateway) == ["pay_1", "pay_3"]


async def test_the_provider_is_given_the_time_that_it_asks_for(chunk: Chunk) -> None:
    chunk.network.faults = ["busy"]
    await chunk.run(chunk.request(3, 300))
    [timer] = chunk.bench.timers()
    assert timer.due_ms - chunk.bench.now_ms == 7_000
    assert timer.key == KEY
