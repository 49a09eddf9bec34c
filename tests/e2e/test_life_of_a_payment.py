"""One payment through its whole life, each hop seen from outside."""

from __future__ import annotations

import uuid
from typing import Any

from tests.e2e.http_calls import ORDER, Shop
from tests.e2e.receiver import Receiver

LIFE = ["payment.created", "payment.processing", "payment.authorized", "payment.settled"]


def test_a_payment_is_created_confirmed_authorised_settled_and_told_by_webhook(shop: Shop, receiver: Receiver) -> None:
    endpoint = register(shop, receiver)

    created = shop.created(body={**ORDER, "description": "order 17", "metadata": {"order": "17"}})
    payment = created.body
    assert created.headers["Location"] == f"/payments/{payment['payment_id']}"
    assert (payment["status"], payment["version"], payment["transactions"]) == ("PENDING", 1, [])
    assert shop.get(f"/payments/{payment['payment_id']}").body == payment, "a GET right after the answer finds it"

    confirmed = shop.confirm(payment, shop.tokenise(), Prefer="wait=20")
    assert (confirmed.status, confirmed.body["status"]) == (200, "AUTHORIZED"), confirmed
    assert confirmed.headers["Preference-Applied"] is not None
    assert not {"customer", "metadata", "client_secret"} & set(confirmed.body), "a browser sees nothing personal"
    [authorisation] = shop.ledger(payment["payment_id"])
    [transaction] = confirmed.body["transactions"]
    assert (authorisation["type"], authorisation["amount"]) == ("authorization", 2500)
    assert authorisation["idempotency_key"] == transaction["transaction_id"]
    assert authorisation["operation_id"] == transaction["provider_reference"]

    run = shop.close_day(confirmed.body["settlement_date"])
    assert run["totals"]["USD"]["SETTLED"]["count"] >= 1
    receiver.wait_for("settlement_batch.completed")
    receiver.wait_for("payment.settled")
    settled = shop.get(f"/payments/{payment['payment_id']}").body
    assert (settled["status"], settled["version"]) == ("SETTLED", 4)
    assert [t["type"] for t in settled["transactions"]] == ["AUTHORIZATION", "SETTLEMENT"]
    assert [m["type"] for m in shop.ledger(payment["payment_id"])] == ["authorization", "capture"]
    batch = shop.get(f"/settlement_batches/{settled['batch_id']}").body
    assert (batch["status"], batch["failed_count"]) == ("COMPLETED", 0)

    told = of_payment(receiver, payment["payment_id"])
    assert [event["type"] for event in told] == LIFE
    assert [event["sequence"] for event in told] == [1, 2, 3, 4]
    assert told[0]["data"]["object"]["customer"] == ORDER["customer"], "a merchant sees its customer in the clear"
    listed = shop.get(f"/payments/{payment['payment_id']}/events").body["data"]
    assert [event["id"] for event in listed] == [event["id"] for event in told]
    assert receiver.refused == []
    removed = shop.call("DELETE", f"{shop.urls['api']}/webhook_endpoints/{endpoint}", key=shop.secret_key)
    assert removed.status == 204, "the next test's payments are nothing to a receiver that has gone"


def test_a_repeated_create_gets_the_same_answer_and_another_body_is_refused(shop: Shop) -> None:
    key = str(uuid.uuid4())
    first, second = shop.created(key), shop.create(key)
    other = shop.create(key, {**ORDER, "amount": 2501})

    assert (second.status, second.text) == (201, first.text)
    assert second.headers["Idempotency-Replayed"] == "true"
    assert (other.status, other.body["code"]) == (422, "idempotency_key_reused")


def register(shop: Shop, receiver: Receiver) -> str:
    """The id of an endpoint that sends to the receiver."""
    wanted = {"url": receiver.url, "event_types": ["payment.*", "settlement_batch.completed"]}
    answer = shop.call("POST", f"{shop.urls['api']}/webhook_endpoints", wanted, key=shop.secret_key)
    assert answer.status == 201, answer
    receiver.secret = answer.body["secret"]
    endpoint_id: str = answer.body["endpoint_id"]
    return endpoint_id


def of_payment(receiver: Receiver, payment_id: str) -> list[dict[str, Any]]:
    return [event for event in receiver.events if event["data"]["object"].get("payment_id") == payment_id]
