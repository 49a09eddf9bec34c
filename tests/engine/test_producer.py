"""The producer's promises on a real broker: a transaction is whole or nothing, and each has an epoch of its own."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from ops.chaos.engine.cluster import Cluster
from streams.exactly_once.membership import Membership
from streams.exactly_once.producer import brokers, transactional
from streams.exactly_once.producer.batches import BATCH_MAX_BYTES
from streams.exactly_once.producer.connection import BrokerConnection
from streams.exactly_once.producer.transactional import TransactionalProducer

TIMEOUT_S = 8.0
PARTITIONS = 3
Committed = Callable[[int], list[tuple[bytes, bytes]]]


@pytest.fixture
def topic(kafka_super_user: Cluster) -> str:
    name = f"t-producer-{uuid.uuid4().hex[:8]}"
    admin = AdminClient(kafka_super_user.config())
    admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result()
    _wait_for_leaders(kafka_super_user, name)
    return name


def _wait_for_leaders(cluster: Cluster, topic: str) -> None:
    """The controller answers before the broker leads; a producer is told so, and a lane's transaction is aborted."""
    with closing(Consumer({**cluster.config(), "group.id": "reader"})) as consumer:
        deadline_s = time.monotonic() + TIMEOUT_S
        waiting = list(range(PARTITIONS))
        while waiting:
            try:
                consumer.get_watermark_offsets(TopicPartition(topic, waiting[-1]), timeout=TIMEOUT_S)
                waiting.pop()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION or time.monotonic() > deadline_s:
                    raise
                time.sleep(0.02)  # Kafka tells nobody when it leads


@pytest.fixture
def make(kafka_super_user: Cluster, topic: str) -> Iterator[Callable[[], TransactionalProducer]]:
    """Producers of one transactional id, initialised."""
    made: list[TransactionalProducer] = []

    def make() -> TransactionalProducer:
        config = {**kafka_super_user.config(), "transactional.id": topic, "transaction.timeout.ms": 10_000}
        producer = TransactionalProducer(config)
        made.append(producer)
        producer.init_transactions(TIMEOUT_S)
        return producer

    yield make
    for producer in made:
        producer.close()


@pytest.fixture
def committed(kafka_super_user: Cluster, topic: str) -> Committed:
    """The committed records of a partition: key and value."""

    def read(partition: int) -> list[tuple[bytes, bytes]]:
        settings = {"group.id": "reader", "isolation.level": "read_committed", "enable.partition.eof": True}
        consumer = Consumer({**kafka_super_user.config(), **settings})
        consumer.assign([TopicPartition(topic, partition, 0)])
        found: list[tuple[bytes, bytes]] = []
        try:
            while True:
                message = consumer.poll(30)
                assert message is not None
                if message.error() is not None:
                    assert message.error().code() == KafkaError._PARTITION_EOF, message.error().str()
                    return found
                found.append((message.key(), message.value()))
        finally:
            consumer.close()

    return read


def commit(producer: TransactionalProducer, topic: str, *values: bytes) -> None:
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, b"k", 0, [])
    producer.commit_transaction(TIMEOUT_S)


def test_what_was_produced_is_committed_in_its_order_and_its_place_is_told(
    make: Callable[[], TransactionalProducer], committed: Committed, topic: str
) -> None:
    producer = make()
    commit(producer, topic, b"1", b"2")
    first = producer.delivered[topic, 0]
    commit(producer, topic, b"3")

    assert committed(0) == [(b"k", b"1"), (b"k", b"2"), (b"k", b"3")]
    assert producer.delivered[topic, 0].offset == first.offset + 2, "a marker lies between the transactions"


