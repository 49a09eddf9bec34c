"""When the pump decides: its thread and its lanes, on a consumer and a producer that the test holds in its hands."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest

from streams.exactly_once import pump
from streams.exactly_once.agent import AgentSpec
from streams.exactly_once.clients import Clients
from streams.exactly_once.decider import DeciderLane
from streams.exactly_once.effects import Effects, State
from streams.exactly_once.membership import Membership
from streams.exactly_once.metrics import EngineMetrics
from streams.exactly_once.pump import Pump
from streams.exactly_once.records import Input, Output, Record
from streams.exactly_once.testing import MemoryBase
from streams.exactly_once.transaction import Receipt, Work

WAIT_S = 10.0


class Message:
    """A record as librdkafka hands it over."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return "in"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes:
        return b"%d" % self._offset

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_000


class Consumer:
    """What `arrived` holds."""

    def __init__(self) -> None:
        self.arrived: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def poll(self, timeout_s: float) -> Message | None:
        try:
            return self.arrived.get(timeout_s > 0.0, timeout_s)
        except queue.Empty:
            return None

    def consume(self, count: int, _timeout_s: float) -> list[Message]:
        return [self.arrived.get() for _ in range(min(count, self.arrived.qsize()))]

    def incremental_assign(self, partitions: list[Any]) -> None:
        """There is but one."""

    def get_watermark_offsets(self, _partition: Any, *, cached: bool) -> tuple[int, int]:
        return 0, 0 if cached else -1

    def close(self) -> None:
        """Nothing to release."""


class Producer:
    """Commits that take until they are let go."""

    def __init__(self) -> None:
        self.rested_since_s = float("-inf")
        self.begun = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)

    def commit(self, works: Sequence[Work], membership: Membership) -> Receipt:
        self.begun.release()
        assert self.let_go.acquire(timeout=WAIT_S)
        return Receipt({}, None)


class Stand:
    """A pump with one lane, and the batches that it has decided."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.decided = threading.Semaphore(0)
        self.consumer, self.producer = Consumer(), Producer()
        clients = Clients(consumer=cast(Callable[[dict[str, Any]], Any], lambda config: self.consumer))
        self.pump = Pump({}, on_lost=lambda error: None, clock_ms=lambda: 5_000, clients=clients)
        spec = AgentSpec(
            "agent", (Input("in", bytes.decode),), (), (), decide=self._decide, effect=None, timer_table=None,
            dead_letters=lambda topic: Output(f"{topic}.dlq", bytes), commit_pause_s=0.0,
        )  # fmt: skip
        lane = DeciderLane(
            spec, 0, producer=cast(Any, self.producer), store=None, base=MemoryBase(),
            membership=Membership("group", 3, "member-1", None), committed={("in", 0): 0}, changelogs={},
            clock_ms=lambda: 5_000, metrics=EngineMetrics().lane("agent", 0),
        )  # fmt: skip
        self.pump.start()
        assert self.pump.add(lane).wait(WAIT_S)

    def _decide(self, batch: Sequence[Record], state: State, effects: Effects) -> None:
        self.batches.append([record.offset for record in batch])
        self.decided.release(len(batch))


@pytest.fixture
def stand() -> Iterator[Stand]:
    stand = Stand()
    yield stand
    stand.producer.let_go.release(100)
    stand.pump.stop()


def test_what_comes_while_a_commit_is_in_flight_is_decided_together(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "REST_MAX_S", WAIT_S)
    stand.consumer.arrived.put(Message(0))
    assert stand.producer.begun.acquire(timeout=WAIT_S)
    for offset in (1, 2, 3):
        stand.consumer.arrived.put(Message(offset))
        time.sleep(0.004)  # they come one by one, as under little load
    stand.producer.let_go.release()
    assert stand.producer.begun.acquire(timeout=WAIT_S)
    assert stand.batches == [[0], [1, 2, 3]]


def test_many_records_are_decided_while_a_commit_is_in_flight(stand: Stand) -> None:
    stand.consumer.arrived.put(Message(0))
    assert stand.producer.begun.acquire(timeout=WAIT_S)
    for offset in range(1, 1_001):
        stand.consumer.arrived.put(Message(offset))
    for _ in range(1_001):
        assert stand.decided.acquire(timeout=WAIT_S)
    assert [offset for batch in stand.batches for offset in batch] == list(range(1_001))
