"""The least that takes a payment: authenticate, encode, produce with acks=all, answer. `payments bench api` starts it.

No validation, no encryption, no idempotency, no reply from the decision: what all of that costs is measured against it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ssl
import sys
import threading
import time
from functools import partial

import msgspec
import uvloop
from aiohttp import web
from confluent_kafka import KafkaError, Message, Producer

from topics.avro_bodies import body_writer
from topics.schemas import load, parsed


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What the process needs; as JSON on its standard input."""

    port: int
    tls: dict[str, str]  # PEM files: ca, cert, key
    kafka: dict[str, str]  # librdkafka's settings
    topic: str
    secret_key: str


class BareApi:
    """One handler and its producer."""

    def __init__(self, job: Job) -> None:
        self._topic = job.topic
        self._digest = _digest(job.secret_key)
        self._encode = partial(body_writer(parsed(load("payments.commands", "CreatePayment"))), bytes(5))
        self._producer = Producer(
            {**job.kafka, "acks": "all", "enable.idempotence": True, "linger.ms": 1, "partitioner": "murmur2_random"}
        )
        threading.Thread(target=self._poll, daemon=True).start()

    async def create(self, request: web.Request) -> web.Response:
        """POST /payments."""
        secret_key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(_digest(secret_key), self._digest):
            return web.Response(status=401)
        order = msgspec.json.decode(await request.read())
        key = request.headers["Idempotency-Key"]
        command = self._encode(_command(key, order))
        loop = asyncio.get_running_loop()
        delivered: asyncio.Future[KafkaError | None] = loop.create_future()

        def report(error: KafkaError | None, _message: Message) -> None:
            loop.call_soon_threadsafe(delivered.set_result, error)

        self._producer.produce(self._topic, command, key.encode(), on_delivery=report)
        if await delivered is not None:
            return web.Response(status=503)
        answer = {"payment_id": key, "amount": order["amount"], "currency": order["currency"], "status": "PENDING"}
        return web.Response(status=201, body=msgspec.json.encode(answer), content_type="application/json")

    def _poll(self) -> None:
        while True:
            self._producer.poll(0.1)


def _digest(secret_key: str) -> bytes:
    return hashlib.sha256(secret_key.encode()).digest()


def _command(key: str, order: dict[str, object]) -> dict[str, object]:
    now_us = time.time_ns() // 1000
    return {
        "id": key,
        "type": "payment.create",
        "occurred_at": now_us,
        "actor": {"identity": "bench", "role": "merchant"},
        "request_id": key,
        "reply_to": {"partition": 0, "correlation_id": key},
        "payment_id": key,
        "merchant_id": "mer_bench",
        "amount": order["amount"],
        "currency": order["currency"],
        "client_secret_key_id": "bench",
        "expires_at": now_us,
        "idempotency": {"key_hash": key.encode(), "fingerprints": []},
    }


async def _serve(job: Job) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(job.tls["cert"], job.tls["key"])
    app = web.Application()
    app.router.add_post("/payments", BareApi(job).create)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", job.port, ssl_context=tls).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(msgspec.json.decode(sys.stdin.buffer.read(), type=Job)))
