"""The independent checker: what exactly-once promises, told from topics, group offsets and the RocksDB left behind.

It shares no code with the engine: it reads bytes, folds the input itself and compares. Every promise has its function;
each returns sentences, and no sentence at all means that the promise was kept.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from rocksdict import AccessType, Options, Rdict

from ops.chaos.engine.cluster import Cluster
from ops.chaos.engine.topology import BEAST, GARBAGE, LATER, TIMER_EVERY, Topics
from ops.local.group_offsets import group_offsets

SENTINEL = b"sentinel"
SENTINEL_S = 15.0  # longer than the engine's transaction time-out: what is open then stays open
EXAMPLES = 3  # of each kind of violation
TOO_MANY = 20  # times what the input means: an engine that never stops would fill the checker's memory
OFFSETS_ROW = b"o"  # of a timer table: the lane's source offsets


class Entry(NamedTuple):
    """One record of a topic."""

    partition: int
    offset: int
    key: bytes
    value: bytes | None


Item = tuple[bytes, bytes]  # key, value


@dataclass(slots=True)
class Fold:
    """What the input means: balances by partition, every output in order, and what must be dead letters."""

    balances: dict[int, dict[bytes, int]] = field(default_factory=dict)
    outputs: list[Item] = field(default_factory=list)
    timers: list[Item] = field(default_factory=list)
    refused: list[tuple[int, int]] = field(default_factory=list)  # (partition, offset)


def fold(inputs: list[Entry]) -> Fold:
    """Replay the input from nothing."""
    result = Fold()
    for entry in sorted(inputs):
        assert entry.value is not None
        place = f"{entry.partition}/{entry.offset}"
        if entry.value == GARBAGE or int(entry.value) == BEAST:
            result.refused.append((entry.partition, entry.offset))
            continue
        balances = result.balances.setdefault(entry.partition, {})
        balances[entry.key] = balances.get(entry.key, 0) + int(entry.value)
        result.outputs.append((entry.key, f"{place}:{balances[entry.key]}".encode()))
        if int(entry.value) % TIMER_EVERY == 1:
            result.timers.append((entry.key, f"timer:{place}".encode()))
    return result


@dataclass
class Verdict:
    """What a check has found, and the sizes that make it worth something."""

    violations: list[str]
    inputs: int
    outputs: int
    aborted_outputs: int  # records of aborted transactions in the decider's output: that faults bit


class Checker:
    """Reads one app's topics."""

    def __init__(self, cluster: Cluster, topics: Topics) -> None:
        self._cluster = cluster
        self._topics = topics

    def expected(self) -> Fold:
        """The fold of the input as it stands."""
        return fold(self.read(self._topics.inputs))

    def check(self, state: Path | None, *, echoes: bool = True) -> Verdict:
        """Everything. No worker may run any more: sentinels are no records of the app. `state` holds their RocksDBs."""
        open_logs = self._open_transactions()
        meant = self.expected()
        most = TOO_MANY * (len(meant.outputs) + len(meant.timers) + 1_000)
        raw = self.read(self._topics.out, "read_uncommitted", most)
        if len(raw) >= most:
            return Verdict([f"outputs without end: more than {most}"], len(meant.outputs), len(raw), 0)
        outputs = self.read(self._topics.out)
        found = [*open_logs, *_difference("output", [*meant.outputs, *meant.timers], outputs), *_disorder(outputs)]
        if echoes:
            answers = _first_of_each(self.read(self._topics.echo))
            found += _difference("echo", [*meant.outputs, *meant.timers], answers)
            found += _disorder_of_answers(outputs, answers)
            found += self._dead_letters(meant)
            found += self._changelog(meant)
            found += self._offsets()
        if state is not None:
            found += self._stores(state, meant)
        return Verdict(found, len(meant.outputs) + len(meant.refused), len(outputs), len(raw) - len(outputs))

    # One promise each

    def _dead_letters(self, meant: Fold) -> list[str]:
        letters = [json.loads(entry.value or b"[]") for entry in self.read(self._topics.dlq)]
        count = Counter((letter[1], letter[2]) for letter in letters)
        count.subtract(meant.refused)
        return _sentences("dead letter of", {place: number for place, number in count.items() if number})

    def _changelog(self, meant: Fold) -> list[str]:
        """Changelog = fold of the input."""
        rows: dict[int, dict[bytes, int]] = {}
        for entry in self.read(self._topics.changelog("balances")):
            if entry.value is not None:
                rows.setdefault(entry.partition, {})[entry.key] = int(entry.value)
        return [
            f"the changelog of partition {partition} is not the fold of the input"
            for partition in range(self._topics.partitions)
            if rows.get(partition, {}) != meant.balances.get(partition, {})
        ]

    def _offsets(self) -> list[str]:
        """The offset embedded in the state = the group's."""
        group = self.group_offsets()
        found = []
        for table in ("sums-timers", "echo-timers"):
            embedded: dict[int, int] = {}
            for entry in sorted(self.read(self._topics.changelog(table))):
                if entry.key == OFFSETS_ROW and entry.value is not None:
                    embedded[entry.partition] = json.loads(entry.value)[0][2]
            topic = self._topics.inputs if table == "sums-timers" else self._topics.out
            found += [
                f"{table}: partition {partition} stands at {offset}, the group at {group.get((topic, partition))}"
                for partition, offset in embedded.items()
                if group.get((topic, partition)) != offset
            ]
        return found

    def _stores(self, root: Path, meant: Fold) -> list[str]:
        """RocksDB of the last owner = fold of the input; a store that another worker has overtaken is left alone."""
        group = self.group_offsets()
        found = []
        for partition in range(self._topics.partitions):
            offset = group.get((self._topics.inputs, partition))
            if offset is None:
                continue
            stores = [rows_of(path) for path in root.glob(f"*/sums/{partition}")]
            current = [store for store in stores if store.offset == offset]
            if not current:
                found.append(f"no RocksDB stands at the group's offset {offset} of partition {partition}")
            if any(store.balances != meant.balances.get(partition, {}) for store in current):
                found.append(f"RocksDB of partition {partition} is not the fold of the input")
        return found

    def _open_transactions(self) -> list[str]:
        """A record written to every output partition can be read by who reads committed records only."""
        producer = Producer({**self._cluster.config(), "acks": "all"})
        written: dict[tuple[str, int], int] = {}
        logs = {**self._topics.topics, **self._topics.changelogs}
        del logs[self._topics.inputs]
        for topic, count in logs.items():
            for partition in range(count):
                producer.produce(
                    topic, SENTINEL, SENTINEL, partition,
                    on_delivery=lambda _, m: written.update({(m.topic(), m.partition()): m.offset()}),
                )  # fmt: skip
        producer.flush(SENTINEL_S)
        with self._consumer("read_committed") as consumer:
            consumer.assign([TopicPartition(*log, offset) for log, offset in written.items()])
            deadline = time.monotonic() + SENTINEL_S
            while written and time.monotonic() < deadline:
                for message in consumer.consume(100, 0.2):
                    if message.error() is None:
                        written.pop((message.topic(), message.partition()), None)
        return [f"a transaction is open in {topic}-{partition}" for topic, partition in written]

    # Reading

    def read(self, topic: str, isolation: str = "read_committed", most: float = math.inf) -> list[Entry]:
        """Every record of `topic` up to its present end, sentinels left out; no more than about `most`."""
        with self._consumer(isolation) as consumer:
            numbers = list(consumer.list_topics(topic, 10).topics[topic].partitions)
            consumer.assign([TopicPartition(topic, number, 0) for number in numbers])
            ended: set[int] = set()
            records: list[Entry] = []
            while len(ended) < len(numbers) and len(records) < most:
                for message in consumer.consume(5_000, 0.2):
                    error = message.error()
                    if error is None and message.key() != SENTINEL:
                        records.append(Entry(message.partition(), message.offset(), message.key(), message.value()))
                    elif error is not None and error.code() == KafkaError._PARTITION_EOF:
                        ended.add(message.partition())
        return sorted(records)

    def group_offsets(self) -> dict[tuple[str, int], int]:
        """The committed offsets of the app's group."""
        counts = {**self._topics.topics, **self._topics.changelogs}
        asked = [
            TopicPartition(topic, partition)
            for topic in (self._topics.inputs, self._topics.out)
            for partition in range(counts[topic])
        ]
        with self._consumer("read_committed", self._topics.id) as consumer:
            return group_offsets(consumer, asked, SENTINEL_S)

    @contextmanager
    def _consumer(self, isolation: str, group: str = "checker") -> Iterator[Consumer]:
        settings = {"group.id": group, "isolation.level": isolation, "enable.partition.eof": True}
        consumer = Consumer(
            {**self._cluster.config(), **settings, "auto.offset.reset": "earliest", "enable.auto.commit": False}
        )
        try:
            yield consumer
        finally:
            consumer.close()


