"""Contender: the least that does the work with librdkafka. One loop, one producer, balances in a dict.

No groups, restore, store or error handling: what an engine's comforts cost is measured against it.
"""

from __future__ import annotations

import signal
import time
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from ops.bench.engine.workers.codecs import decode_movement, encode_balance
from ops.bench.engine.workers.job import Job, read_job
from ops.bench.engine.workload import PARTITIONS, balance_after, encode_state, partition_of


class Loop:
    """The loop and what it carries from one transaction to the next."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.stopping = False
        self.commits_s: list[float] = []
        settings = {"enable.auto.commit": False, "isolation.level": "read_committed", "fetch.queue.backoff.ms": 5}
        self.consumer = Consumer({**job.client(), **settings, "group.id": job.app, "auto.offset.reset": "earliest"})
        self.producer = Producer(
            {
                **job.client(),
                "transactional.id": job.app,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 1,
                "partitioner": "murmur2_random",
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        self.balances: dict[bytes, int] = {}

    def run(self) -> None:
        """Take, work, and commit every `commit_ms`, until SIGTERM."""
        job, producer = self.job, self.producer
        producer.init_transactions()
        self.consumer.assign([TopicPartition(job.input, number, 0) for number in range(PARTITIONS)])
        while not self.stopping:
            producer.begin_transaction()
            dirty, offsets = self._fill()
            began = time.perf_counter()
            for key in dirty:
                producer.produce(job.changelog, encode_state(self.balances[key]), key, partition_of(key))
            if offsets:
                positions = [TopicPartition(job.input, number, offset) for number, offset in offsets.items()]
                producer.send_offsets_to_transaction(positions, self.consumer.consumer_group_metadata())
            producer.commit_transaction()
            self.commits_s.append(time.perf_counter() - began)
        self.consumer.close()

    def _fill(self) -> tuple[set[bytes], dict[int, int]]:
        """Work for `commit_ms`; which accounts changed, and the offsets to go on from."""
        until = time.perf_counter() + self.job.commit_ms / 1000
        dirty: set[bytes] = set()
        offsets: dict[int, int] = {}
        while not self.stopping and time.perf_counter() < until:
            messages = self.consumer.consume(1_000, 0.02)
            self._handle(messages, dirty, offsets)
            self.producer.poll(0)
        return dirty, offsets

    def _handle(self, messages: list[Any], dirty: set[bytes], offsets: dict[int, int]) -> None:
        balances, produce, output = self.balances, self.producer.produce, self.job.output
        for message in messages:
            movement = decode_movement(message.value())
            key = message.key()
            balances[key] = balance = balances.get(key, 0) + movement["amount"]
            dirty.add(key)
            produce(output, encode_balance(balance_after(movement, balance)), key)
            offsets[message.partition()] = message.offset() + 1


def main() -> None:
    """Entry point."""
    loop = Loop(read_job())

    def stop(*_: object) -> None:
        loop.stopping = True

    signal.signal(signal.SIGTERM, stop)
    loop.run()
    loop.job.finish(loop.commits_s)


if __name__ == "__main__":
    main()
