"""Runs the engine's test worker as processes, feeds it, and checks what came out from the topics alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

IN, OUT, ECHO, DLQ = "in", "out", "echo", "dlq"
PARTITIONS = {IN: 4, OUT: 4, ECHO: 3, DLQ: 1}
TABLES = ("balances", "sums-timers", "echo-timers")


@dataclass(frozen=True)
class Cluster:
    """Where Kafka is, and the PEM files (`ca`, `cert`, `key`) of a super user."""

    bootstrap: str
    tls: Mapping[str, str]

    def config(self) -> dict[str, Any]:
        security = {
            "security.protocol": "ssl",
            "ssl.ca.location": self.tls["ca"],
            "ssl.certificate.location": self.tls["cert"],
            "ssl.key.location": self.tls["key"],
        }
        return {"bootstrap.servers": self.bootstrap, **security}


@dataclass
class Harness:
    """One app under test with topics and state of its own."""

    cluster: Cluster
    app: str
    state: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    logs: list[IO[bytes]] = field(default_factory=list)

    def create_topics(self) -> None:
        admin = AdminClient(self.cluster.config())
        topics = [NewTopic(f"{self.app}.{name}", count, 1) for name, count in PARTITIONS.items()]
        topics += [
            NewTopic(f"{self.app}-{table}-changelog", 4, 1, config={"cleanup.policy": "compact"}) for table in TABLES
        ]
        for made in admin.create_topics(topics).values():
            made.result()

    def delete_topics(self) -> None:
        admin = AdminClient(self.cluster.config())
        names = [f"{self.app}.{name}" for name in PARTITIONS] + [f"{self.app}-{name}-changelog" for name in TABLES]
        for gone in admin.delete_topics(names).values():
            gone.result()

    def start(self, number: int = 0, failpoints: str = "") -> subprocess.Popen[bytes]:
        """Start worker `number`; its state directory and group instance are its own."""
        log = (self.state / f"worker-{number}.log").open("ab")
        arguments = [
            *("--app", self.app, "--kafka", self.cluster.bootstrap, "--tls", json.dumps(dict(self.cluster.tls))),
            *("--state", str(self.state / str(number)), "--instance", f"w{number}", "--failpoints", failpoints),
        ]
        command = [sys.executable, "-m", "tests.engine.balances", *arguments]
        worker = subprocess.Popen(command, stdout=log, stderr=log, cwd=Path(__file__).parents[2])
        self.workers.append(worker)
        self.logs.append(log)
        return worker

    def stop(self) -> None:
        """End what still runs, a stopped one too."""
        for worker in self.workers:
            if worker.poll() is None:
                os.kill(worker.pid, signal.SIGKILL)
            worker.wait()
        for log in self.logs:
            log.close()

    def log_of(self, number: int) -> str:
        return (self.state / f"worker-{number}.log").read_text()

    def produce(self, values: Iterator[tuple[str, str]]) -> int:
        """Append (key, value) records to the input; returns how many."""
        settings = {"acks": "all", "enable.idempotence": True, "partitioner": "murmur2_random", "linger.ms": 5}
        producer = Producer({**self.cluster.config(), **settings})
        count = 0
        for key, value in values:
            producer.produce(f"{self.app}.{IN}", value, key)
            producer.poll(0)
            count += 1
        assert producer.flush(30) == 0
        return count

    def read(self, topic: str, isolation: str = "read_committed") -> list[Message]:
        """Every record of `topic` up to its present end."""
        settings = {"group.id": "checker", "isolation.level": isolation, "enable.partition.eof": True}
        consumer = Consumer({**self.cluster.config(), **settings, "auto.offset.reset": "earliest"})
        numbers = list(consumer.list_topics(topic, 10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, number, 0) for number in numbers])
        ended: set[int] = set()
        records: list[Message] = []
        while len(ended) < len(numbers):
            for message in consumer.consume(5_000, 0.2):
                error = message.error()
                if error is None:
                    records.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
        consumer.close()
        return records

    def wait_for_echoes(self, count: int, timeout_s: float) -> None:
        """Until `count` committed echoes are there: the last hop of every input that is no poison."""
        settings = {"group.id": "waiter", "isolation.level": "read_committed", "auto.offset.reset": "earliest"}
        consumer = Consumer({**self.cluster.config(), **settings})
        topic = f"{self.app}.{ECHO}"
        consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS[ECHO])])
        seen, idle_s = 0, 0.0
        while seen < count:
            got = len([message for message in consumer.consume(5_000, 0.5) if message.error() is None])
            seen += got
            idle_s = 0.0 if got else idle_s + 0.5
            assert idle_s < timeout_s, f"{seen} of {count} echoes after {timeout_s} s of silence"
        consumer.close()

    def violations(self) -> list[str]:
        """What exactly-once would not allow, told from the topics; empty when all is well.

        One output per input with the balance after it, in order per key; each output echoed; changelog = fold.
        """
        inputs = sorted(self.read(f"{self.app}.{IN}"), key=lambda message: (message.partition(), message.offset()))
        balances: dict[bytes, int] = {}
        expected: list[tuple[bytes, bytes]] = []
        for message in inputs:
            key, value = message.key(), message.value()
            if value in (b"666", b"garbage"):
                continue
            balances[key] = balances.get(key, 0) + int(value)
            expected.append((key, f"{message.offset()}:{balances[key]}".encode()))
        outputs = self.read(f"{self.app}.{OUT}")
        echoes = self.read(f"{self.app}.{ECHO}")
        found = _difference("output", expected, outputs)
        # An effector's record that was complete but beyond the committed prefix runs again after a crash.
        first_echoes = {(message.key(), message.value()): message for message in echoes}
        found += _difference("echo", expected, list(first_echoes.values()))
        by_key: dict[bytes, list[int]] = {}
        for message in sorted(outputs, key=lambda message: (message.partition(), message.offset())):
            by_key.setdefault(message.key(), []).append(int(message.value().split(b":")[0]))
        found += [f"outputs of {key!r} out of order" for key, order in by_key.items() if order != sorted(order)]
        changelog: dict[bytes, int] = {}
        for message in self.read(f"{self.app}-balances-changelog"):
            changelog[message.key()] = int(message.value())
        if changelog != balances:
            found.append("the changelog is not the fold of the input")
        return found


def _difference(kind: str, expected: list[tuple[bytes, bytes]], messages: list[Message]) -> list[str]:
    count = Counter((message.key(), message.value()) for message in messages)
    count.subtract(expected)
    return [f"{kind} {item!r}: {number:+d}" for item, number in count.items() if number]