class Rows(NamedTuple):
    """What a lane's RocksDB holds."""

    offset: int | None  # of the input, as embedded
    balances: dict[bytes, int]


def rows_of(path: Path) -> Rows:
    """A lane's RocksDB, whose keys are `<table> 0x00 <key>`; it may be in use."""
    database = Rdict(str(path), Options(raw_mode=True), access_type=AccessType.read_only())
    try:
        rows = dict(cast(Iterator[tuple[bytes, bytes]], database.items()))
    finally:
        database.close()
    embedded = rows.get(b"sums-timers\0" + OFFSETS_ROW)
    prefix = b"balances\0"
    balances = {key[len(prefix) :]: int(value) for key, value in rows.items() if key.startswith(prefix)}
    return Rows(None if embedded is None else json.loads(embedded)[0][2], balances)


def _difference(kind: str, expected: list[Item], entries: list[Entry]) -> list[str]:
    """Lost (-) and doubled (+) records."""
    count = Counter((entry.key, entry.value or b"") for entry in entries)
    count.subtract(expected)
    return _sentences(kind, {item: number for item, number in count.items() if number})


def _sentences(kind: str, counts: dict[object, int] | dict[tuple[int, int], int] | dict[Item, int]) -> list[str]:
    lost = {item: number for item, number in counts.items() if number < 0}
    more = {item: number for item, number in counts.items() if number > 0}
    return [
        f"{-sum(some.values()) if some is lost else sum(some.values())} {kind} {word}: {list(some)[:EXAMPLES]}"
        for word, some in (("lost", lost), ("too many", more))
        if some
    ]


