"""Steps 1 to 6 of the life of a payment over HTTP, through real Kafka, Cassandra and the simulated provider."""

from __future__ import annotations

import asyncio
import uuid

from confluent_kafka import Consumer, TopicPartition

from tests.integration.api.http_client import PAYMENT, Client
from tests.local_servers import Servers

TOKEN = {"payment_method_token": "pm_card_visa"}


def fresh() -> str:
    return str(uuid.uuid4())


async def test_a_payment_is_created_shown_confirmed_and_authorised(merchant: Client) -> None:
    created = await merchant.call("POST", "/payments", PAYMENT, Idempotency_Key=fresh())
    assert created.status == 201
    path = created.headers["Location"]
    assert (await merchant.call("GET", path)).content == created.content  # read your write
    outcome = await merchant.call("POST", f"{path}/confirm", TOKEN, Idempotency_Key="c", Prefer="wait=30")
    assert (outcome.status, outcome.json["status"]) == (200, "AUTHORIZED")
    (authorization,) = outcome.json["transactions"]
    assert (authorization["type"], authorization["status"], authorization["attempts"]) == (
        "AUTHORIZATION",
        "SUCCEEDED",
        1,
    )
    events = (await merchant.call("GET", f"{path}/events")).json["data"]
    assert [event["type"] for event in events] == ["payment.created", "payment.processing", "payment.authorized"]
    assert (await merchant.call("GET", f"{path}?as_of=1")).json == created.json
    listed = (await merchant.call("GET", "/payments?limit=100")).json["data"]
    assert created.json["payment_id"] in [payment["payment_id"] for payment in listed]


async def test_a_declined_card_ends_the_payment_and_says_why(merchant: Client) -> None:
    path = (await merchant.call("POST", "/payments", PAYMENT)).headers["Location"]
    token = {"payment_method_token": "pm_card_insufficient_funds"}
    outcome = await merchant.call("POST", f"{path}/confirm", token, Idempotency_Key="c", Prefer="wait=30")
    assert (outcome.status, outcome.json["status"]) == (200, "DECLINED")
    assert outcome.json["failure"]["decline_code"] == "insufficient_funds"


async def test_fifty_concurrent_duplicates_are_one_payment_and_fifty_identical_answers(merchant: Client) -> None:
    key = fresh()
    answers = await asyncio.gather(
        *(merchant.call("POST", "/payments", PAYMENT, Idempotency_Key=key) for _ in range(50))
    )
    undecided = [answer for answer in answers if answer.status != 201]
    assert {answer.status for answer in undecided} <= {202}  # a busy machine may need more than the 2 s
    decided = [answer.content for answer in answers if answer.status == 201]
    decided.append((await merchant.call("POST", "/payments", PAYMENT, Idempotency_Key=key)).content)
    assert len(set(decided)) == 1
    other = await merchant.call("POST", "/payments", {**PAYMENT, "amount": 1}, Idempotency_Key=key)
    assert (other.status, other.json["code"]) == (422, "idempotency_key_reused")


async def test_what_goes_to_kafka_holds_nothing_personal(merchant: Client, stack: Servers) -> None:
    canary = uuid.uuid4().hex  # long: five letters stand by chance in one of some million ids
    customer = {"id": canary, "email": f"{canary}@example.com", "name": canary}
    personal = {"customer": customer, "description": canary, "metadata": {canary: canary}}
    created = (await merchant.call("POST", "/payments", {**PAYMENT, **personal})).json
    assert created["customer"] == customer
    consumer = Consumer({**stack.kafka_settings("auditor"), "group.id": f"auditor-{fresh()}"})
    try:
        for topic, partitions in (("payments.commands", 6), ("payments.events", 6), ("payments.replies", 1)):
            kept = b""
            for partition in range(partitions):
                place = TopicPartition(topic, partition)
                place.offset, end = consumer.get_watermark_offsets(place, timeout=10)
                consumer.assign([place])
                while place.offset < end and (message := consumer.poll(5)) is not None:
                    place.offset = (message.offset() or 0) + 1
                    kept += message.value() or b""
            assert created["payment_id"].encode() in kept, topic
            assert canary.encode() not in kept, topic
            assert created["client_secret"].rpartition("_")[2].encode() not in kept
    finally:
        consumer.close()


async def test_a_browser_confirms_with_the_publishable_key_and_the_client_secret(
    merchant: Client, stack: Servers
) -> None:
    created = (await merchant.call("POST", "/payments", PAYMENT)).json
    key = stack.merchants[0]["publishable_key"]
    path = f"/payments/{created['payment_id']}"
    refused = await merchant.call("POST", f"{path}/confirm", TOKEN, key=key, Idempotency_Key="b")
    assert refused.status == 403
    proof = {**TOKEN, "client_secret": created["client_secret"]}
    confirmed = await merchant.call("POST", f"{path}/confirm", proof, key=key, Idempotency_Key="b", Prefer="wait=30")
    assert (confirmed.status, confirmed.json["status"]) == (200, "AUTHORIZED")
    assert "customer" not in confirmed.json


async def test_another_merchant_sees_nothing_of_it(merchant: Client, stack: Servers) -> None:
    path = (await merchant.call("POST", "/payments", PAYMENT)).headers["Location"]
    other = stack.merchants[1]["secret_key"]
    assert (await merchant.call("GET", path, key=other)).status == 404
    assert (await merchant.call("POST", f"{path}/confirm", TOKEN, key=other, Idempotency_Key="x")).status == 404
    assert (await merchant.call("GET", path)).json["status"] == "PENDING"
