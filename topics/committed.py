"""Reads what is committed to topics, for people and tools: no consumer group, no offsets kept, from any place on.

Nothing that happens to a group can hide a record from such a reader, and it disturbs nobody.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from topics import catalog

ADMIN_S = 15.0
POLL_S = 0.2
STALL_S = 30.0  # a transaction that a killed worker left open holds readers back for its time-out, 10 s
BATCH = 500
WARNINGS = 4  # syslog's number: librdkafka tells each admin client's end as news

Offsets = Mapping[tuple[str, int], int]
"""(topic, partition) to an offset."""


class CommittedRecord(NamedTuple):
    """One record as it lies in Kafka."""

    topic: str
    partition: int
    offset: int
    at_ms: int  # when the broker appended it
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class CommittedReader:
    """Reads as one identity; `kafka` are librdkafka's bootstrap.servers and security. Raises KafkaException."""

    def __init__(self, kafka: Mapping[str, str], client: str) -> None:
        self._kafka = {**kafka, "client.id": client, "log_level": str(WARNINGS)}
        self._client = client
        self._admin = AdminClient(self._kafka)  # kept: one that goes away takes its unanswered calls with it

    def beginnings(self, topics: Iterable[str]) -> dict[tuple[str, int], int]:
        """The first offset that is kept, by partition."""
        return self._offsets(topics, OffsetSpec.earliest())

    def ends(self, topics: Iterable[str]) -> dict[tuple[str, int], int]:
        """The offset behind everything that is committed now, by partition."""
        return self._offsets(topics, OffsetSpec.latest())

    def since(self, topics: Iterable[str], at_ms: int) -> dict[tuple[str, int], int]:
        """The first offset appended at `at_ms` (epoch milliseconds) or later; the end where there is none."""
        wanted = tuple(topics)
        found, ends = self._offsets(wanted, OffsetSpec.for_timestamp(at_ms)), self.ends(wanted)
        return {place: ends[place] if offset < 0 else offset for place, offset in found.items()}

    def read(self, begin: Offsets, end: Offsets) -> Iterator[CommittedRecord]:
        """Everything committed from `begin` up to `end`, each partition in order. Raises TimeoutError on a stall."""
        left = {place: end[place] for place, offset in begin.items() if offset < end[place]}
        stalled_at = time.monotonic() + STALL_S
        for message in self._messages({place: begin[place] for place in left}) if left else ():
            if message is None:
                if time.monotonic() > stalled_at:
                    raise TimeoutError(f"nothing to read for {STALL_S:.0f} s, and the end is not reached")
                continue
            stalled_at = time.monotonic() + STALL_S
            place, offset = _place(message), _offset(message)
            if message.error() is None and place in left and offset < left[place]:
                yield _record(message)
            # Behind a partition's last record may be markers of transactions: its end is told by an event.
            behind = offset if message.error() is not None else offset + 1
            if place in left and behind >= left[place]:
                del left[place]
                if not left:
                    return

    def follow(self, begin: Offsets) -> Iterator[CommittedRecord | None]:
        """Everything committed from `begin` on, without end; None when there was nothing new for a moment."""
        for message in self._messages(begin):
            if message is None:
                yield None
            elif message.error() is None:
                yield _record(message)

    def _messages(self, begin: Offsets) -> Iterator[Message | None]:
        """Records and ends of partitions; None for a moment without any."""
        consumer = Consumer(
            {
                **self._kafka,
                "group.id": self._client,  # never joined: the library wants one
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",  # what has expired meanwhile is passed over
            }
        )
        try:
            consumer.assign([TopicPartition(topic, partition, at) for (topic, partition), at in begin.items()])
            while True:
                batch = consumer.consume(num_messages=BATCH, timeout=POLL_S)
                if not batch:
                    yield None
                for message in batch:
                    error = message.error()
                    if error is None or error.code() == KafkaError._PARTITION_EOF:
                        yield message
                    elif error.fatal() or error.code() in _REFUSALS:
                        raise KafkaException(error)
        finally:
            consumer.close()

    def _offsets(self, topics: Iterable[str], spec: OffsetSpec) -> dict[tuple[str, int], int]:
        partitions = [TopicPartition(name, p) for name in topics for p in range(catalog.find(name).partitions)]
        found = self._admin.list_offsets(
            dict.fromkeys(partitions, spec), isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=ADMIN_S
        )
        return {(at.topic, at.partition): int(answer.result(ADMIN_S + 5).offset) for at, answer in found.items()}


_REFUSALS = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART})


def _place(message: Message) -> tuple[str, int]:
    topic, partition = message.topic(), message.partition()
    assert topic is not None
    assert partition is not None
    return topic, partition


def _offset(message: Message) -> int:
    offset: int | None = message.offset()
    assert offset is not None
    return offset


def _record(message: Message) -> CommittedRecord:
    key, value = message.key(), message.value()
    assert key is None or isinstance(key, bytes)
    assert value is None or isinstance(value, bytes)
    at_ms, headers = message.timestamp()[1], tuple(message.headers() or ())
    return CommittedRecord(*_place(message), _offset(message), at_ms, key, value, headers)