def _disorder(outputs: list[Entry]) -> list[str]:
    """Order per key: balances come in the order of the inputs."""
    last: dict[tuple[bytes, str], int] = {}
    found: dict[bytes, None] = {}
    for entry in outputs:
        place, _, _ = (entry.value or b"").decode().partition(":")
        partition, _, offset = place.partition("/")
        if not offset:
            continue  # a timer's: its time is its own
        if int(offset) <= last.get((entry.key, partition), -1):
            found[entry.key] = None
        last[entry.key, partition] = int(offset)
    return [f"outputs of {len(found)} keys out of order: {list(found)[:EXAMPLES]}"] if found else []


def _disorder_of_answers(outputs: list[Entry], answers: list[Entry]) -> list[str]:
    """Order per key through the effector; what goes through a timer has the timer's time."""
    place = {(entry.key, entry.value): entry.offset for entry in outputs}
    last: dict[bytes, int] = {}
    found: dict[bytes, None] = {}
    for entry in answers:
        offset = place.get((entry.key, entry.value), -1)
        if entry.key.endswith(LATER) or offset < 0:
            continue
        if offset < last.get(entry.key, -1):
            found[entry.key] = None
        last[entry.key] = offset
    return [f"echoes of {len(found)} keys out of order: {list(found)[:EXAMPLES]}"] if found else []


def _first_of_each(entries: list[Entry]) -> list[Entry]:
    """An effector's record that was complete but beyond the committed prefix runs again after a crash, by design."""
    first: dict[tuple[bytes, bytes | None], Entry] = {}
    for entry in entries:
        first.setdefault((entry.key, entry.value), entry)
    return list(first.values())
