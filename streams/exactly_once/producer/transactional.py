"""A producer that does nothing but transactions, each in three kinds of requests (Kafka's KIP-890, second part):

    Produce          one for each broker, with every partition of it: puts partitions into the transaction by itself
    TxnOffsetCommit  puts the group's offsets into it by itself
    EndTxn           ends it, and gives the next epoch

One after the other, because the coordinator refuses a second request while it notes what the first has added. The epoch
of a transaction is that transaction's alone: a copy of a request that arrives late, from a connection that broke, is
refused by the brokers. So nothing here is sent twice: what failed is aborted, under an epoch that nobody else has.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from kafka.protocol.producer import EndTxnRequest, InitProducerIdRequest, ProduceRequest, TxnOffsetCommitRequest

from streams.exactly_once.membership import Membership
from streams.exactly_once.producer.batches import Batches, partition_of
from streams.exactly_once.producer.brokers import BACKOFF_S, Brokers, Coordinator

RETRY_S = 0.005  # a coordinator is busy with the transaction before for about as long
METADATA_TIMEOUT_S = 8.0  # for how many partitions a topic has, when that is not known yet
ALL_IN_SYNC = -1  # acks
TRANSACTION_ABORTABLE = 120  # Kafka's error code

_Produce = ProduceRequest[12]
_OffsetCommit = TxnOffsetCommitRequest[5]
_EndTxn = EndTxnRequest[5]
_InitProducerId = InitProducerIdRequest[5]

_MOVED = {KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR}
_BUSY = {*_MOVED, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.CONCURRENT_TRANSACTIONS}
"""Refused before anything was done: the same may be asked again."""

_FENCED = {
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
    KafkaError.INVALID_TXN_STATE,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}
"""Nothing more can be done under this epoch."""

Partition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Delivered:
    """Where a partition's last record of the transaction lies."""

    offset: int
    append_ms: int | None  # the broker's time, if it sets it


