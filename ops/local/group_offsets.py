"""The committed offsets of a consumer group, for who measures or checks; asked by a consumer (decision 0022)."""

from __future__ import annotations

import time
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

ASK_AGAIN_S = 0.2


def group_offsets(
    consumer: Consumer, partitions: Sequence[TopicPartition], within_s: float
) -> dict[tuple[str, int], int]:
    """Offset by topic and partition of the consumer's group; partitions without one are left out.

    Raises KafkaException: UNSTABLE_OFFSET_COMMIT at once when the consumer reads committed records only and a
    transaction is pending on one of them, anything else when there is no answer within `within_s` seconds.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            entries = consumer.committed(list(partitions), timeout=within_s)
        except KafkaException as error:  # NOT_COORDINATOR: the group is its broker's first, or its broker is new
            if error.args[0].code() == KafkaError.UNSTABLE_OFFSET_COMMIT or time.monotonic() > deadline:
                raise
            time.sleep(ASK_AGAIN_S)
            continue
        if failed := [entry.error for entry in entries if entry.error is not None]:
            raise KafkaException(failed[0])
        return {(entry.topic, entry.partition): entry.offset for entry in entries if entry.offset >= 0}
