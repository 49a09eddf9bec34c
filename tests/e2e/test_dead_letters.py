"""`payments dlq`: what cannot be read is given up with its cause; what can be is replayed, once in effect."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from kafka.partitioner.default import murmur2
from typer.testing import CliRunner, Result

from ops.cli.dlq import app
from streams.domain import ids
from tests.e2e.http_calls import Shop
from tests.e2e.topic_access import TopicAccess
from tests.local_servers import Servers
from topics import catalog, replays
from topics.dead_letters import Place

CAUSE = {"error_class": "ValueError", "error_text": "a bug that was fixed meanwhile"}


@pytest.fixture(scope="module")
def kafka(stack: Servers) -> TopicAccess:
    return TopicAccess(stack)


def dlq(stack: Servers, *arguments: str) -> Result:
    """`payments dlq` with these arguments."""
    return CliRunner().invoke(app, arguments, env={"PAYMENTS_HOME": str(stack.home.root)})


def create_payment(merchant_id: str, *, idempotent: bool) -> dict[str, Any]:
    """Fields of a CreatePayment of a payment that nobody has seen yet."""
    payment_id, now = ids.unkeyed(ids.PAYMENT), time.time_ns() // 1000
    return {
        "id": ids.unkeyed(ids.COMMAND),
        "type": "payment.create",
        "occurred_at": now,
        "actor": {"identity": "key_test", "role": "merchant"},
        "request_id": "req_" + "0" * 32,
        "traceparent": None,
        "reply_to": None,
        "payment_id": payment_id,
        "merchant_id": merchant_id,
        "amount": 1234,
        "currency": "EUR",
        "personal_data": None,
        "client_secret_key_id": "k1",
        "expires_at": now + 3_600_000_000,
        "idempotency": {"key_hash": payment_id.encode(), "fingerprints": [{"key_id": "k1", "mac": b"m"}]}
        if idempotent
        else None,
    }


def bury(kafka: TopicAccess, source: str, record: str, fields: Mapping[str, Any], **changes: Any) -> Place:
    """A dead letter of `source`, as its reader would have written it."""
    queue = catalog.dead_letter_topic(source, "payment-worker")
    key = fields["payment_id"].encode()
    letter = {
        "source_topic": source,
        "source_partition": partition_of(key),
        "source_offset": 7,
        "key": key,
        "value": kafka.codec.encode(source, record, fields),
        "headers": [{"key": "traceparent", "value": b"00-1-2-01"}],
        **CAUSE,
        **changes,
    }
    return Place(queue, *kafka.write("payment-worker", queue, key, kafka.codec.encode(queue, "DeadLetter", letter)))


def partition_of(key: bytes) -> int:
    """As every producer places it."""
    hashed: int = murmur2(key)
    return (hashed & 0x7FFFFFFF) % catalog.BY_PAYMENT


def test_garbage_is_listed_and_shown_with_its_cause_and_refused_for_replay(stack: Servers, kafka: TopicAccess) -> None:
    queue = "payments.commands.dlq"
    partition, offset = kafka.write("payment-api", "payments.commands", b"pay_garbage", b"\x07garbage\xff")
    source = ("payments.commands", partition, offset)
    begin = kafka.reader.beginnings([queue])
    kafka.until(queue, begin, lambda seen: any(source == _source(kafka, r) for r in seen))

    listed = [json.loads(line) for line in dlq(stack, "ls", queue, "--json", "--limit", "1000").stdout.splitlines()]
    (letter,) = [
        row for row in listed if (row["source_topic"], row["source_partition"], row["source_offset"]) == source
    ]
    assert (letter["key"], letter["error_class"]) == ("pay_garbage", "Poison")

    shown = json.loads(dlq(stack, "show", letter["letter"]).stdout)
    assert shown["record"] is None
    assert "not in the Confluent wire format" in shown["unreadable"]
    assert letter["letter"] in dlq(stack, "ls", queue).stdout

    ends = kafka.reader.ends(["payments.commands"])
    refused = dlq(stack, "replay", letter["letter"])
    assert refused.exit_code == 1
    assert "409 not_replayable" in refused.stderr
    assert kafka.reader.ends(["payments.commands"]) == ends


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        pytest.param("payments.commands", "operator", id="through payment-api"),
        pytest.param("payments.intake", "internal-producer", id="with the producer's certificate"),
    ],
)
def test_a_letter_replayed_twice_makes_one_payment(
    stack: Servers, kafka: TopicAccess, shop: Shop, source: str, asked: str
) -> None:
    fields = create_payment(shop.merchant_id, idempotent=source == "payments.commands")
    place = bury(kafka, source, "CreatePayment", fields)
    begin_events, begin_source = kafka.reader.ends(["payments.events"]), kafka.reader.ends([source])

    for _ in range(2):
        done = dlq(stack, "replay", str(place))
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["letter"] == str(place)

    events = kafka.events_of(fields["payment_id"], begin_events, 2)
    assert [event["record"] for event in events] == ["PaymentCreated", "CommandRepeated"]
    assert {event["command_id"] for event in events} == {fields["id"]}
    _until_readable(shop, fields["payment_id"])

    records = list(kafka.reader.read(begin_source, kafka.reader.ends([source])))
    again = [record for record in records if record.key == fields["payment_id"].encode()]
    assert [record.partition for record in again] == [partition_of(fields["payment_id"].encode())] * 2
    headers = dict(again[0].headers)
    assert headers["traceparent"] == b"00-1-2-01"
    assert headers[replays.REPLAYED_FROM] == str(place).encode()
    assert headers[replays.REPLAYED_BY] == asked.encode()
    assert (headers[replays.REPLAY_REQUEST] or b"").startswith(b"req_")


def test_a_worker_replays_what_it_alone_may_write(stack: Servers, kafka: TopicAccess) -> None:
    payment_id = ids.unkeyed(ids.PAYMENT)
    outcome = {
        **{
            name: create_payment("mer_x", idempotent=False)[name]
            for name in ("id", "occurred_at", "request_id", "actor")
        },
        **dict.fromkeys(("traceparent", "reply_to", "provider_reference", "error")),
        "type": "authorization.outcome",
        "payment_id": payment_id,
        "transaction_id": "txn_unknown",
        "succeeded": True,
        "attempts": 1,
    }
    place = bury(kafka, "provider.outcomes", "AuthorizationOutcome", outcome)
    begin = kafka.reader.ends(["payments.events"])

    assert dlq(stack, "replay", str(place)).exit_code == 0

    (event,) = kafka.events_of(payment_id, begin, 1)
    assert (event["record"], event["code"]) == ("CommandRejected", "not_found")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"source_offset": -1}, "timer"),
        ({"key": None}, "null key"),
        ({"value": None}, "null value"),
        ({"source_topic": "provider.outcomes"}, "names provider.outcomes as its source"),
    ],
)
def test_what_would_come_straight_back_is_not_replayed(
    stack: Servers, kafka: TopicAccess, changes: dict[str, Any], reason: str
) -> None:
    fields = create_payment("mer_x", idempotent=False)
    place = bury(kafka, "payments.commands", "CreatePayment", fields, **changes)

    status, problem = ask(stack, "operator", "payment-api", place)

    assert (status, problem["code"]) == (409, "not_replayable")
    assert reason in problem["detail"]


def test_only_an_operator_may_replay_and_only_the_topics_writer_does(stack: Servers, kafka: TopicAccess) -> None:
    place = bury(kafka, "payments.commands", "CreatePayment", create_payment("mer_x", idempotent=False))

    for identity in ("auditor", "settlement-operator", "payment-worker", "internal-producer"):
        assert ask(stack, identity, "payment-api", place)[0] == 403
    status, problem = ask(stack, "operator", "provider-gateway", place)
    assert (status, problem["code"]) == (409, "not_replayable")
    assert ask(stack, "operator", "payment-api", place._replace(offset=10**9))[0] == 404
    assert ask(stack, "operator", "payment-api", place._replace(queue="payments.events"))[0] == 404


def ask(stack: Servers, identity: str, service: str, place: Place) -> tuple[int, dict[str, Any]]:
    """POST /dead_letter_replays on a service's admin port."""
    body = json.dumps(place._asdict())
    shop = Shop(stack)
    url = f"https://127.0.0.1:{stack.ports.admin(service, 0)}{replays.PATH}"
    answer = shop.call("POST", url, body.encode(), certificate=identity)
    return answer.status, answer.body


def _source(kafka: TopicAccess, record: Any) -> tuple[str, int, int]:
    fields = kafka.codec.decode(record.topic, record.value).fields
    return fields["source_topic"], fields["source_partition"], fields["source_offset"]


def _until_readable(shop: Shop, payment_id: str) -> None:
    deadline = time.monotonic() + 20
    while (answer := shop.call("GET", f"{shop.urls['api']}/payments/{payment_id}", key=shop.secret_key)).status == 404:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (answer.status, answer.body["status"], answer.body["version"]) == (200, "PENDING", 1)
