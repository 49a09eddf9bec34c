"""The records of one transaction, as batches by partition. Compiled (ops/compiled): it runs for every record."""

from __future__ import annotations

from typing import Any, Final

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from mypy_extensions import i64

BATCH_MAX_BYTES: Final = 512 * 1024
"""A record that is larger has a batch of its own; what a topic takes of one (max.message.bytes) the broker judges."""

_MAGIC: Final = 2
_UNCOMPRESSED: Final = 0
_TRANSACTIONAL: Final = 1


class _Partition:
    """Batches that are full, and the one that is being filled."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder
        self.in_builder = 0  # records
        self.sequence = 0  # of the first record in the builder
        self.full: list[bytes] = []


class Batches:
    """Records in the order in which they were appended; sequence numbers begin at 0, as the epoch is new."""

    def __init__(self, producer_id: int, epoch: int, timestamp_ms: int) -> None:
        self._producer_id = producer_id
        self._epoch = epoch
        self._timestamp_ms = timestamp_ms
        self._partitions: dict[tuple[str, int], _Partition] = {}

    def append(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
    ) -> None:
        """Add a record."""
        records = self._partitions.get((topic, partition))
        if records is None:
            records = self._partitions[topic, partition] = _Partition(self._builder(0))
        if records.builder.append(records.in_builder, self._timestamp_ms, key, value, headers) is None:  # it is full
            self._next_batch(records)
            records.builder.append(0, self._timestamp_ms, key, value, headers)
        records.in_builder += 1

    def take(self) -> dict[tuple[str, int], list[bytes]]:
        """All batches by (topic, partition); each begins where the one before ended."""
        for records in self._partitions.values():
            self._next_batch(records)
        taken = {place: records.full for place, records in self._partitions.items()}
        self._partitions = {}
        return taken

    def _next_batch(self, records: _Partition) -> None:
        records.full.append(bytes(records.builder.build()))
        records.sequence += records.in_builder
        records.in_builder = 0
        records.builder = self._builder(records.sequence)

    def _builder(self, sequence: int) -> Any:
        return DefaultRecordBatchBuilder(
            _MAGIC, _UNCOMPRESSED, _TRANSACTIONAL, self._producer_id, self._epoch, sequence, BATCH_MAX_BYTES
        )


def partition_of(key: bytes, partitions: int) -> int:
    """Where Java's default partitioner puts a key: murmur2 of its bytes."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2, unsigned."""
    mask: i64 = 0xFFFFFFFF
    factor: i64 = 0x5BD1E995
    length: i64 = len(data)
    value: i64 = 0x9747B28C ^ length
    place: i64 = 0
    while place + 4 <= length:
        word: i64 = data[place] | data[place + 1] << 8 | data[place + 2] << 16 | data[place + 3] << 24
        word = word * factor & mask
        word = (word ^ word >> 24) * factor & mask
        value = value * factor & mask ^ word
        place += 4
    left: i64 = length - place
    if left == 3:
        value ^= data[place + 2] << 16
    if left >= 2:
        value ^= data[place + 1] << 8
    if left >= 1:
        value = (value ^ data[place]) * factor & mask
    value = (value ^ value >> 13) * factor & mask
    return value ^ value >> 15
