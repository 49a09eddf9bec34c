"""Step 1, Accept: makes a command durable before anybody is told anything.

librdkafka sends on threads of its own and the event loop only hands over bytes. A delivery that succeeded does not wake
the loop, for the command's reply says as much and more; it is looked at when no reply has come. A command whose
delivery is not known in time is refused with 503: it may still be decided, but it is never answered 2xx.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from api.ports import ClientCommand, Delivery
from api.problems import Problem
from ops.runtime.logs import logger
from ops.runtime.settings import Settings
from ops.runtime.tls import kafka_security
from streams.exactly_once.failpoints import failpoint

TOPIC = "payments.commands"
DELIVERY_TIMEOUT_S = 1.8  # a client hears 503 within 2 s
REPORTS_PAUSE_S = 0.05  # reports are heard in batches: a thread that wakes for each takes the loop's time

Encode = Callable[[ClientCommand], bytes]
"""A command in the wire format of `payments.commands`."""


class CommandProducer:
    """An idempotent producer with acks=all. A component: start, send, stop."""

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

    def send(self, command: ClientCommand, undelivered: Callable[[], None]) -> Delivery:
        """Hands the command to librdkafka. Raises Problem overloaded."""
        assert self._producer is not None
        assert self._loop is not None
        loop = self._loop
        delivery = Delivery()

        def report(error: KafkaError | None, _message: Message) -> None:
            if error is None:
                failpoint("after_command")
                delivery.is_durable = True
            else:
                logger().warning("command not delivered", reason=error.name())
                loop.call_soon_threadsafe(undelivered)

        value = self._encode(command)
        failpoint("before_command")
        try:
            self._producer.produce(TOPIC, value, command.payment_id.encode(), on_delivery=report)
        except BufferError:
            raise Problem("overloaded", "too many commands wait to be sent") from None
        return delivery

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
        while not self._stopping.wait(REPORTS_PAUSE_S):
            self._producer.poll(0)  # serves what reports have come

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() and self._loop is not None:
            self._loop.call_soon_threadsafe(self._fail, KafkaException(error))
        else:
            logger().warning("kafka", reason=error.name())
