"""One app under test on a cluster: its topics and workers, and how long it takes until every partition answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from ops.chaos.engine.checker import Checker, Verdict
from ops.chaos.engine.cluster import Cluster
from ops.chaos.engine.load import plain_producer
from ops.chaos.engine.topology import Topics
from ops.chaos.engine.workers import ENGINE, Workers

ADMIN_S = 60.0


class NoAnswer(Exception):  # noqa: N818
    """Partitions did not answer in time: the app does not recover."""


@dataclass
class Harness:
    """The app `topics.id`; its workers' state lies under `root`."""

    cluster: Cluster
    topics: Topics
    root: Path
    module: str = ENGINE
    mutant: str = ""
    workers: Workers = field(init=False)
    checker: Checker = field(init=False)

    def __post_init__(self) -> None:
        self.workers = Workers(self.cluster, self.topics, self.root, self.module, self.mutant)
        self.checker = Checker(self.cluster, self.topics)

    @contextmanager
    def prepared(self) -> Iterator[Harness]:
        """Topics of its own, which go with the `with` block, and so do the workers."""
        admin = AdminClient(self.cluster.config())
        changelogs = {name: ("compact", count) for name, count in self.topics.changelogs.items()}
        plain = {name: ("delete", count) for name, count in self.topics.topics.items()}
        topics = {**plain, **changelogs}
        made = [
            NewTopic(n, count, self.cluster.nodes, config={"cleanup.policy": policy})
            for n, (policy, count) in topics.items()
        ]
        for future in admin.create_topics(made, operation_timeout=ADMIN_S).values():
            future.result()
        try:
            yield self
        finally:
            self.workers.stop()
            for future in admin.delete_topics(list(topics), operation_timeout=ADMIN_S).values():
                future.result()

    def recovery_s(self, timeout_s: float, last_hop: str = "") -> float:
        """Seconds until a record appended now to each input partition is answered; ended workers are started again.

        Raises NoAnswer after `timeout_s`.
        """
        began = time.monotonic()
        missing: set[bytes] = set()
        unsent = self.topics.partitions
        hop = last_hop or self.topics.echo

        def sent(error: object, message: Message) -> None:
            nonlocal unsent
            assert error is None, error
            unsent -= 1
            missing.add(f"{message.partition()}/{message.offset()}".encode())

        answered: set[bytes] = set()
        with self._tail(hop) as consumer:
            producer = plain_producer(self.cluster)
            for partition in range(self.topics.partitions):
                producer.produce(self.topics.inputs, b"0", f"probe-{partition}.", partition, on_delivery=sent)
            while unsent or not missing <= answered:
                producer.poll(0)
                for message in consumer.consume(5_000, 0.05):
                    if message.error() is None and message.key().startswith(b"probe-"):
                        answered.add(message.value().partition(b":")[0])
                if time.monotonic() - began > timeout_s:
                    self.workers.tell_where_they_stand()
                    raise NoAnswer(f"{len(missing - answered) + unsent} partitions did not answer in {timeout_s} s")
                self.workers.revive()
        return time.monotonic() - began

    def settle(self, timeout_s: float, last_hop: str = "") -> None:
        """Until everything that was appended is answered on the last hop. Raises NoAnswer after so long a silence."""
        meant = self.checker.expected()
        count = len(meant.outputs) + len(meant.timers)
        seen: set[tuple[bytes, bytes]] = set()
        heard_at = time.monotonic()
        with self._consumer() as consumer:
            topic = last_hop or self.topics.echo
            partitions = range(self.topics.topics[topic])
            consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
            while len(seen) < count:
                got = [message for message in consumer.consume(5_000, 0.2) if message.error() is None]
                seen.update((message.key(), message.value()) for message in got)
                heard_at = time.monotonic() if got else heard_at
                if time.monotonic() - heard_at > timeout_s:
                    raise NoAnswer(f"{len(seen)} of {count} answers after {timeout_s} s of silence")
                self.workers.revive()

    def finish(self, timeout_s: float) -> Verdict:
        """Let it answer everything, end the workers in good order, and check every promise."""
        found = []
        try:
            self.settle(timeout_s)
        except NoAnswer as error:
            found.append(str(error))
        found += self.workers.retire_all()
        verdict = self.checker.check(self.root)
        verdict.violations[:0] = [*found, *self.workers.complaints()]
        return verdict

    @contextmanager
    def _tail(self, topic: str) -> Iterator[Consumer]:
        """A consumer of what comes to `topic` from now on."""
        with self._consumer() as consumer:
            count = self.topics.topics[topic]
            consumer.assign([TopicPartition(topic, n, self._end(consumer, topic, n)) for n in range(count)])
            yield consumer

    @staticmethod
    def _end(consumer: Consumer, topic: str, partition: int) -> int:
        while True:  # a broker that was just killed answers when it is back
            try:
                return int(consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=5.0)[1])
            except KafkaException:
                continue

    @contextmanager
    def _consumer(self) -> Iterator[Consumer]:
        settings = {"group.id": "harness", "isolation.level": "read_committed", "enable.auto.commit": False}
        consumer = Consumer(
            {
                **self.cluster.config(),
                **settings,
                "auto.offset.reset": "earliest",
                "reconnect.backoff.max.ms": 500,
                "fetch.queue.backoff.ms": 5,
            }
        )
        try:
            yield consumer
        finally:
            consumer.close()
