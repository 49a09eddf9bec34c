"""What feeds an app under test: a plain producer, and a transactional one that aborts some of its transactions."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Iterator

from confluent_kafka import KafkaException, Producer

from ops.chaos.engine.cluster import Cluster
from ops.chaos.engine.topology import BEAST, GARBAGE, Topics

KEYS = 400
AMOUNT_MAX = 100
FLUSH_S = 60.0
TICK_S = 0.02
BATCH = 20  # records of one upstream transaction
ABORTS = 0.2  # share of upstream transactions that abort
TRANSACTION_S = 15.0
BAD_EVERY = 500  # one record in so many is poison or makes the handler fail, unless told otherwise

Inputs = Iterator[tuple[str, str]]


def amounts(count: int, seed: int) -> Inputs:
    """`count` inputs as (key, value)."""
    source = random.Random(seed)
    for _ in range(count):
        yield f"k{source.randrange(KEYS)}", str(source.randrange(AMOUNT_MAX))


def append(cluster: Cluster, topics: Topics, values: Iterable[tuple[str, str]]) -> int:
    """Append (key, value) records to the input; returns how many."""
    producer = plain_producer(cluster)
    count = 0
    for key, value in values:
        producer.produce(topics.inputs, value, key)
        producer.poll(0)
        count += 1
    assert producer.flush(FLUSH_S) == 0
    return count


def plain_producer(cluster: Cluster) -> Producer:
    """Idempotent, and patient enough for a broker's restart."""
    settings = {"acks": "all", "enable.idempotence": True, "partitioner": "murmur2_random", "linger.ms": 5}
    return Producer({**cluster.config(), **settings, "message.timeout.ms": 120_000})


class Load:
    """Appends about `rate` records a second until stopped; half of them in transactions, some of which abort."""

    def __init__(
        self,
        cluster: Cluster,
        topics: Topics,
        rate: float,
        seed: int,
        *,
        keys: int = KEYS,
        bad_every: int = BAD_EVERY,
    ) -> None:
        self._cluster, self._topics, self._rate = cluster, topics, rate
        self._keys, self._bad_every = keys, bad_every
        self._random = random.Random(seed)
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._plain), threading.Thread(target=self._transactional)]
        self.aborted = 0  # upstream records that must leave no trace

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _plain(self) -> None:
        producer = plain_producer(self._cluster)
        source = random.Random(self._random.random())
        due = 0.0
        while not self._stopping.wait(TICK_S):
            due = min(due + self._rate / 2 * TICK_S, self._rate)
            while due >= 1 and len(producer) < self._rate:
                due -= 1
                producer.produce(self._topics.inputs, *self._record(source))
            producer.poll(0)
        producer.flush(FLUSH_S)

    def _transactional(self) -> None:
        source = random.Random(self._random.random())
        producer = None
        while not self._stopping.wait(BATCH * 2 / self._rate):
            try:
                producer = producer or self._transactional_producer()
                self._one_transaction(producer, source)
            except KafkaException:
                producer = None  # the broker is away: a new one ends what this one left open

    def _one_transaction(self, producer: Producer, source: random.Random) -> None:
        aborts = source.random() < ABORTS
        producer.begin_transaction()
        for _ in range(BATCH):
            producer.produce(self._topics.inputs, *self._record(source))
        try:
            producer.flush(TRANSACTION_S)
            if not aborts:
                producer.commit_transaction(TRANSACTION_S)
        except KafkaException:
            aborts = True
        if aborts:
            self.aborted += BATCH
            producer.abort_transaction(TRANSACTION_S)

    def _transactional_producer(self) -> Producer:
        settings = {"transactional.id": f"{self._topics.id}-upstream", "transaction.timeout.ms": 10_000}
        producer = Producer({**self._cluster.config(), **settings, "partitioner": "murmur2_random"})
        producer.init_transactions(TRANSACTION_S)
        return producer

    def _record(self, source: random.Random) -> tuple[bytes, bytes]:
        """(value, key), in the order of `produce`."""
        if source.randrange(self._bad_every) == 0:
            value = source.choice((GARBAGE, b"%d" % BEAST))
        else:
            value = b"%d" % source.randrange(AMOUNT_MAX)
        return value, b"k%d" % source.randrange(self._keys)
