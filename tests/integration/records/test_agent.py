"""The `records` agent on real Cassandra and real Kafka, as its service: who hears the reply finds what it speaks of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from confluent_kafka import Consumer, TopicPartition
from prometheus_client import CollectorRegistry

from streams.agents.records import Records
from streams.agents.replies import TOPIC, ReplyProducer
from streams.exactly_once.records import Output
from streams.exactly_once.testing import Bench
from tables.records.grants import apply_grants
from tables.records.session import CassandraAddress, RecordsSession
from tables.records.store import RecordStore
from tests.local_servers import Servers
from topics import catalog
from topics.codec import Codec, Message
from topics.schemas import subjects

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

EventOf = Callable[..., tuple[str, dict[str, Any]]]
PARTITION = 2
REGISTRY_IDS = {subject.name: number for number, subject in enumerate(subjects(catalog.all_topics()), 1)}


@pytest.fixture
def codec() -> Codec:
    return Codec(REGISTRY_IDS, lambda _: None)


@pytest_asyncio.fixture(loop_scope="session")
async def replies(servers: Servers, codec: Codec) -> AsyncIterator[ReplyProducer]:
    """The reply producer as records-worker."""
    registry = CollectorRegistry()
    producer = ReplyProducer(servers.kafka_settings("records-worker"), codec.encoder(TOPIC), registry=registry)
    await producer.start()
    yield producer
    await producer.stop()
    assert registry.get_sample_value("payments_replies_total", {"outcome": "failed"}) is None


@pytest_asyncio.fixture(loop_scope="session")
async def recorded(
    store: RecordStore, keyspace: str, address_of: Callable[[str], CassandraAddress]
) -> AsyncIterator[RecordStore]:
    """A store as records-worker, with its grants."""
    await apply_grants(store.session, keyspace)
    session = await RecordsSession.connect(address_of("records-worker"), keyspace, timeout_s=20)
    yield RecordStore(session)
    await session.close()


@pytest.fixture
def hear(servers: Servers, codec: Codec) -> Callable[[str], dict[str, Any]]:
    """Waits for the reply with a correlation id, as the API instance of PARTITION does."""
    settings = {**servers.kafka_settings("payment-api"), "group.id": "payment-api", "enable.auto.commit": False}
    consumer = Consumer(settings)
    place = TopicPartition(TOPIC, PARTITION)
    _, place.offset = consumer.get_watermark_offsets(place, timeout=20)
    consumer.assign([place])

    def wait(correlation_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            message = consumer.poll(0.1)
            if message is None:
                continue
            assert message.error() is None, message.error()
            reply = codec.decode(TOPIC, message.value())
            if reply.fields["correlation_id"] == correlation_id:
                consumer.close()
                return dict(reply.fields)
        raise AssertionError("no reply in 30 s")

    return wait


async def test_who_hears_the_reply_finds_the_payment(
    recorded: RecordStore,
    replies: ReplyProducer,
    hear: Callable[[str], dict[str, Any]],
    codec: Codec,
    payment_event: EventOf,
) -> None:
    inbox = Output("merchants.inbox", codec.encoder("merchants.inbox"))
    handler = Records(recorded, replies, inbox, registry=CollectorRegistry())
    name, fields = payment_event("PaymentCreated", 1)
    payment_id = fields["payment"]["payment_id"]
    fields["reply_to"] = {"partition": PARTITION, "correlation_id": payment_id}
    bench = Bench()
    waiting = asyncio.create_task(asyncio.to_thread(hear, payment_id))
    record = bench.record("payments.events", payment_id.encode(), Message(name, fields))
    (send,) = await bench.effect_async(handler, record)
    reply = await waiting
    found = await recorded.payments.get(payment_id)
    assert found is not None
    assert (reply["outcome"], reply["payment"]["revision"]) == ("accepted", found.revision)
    assert codec.decode("merchants.inbox", send.value).fields["payment"]["payment_id"] == payment_id
    (again,) = await bench.effect_async(handler, record)  # after a crash: the same row, the same event
    assert (again.topic, again.key, again.value) == (send.topic, send.key, send.value)
    assert len(await recorded.payments.history(payment_id)) == 1
