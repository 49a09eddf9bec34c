"""Kafka as tests use it beside the platform: write as an identity, read what is committed, decode it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from confluent_kafka import KafkaException, Producer

from ops.local.access import Access
from tests.local_servers import Servers
from topics.codec import Codec
from topics.committed import CommittedReader, CommittedRecord, Offsets

PATIENCE_S = 40.0


class TopicAccess:
    """One stack's topics."""

    def __init__(self, stack: Servers) -> None:
        self._stack = stack
        self.codec: Codec = Access(stack.home).open_codec("auditor")
        self.reader = CommittedReader(stack.kafka_settings("auditor"), "auditor")

    def write(self, identity: str, topic: str, key: bytes | None, value: bytes | None) -> tuple[int, int]:
        """(partition, offset) of the new record. Raises KafkaException when it is refused."""
        outcome: list[Any] = []
        producer = Producer({**self._stack.kafka_settings(identity), "partitioner": "murmur2_random"})
        producer.produce(topic, value, key, on_delivery=lambda error, message: outcome.append((error, message)))
        assert producer.flush(15) == 0
        error, message = outcome[0]
        if error is not None:
            raise KafkaException(error)
        return message.partition(), message.offset()

    def until(self, topic: str, begin: Offsets, wanted: Callable[[list[CommittedRecord]], bool]) -> Iterator[Any]:
        """What was committed to `topic` since `begin`, as soon as `wanted` says that all of it is there."""
        found: list[CommittedRecord] = []
        deadline = time.monotonic() + PATIENCE_S
        for record in self.reader.follow(begin):
            if record is not None:
                found.append(record)
            if wanted(found):
                return iter(found)
            assert time.monotonic() < deadline, f"{topic}: {len(found)} records, and not the wanted ones: {found[-3:]}"
        raise AssertionError("follow ended")

    def events_of(self, payment_id: str, begin: Offsets, count: int) -> list[dict[str, Any]]:
        """The first `count` records of a payment in payments.events since `begin`: `record` and its fields."""
        key = payment_id.encode()
        found = self.until("payments.events", begin, lambda seen: sum(r.key == key for r in seen) >= count)
        messages = [self.codec.decode("payments.events", record.value) for record in found if record.key == key]
        return [{"record": message.name, **message.fields} for message in messages]
