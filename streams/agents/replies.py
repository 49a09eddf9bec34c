"""Step 4, Reply: tells the API instance that waits for a command what became of it.

Replies are no part of a Kafka transaction: they go out at once, after the write that they rest on, so that a client
need not wait for a commit. They are repeatable: a client that hears nothing repeats and gets the same answer. So a
reply that cannot be delivered is logged and counted, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import KafkaException, Producer
from prometheus_client import CollectorRegistry, Counter

from ops.runtime.logs import logger
from topics.codec import Message

TOPIC = "payments.replies"
DELIVERY_TIMEOUT_MS = 30_000  # nobody waits longer
FLUSH_S = 5.0


class ReplyProducer:
    """A component: `start`, then call it with a partition and a CommandReply, then `stop`."""

    def __init__(
        self,
        kafka: Mapping[str, Any],
        encode: Callable[[Message], bytes],
        *,
        registry: CollectorRegistry | None = None,
    ) -> None:
        """`kafka`: bootstrap.servers and security; `encode` is the codec's for payments.replies."""
        self._settings = {
            **kafka,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 1,
            "delivery.timeout.ms": DELIVERY_TIMEOUT_MS,
        }
        self._encode = encode
        self._producer: Producer | None = None
        self._outcomes = Counter(
            "payments_replies_total",
            "Replies to waiting API instances, by what became of them",
            ["outcome"],
            registry=registry,
        )

    async def start(self) -> None:
        """Make the producer; it connects with its first reply."""
        self._producer = Producer(self._settings)

    async def stop(self) -> None:
        """Wait for what is on its way, FLUSH_S at most."""
        if self._producer is not None:
            left = await asyncio.to_thread(self._producer.flush, FLUSH_S)
            if left:
                self._outcomes.labels("failed").inc(left)
                logger().warning("replies not delivered", replies=left)

    def __call__(self, partition: int, reply: Message) -> None:
        """Send one reply without waiting for it. Raises only what the codec raises for a malformed reply."""
        assert self._producer is not None, "start() comes first"
        value = self._encode(reply)
        key = reply.fields["payment_id"].encode()
        try:
            self._producer.produce(TOPIC, value, key, partition=partition, on_delivery=self._delivered)
        except (BufferError, KafkaException) as error:  # the queue is full, or there is no such partition
            self._outcomes.labels("failed").inc()
            logger().warning("reply not sent", partition=partition, reason=str(error))
        self._producer.poll(0)

    def _delivered(self, error: Any, message: Any) -> None:
        self._outcomes.labels("sent" if error is None else "failed").inc()
        if error is not None:
            logger().warning("reply not delivered", partition=message.partition(), reason=error.name())
