"""What makes a worker's Kafka clients: librdkafka's consumer and our producer, or in the simulation models of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer

from streams.exactly_once.producer.transactional import TransactionalProducer
from streams.exactly_once.store import LaneStore


def commit_thread() -> Executor:
    """Where commits run: beside the pump, so that lanes work meanwhile."""
    return ThreadPoolExecutor(1, thread_name_prefix="commit")


@dataclass(frozen=True, slots=True)
class Clients:
    """Factories of Kafka clients, each from a librdkafka configuration, and what else a worker takes from outside."""

    producer: Callable[[dict[str, Any]], TransactionalProducer] = TransactionalProducer
    consumer: Callable[[dict[str, Any]], Consumer] = Consumer
    executor: Callable[[], Executor] = commit_thread
    store: Callable[[Path], LaneStore] = LaneStore
    sleep: Callable[[float], None] = time.sleep  # between questions to a broker that has no answer yet
