"""Models of a lane's producer, of librdkafka's consumer and of a lane's store, over the model broker."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, KafkaError, TopicPartition

from ops.chaos.engine.model_broker import Broker, Faults, Fetched, Log, abortable, timed_out
from streams.exactly_once.layers import Row
from streams.exactly_once.membership import Membership
from streams.exactly_once.producer.transactional import Delivered
from streams.exactly_once.table_spec import TableSpec


class ModelProducer:
    """The transactional producer, over the model broker."""

    def __init__(self, broker: Broker, faults: Faults, worker: str, config: dict[str, Any]) -> None:
        self.delivered: dict[Log, Delivered] = {}
        self._broker, self._faults, self._worker = broker, faults, worker
        self._id = str(config["transactional.id"])
        self._epoch = -1
        self._buffer: list[tuple[Log, bytes | None, bytes | None]] = []
        self._asked = False

    def init_transactions(self, timeout_s: float) -> None:
        fault = self._faults.at(self._worker, "init")
        if fault == "lost":
            raise timed_out()
        self._epoch = self._broker.initialise(self._id)
        if fault == "unanswered":  # it is asked again inside the call
            self._epoch = self._broker.initialise(self._id)

    def begin_transaction(self) -> None:
        self._faults.at(self._worker, "begin")
        self._buffer, self._asked, self.delivered = [], False, {}

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int | None,
        headers: list[tuple[str, bytes]],
    ) -> None:
        number = zlib.crc32(key or b"") % self._broker.partitions[topic] if partition is None else partition
        self._buffer.append(((topic, number), key, value))

    def flush(self, timeout_s: float) -> None:
        if not self._buffer:
            return
        buffered, self._buffer, self._asked = self._buffer, [], True
        fault = self._faults.at(self._worker, "flush")
        send = partial(self._append, self._epoch, buffered)
        if fault == "delayed":
            self._broker.delayed.append(send)
        elif fault == "lost":  # from the middle on
            self._append(self._epoch, buffered[: len(buffered) // 2])
        else:
            send()
        if fault:
            raise abortable(KafkaError._TRANSPORT)

    def send_offsets_to_transaction(self, offsets: Mapping[Log, int], membership: Membership, timeout_s: float) -> None:
        self._asked = True
        fault = self._faults.at(self._worker, "offsets")
        add = partial(self._broker.add_offsets, self._id, self._epoch, dict(offsets), membership)
        if fault == "delayed":
            self._broker.delayed.append(add)
        elif fault != "lost":
            add()
        if fault:
            raise abortable(KafkaError._TRANSPORT)

    def commit_transaction(self, timeout_s: float) -> None:
        self.flush(timeout_s)
        self._end("end", "committed")

    def abort_transaction(self, timeout_s: float) -> None:
        self._buffer = []
        self._end("abort", "aborted")

    def close(self) -> None:
        self._buffer = []

    def _append(self, epoch: int, records: list[tuple[Log, bytes | None, bytes | None]]) -> None:
        for log, key, value in records:
            transaction = self._broker.begin_implicitly(self._id, epoch)
            offset = self._broker.append(log, key, value, transaction)
            self.delivered[log] = Delivered(offset, self._broker.logs[log][offset].timestamp_ms)

    def _end(self, call: str, state: str) -> None:
        if not self._asked:
            return
        fault = self._faults.at(self._worker, call)
        end = partial(self._broker.end, self._id, self._epoch, state)
        if fault == "delayed":
            self._broker.delayed.append(end)
        elif fault != "lost":
            epoch = end()
            if not fault:
                self._epoch = epoch
        if fault:
            raise timed_out()


class ModelConsumer:
    """librdkafka's consumer with assignment by hand."""

    def __init__(self, broker: Broker, config: dict[str, Any]) -> None:
        self._broker = broker
        self._committed_only = config.get("isolation.level") == "read_committed"
        self._tells_end = bool(config.get("enable.partition.eof"))
        self._positions: dict[Log, int] = {}
        self._told: set[tuple[Log, int]] = set()
        self._paused: set[Log] = set()

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        self._positions = {}
        self.incremental_assign(partitions)

    def incremental_assign(self, partitions: Iterable[TopicPartition]) -> None:
        for entry in partitions:
            log = (entry.topic, entry.partition)
            assert log not in self._positions, f"{log} is assigned already"
            self._positions[log] = 0 if entry.offset == OFFSET_BEGINNING else entry.offset
            self._told = {told for told in self._told if told[0] != log}

    def incremental_unassign(self, partitions: Iterable[TopicPartition]) -> None:
        for entry in partitions:
            self._positions.pop((entry.topic, entry.partition), None)
            self._paused.discard((entry.topic, entry.partition))

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        self._paused |= {(entry.topic, entry.partition) for entry in partitions}

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        self._paused -= {(entry.topic, entry.partition) for entry in partitions}

    def poll(self, timeout: float = 0) -> Fetched | None:
        got = self.consume(1, 0)
        return got[0] if got else None

    def consume(self, count: int, timeout: float = 0) -> list[Fetched]:
        got: list[Fetched] = []
        for log in sorted(self._positions):
            if log in self._paused:
                continue
            entries = self._broker.logs[log]
            end = self._broker.stable_end(log) if self._committed_only else len(entries)
            while self._positions[log] < end and len(got) < count:
                offset = self._positions[log]
                self._positions[log] = offset + 1
                entry = entries[offset]
                aborted = entry.transaction is not None and entry.transaction.state == "aborted"
                if not entry.is_marker and not (aborted and self._committed_only):
                    got.append(Fetched(log, offset, entry))
            at_end = self._positions[log] >= end and len(got) < count
            if self._tells_end and at_end and (log, end) not in self._told:
                self._told.add((log, end))
                got.append(Fetched(log, end, None, KafkaError(KafkaError._PARTITION_EOF)))
        return got

    def get_watermark_offsets(self, entry: TopicPartition, timeout: float = 0, cached: bool = False) -> tuple[int, int]:
        log = (entry.topic, entry.partition)
        return 0, self._broker.stable_end(log) if self._committed_only else len(self._broker.logs[log])

    def committed(self, partitions: Sequence[TopicPartition], timeout: float = 0) -> list[GroupOffset]:
        found = []
        for entry in partitions:
            log = (entry.topic, entry.partition)
            if self._committed_only and self._broker.pending_offsets(log):
                found.append(GroupOffset(*log, -1001, KafkaError(KafkaError.UNSTABLE_OFFSET_COMMIT)))
            else:
                found.append(GroupOffset(*log, self._broker.committed.get(log, -1001)))
        return found

    def close(self) -> None:
        self._positions = {}


