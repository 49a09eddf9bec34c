"""The real registry: our events read by others, versions that break compatibility refused, ids found and kept."""

from __future__ import annotations

import ssl
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from fastavro.utils import generate_many
from typer.testing import CliRunner

from ops.cli.schema import app
from ops.runtime.settings import Settings
from streams.exactly_once.errors import Poison
from tests.integration.topics.conftest import NewTopic
from tests.integration.topics.java import CONSUMER, run_tool
from tests.local_servers import Servers
from topics.apply import apply_topics
from topics.catalog import all_topics
from topics.codec import Codec
from topics.registry import Registry, RegistryError, check_schemas, find_ids, register_schemas
from topics.schema_ids import open_codec
from topics.schemas import Schema, Subject, load, parsed, subjects

EVENT = "PaymentCreated"
OCCURRED_AT = 1_795_372_800_123_456  # microseconds
PROBE: Schema = {
    "type": "record",
    "name": "Probe",
    "namespace": "payments",
    "fields": [{"name": "a", "type": "string"}],
}

RegistryAs = Callable[[str], Registry]


@pytest.fixture
def registry_as(servers: Servers) -> Iterator[RegistryAs]:
    opened: list[Registry] = []

    def connect(identity: str) -> Registry:
        tls = servers.tls(identity)
        context = ssl.create_default_context(cafile=str(tls.ca))
        context.load_cert_chain(tls.cert, tls.key)
        opened.append(Registry(servers.registry_url, context))
        return opened[-1]

    yield connect
    for registry in opened:
        registry.close()


@pytest.fixture
def settings(servers: Servers, tmp_path: Path) -> Settings:
    tls = servers.tls("payment-worker")
    return Settings(
        service="payment-worker",
        tls_ca=tls.ca,
        tls_cert=tls.cert,
        tls_key=tls.key,
        kafka_bootstrap=servers.bootstrap,
        cassandra_contact_points=["127.0.0.1"],
        cassandra_port=servers.cassandra_port,
        schema_registry_url=servers.registry_url,
        state_dir=tmp_path,
        secrets_dir=servers.secrets_dir,
        provider_url="https://127.0.0.1:1",
        batch_processor_url="https://127.0.0.1:1",
        admin_port=1,
    )


def event() -> dict[str, Any]:
    """Any payment's creation, at times that a calendar has."""
    (fields,) = generate_many(parsed(load("payments.events", EVENT)), 1)
    times = dict.fromkeys(("created_at", "updated_at", "expires_at"), OCCURRED_AT)
    payment = {**fields["payment"], **times, "transactions": []}
    return {**fields, "occurred_at": OCCURRED_AT, "payment": payment}


def subject(record: str, *extra: dict[str, Any], topic: str) -> Subject:
    return Subject(f"{topic}-{record}", topic, record, {**PROBE, "fields": [*PROBE["fields"], *extra]})


