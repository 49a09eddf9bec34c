"""Internal producers: the examples make payments that GET shows, and their certificate can do nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from typer.testing import CliRunner

from ops.cli.events import app as events
from ops.local.jars import class_path
from ops.local.java import java_command
from ops.local.layout import cache_directory
from tests.e2e.http_calls import Shop
from tests.e2e.test_dead_letters import create_payment
from tests.e2e.topic_access import TopicAccess
from tests.local_servers import ROOT, Servers
from topics import catalog

IDENTITY, TOPIC = "internal-producer", "payments.intake"
EXAMPLES = ROOT / "ops" / "examples"
RUN_S = 90


@pytest.fixture(scope="module")
def kafka(stack: Servers) -> TopicAccess:
    return TopicAccess(stack)


def with_python(stack: Servers, merchant: str, reference: str, *more: str) -> dict[str, Any]:
    """What the Python example prints."""
    tls = stack.tls(IDENTITY)
    options = {
        "bootstrap": stack.bootstrap,
        "registry": stack.registry_url,
        "ca": tls.ca,
        "cert": tls.cert,
        "key": tls.key,
        "merchant": merchant,
        "reference": reference,
        "amount": 2500,
        "currency": "USD",
    }
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, str(EXAMPLES / "intake_kafka_python.py"), *arguments, *more]
    return run(command)


def run(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def until_readable(shop: Shop, payment_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while (answer := shop.get(f"/payments/{payment_id}")).status == 404:
        assert time.monotonic() < deadline, f"{payment_id} was not recorded"
        time.sleep(0.1)
    assert answer.status == 200, answer
    payment: dict[str, Any] = answer.body
    return payment


def test_a_payment_of_the_python_example_is_pending_and_its_personal_data_is_read_by_the_merchant_only(
    stack: Servers, shop: Shop, kafka: TopicAccess
) -> None:
    reference, begin = uuid.uuid4().hex, kafka.reader.ends(["payments.events"])
    sealing = f"https://127.0.0.1:{stack.ports.admin('payment-api', 0)}"
    personal = ("--email", "ann@example.com", "--description", "Order 4711", "--sealing", sealing)

    made = with_python(stack, shop.merchant_id, reference, *personal)
    again = with_python(stack, shop.merchant_id, reference, *personal)

    assert again["payment_id"] == made["payment_id"]
    payment = until_readable(shop, made["payment_id"])
    assert (payment["status"], payment["amount"], payment["currency"]) == ("PENDING", 2500, "USD")
    assert (payment["customer"], payment["description"]) == ({"email": "ann@example.com"}, "Order 4711")
    told = kafka.events_of(made["payment_id"], begin, 2)
    assert [event["record"] for event in told] == ["PaymentCreated", "CommandRepeated"]
    assert {event["actor"]["identity"] for event in told} == {IDENTITY}
    assert b"ann@example.com" not in b"".join(r.value or b"" for r in kafka.reader.read(*everything(kafka, TOPIC)))


def test_a_payment_of_the_java_example_is_pending(stack: Servers, shop: Shop, tmp_path: Path) -> None:
    compiler = shutil.which("javac")
    if compiler is None:
        pytest.skip("no Java compiler on this machine")
    jars = class_path(cache_directory(), "kafka")
    compiled = subprocess.run(
        [
            compiler,
            "--release",
            "17",
            "-cp",
            ":".join(map(str, jars)),
            "-d",
            tmp_path,
            EXAMPLES / "IntakeProducer.java",
        ],
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert compiled.returncode == 0, compiled.stderr
    schema = shop.call(
        "GET", f"{stack.registry_url}/subjects/{TOPIC}-CreatePayment/versions/latest", certificate=IDENTITY
    )
    files = [str(stack.tls(IDENTITY).ca), str(stack.home.bundle(IDENTITY))]
    order = [shop.merchant_id, uuid.uuid4().hex, "1999", "EUR"]
    arguments = (stack.bootstrap, *files, str(schema.body["id"]), *order)

    made = run(java_command("IntakeProducer", [*jars, tmp_path], 64, arguments=arguments))

    payment = until_readable(shop, made["payment_id"])
    assert (payment["status"], payment["amount"], payment["currency"]) == ("PENDING", 1999, "EUR")
    assert payment["customer"] is None


def test_a_merchant_that_is_not_listed_is_rejected_and_the_tail_of_events_says_so(stack: Servers, shop: Shop) -> None:
    stranger = shop.call("POST", f"{shop.urls['internal']}/merchants", {"name": "Not listed"}, certificate="operator")

    made = with_python(stack, stranger.body["merchant_id"], "order-1")

    deadline = time.monotonic() + 30
    while not (lines := tail(stack, "--payment", made["payment_id"])):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    (rejected,) = lines
    assert rejected["record"] == "CommandRejected"
    assert rejected["fields"]["code"] == "forbidden"
    assert rejected["fields"]["command_id"] == f"cmd_{made['payment_id'].removeprefix('pay_')}"
    assert tail(stack, "--payment", made["payment_id"], "--type", "CommandRejected") == lines
    assert tail(stack, "--payment", made["payment_id"], "--type", "payment.created") == []


def test_a_producer_finds_its_own_dead_letters(stack: Servers, kafka: TopicAccess) -> None:
    queue, key = f"{TOPIC}.dlq", uuid.uuid4().hex.encode()
    begin = kafka.reader.ends([queue])
    kafka.write(IDENTITY, TOPIC, key, b"no Avro")

    reader = type(kafka.reader)(stack.kafka_settings(IDENTITY), IDENTITY)

    deadline = time.monotonic() + 30
    for record in reader.follow(begin):
        assert time.monotonic() < deadline
        if record is not None and record.key == key:
            break
    assert record is not None
    assert kafka.codec.decode(queue, record.value).fields["error_class"] == "Poison"


def test_personal_data_that_was_never_encrypted_spoils_no_answer(shop: Shop, kafka: TopicAccess) -> None:
    fields = create_payment(shop.merchant_id, idempotent=False)
    forged = {"key_id": "dk_of_nobody", "nonce": b"n" * 12, "ciphertext": b"c" * 32}
    value = kafka.codec.encode(TOPIC, "CreatePayment", {**fields, "personal_data": forged})
    kafka.write(IDENTITY, TOPIC, fields["payment_id"].encode(), value)

    payment = until_readable(shop, fields["payment_id"])

    assert (payment["status"], payment["customer"], payment["metadata"]) == ("PENDING", None, {})
    assert shop.get("/payments?limit=10").status == 200


@pytest.mark.parametrize("topic", [t.name for t in catalog.TOPICS if t.name != TOPIC] + [f"{TOPIC}.dlq"])
def test_a_producer_may_write_no_other_topic(kafka: TopicAccess, topic: str) -> None:
    with pytest.raises(KafkaException) as refused:
        kafka.write(IDENTITY, topic, b"pay_x", b"x")
    assert refused.value.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"payment_id": "pay_" + "a" * 26, "customer": {}}, 400, "invalid_request"),
        ({"payment_id": "pay_1", "customer": {"id": "c"}}, 400, "invalid_request"),
        ({"payment_id": "pay_" + "a" * 26, "customer": {"id": "4242424242424242"}}, 400, "card_data_forbidden"),
    ],
)
def test_what_may_not_be_personal_data_is_not_encrypted(
    stack: Servers, shop: Shop, body: dict[str, Any], status: int, code: str
) -> None:
    url = f"https://127.0.0.1:{stack.ports.admin('payment-api', 0)}/personal_data"
    answer = shop.call("POST", url, body, certificate=IDENTITY)
    assert (answer.status, answer.body["code"]) == (status, code)
    assert shop.call("POST", url, body, certificate="operator").status == 403


def tail(stack: Servers, *options: str) -> list[dict[str, Any]]:
    """What `payments events tail` prints of all that there is."""
    arguments = ["tail", "--from-beginning", "--no-follow", *options]
    done = CliRunner().invoke(events, arguments, env={"PAYMENTS_HOME": str(stack.home.root)})
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def everything(kafka: TopicAccess, topic: str) -> tuple[Any, Any]:
    return kafka.reader.beginnings([topic]), kafka.reader.ends([topic])
