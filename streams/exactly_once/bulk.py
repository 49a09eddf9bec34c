"""The loops of a commit, over each of its records and rows: steps 3 (produce) and 7 (write batch). Compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from streams.exactly_once.layers import Row, Send

PARTITION_UNASSIGNED: Final = -1  # librdkafka's: the partitioner chooses


def produce_sends(produce: Callable[..., None], sends: list[Send]) -> None:
    """Hand the outbox to librdkafka, in its order."""
    for send in sends:
        partition = PARTITION_UNASSIGNED if send.partition is None else send.partition
        if send.headers:
            produce(send.topic, send.value, send.key, partition, headers=list(send.headers))
        else:
            produce(send.topic, send.value, send.key, partition)


def produce_rows(
    produce: Callable[..., None], changelog: str, partition: int, rows: dict[bytes, Row], on_last: Callable[..., None]
) -> None:
    """Hand a table's dirty rows, one at least, to librdkafka; the last one's delivery is told to `on_last`."""
    left = len(rows)
    for key, row in rows.items():
        left -= 1
        if left:
            produce(changelog, row.encoded, key, partition)
        else:
            produce(changelog, row.encoded, key, partition, on_last)


def put_rows(batch: Any, prefix: bytes, rows: dict[bytes, Row]) -> None:
    """Add a table's dirty rows to a RocksDB write batch, each under `prefix` and its key."""
    put, delete = batch.put, batch.delete
    for key, row in rows.items():
        encoded = row.encoded
        if encoded is None:
            delete(prefix + key)
        else:
            put(prefix + key, encoded)
