"""What the commit stands on: a transaction that misses a record is aborted, and leaves nothing to the next one."""

from __future__ import annotations

import uuid

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from ops.chaos.engine.cluster import Cluster
from streams.exactly_once.clients import Clients
from streams.exactly_once.errors import CommitAborted
from streams.exactly_once.layers import Layer, Row, Send
from streams.exactly_once.membership import Membership
from streams.exactly_once.table_spec import TableSpec
from streams.exactly_once.transaction import LaneProducer, Work

ROWS = TableSpec("rows", encode=bytes, decode=bytes)
MEMBERSHIP = Membership("group", 1, "member", None)


def _work(topic: str, value: bytes) -> Work:
    sends = [Send(topic, b"first", b"small", None, ()), Send(topic, b"second", value, None, ())]
    layer = Layer({ROWS: {b"a": Row(b"1", b"1"), b"b": Row(b"2", b"2")}}, sends)
    return Work(0, layer, {}, {ROWS: f"{topic}-changelog"})


def _committed(cluster: Cluster, topic: str) -> list[tuple[bytes, bytes, int]]:
    """(key, value, offset) of every committed record."""
    settings = {"group.id": uuid.uuid4().hex, "isolation.level": "read_committed", "enable.partition.eof": True}
    consumer = Consumer({**cluster.config(), **settings})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[tuple[bytes, bytes, int]] = []
    while True:
        message = consumer.poll(30)
        assert message is not None
        error = message.error()
        if error is not None:
            assert error.code() == KafkaError._PARTITION_EOF, error.str()
            consumer.close()
            return found
        found.append((message.key(), message.value(), message.offset()))


def test_a_transaction_that_misses_a_record_is_aborted_and_the_next_one_commits(kafka_super_user: Cluster) -> None:
    topic = f"t-delivery-{uuid.uuid4().hex[:8]}"
    admin = AdminClient(kafka_super_user.config())
    topics = [NewTopic(name, 1, 1, config={"max.message.bytes": "2000"}) for name in (topic, f"{topic}-changelog")]
    for created in admin.create_topics(topics).values():
        created.result()
    producer = LaneProducer(Clients(), kafka_super_user.config(), f"{topic}-0")
    producer.initialise()

    with pytest.raises(CommitAborted, match="Message size too large"):
        producer.commit([_work(topic, b"x" * 10_000)], MEMBERSHIP)
    assert _committed(kafka_super_user, topic) == []
    assert _committed(kafka_super_user, f"{topic}-changelog") == []

    receipt = producer.commit([_work(topic, b"fits")], MEMBERSHIP)
    assert [record[:2] for record in _committed(kafka_super_user, topic)] == [
        (b"first", b"small"),
        (b"second", b"fits"),
    ]
    rows = _committed(kafka_super_user, f"{topic}-changelog")
    assert [record[:2] for record in rows] == [(b"a", b"1"), (b"b", b"2")]
    assert receipt.changelog_offsets == {(f"{topic}-changelog", 0): rows[-1][2]}
    producer.close()
