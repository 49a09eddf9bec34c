"""Kafka denies what the catalogue does not grant."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.local_servers import Servers
from topics import catalog
from topics.catalog import all_topics

KAFKA_CLIENTS = (*catalog.FAUST_APPS, *catalog.CLIENTS)


@pytest.mark.parametrize("service", KAFKA_CLIENTS)
def test_a_service_sees_the_topics_that_it_writes_or_reads_and_no_others(servers: Servers, service: str) -> None:
    seen = AdminClient(servers.kafka_settings(service)).list_topics(timeout=15).topics
    assert set(seen) == {topic.name for topic in all_topics() if service in (topic.writer, *topic.readers)}


@pytest.mark.parametrize("identity", ["operator", "settlement-operator", "provider-simulator", "cassandra"])
def test_others_see_nothing(servers: Servers, identity: str) -> None:
    assert AdminClient(servers.kafka_settings(identity)).list_topics(timeout=15).topics == {}


def test_the_auditor_sees_every_topic(servers: Servers) -> None:
    seen = AdminClient(servers.kafka_settings("auditor")).list_topics(timeout=15).topics
    assert {topic.name for topic in all_topics()} <= set(seen)


@pytest.mark.parametrize(
    ("identity", "topic"),
    [
        ("payment-api", "payments.events"),
        ("payment-api", "payments.intake"),
        ("payment-api", "payments.replies"),  # it reads this one
        ("internal-producer", "payments.commands"),
        ("payment-worker", "provider.outcomes"),  # only the gateway can say what the provider did
        ("records-worker", "payments.events"),
        ("webhook-dispatcher", "payment-worker-payments-changelog"),
        ("auditor", "payments.events"),
        ("operator", "payments.commands"),
        ("provider-simulator", "provider.outcomes"),
    ],
)
def test_nobody_else_may_write(servers: Servers, identity: str, topic: str) -> None:
    assert write(servers, identity, topic) == KafkaError.TOPIC_AUTHORIZATION_FAILED


@pytest.mark.parametrize(
    ("identity", "topic"),
    [
        ("payment-api", "payments.commands"),
        ("payment-worker", "payments.events"),
        ("records-worker", "merchants.inbox"),
        ("provider-gateway", "provider.outcomes"),
        ("batch-processor", "settlement.events"),
        ("webhook-dispatcher", "webhooks.outcomes"),
    ],
)
def test_whoever_writes_a_topic_may_not_read_it_for_that(servers: Servers, identity: str, topic: str) -> None:
    consumer = Consumer({**servers.kafka_settings(identity), "group.id": identity, "auto.offset.reset": "earliest"})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        message = consumer.poll(15)
        assert message is not None
        assert message.error().code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    finally:
        consumer.close()


@pytest.mark.parametrize(
    ("identity", "group"), [("payment-worker", "records-worker"), ("payment-api", "payment-worker")]
)
def test_nobody_may_use_the_group_of_another(servers: Servers, identity: str, group: str) -> None:
    readable = next(topic.name for topic in catalog.TOPICS if identity in topic.readers)
    consumer = Consumer({**servers.kafka_settings(identity), "group.id": group})
    try:
        consumer.subscribe([readable])
        message = consumer.poll(15)
        assert message is not None
        assert message.error().code() == KafkaError.GROUP_AUTHORIZATION_FAILED
    finally:
        consumer.close()


@pytest.mark.parametrize(
    ("identity", "transactional_id"),
    [("payment-worker", "records-worker-records-0"), ("payment-api", "payment-api-0"), ("auditor", "auditor-0")],
)
def test_nobody_may_fence_the_transactions_of_another(servers: Servers, identity: str, transactional_id: str) -> None:
    producer = Producer({**servers.kafka_settings(identity), "transactional.id": transactional_id})
    with pytest.raises(KafkaException) as raised:
        producer.init_transactions(15)
    assert raised.value.args[0].code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED


def test_a_service_may_begin_transactions_under_its_own_name(servers: Servers) -> None:
    settings = servers.kafka_settings("payment-worker")
    Producer({**settings, "transactional.id": "payment-worker-t-topics-0"}).init_transactions(15)


def write(servers: Servers, identity: str, topic: str) -> int | None:
    """The error code of one attempt to write a record; None when it was accepted."""
    errors: list[KafkaError | None] = []
    producer = Producer(servers.kafka_settings(identity))
    producer.produce(topic, b"", b"t-topics", on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(15) == 0
    return errors[0].code() if errors[0] is not None else None