@dataclass(slots=True)
class GroupOffset:
    """One partition's offset, or why there is none."""

    topic: str
    partition: int
    offset: int
    error: KafkaError | None = None


class ModelStore:
    """A lane's store on a worker's disk: a dictionary that survives the worker. A write batch is all or nothing."""

    def __init__(self, disk: dict[str, Any]) -> None:
        self._disk = disk
        self._rows: dict[tuple[str, bytes], bytes] = disk.setdefault("rows", {})
        self._offsets: dict[str, int] = disk.setdefault("offsets", {})

    def get(self, table: TableSpec, key: bytes) -> Any | None:
        encoded = self._rows.get((table.name, key))
        return None if encoded is None else table.decode(encoded)

    def scan(self, table: TableSpec, start: bytes, stop: bytes) -> Iterator[tuple[bytes, Any]]:
        for name, key in sorted(self._rows):
            if name == table.name and start <= key < stop:
                yield key, table.decode(self._rows[name, key])

    def offset(self, changelog: str) -> int | None:
        return self._offsets.get(changelog)

    def apply(self, rows: dict[TableSpec, dict[bytes, Row]], offsets: dict[str, int]) -> None:
        for table, dirty in rows.items():
            self.restore(table, [(key, row.encoded) for key, row in dirty.items()], offsets)
        self._offsets.update(offsets)

    def restore(self, table: TableSpec, records: Sequence[tuple[bytes, bytes | None]], offsets: dict[str, int]) -> None:
        for key, value in records:
            if value is None:
                self._rows.pop((table.name, key), None)
            else:
                self._rows[table.name, key] = value
        self._offsets.update(offsets)

    def set_aside(self) -> None:
        self._rows.clear()
        self._offsets.clear()

    def close(self) -> None:
        """The disk stays."""
