"""Step 1, Accept: makes a command durable before anybody is told anything.

librdkafka sends on threads of its own; the event loop only hands over bytes and awaits the delivery report. A command
whose delivery is not known in time is refused with 503: it may still be decided, but it is never answered 2xx.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from api.problems import Problem, unavailable
from ops.runtime.logs import logger
from ops.runtime.settings import Settings
from ops.runtime.tls import kafka_security
from streams.exactly_once.failpoints import failpoint

TOPIC = "payments.commands"
DELIVERY_TIMEOUT_S = 1.8  # a client hears 503 within 2 s
POLL_S = 0.5

Encode = Callable[[str, Mapping[str, Any]], bytes]
"""(record name, fields) -> the record in the wire format of `payments.commands`."""


class CommandProducer:
    """An idempotent producer with acks=all. A component: start, publish, stop."""

    def __init__(self, settings: Settings, encode: Encode, fail: Callable[[BaseException], None]) -> None:
        self._settings = settings
        self._encode = encode
        self._fail = fail
        self._producer: Producer | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Connects in the background: an API whose Kafka is away starts, and says so in /readyz and with 503."""
        self._loop = asyncio.get_running_loop()
        self._producer = Producer(
            {
                "bootstrap.servers": self._settings.kafka_bootstrap,
                **kafka_security(self._settings),
                "client.id": f"payment-api-{self._settings.instance}",
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",  # places keys as the Java client does
                "linger.ms": 1,
                "message.timeout.ms": int(DELIVERY_TIMEOUT_S * 1_000),
                "request.timeout.ms": 1_000,
                "socket.connection.setup.timeout.ms": 2_000,
                "reconnect.backoff.ms": 50,
                "reconnect.backoff.max.ms": 500,
                "retry.backoff.ms": 50,
                "queue.buffering.max.messages": 10_000,
                "compression.type": "none",  # commands are small and partly ciphertext
            },
            error_cb=self._on_error,
            logger=logging.getLogger("librdkafka.commands"),
        )
        self._thread = threading.Thread(target=self._poll, name="commands", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Waits for what is in flight; what cannot be delivered has already been answered 503."""
        self._stopping.set()
        if self._thread is not None and self._producer is not None:
            await asyncio.to_thread(self._thread.join)
            await asyncio.to_thread(self._producer.flush, DELIVERY_TIMEOUT_S + 0.5)

    async def publish(self, record: str, key: str, fields: Mapping[str, Any], timeout_s: float) -> None:
        """Returns once every in-sync replica has the command. Raises Problem: unavailable, overloaded."""
        assert self._producer is not None
        assert self._loop is not None
        loop = self._loop
        delivered: asyncio.Future[KafkaError | None] = loop.create_future()

        def report(error: KafkaError | None, _message: Message) -> None:
            loop.call_soon_threadsafe(_settle, delivered, error)

        value = self._encode(record, fields)
        failpoint("before_command")
        try:
            self._producer.produce(TOPIC, value, key.encode(), on_delivery=report)
        except BufferError:
            raise Problem("overloaded", "too many commands wait to be sent") from None
        try:
            async with asyncio.timeout(min(timeout_s, DELIVERY_TIMEOUT_S + 0.1)):
                error = await delivered
        except TimeoutError:
            raise unavailable("the command could not be made durable in time") from None
        if error is not None:
            logger().warning("command not delivered", reason=error.name())
            raise unavailable("the command could not be made durable")
        failpoint("after_command")

    async def check(self) -> None:
        """Raises KafkaException when no broker leads the topic's partitions."""
        producer = self._producer
        assert producer is not None
        metadata = await asyncio.to_thread(producer.list_topics, TOPIC, 1.5)
        topic = metadata.topics[TOPIC]
        if topic.error is not None:
            raise KafkaException(topic.error)

    def _poll(self) -> None:
        assert self._producer is not None
        while not self._stopping.is_set():
            self._producer.poll(POLL_S)  # serves delivery reports as they come

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() and self._loop is not None:
            self._loop.call_soon_threadsafe(self._fail, KafkaException(error))
        else:
            logger().warning("kafka", reason=error.name())


def _settle(delivered: asyncio.Future[KafkaError | None], error: KafkaError | None) -> None:
    if not delivered.done():  # the request may have given up
        delivered.set_result(error)
