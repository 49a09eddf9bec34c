"""What makes a worker's Kafka clients: librdkafka's, or in the simulation models of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

COMMIT_THREADS = 4  # commits wait for the broker, not for the interpreter; more lanes than this rarely commit at once


def commit_threads() -> Executor:
    """Where commits run: beside the pump, so that other lanes work meanwhile."""
    return ThreadPoolExecutor(COMMIT_THREADS, thread_name_prefix="lane-commit")


@dataclass(frozen=True, slots=True)
class Clients:
    """Factories; each takes a librdkafka configuration."""

    producer: Callable[[dict[str, Any]], Producer] = Producer
    consumer: Callable[[dict[str, Any]], Consumer] = Consumer
    admin: Callable[[dict[str, Any]], AdminClient] = AdminClient
    executor: Callable[[], Executor] = commit_threads
