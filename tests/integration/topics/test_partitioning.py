"""Java, librdkafka, kafka-python and aiokafka place the same key on the same partition: murmur2 of its bytes."""

from __future__ import annotations

import ssl
import uuid
from pathlib import Path

from aiokafka import AIOKafkaProducer
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from kafka import KafkaProducer

from tests.integration.topics.conftest import NewTopic
from tests.integration.topics.java import PRODUCER, run_tool
from tests.local_servers import Servers
from topics.apply import apply_topics

ADMIN = "stack-admin"
PARTITIONS = 6
KEYS = [f"pay_{uuid.uuid5(uuid.NAMESPACE_OID, str(n)).hex}" for n in range(60)] + ["é", "mer_1:USD", "x" * 200]
CLIENTS = ("java", "librdkafka", "kafka-python", "aiokafka", "librdkafka by default")


async def test_every_client_places_a_key_alike(
    servers: Servers, admin: AdminClient, own_topic: NewTopic, tmp_path: Path
) -> None:
    topic = own_topic(partitions=PARTITIONS)
    apply_topics(admin, replication_factor=1, topics=(topic,))

    with_java(servers, topic.name, tmp_path)
    with_librdkafka(servers, topic.name, "librdkafka", "murmur2_random")
    with_librdkafka(servers, topic.name, "librdkafka by default", "consistent_random")
    with_kafka_python(servers, topic.name)
    await with_aiokafka(servers, topic.name)

    placed = read_back(servers, topic.name)
    java = placed["java"]
    assert set(java) == set(KEYS)
    assert set(java.values()) == set(range(PARTITIONS))
    assert placed["librdkafka"] == java
    assert placed["kafka-python"] == java
    assert placed["aiokafka"] == java
    assert placed["librdkafka by default"] != java, "librdkafka must be told: its own default is another hash"


def with_java(servers: Servers, topic: str, directory: Path) -> None:
    lines = "".join(f"{key}\tjava\n" for key in KEYS).encode()
    properties = ("--reader-property", "parse.key=true")
    run_tool(servers, ADMIN, PRODUCER, directory, "--topic", topic, *properties, stdin=lines)


def with_librdkafka(servers: Servers, topic: str, name: str, partitioner: str) -> None:
    producer = Producer({**servers.kafka_settings(ADMIN), "partitioner": partitioner})
    for key in KEYS:
        producer.produce(topic, name.encode(), key.encode())
    assert producer.flush(30) == 0


def with_kafka_python(servers: Servers, topic: str) -> None:
    producer = KafkaProducer(bootstrap_servers=servers.bootstrap, security_protocol="SSL", ssl_context=context(servers))
    for sent in [producer.send(topic, b"kafka-python", key.encode()) for key in KEYS]:
        sent.get(timeout=30)
    producer.close()


async def with_aiokafka(servers: Servers, topic: str) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=servers.bootstrap, security_protocol="SSL", ssl_context=context(servers)
    )
    await producer.start()
    try:
        for key in KEYS:
            await producer.send_and_wait(topic, b"aiokafka", key.encode())
    finally:
        await producer.stop()


def read_back(servers: Servers, topic: str) -> dict[str, dict[str, int]]:
    """Client to key to partition, of every record that the clients sent."""
    consumer = Consumer(
        {**servers.kafka_settings(ADMIN), "group.id": f"{topic}-reader", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    placed: dict[str, dict[str, int]] = {client: {} for client in CLIENTS}
    try:
        missing = len(CLIENTS) * len(KEYS)
        while missing:
            batch = consumer.consume(missing, timeout=15)
            assert batch, f"{missing} records did not arrive"
            for message in batch:
                assert message.error() is None
                placed[message.value().decode()][message.key().decode()] = message.partition()
            missing -= len(batch)
    finally:
        consumer.close()
    return placed


def context(servers: Servers) -> ssl.SSLContext:
    tls = servers.tls(ADMIN)
    made = ssl.create_default_context(cafile=str(tls.ca))
    made.load_cert_chain(tls.cert, tls.key)
    return made
