"""What happens before a lane runs: end the predecessor's transaction, find the offsets, rebuild the tables.

The order matters (exactly-once guide, "Fencing"): InitProducerId, stable committed offsets, restore, process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from streams.exactly_once.allocator import give_memory_back
from streams.exactly_once.clients import Clients
from streams.exactly_once.errors import StateMismatch
from streams.exactly_once.lane import Partition
from streams.exactly_once.metrics import LaneMetrics
from streams.exactly_once.store import LaneStore
from streams.exactly_once.table_spec import TableSpec

log = structlog.get_logger(__name__)

ASK_S = 10.0
UNSTABLE_RETRY_S = 0.01  # a pending transaction of the predecessor ends within milliseconds of InitProducerId
UNSTABLE_ALERT_EVERY = 1_000  # questions, so about ten seconds: longer than any transaction may stay open
POLL_S = 0.05
FETCH_MAX = 10_000
QUEUE_KB = 8_192  # librdkafka's default of 64 MiB for each lane that opens brought no speed
MANY = 100_000  # records; after so many there is memory to give back

_GONE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
_CHANGELOG_MISSING = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)


class _RecordsGone(Exception):  # noqa: N818
    """The changelog does not hold the next offset any more: retention has deleted it."""


class Abandoned(Exception):  # noqa: N818
    """The lane was taken away while it started; nothing was done that needs undoing."""


def committed_offsets(
    clients: Clients, config: Mapping[str, object], partitions: list[Partition], wanted: Callable[[], bool]
) -> dict[Partition, int]:
    """The committed offsets of `partitions` of the group that `config` names, none of them part of an open transaction.

    A partition without one is left out. An error per partition comes with offset -1001, so a negative number alone
    does not mean "none": only an answer without error does. Raises Abandoned when the lane is no longer wanted.

    A consumer asks, not an admin client: librdkafka 2.16's ends the process (SIGSEGV, or an assertion about
    `eonce->refcnt`) when the group's coordinator moves or its connection breaks while the question is under way.
    """
    stable = {"isolation.level": "read_committed", "enable.auto.commit": False, "retry.backoff.ms": 10}
    consumer = clients.consumer({**config, **stable})
    question = [TopicPartition(topic, number) for topic, number in partitions]
    asked = 0
    try:
        while wanted():
            try:
                entries = consumer.committed(question, timeout=ASK_S)
            except KafkaException as error:  # of the whole group: its coordinator is moving, or did not answer in time
                log.info("committed offsets not to be had yet", partitions=partitions, error=error.args[0].str())
                clients.sleep(UNSTABLE_RETRY_S * 10)
                continue
            if any(entry.error is not None for entry in entries):
                asked += 1
                if asked % UNSTABLE_ALERT_EVERY == 0:
                    log.error("committed offsets stay unstable: is a transaction hanging?", partitions=partitions)
                clients.sleep(UNSTABLE_RETRY_S)
                continue
            return {(entry.topic, entry.partition): entry.offset for entry in entries if entry.offset >= 0}
        raise Abandoned
    finally:
        consumer.close()


def restore_tables(
    store: LaneStore,
    tables: Mapping[TableSpec, str],
    partition: int,
    clients: Clients,
    consumer_config: Mapping[str, object],
    metrics: LaneMetrics,
    wanted: Callable[[], bool],
) -> int:
    """Bring every table of a lane up to the end of its changelog; returns how many records were applied.

    The target is the read_uncommitted end, and the reader is read_committed: a transaction that is open still, under
    whichever id, is waited for. It ends at the target, never by time-out. Raises Abandoned.
    """
    restored = 0
    reader = clients.consumer(
        {
            **consumer_config,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "fetch.queue.backoff.ms": 5,
            "queued.max.messages.kbytes": QUEUE_KB,
        }
    )
    ends = clients.consumer({**consumer_config, "isolation.level": "read_uncommitted", "enable.auto.commit": False})
    try:
        targets = {changelog: _end(ends, changelog, partition, wanted) for changelog in tables.values()}
        _set_aside_if_ahead(store, targets)
        pending = list(tables.items())
        while pending:
            table, changelog = pending[0]
            try:
                target = targets[changelog]
                restored += _restore_table(reader, store, table, changelog, partition, target, wanted, metrics)
                pending.pop(0)
            except _RecordsGone as gone:
                # Read on from what is left, and rows that were deleted meanwhile would stay.
                log.warning("the changelog has lost what was to be read next, rebuilding", changelog=str(gone))
                store.set_aside()
                pending = list(tables.items())
    finally:
        ends.close()
        reader.close()
    if restored >= MANY:
        del ends, reader
        give_memory_back()
    return restored


def check_offsets(lane: str, embedded: dict[Partition, int] | None, committed: dict[Partition, int], app: str) -> None:
    """Compare the offsets that came with the state to the group's. Raises StateMismatch where they differ."""
    if embedded is None and not committed:
        return
    if embedded != committed:
        raise StateMismatch(
            f"{lane}: the state stands at {embedded}, the consumer group {app} at {committed}. Somebody moved one "
            f"without the other; going on would double or lose records. Move both together, or put the offsets back"
        )


def _end(consumer: Consumer, topic: str, partition: int, wanted: Callable[[], bool]) -> int:
    while wanted():
        try:
            _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=5.0)
        except KafkaException as error:
            if error.args[0].code() in _CHANGELOG_MISSING:
                raise StateMismatch(
                    f"changelog {topic} is missing: create the app's topics before it starts"
                ) from error
            log.info("end of the changelog not to be had yet", topic=topic, error=error.args[0].str())
            continue
        return int(end)
    raise Abandoned


def _set_aside_if_ahead(store: LaneStore, ends: Mapping[str, int]) -> None:
    """State beyond the end of its changelog belongs to another history (a topic made anew): rebuild all of it."""
    for changelog, end in ends.items():
        applied = store.offset(changelog)
        if applied is not None and applied >= end:
            log.warning("state is ahead of its changelog, rebuilding", changelog=changelog, applied=applied, end=end)
            store.set_aside()
            return


def _restore_table(
    reader: Consumer,
    store: LaneStore,
    table: TableSpec,
    changelog: str,
    partition: int,
    target: int,
    wanted: Callable[[], bool],
    metrics: LaneMetrics,
) -> int:
    applied = store.offset(changelog)
    if target == 0:
        return 0
    start = OFFSET_BEGINNING if applied is None else applied + 1
    if applied is not None and target - start <= 1:  # behind the last row stands at most its transaction's marker
        return 0
    reader.assign([TopicPartition(changelog, partition, start)])
    restored, at_end = 0, False
    while not at_end:
        if not wanted():
            raise Abandoned
        records: list[tuple[bytes, bytes | None]] = []
        last = -1
        first = reader.poll(POLL_S)
        for message in () if first is None else (first, *reader.consume(FETCH_MAX, 0)):
            error = message.error()
            if error is None:
                records.append((message.key(), message.value()))
                last = message.offset()
            elif error.code() == KafkaError._PARTITION_EOF:
                at_end = at_end or message.offset() >= target
            elif error.code() in _GONE:
                raise _RecordsGone(changelog)
            else:
                log.warning("changelog fetch error", table=table.name, error=error.str())
        if records:
            store.restore(table, records, {changelog: last})
            restored += len(records)
            metrics.restored.inc(len(records))
    return restored