def test_others_read_our_events(
    servers: Servers, settings: Settings, admin: AdminClient, own_topic: NewTopic, tmp_path: Path
) -> None:
    """The Java console consumer sees key and bytes; Confluent's AvroDeserializer finds the schema and decodes."""
    topic = own_topic(partitions=1)
    apply_topics(admin, replication_factor=1, topics=(topic,))
    fields = event()
    data = open_codec(settings).encode("payments.events", EVENT, fields)
    producer = Producer(servers.kafka_settings("stack-admin"))
    producer.produce(topic.name, data, b"pay_1")
    assert producer.flush(15) == 0

    group = f"auditor-{topic.name}"
    options = ("--topic", topic.name, "--from-beginning", "--max-messages", "1", "--group", f"{group}-java")
    printed = run_tool(servers, "auditor", CONSUMER, tmp_path, *options, "--formatter-property", "print.key=true")
    assert printed == b"pay_1\t" + data + b"\n"

    decoded = deserialize(servers, receive(servers, "auditor", topic.name, group))
    assert decoded["occurred_at"] == datetime.fromtimestamp(OCCURRED_AT // 1_000_000, UTC).replace(microsecond=123_456)
    assert decoded["payment"]["payment_id"] == fields["payment"]["payment_id"]
    assert set(decoded) == set(fields)


def receive(servers: Servers, identity: str, topic: str, group: str) -> bytes:
    consumer = Consumer({**servers.kafka_settings(identity), "group.id": group, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    try:
        message = consumer.poll(15)
        assert message is not None
        assert message.error() is None
        return bytes(message.value())
    finally:
        consumer.close()


def deserialize(servers: Servers, data: bytes) -> dict[str, Any]:
    tls = servers.tls("auditor")
    configuration = {
        "url": servers.registry_url,
        "ssl.ca.location": str(tls.ca),
        "ssl.certificate.location": str(tls.cert),
        "ssl.key.location": str(tls.key),
    }
    with SchemaRegistryClient(configuration) as client:
        decoded = AvroDeserializer(client)(data, SerializationContext("payments.events", MessageField.VALUE))
    assert isinstance(decoded, dict)
    return decoded


def test_every_schema_of_the_repository_is_registered_and_compatible(servers: Servers, registry_as: RegistryAs) -> None:
    wanted = subjects(all_topics())
    registry = registry_as("payment-api")
    assert set(find_ids(registry, wanted)) == {one.name for one in wanted}
    assert registry.compatibility() == "FULL_TRANSITIVE"
    result = CliRunner().invoke(app, ["check", "--home", str(servers.home.root)])
    assert (result.exit_code, result.output.strip()) == (0, f"{len(wanted)} of {len(wanted)} schemas are compatible.")


def test_only_full_transitive_versions_are_accepted(registry_as: RegistryAs) -> None:
    registry, topic = registry_as("operator"), f"t-topics-{uuid.uuid4().hex[:8]}"
    first = subject("Probe", topic=topic)
    ids = register_schemas(registry, (first,))
    assert register_schemas(registry, (first,)) == ids

    required = subject("Probe", {"name": "b", "type": "string"}, topic=topic)
    nullable = subject("Probe", {"name": "b", "type": ["null", "string"], "default": None}, topic=topic)
    other_type = subject("Probe", {"name": "b", "type": ["null", "long"], "default": None}, topic=topic)
    assert not check_schemas(registry, (required,))[0].is_compatible
    with pytest.raises(RegistryError, match="409"):
        register_schemas(registry, (required,))
    assert register_schemas(registry, (nullable,)) != ids
    assert not check_schemas(registry, (other_type,))[0].is_compatible
    assert check_schemas(registry, (first,))[0].is_compatible


def test_nobody_but_the_operator_registers(registry_as: RegistryAs) -> None:
    with pytest.raises(RegistryError, match="403"):
        registry_as("payment-api").register(subject("Probe", topic=f"t-topics-{uuid.uuid4().hex[:8]}"))


def test_a_service_that_has_started_before_starts_without_the_registry(settings: Settings) -> None:
    fields = event()
    data = open_codec(settings).encode("payments.events", EVENT, fields)
    away = {name: getattr(settings, name) for name in settings.__struct_fields__}
    codec = open_codec(Settings(**{**away, "schema_registry_url": "https://127.0.0.1:1"}))
    assert codec.encode("payments.events", EVENT, fields) == data


def test_an_id_that_the_registry_does_not_know_is_poison(registry_as: RegistryAs) -> None:
    codec = Codec({}, registry_as("payment-worker").schema)
    with pytest.raises(Poison, match="schema id 2000000000 is unknown to the registry"):
        codec.decode("payments.commands", b"\x00" + (2_000_000_000).to_bytes(4, "big") + b"x")


def test_a_codec_that_knows_no_ids_learns_them_from_the_registry(settings: Settings, registry_as: RegistryAs) -> None:
    fields = event()
    data = open_codec(settings).encode("payments.events", EVENT, fields)
    message = Codec({}, registry_as("records-worker").schema).decode("payments.events", data)
    assert (message.name, message.fields) == (EVENT, fields)