def test_a_transaction_of_more_batches_than_a_request_carries(
    make: Callable[[], TransactionalProducer], committed: Committed, topic: str
) -> None:
    producer, value = make(), b"v" * (BATCH_MAX_BYTES // 5)
    producer.begin_transaction()
    for number in range(20):
        producer.produce(topic, value, b"%d" % number, number % 2, [])
    producer.produce(topic, b"x" * (BATCH_MAX_BYTES + 1), b"20", 0, [])  # a batch of its own
    producer.commit_transaction(TIMEOUT_S)

    assert [key for key, _ in committed(0)] == [b"%d" % number for number in range(0, 22, 2)]
    assert [key for key, _ in committed(1)] == [b"%d" % number for number in range(1, 20, 2)]
    assert producer.delivered[topic, 0].offset == 10


def test_an_aborted_transaction_leaves_nothing_and_the_next_one_commits(
    make: Callable[[], TransactionalProducer], committed: Committed, topic: str
) -> None:
    producer = make()
    producer.begin_transaction()
    producer.produce(topic, b"never", b"k", 0, [])
    producer.flush(TIMEOUT_S)
    producer.abort_transaction(TIMEOUT_S)
    commit(producer, topic, b"kept")

    assert committed(0) == [(b"k", b"kept")]


def test_what_has_failed_cannot_be_committed(
    make: Callable[[], TransactionalProducer], committed: Committed, topic: str
) -> None:
    """Nobody of that name is in the group: the generation before went on."""
    producer = make()
    producer.begin_transaction()
    producer.produce(topic, b"never", b"k", 0, [])
    producer.flush(TIMEOUT_S)
    with pytest.raises(KafkaException) as refused:
        producer.send_offsets_to_transaction({(topic, 0): 1}, Membership(topic, 7, "gone", None), TIMEOUT_S)
    assert refused.value.args[0].txn_requires_abort()
    with pytest.raises(KafkaException) as again:
        producer.commit_transaction(TIMEOUT_S)
    assert again.value.args[0].code() == refused.value.args[0].code()
    producer.abort_transaction(TIMEOUT_S)
    commit(producer, topic, b"kept")

    assert committed(0) == [(b"k", b"kept")]


def test_an_abort_of_what_no_broker_has_taken_up(
    make: Callable[[], TransactionalProducer], committed: Committed, topic: str
) -> None:
    producer = make()
    producer.begin_transaction()
    producer.produce(topic, b"x" * 2_000_000, b"k", 0, [])  # too large for the topic
    with pytest.raises(KafkaException) as refused:
        producer.commit_transaction(TIMEOUT_S)
    assert refused.value.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
    assert refused.value.args[0].txn_requires_abort()
    producer.abort_transaction(TIMEOUT_S)
    commit(producer, topic, b"kept")

    assert committed(0) == [(b"k", b"kept")]


def test_a_successor_fences_and_ends_what_was_open(
    make: Callable[[], TransactionalProducer], committed: Committed, topic: str
) -> None:
    first = make()
    first.begin_transaction()
    first.produce(topic, b"never", b"k", 0, [])
    first.flush(TIMEOUT_S)
    second = make()
    with pytest.raises(KafkaException) as fenced:
        first.commit_transaction(TIMEOUT_S)
    assert fenced.value.args[0].fatal()
    commit(second, topic, b"kept")

    assert committed(0) == [(b"k", b"kept")]


def test_late_copies_of_a_transactions_requests_change_nothing_in_the_next_one(
    make: Callable[[], TransactionalProducer],
    committed: Committed,
    topic: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a connection that breaks may leave on the network. Under one epoch for all, each of them would count."""
    sent: list[tuple[BrokerConnection, Any]] = []
    ask = BrokerConnection.ask

    def keep(connection: BrokerConnection, request: Any, deadline_s: float) -> Any:
        sent.append((connection, request))
        return ask(connection, request, deadline_s)

    producer = make()
    monkeypatch.setattr(BrokerConnection, "ask", keep)
    producer.begin_transaction()
    producer.produce(topic, b"1", b"k", 0, [])
    producer.flush(TIMEOUT_S)
    producer.send_offsets_to_transaction({(topic, 0): 1}, Membership(topic, -1, "", None), TIMEOUT_S)
    producer.commit_transaction(TIMEOUT_S)
    copies = [entry for entry in sent if entry[1].name in {"ProduceRequest", "TxnOffsetCommitRequest", "EndTxnRequest"}]
    monkeypatch.undo()
    assert [request.name for _, request in copies] == ["ProduceRequest", "TxnOffsetCommitRequest", "EndTxnRequest"]

    producer.begin_transaction()
    producer.produce(topic, b"2", b"k", 0, [])
    producer.flush(TIMEOUT_S)
    produce, offsets, end = (connection.ask(request, time.monotonic() + TIMEOUT_S) for connection, request in copies)
    assert end.error_code in {KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}
    assert produce.responses[0].partition_responses[0].error_code == KafkaError.INVALID_PRODUCER_EPOCH
    assert offsets.topics[0].partitions[0].error_code == KafkaError.INVALID_PRODUCER_EPOCH
    assert committed(0) == [(b"k", b"1")], "the second transaction is still open"
    producer.commit_transaction(TIMEOUT_S)

    assert committed(0) == [(b"k", b"1"), (b"k", b"2")]


def test_a_connection_that_the_broker_has_closed_meanwhile_costs_no_abort(
    make: Callable[[], TransactionalProducer], committed: Committed, topic: str
) -> None:
    """Brokers close connections that nobody has used for ten minutes."""
    producer = make()
    commit(producer, topic, b"1")
    for connection in producer._brokers._connections.values():
        connection._socket.shutdown(socket.SHUT_RDWR)
    commit(producer, topic, b"2")

    assert committed(0) == [(b"k", b"1"), (b"k", b"2")]


def test_a_connection_that_breaks_in_a_transaction_aborts_it(
    make: Callable[[], TransactionalProducer], committed: Committed, topic: str
) -> None:
    producer, nobody = make(), Membership(topic, -1, "", None)
    producer.begin_transaction()
    producer.produce(topic, b"never", b"k", 0, [])
    producer.flush(TIMEOUT_S)
    producer.send_offsets_to_transaction({(topic, 0): 1}, nobody, TIMEOUT_S)  # and so the coordinator is known
    for connection in producer._brokers._connections.values():
        connection._socket.shutdown(socket.SHUT_RDWR)
    with pytest.raises(KafkaException) as broken:
        producer.send_offsets_to_transaction({(topic, 0): 2}, nobody, TIMEOUT_S)
    assert broken.value.args[0].txn_requires_abort()
    producer.abort_transaction(TIMEOUT_S)
    commit(producer, topic, b"kept")

    assert committed(0) == [(b"k", b"kept")]


def test_an_end_without_an_answer_is_of_unknown_outcome(make: Callable[[], TransactionalProducer], topic: str) -> None:
    producer = make()
    producer.begin_transaction()
    producer.produce(topic, b"?", b"k", 0, [])
    producer.flush(TIMEOUT_S)
    for connection in producer._brokers._connections.values():
        connection._socket.shutdown(socket.SHUT_RDWR)
    with pytest.raises(KafkaException) as unknown:
        producer.commit_transaction(TIMEOUT_S)
    assert not unknown.value.args[0].txn_requires_abort()
    assert not unknown.value.args[0].fatal()


@pytest.mark.parametrize(("code", "says_so"), [(-1, False), (transactional.TRANSACTION_ABORTABLE, True)])
def test_only_one_refusal_of_an_end_says_that_nothing_was_committed(
    make: Callable[[], TransactionalProducer], topic: str, monkeypatch: pytest.MonkeyPatch, code: int, says_so: bool
) -> None:
    """A coordinator may fail (-1) after it has noted the end."""
    ask = BrokerConnection.ask

    def failing(connection: BrokerConnection, request: Any, deadline_s: float) -> Any:
        answer = ask(connection, request, deadline_s)
        if request.name == "EndTxnRequest":
            answer.error_code = code
        return answer

    producer = make()
    monkeypatch.setattr(BrokerConnection, "ask", failing)
    with pytest.raises(KafkaException) as failed:
        commit(producer, topic, b"?")
    assert failed.value.args[0].txn_requires_abort() is says_so
    assert not failed.value.args[0].fatal()


def test_a_broker_that_answers_nothing_is_passed_over(
    kafka_super_user: Cluster, committed: Committed, topic: str
) -> None:
    """It takes connections still: its kernel does that."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = {**kafka_super_user.config(), "transactional.id": topic, "transaction.timeout.ms": 10_000}
        config["bootstrap.servers"] = f"127.0.0.1:{silent.getsockname()[1]},{config['bootstrap.servers']}"
        producer = TransactionalProducer(config)
        producer.init_transactions(TIMEOUT_S)
        commit(producer, topic, b"1")
        producer.close()

    assert committed(0) == [(b"k", b"1")]


def test_offsets_alone_are_aborted_and_committed(make: Callable[[], TransactionalProducer], topic: str) -> None:
    """A transaction of timers that send and keep nothing; the coordinator need not have heard of it."""
    producer = make()
    producer.begin_transaction()
    with pytest.raises(KafkaException):
        producer.send_offsets_to_transaction({(topic, 0): 1}, Membership(topic, 7, "gone", None), TIMEOUT_S)
    producer.abort_transaction(TIMEOUT_S)
    producer.begin_transaction()
    producer.send_offsets_to_transaction({(topic, 0): 1}, Membership(topic, -1, "", None), TIMEOUT_S)
    producer.commit_transaction(TIMEOUT_S)


def test_keys_go_where_java_puts_them(
    make: Callable[[], TransactionalProducer], committed: Committed, topic: str
) -> None:
    """The places are those of tests/integration/topics/test_partitioning.py's clients, from the reference values."""
    producer = make()
    producer.begin_transaction()
    for key in (b"21", b"foobar", b"a-little-bit-long-string"):
        producer.produce(topic, b"", key, None, [])
    producer.commit_transaction(TIMEOUT_S)

    placed = {key: partition for partition in range(PARTITIONS) for key, _ in committed(partition)}
    murmur2 = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}  # Kafka's own tests
    assert placed == {key: (value & 0x7FFFFFFF) % PARTITIONS for key, value in murmur2.items()}


def test_brokers_of_the_first_protocol_are_refused_with_what_to_do(
    make: Callable[[], TransactionalProducer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brokers, "TRANSACTION_VERSION", 99)
    with pytest.raises(KafkaException, match=r"kafka-features.sh upgrade --feature transaction.version=2"):
        make()
