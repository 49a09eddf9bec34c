"""The servers of a stack: who may come in, who may do what, and what the status document says of them."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request

import pytest
from cassandra import Unauthorized
from cassandra.cluster import NoHostAvailable
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from ops.local.cassandra_access import connected
from tests.local_servers import Servers, payments


def registry(servers: Servers, identity: str | None, method: str, path: str, body: object = None) -> tuple[int, str]:
    """(status, body) of one call to the schema registry as `identity`."""
    context = ssl.create_default_context(cafile=str(servers.home.ca))
    if identity:
        context.load_cert_chain(servers.tls(identity).cert, servers.tls(identity).key)
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(servers.registry_url + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("identity", [None, "payment-api"])
def test_everybody_reads_schemas_and_only_the_operator_writes_them(servers: Servers, identity: str | None) -> None:
    """None: who shows no certificate."""
    subject = "/subjects/t.local-stack-Probe/versions"
    schema = {"schema": json.dumps({"type": "record", "name": "Probe", "fields": []})}

    assert registry(servers, identity, "GET", "/subjects")[0] == 200
    assert registry(servers, identity, "POST", subject, schema)[0] == 403
    assert registry(servers, identity, "DELETE", "/subjects/t.local-stack-Probe")[0] == 403
    assert registry(servers, identity, "POST", "/compatibility/../subjects/x/versions", schema)[0] == 400
    assert registry(servers, identity, "POST", "/compatibility/%2e%2e/subjects/x/versions", schema)[0] == 400
    assert registry(servers, "operator", "POST", subject, schema)[0] == 200


def test_kafka_refuses_plaintext_and_what_was_not_granted(servers: Servers) -> None:
    with pytest.raises(KafkaException):
        AdminClient({"bootstrap.servers": servers.bootstrap, "log_level": 0}).list_topics(timeout=3)
    errors: list[str] = []
    producer = Producer({**servers.kafka_settings("payment-api"), "log_level": 0, "message.timeout.ms": 5000})
    for topic in ("payments.commands", "payments.events"):
        producer.produce(topic, b"{}", b"probe", on_delivery=lambda error, _m: errors.append(error and error.name()))
    producer.flush(10)

    assert sorted(map(str, errors)) == ["None", "TOPIC_AUTHORIZATION_FAILED"]


def test_cassandra_knows_who_comes_by_the_certificate(servers: Servers) -> None:
    read = "SELECT payment_id FROM payments.payments LIMIT 1"
    write = "TRUNCATE payments.payments"
    with connected(servers.home, servers.config, servers.ports, "auditor") as session:
        session.execute(read)
        with pytest.raises(Unauthorized):
            session.execute(write)
    worker = connected(servers.home, servers.config, servers.ports, "payment-worker")
    with worker as session, pytest.raises(Unauthorized):
        session.execute(read)
    with pytest.raises(NoHostAvailable), connected(servers.home, servers.config, servers.ports, "kafka"):
        pass  # a certificate of ours, but no role of that name


def test_no_default_user_is_left(servers: Servers) -> None:
    with connected(servers.home, servers.config, servers.ports, "stack-admin") as session:
        assert "cassandra" not in {row.role for row in session.execute("LIST ROLES")}


def test_status_names_every_process_with_its_size(servers: Servers) -> None:
    document = json.loads(payments("status", "--json", home=servers.home.root).stdout)

    assert document["ready"] is True
    named = {(row["name"], row["instance"]) for row in document["services"]}
    assert {("kafka", 0), ("cassandra", 0), ("schema-registry", 0), ("schema-registry", 1)} <= named
    assert all(row["pid"] and row["state"] == "running" and row["rss_mb"] > 10 for row in document["services"])
    assert {"operator", "payment-api", "auditor", "settlement-operator", "internal-producer"} <= set(
        document["tls"]["clients"]
    )


def test_secrets_are_for_their_owner_only(servers: Servers) -> None:
    private = [*servers.home.secrets.iterdir(), *servers.home.path("tls").glob("*.key")]
    private += servers.home.path("tls").glob("*.bundle.pem")

    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}
    assert servers.home.secrets.stat().st_mode & 0o777 == 0o700
