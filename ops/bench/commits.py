"""What a transaction takes and costs with the engine's producer and with librdkafka's (decisions 0021, 0027 and 0029),
by how many lanes' work it carries, how many ids take turns, and how long the commit thread pauses after each."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import psutil
from confluent_kafka.admin import AdminClient, NewTopic

from ops.bench.engine.broker import Broker
from ops.bench.librdkafka import LibrdkafkaProducer
from streams.exactly_once.clients import Clients
from streams.exactly_once.errors import CommitAborted
from streams.exactly_once.layers import Layer, Row, Send
from streams.exactly_once.membership import Membership
from streams.exactly_once.producer.transactional import TransactionalProducer
from streams.exactly_once.table_spec import TableSpec
from streams.exactly_once.transaction import LaneProducer, Work

PRODUCERS: dict[str, Callable[[dict[str, Any]], TransactionalProducer]] = {
    "librdkafka": LibrdkafkaProducer,
    "ours": TransactionalProducer,
}
TABLES = [TableSpec(name, encode=bytes, decode=bytes) for name in ("rows", "timers")]  # as an agent's changelogs
PARTITIONS = 6
OUTPUT, ROW = b"x" * 700, Row(b"x" * 600, b"x" * 600)  # about an event of a payment, and its row
TURNS = 4  # between which the producers change, so that what else the machine does falls on both


class CommitCost(msgspec.Struct, frozen=True, kw_only=True):
    """Transactions of `lanes` lanes, `records` outputs and as many rows of each table for each lane, under `ids` ids in
    turn, `pause_ms` between them. Milliseconds of time and of CPU for one."""

    producer: str
    lanes: int
    records: int
    ids: int
    pause_ms: float
    commit_p50: float
    commit_p90: float
    commit_p99: float
    client_cpu: float
    broker_cpu: float


def measure_commits(
    broker: Broker, lanes: Sequence[int], records: Sequence[int], pauses_ms: Sequence[float], commits: int
) -> Iterator[CommitCost]:
    """`commits` transactions of each kind with each producer, under one id and under as many as there are lanes."""
    for number in lanes:
        for many in records:
            for ids in sorted({1, number}):
                for pause_ms in pauses_ms:
                    yield from _compare(broker, number, many, ids, pause_ms, commits)


def _compare(broker: Broker, lanes: int, records: int, ids: int, pause_ms: float, commits: int) -> Iterator[CommitCost]:
    runs = {name: _Run(broker, make, lanes, records, ids) for name, make in PRODUCERS.items()}
    for _ in range(TURNS):
        for run in runs.values():
            run.commit(commits // TURNS, pause_ms / 1000)
    for name, run in runs.items():
        run.close()
        took_ms = sorted(run.took_ms)
        p50, p90, p99 = (round(took_ms[int(len(took_ms) * share)], 1) for share in (0.5, 0.9, 0.99))
        yield CommitCost(
            producer=name,
            lanes=lanes,
            records=records,
            ids=ids,
            pause_ms=pause_ms,
            commit_p50=p50,
            commit_p90=p90,
            commit_p99=p99,
            client_cpu=round(run.client_cpu_s / len(took_ms) * 1000, 2),
            broker_cpu=round(run.broker_cpu_s / len(took_ms) * 1000, 2),
        )


class _Run:
    """One producer's topics, ids and figures."""

    def __init__(
        self,
        broker: Broker,
        producer: Callable[[dict[str, Any]], TransactionalProducer],
        lanes: int,
        records: int,
        ids: int,
    ) -> None:
        self.took_ms: list[float] = []
        self.client_cpu_s = self.broker_cpu_s = 0.0
        self._broker = broker
        self._process = psutil.Process()
        self._lanes, self._records = lanes, records
        self._name = f"commits-{uuid.uuid4().hex[:8]}"
        self._membership = Membership(self._name, -1, "", None)  # of no generation: nobody is a member
        settings = {**broker.client(), "log_level": 0}
        topics = [f"{self._name}.{kind}" for kind in ("in", "out", *(table.name for table in TABLES))]
        admin = AdminClient(settings)  # a name of its own: without one it is gone before it answers
        for created in admin.create_topics([NewTopic(topic, PARTITIONS) for topic in topics]).values():
            created.result()
        clients = Clients(producer=producer)
        self._producers = [LaneProducer(clients, settings, f"{self._name}-{number}") for number in range(ids)]
        for lane_producer in self._producers:
            lane_producer.initialise()
            self._commit_until_led(lane_producer)

    def commit(self, commits: int, pause_s: float) -> None:
        """Add so many transactions to the figures."""
        client_s, broker_s = self._client_cpu_s(), self._broker.cpu_s
        for number in range(commits):
            works = self._works(number)
            began = time.perf_counter()
            self._producers[number % len(self._producers)].commit(works, self._membership)
            self.took_ms.append((time.perf_counter() - began) * 1000)
            time.sleep(pause_s)
        self.client_cpu_s += self._client_cpu_s() - client_s
        self.broker_cpu_s += self._broker.cpu_s - broker_s

    def close(self) -> None:
        """Let go of the producers."""
        for producer in self._producers:
            producer.close()

    def _commit_until_led(self, producer: LaneProducer) -> None:
        """A topic that was just made is told of before its leaders lead; a lane tries again after an abort, too."""
        while True:
            with contextlib.suppress(CommitAborted):
                producer.commit(self._works(0), self._membership)
                return

    def _client_cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def _works(self, number: int) -> list[Work]:
        changelogs = {table: f"{self._name}.{table.name}" for table in TABLES}
        keys = [b"k%d" % key for key in range(self._records)]
        works = []
        for lane in range(self._lanes):
            sends = [Send(f"{self._name}.out", key, OUTPUT, lane, ()) for key in keys]
            layer = Layer({table: dict.fromkeys(keys, ROW) for table in TABLES}, sends)
            works.append(Work(lane, layer, {(f"{self._name}.in", lane): number}, changelogs))
        return works