class TransactionalProducer:
    """Its calls are named as librdkafka's and raise KafkaException as those do: fatal, or asking for an abort.

    Used by one thread at a time. Time-outs are in seconds.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        """`config`: librdkafka's names, of connections (see Brokers), transactional.id and transaction.timeout.ms."""
        self.delivered: dict[Partition, Delivered] = {}  # in the transaction that was flushed last
        self._id = str(config["transactional.id"])
        self._timeout_ms = int(config["transaction.timeout.ms"])
        self._brokers = Brokers(config)
        self._producer_id, self._epoch = -1, -1
        self._batches = Batches(-1, -1, 0)
        self._failure: KafkaException | None = None  # for which the transaction can only be aborted
        self._asked = False  # brokers may know of the transaction

    def init_transactions(self, timeout_s: float) -> None:
        """InitProducerId: abort whatever the id has open, and fence whoever used it before."""
        deadline_s = time.monotonic() + timeout_s
        request = _InitProducerId(
            transactional_id=self._id, transaction_timeout_ms=self._timeout_ms, producer_id=-1, producer_epoch=-1
        )
        while True:
            try:
                answer = self._ask_coordinator(request, deadline_s, "InitProducerId")
                break
            except KafkaException as error:  # it may be asked twice: the epoch that counts is the one it answers
                if error.args[0].code() != KafkaError._TRANSPORT or time.monotonic() + BACKOFF_S > deadline_s:
                    raise
                time.sleep(BACKOFF_S)
        self._producer_id, self._epoch = answer.producer_id, answer.producer_epoch

    def begin_transaction(self) -> None:
        """Costs no request."""
        self._brokers.refresh()
        self._batches = Batches(self._producer_id, self._epoch, int(time.time() * 1000))
        self.delivered = {}
        self._failure, self._asked = None, False

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int | None,
        headers: list[tuple[str, bytes]],
    ) -> None:
        """Put a record into the transaction; None for the partition that its key's murmur2 names, as Java's default."""
        if partition is None:
            count = len(self._brokers.leaders(topic, time.monotonic() + METADATA_TIMEOUT_S))
            partition = random.randrange(count) if key is None else partition_of(key, count)  # noqa: S311
        self._batches.append(topic, partition, key, value, headers)

    def flush(self, timeout_s: float) -> None:
        """Send what was produced; returns when all of it is acknowledged by all in-sync replicas."""
        deadline_s = time.monotonic() + timeout_s
        with self._aborting():
            by_node: dict[int, dict[Partition, list[bytes]]] = {}
            for (topic, partition), batches in self._batches.take().items():
                node = self._brokers.leaders(topic, deadline_s)[partition]
                by_node.setdefault(node, {})[topic, partition] = batches
            for node, partitions in by_node.items():
                with self._talking_to(node, "Produce"):
                    self._send(node, partitions, deadline_s)

    def send_offsets_to_transaction(
        self, offsets: Mapping[Partition, int], membership: Membership, timeout_s: float
    ) -> None:
        """TxnOffsetCommit, after a flush: the group's offsets, if its generation is still the membership's."""
        deadline_s = time.monotonic() + timeout_s
        topics: dict[str, list[Any]] = {}
        for (topic, partition), offset in offsets.items():
            place = _OffsetCommit.TxnOffsetCommitRequestTopic.TxnOffsetCommitRequestPartition(
                partition_index=partition, committed_offset=offset, committed_leader_epoch=-1, committed_metadata=""
            )
            topics.setdefault(topic, []).append(place)
        request = _OffsetCommit(
            transactional_id=self._id,
            group_id=membership.group,
            producer_id=self._producer_id,
            producer_epoch=self._epoch,
            generation_id=membership.generation,
            member_id=membership.member_id,
            group_instance_id=membership.instance_id,
            topics=[
                _OffsetCommit.TxnOffsetCommitRequestTopic(name=topic, partitions=places)
                for topic, places in topics.items()
            ],
        )
        with self._aborting():
            while True:
                node = self._brokers.coordinator(Coordinator.GROUP, membership.group, deadline_s)
                with self._talking_to(node, "TxnOffsetCommit"):
                    answer = self._brokers.connection(node, deadline_s).ask(request, deadline_s)
                codes = {place.error_code for topic in answer.topics for place in topic.partitions} - {0}
                if not codes:
                    return
                self._raise_unless_busy(min(codes), "TxnOffsetCommit", deadline_s)
                time.sleep(RETRY_S)

    def commit_transaction(self, timeout_s: float) -> None:
        """EndTxn. Refuses, asking for an abort, when something of the transaction has failed.

        An error that asks for no abort leaves the outcome unknown.
        """
        self.flush(timeout_s)
        self._end(committed=True, timeout_s=timeout_s)

    def abort_transaction(self, timeout_s: float) -> None:
        """EndTxn, if brokers may know of the transaction."""
        self._batches.take()
        self._end(committed=False, timeout_s=timeout_s)

    def close(self) -> None:
        """Drop the connections. An open transaction stays so until the id is initialised again, or it expires."""
        self._brokers.close()

    def _send(self, node: int, partitions: dict[Partition, list[bytes]], deadline_s: float) -> None:
        """Each request carries one batch of each partition; what is left over follows in the next ones.

        The first goes alone: it puts the partitions into the transaction, and may be told to come again.
        """
        connection = self._brokers.connection(node, deadline_s)
        rounds = max(map(len, partitions.values()))
        first = self._produce_request(partitions, 0, deadline_s)
        while True:
            codes = self._note(connection.ask(first, deadline_s), partitions, 0)
            if not codes:
                break
            self._raise_unless_busy(min(codes), "Produce", deadline_s)
            time.sleep(RETRY_S)
        for number in range(1, rounds):
            connection.send(self._produce_request(partitions, number, deadline_s), deadline_s)
        for number in range(1, rounds):
            for code in self._note(connection.receive(deadline_s), partitions, number):
                raise _abortable(code, "Produce")

    def _produce_request(self, partitions: dict[Partition, list[bytes]], number: int, deadline_s: float) -> Any:
        topics: dict[str, list[Any]] = {}
        for (topic, partition), batches in partitions.items():
            if number < len(batches):
                data = _Produce.TopicProduceData.PartitionProduceData(index=partition, records=batches[number])
                topics.setdefault(topic, []).append(data)
        return _Produce(
            transactional_id=self._id,
            acks=ALL_IN_SYNC,
            timeout_ms=max(1, int((deadline_s - time.monotonic()) * 1000)),
            topic_data=[_Produce.TopicProduceData(name=topic, partition_data=data) for topic, data in topics.items()],
        )

    def _note(self, answer: Any, partitions: dict[Partition, list[bytes]], number: int) -> set[int]:
        """What the broker refused with; keeps the offset of each partition's last record."""
        codes: set[int] = set()
        for topic in answer.responses:
            for place in topic.partition_responses:
                batches = partitions[topic.name, place.index]
                if place.error_code:
                    codes.add(place.error_code)
                elif number == len(batches) - 1:
                    append_ms = place.log_append_time_ms if place.log_append_time_ms >= 0 else None
                    last = place.base_offset + _last_offset_delta(batches[number])
                    self.delivered[topic.name, place.index] = Delivered(last, append_ms)
        return codes

    def _end(self, *, committed: bool, timeout_s: float) -> None:
        if not self._asked:
            return
        deadline_s = time.monotonic() + timeout_s
        request = _EndTxn(
            transactional_id=self._id,
            producer_id=self._producer_id,
            producer_epoch=self._epoch,
            committed=committed,
        )
        try:
            answer = self._ask_coordinator(request, deadline_s, "EndTxn")
        except KafkaException as error:
            failed: KafkaError = error.args[0]
            if failed.txn_requires_abort() and failed.code() != TRANSACTION_ABORTABLE:
                # It may have failed after it was noted: only one refusal says that nothing was.
                raise KafkaException(KafkaError(failed.code(), failed.str())) from error
            raise
        self._producer_id, self._epoch = answer.producer_id, answer.producer_epoch

    def _ask_coordinator(self, request: Any, deadline_s: float, what: str) -> Any:
        """Raises with _TRANSPORT when there was no answer: it may have been done or not."""
        while True:
            node = self._brokers.coordinator(Coordinator.TRANSACTION, self._id, deadline_s)
            with self._talking_to(node, what):
                answer = self._brokers.connection(node, deadline_s).ask(request, deadline_s)
            if not answer.error_code:
                return answer
            self._raise_unless_busy(answer.error_code, what, deadline_s)
            time.sleep(RETRY_S)

    def _raise_unless_busy(self, code: int, what: str, deadline_s: float) -> None:
        """Returns when the same may be asked again in a moment."""
        if code in _MOVED:
            self._brokers.forget()
        if code not in _BUSY:
            raise _abortable(code, what)
        if time.monotonic() + RETRY_S > deadline_s:
            # Of EndTxn this says nothing: a coordinator answers COORDINATOR_NOT_AVAILABLE also when it has noted the
            # end and only its replicas have not.
            raise KafkaException(KafkaError(code, f"{what}: {KafkaError(code).str()}", retriable=True))

    @contextmanager
    def _talking_to(self, node: int, what: str) -> Iterator[None]:
        """A connection on which something went wrong is dropped: it may hold answers that nobody waits for."""
        self._asked = True
        try:
            yield
        except OSError as error:
            self._brokers.drop(node)
            raise KafkaException(KafkaError(KafkaError._TRANSPORT, f"{what}: {error}", retriable=True)) from error
        except KafkaException:
            self._brokers.drop(node)
            raise

    @contextmanager
    def _aborting(self) -> Iterator[None]:
        """What fails here fails the transaction, also if the caller should try to commit it."""
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except KafkaException as error:
            failed: KafkaError = error.args[0]
            self._failure = error if failed.fatal() else _abortable(failed.code(), failed.str())
            raise self._failure from error


def _abortable(code: int, what: str) -> KafkaException:
    fenced = code in _FENCED
    text = f"{what}: {KafkaError(code).str()}"
    return KafkaException(KafkaError(code, text, fatal=fenced, txn_requires_abort=not fenced))


def _last_offset_delta(batch: bytes) -> int:
    """From the head of a record batch."""
    return int.from_bytes(batch[23:27], "big")
