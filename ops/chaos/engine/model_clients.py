"""Models of librdkafka's clients and of a lane's store, as far as lanes use them, over the model broker."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from ops.chaos.engine.model_broker import Broker, Faults, Fetched, Log, abortable, timed_out
from streams.exactly_once.layers import Row
from streams.exactly_once.table_spec import TableSpec


class ModelProducer:
    """librdkafka's transactional producer, as far as lanes use it."""

    def __init__(self, broker: Broker, faults: Faults, worker: str, config: dict[str, Any]) -> None:
        self._broker, self._faults, self._worker = broker, faults, worker
        self._id = str(config["transactional.id"])
        self._logger = config["logger"]
        self._epoch = -1
        self._buffer: list[tuple[Log, bytes | None, bytes | None, Any]] = []
        self._broken = False  # a record could not be delivered: the transaction can only be aborted

    def init_transactions(self, timeout: float) -> None:
        fault = self._faults.at(self._worker, "init")
        if fault == "lost":
            raise timed_out()
        self._epoch = self._broker.initialise(self._id)
        if fault == "unanswered":  # librdkafka asks again inside the call
            self._epoch = self._broker.initialise(self._id)

    def begin_transaction(self) -> None:
        self._faults.at(self._worker, "begin")
        self._buffer, self._broken = [], False

    def produce(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int = -1,
        on_delivery: Any = None,
        headers: Any = None,
    ) -> None:
        count = self._broker.partitions[topic]
        number = partition if partition >= 0 else zlib.crc32(key or b"") % count
        self._buffer.append(((topic, number), key, value, on_delivery or (lambda error, message: None)))

    def poll(self, timeout: float) -> int:
        return 0

    def flush(self, timeout: float = 0) -> int:
        buffered, self._buffer = self._buffer, []
        fault = self._faults.at(self._worker, "flush") if buffered else ""
        lost_from = len(buffered) // 2 if fault == "lost" else len(buffered)
        for number, (log, key, value, on_delivery) in enumerate(buffered):
            try:
                transaction = self._broker.begin_implicitly(self._id, self._epoch)
            except KafkaException as error:
                self._broken = True
                on_delivery(error.args[0], Fetched(log, -1, None))
                continue
            if number >= lost_from:
                self._broken = True
                on_delivery(KafkaError(KafkaError._MSG_TIMED_OUT, "not delivered"), Fetched(log, -1, None))
                continue
            offset = self._broker.append(log, key, value, transaction)
            on_delivery(None, Fetched(log, offset, self._broker.logs[log][offset]))
        return 0

    def send_offsets_to_transaction(self, offsets: Sequence[TopicPartition], metadata: bytes, timeout: float) -> None:
        fault = self._faults.at(self._worker, "offsets")
        if fault == "lost":
            raise timed_out()
        wanted = {(entry.topic, entry.partition): entry.offset for entry in offsets}
        if fault == "twice":
            self._sent_twice(partial(self._broker.add_offsets, self._id, self._epoch, wanted, metadata))
        self._broker.add_offsets(self._id, self._epoch, wanted, metadata)
        if fault == "unanswered":
            raise timed_out()

    def commit_transaction(self, timeout: float) -> None:
        self.flush()
        if self._broken:
            raise abortable(KafkaError._INCONSISTENT)
        fault = self._faults.at(self._worker, "end")
        if fault == "lost":
            raise timed_out()
        end = partial(self._broker.end, self._id, self._epoch, "committed")
        if fault == "delayed":
            self._broker.delayed.append(end)
            raise timed_out()
        if fault == "twice":
            self._sent_twice(end)
        end()
        if fault == "unanswered":
            raise timed_out()

    def abort_transaction(self, timeout: float) -> None:
        fault = self._faults.at(self._worker, "abort")
        self._buffer = []
        end = partial(self._broker.end, self._id, self._epoch, "aborted")
        if fault == "twice":
            self._sent_twice(end)
        end()

    def purge(self) -> None:
        self._buffer = []

    def _sent_twice(self, request: Callable[[], None]) -> None:
        """The connection breaks and librdkafka sends the request again: this first copy may arrive later, or never."""
        self._broker.delayed.append(request)
        text = "TxnCoordinator/1: Disconnected (after 5ms in state UP) (_TRANSPORT)"
        self._logger.log(logging.DEBUG, "%s [%s] %s", "FAIL", self._id, text)


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
