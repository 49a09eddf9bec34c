"""What the platform does when it is fed nonsense, when Kafka is not there, and when it is stopped and started."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Producer

from ops.local.access import Access
from tests.e2e.http_calls import ORDER, Shop
from tests.local_servers import Servers, payments
from topics.committed import CommittedReader
from topics.dead_letters import Letter, newest_letters

GARBAGE = b"\x00\x00\x00\x00\x07 no record begins like this"
PARTITIONS = 6
LETTERS, DLQ_S = 100, 30.0


def test_malformed_json_is_refused_as_a_problem(shop: Shop) -> None:
    for body in (b'{"amount": 25', b"", b"\xff\xfe", b"[1, 2", b'{"amount": 1, "amount": 2}'):
        answer = shop.call("POST", f"{shop.urls['api']}/payments", body, key=shop.secret_key)
        assert answer.status == 400, (body, answer)
        assert answer.headers["Content-Type"].startswith("application/problem+json")
        assert answer.body["code"] in ("invalid_json", "invalid_request")
        assert answer.body["request_id"] == answer.headers["Request-Id"]


def test_without_kafka_the_answer_is_503_within_two_seconds_and_no_payment_is_lost(stack: Servers, shop: Shop) -> None:
    key = str(uuid.uuid4())
    with stopped(stack, "kafka"):
        refused = shop.create(key)
    assert (refused.status, refused.body["code"]) == (503, "unavailable"), refused
    assert refused.took_s <= 2.1, refused.took_s
    assert refused.headers["Retry-After"] is not None

    assert shop.created(key).body["status"] == "PENDING"


def test_garbage_on_a_topic_becomes_a_dead_letter_and_its_partition_moves_on(stack: Servers, shop: Shop) -> None:
    key = f"pay_garbage_{uuid.uuid4()}"
    places = {topic: garbage(stack, topic, key) for topic in ("payments.commands", "payments.events")}

    for _ in range(2 * PARTITIONS):  # every partition moves on: one that did not would answer 202 for ever
        shop.created()
    for topic, offsets in places.items():
        letters = dead_letters(stack, f"{topic}.dlq", len(offsets), key)
        assert {(letter.source_partition, letter.source_offset) for letter in letters} == offsets
        assert all(letter.value == GARBAGE and letter.error_text for letter in letters), "each with its cause"


def test_down_and_up_keep_every_payment(stack: Servers, shop: Shop) -> None:
    made = [shop.created().body for _ in range(5)]
    confirmed = shop.confirm(made[0], shop.tokenise(), Prefer="wait=20").body
    assert confirmed["status"] == "AUTHORIZED"

    config = stack.home.read_config()
    assert config is not None
    owner = [] if config.owner_pid is None else ["--owner-pid", str(config.owner_pid)]
    for command in (["down"], ["up", "--detach", *owner]):
        finished = payments(*command, home=stack.home.root, timeout=240)
        assert finished.returncode == 0, finished.stderr

    for payment in made[1:]:
        assert shop.get(f"/payments/{payment['payment_id']}").body == payment
    before = shop.get(f"/payments/{made[0]['payment_id']}").body
    assert (before["status"], before["transactions"]) == ("AUTHORIZED", confirmed["transactions"])
    shop.close_day(before["settlement_date"])
    after = shop.get(f"/payments/{made[0]['payment_id']}").body
    assert after["status"] == "SETTLED", after


@contextmanager
def stopped(stack: Servers, name: str) -> Iterator[None]:
    """The process stands still, as a machine that has lost its network."""
    [pid] = [service["pid"] for service in stack.status()["services"] if service["name"] == name]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def garbage(stack: Servers, topic: str, key: str) -> set[tuple[int, int]]:
    """Write nonsense to every partition of a topic; the places where it is."""
    places: set[tuple[int, int]] = set()
    producer = Producer(stack.kafka_settings("stack-admin"))
    for partition in range(PARTITIONS):
        producer.produce(
            topic,
            GARBAGE,
            key,
            partition=partition,
            on_delivery=lambda error, message: places.add((message.partition(), message.offset())),
        )
    assert producer.flush(10) == 0
    return places


def dead_letters(stack: Servers, queue: str, count: int, key: str) -> list[Letter]:
    """The dead letters with this key, read as the auditor."""
    access = Access(stack.home)
    reader, codec = CommittedReader(access.kafka("auditor"), "auditor"), access.open_codec("auditor", queue)
    deadline = time.monotonic() + DLQ_S
    while True:
        found = [each for each in newest_letters(reader, codec, queue, LETTERS) if each.key == key.encode()]
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, f"{queue}: {len(found)} of {count}"
        time.sleep(0.2)


def test_no_log_holds_personal_data_keys_or_secrets(stack: Servers, shop: Shop) -> None:
    canary = str(uuid.uuid4())
    personal = {
        **ORDER,
        "customer": {"email": f"{canary}@example.com", "name": f"Name {canary}"},
        "description": f"text {canary}",
        "metadata": {"note": canary},
    }
    payment = shop.created(body=personal).body
    assert shop.confirm(payment, shop.tokenise(), Prefer="wait=20").body["status"] == "AUTHORIZED"
    broken = json.dumps(personal).encode()[:-1]
    assert shop.call("POST", f"{shop.urls['api']}/payments", broken, key=shop.secret_key).status == 400
    assert shop.get(f"/payments/{canary}").status == 404
    assert shop.call("GET", f"{shop.urls['api']}/payments", key=f"sk_test_{canary}").status == 401

    secrets = {canary, payment["client_secret"]}
    secrets |= {merchant[kind] for merchant in stack.merchants for kind in ("secret_key", "publishable_key")}
    logs = sorted(stack.home.path("logs").glob("*"))
    assert len(logs) >= len(stack.status()["services"])
    for log in logs:
        text = log.read_text(errors="replace")
        assert not [secret[:12] for secret in secrets if secret in text], f"{log.name} tells a secret"
