"""The baseline of `payments bench commits`: transactions of librdkafka, which speaks the first protocol for them.

Now and then a call of it does not come back for minutes, and the run ends in LaneLost (its issues 5456, 5511).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from streams.exactly_once.membership import Membership
from streams.exactly_once.producer.transactional import Delivered, Partition, TransactionalProducer

SETTINGS = {
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": 1,
    "retry.backoff.ms": 10,  # 100 by default, which a transaction would wait that begins before the last one's markers
    "partitioner": "murmur2_random",
}
_CHOOSE = -1  # the partitioner's to say


class LibrdkafkaProducer(TransactionalProducer):
    """What a lane asks of its producer, done by librdkafka. It does not look where records went, which costs CPU."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.delivered: dict[Partition, Delivered] = {}
        self._producer = Producer({**config, **SETTINGS})
        connection = {name: value for name, value in config.items() if not name.startswith("transaction")}
        consumer = Consumer({**connection, "group.id": str(config["transactional.id"])})
        self._group = consumer.consumer_group_metadata()  # of no generation, as the commits that are measured
        consumer.close()

    def init_transactions(self, timeout_s: float) -> None:
        """InitProducerId."""
        self._producer.init_transactions(timeout_s)

    def begin_transaction(self) -> None:
        """Costs no request."""
        self._producer.begin_transaction()

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int | None,
        headers: list[tuple[str, bytes]],
    ) -> None:
        """Adds the partition to the transaction, and sends the record when its lingering is over."""
        self._producer.produce(topic, value, key, _CHOOSE if partition is None else partition, headers=headers or None)

    def flush(self, timeout_s: float) -> None:
        """Returns when all is acknowledged."""
        self._producer.flush(timeout_s)

    def send_offsets_to_transaction(
        self, offsets: Mapping[Partition, int], membership: Membership, timeout_s: float
    ) -> None:
        """AddOffsetsToTxn and TxnOffsetCommit."""
        del membership
        places = [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
        self._producer.send_offsets_to_transaction(places, self._group, timeout_s)

    def commit_transaction(self, timeout_s: float) -> None:
        """EndTxn."""
        self._producer.commit_transaction(timeout_s)

    def abort_transaction(self, timeout_s: float) -> None:
        """EndTxn."""
        self._producer.abort_transaction(timeout_s)

    def close(self) -> None:
        """Let go of what is queued."""
        self._producer.purge()
