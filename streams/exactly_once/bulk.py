"""The loops of a commit, over each of its records and rows: steps 3 (produce) and 7 (write batch). Compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streams.exactly_once.layers import Row, Send


def produce_sends(produce: Callable[..., None], sends: list[Send]) -> None:
    """Hand the outbox to the producer, in its order."""
    none: list[tuple[str, bytes]] = []
    for send in sends:
        produce(send.topic, send.value, send.key, send.partition, list(send.headers) if send.headers else none)


def produce_rows(produce: Callable[..., None], changelog: str, partition: int, rows: dict[bytes, Row]) -> None:
    """Hand a table's dirty rows to the producer."""
    none: list[tuple[str, bytes]] = []
    for key, row in rows.items():
        produce(changelog, row.encoded, key, partition, none)


def put_rows(batch: Any, prefix: bytes, rows: dict[bytes, Row]) -> None:
    """Add a table's dirty rows to a RocksDB write batch, each under `prefix` and its key."""
    put, delete = batch.put, batch.delete
    for key, row in rows.items():
        encoded = row.encoded
        if encoded is None:
            delete(prefix + key)
        else:
            put(prefix + key, encoded)
