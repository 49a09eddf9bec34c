"""Topics and offsets of the benchmark: made, filled, read back, and compared with what must be in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from ops.bench.engine.workload import PARTITIONS, decode_balance, expected, movements

_ACCOUNT = re.compile(rb"acc_\d{6}")
_NUMBER = re.compile(rb"-?\d+")

Client = Mapping[str, Any]


def create_topics(client: Client, names: list[str], compacted: list[str]) -> None:
    """Make topics of PARTITIONS partitions. Compacted ones have huge segments: the cleaner must not run meanwhile."""
    keep = {"cleanup.policy": "compact", "segment.bytes": "1073741824"}
    topics = [NewTopic(name, PARTITIONS, 1) for name in names]
    topics += [NewTopic(name, PARTITIONS, 1, config=keep) for name in compacted]
    admin = AdminClient(dict(client))  # its answers die with it
    for made in admin.create_topics(topics).values():
        made.result()


def delete_topics(client: Client, prefixes: tuple[str, ...]) -> None:
    """Remove every topic whose name begins with one of `prefixes`."""
    admin = AdminClient(dict(client))
    names = [name for name in admin.list_topics(timeout=10).topics if name.startswith(prefixes)]
    for gone in admin.delete_topics(names).values() if names else ():
        gone.result()


def fill(client: Client, topic: str, count: int) -> None:
    """Append `count` movements to `topic`, keys placed by murmur2."""
    producer = Producer({**client, "acks": "all", "enable.idempotence": True, "partitioner": "murmur2_random",
                         "linger.ms": 20, "queue.buffering.max.messages": 500_000})  # fmt: skip
    cycle = list(movements())
    produced = 0
    while produced < count:
        for key, value in cycle[: count - produced]:
            while True:
                try:
                    producer.produce(topic, value, key)
                    break
                except BufferError:
                    producer.poll(0.05)
        produced += len(cycle[: count - produced])
    assert producer.flush(120) == 0, "the input could not be written"


def committed(admin: AdminClient, group: str, topic: str) -> dict[int, int]:
    """The group's offset by partition; partitions without one are left out."""
    return {number: entry.offset for number, entry in _offsets(admin, group, topic, False).items() if entry.offset >= 0}


def settled(admin: AdminClient, group: str, topic: str) -> dict[int, int] | None:
    """As `committed`, or None while a transaction is pending on one of them."""
    entries = _offsets(admin, group, topic, True)
    if any(entry.error is not None for entry in entries.values()):
        return None
    return {number: entry.offset for number, entry in entries.items() if entry.offset >= 0}


def _offsets(admin: AdminClient, group: str, topic: str, stable: bool) -> dict[int, TopicPartition]:
    wanted = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    answer = admin.list_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(group, wanted)], require_stable=stable, request_timeout=10.0
    )
    return {entry.partition: entry for entry in answer[group].result().topic_partitions}


def read(client: Client, topic: str) -> Iterator[Message]:
    """Every committed record of `topic` up to its present end."""
    settings = {"group.id": "bench-checker", "isolation.level": "read_committed", "enable.partition.eof": True}
    consumer = Consumer({**client, **settings, "auto.offset.reset": "earliest", "fetch.queue.backoff.ms": 5})
    numbers = list(consumer.list_topics(topic, 10).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, number, 0) for number in numbers])
    ended: set[int] = set()
    while len(ended) < len(numbers):
        first = consumer.poll(0.5)
        for message in () if first is None else (first, *consumer.consume(10_000, 0)):
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
    consumer.close()


def differences(client: Client, taken: dict[int, int], output: str, changelog: str) -> list[str]:
    """What is wrong in `output` and `changelog` after the first `taken` inputs: empty when every record is right.

    One output per input of each account, the last of them with the right balance; the changelog folds to the balances.
    """
    balances, counts = expected(taken)
    outputs: Counter[bytes] = Counter()
    last: dict[bytes, bytes] = {}
    for message in read(client, output):
        key = message.key()
        outputs[key] += 1
        last[key] = message.value()
    found = []
    surplus = {key: outputs[key] - counts.get(key, 0) for key in outputs.keys() | counts.keys()}
    if any(surplus.values()):
        lost = -sum(number for number in surplus.values() if number < 0)
        doubled = sum(number for number in surplus.values() if number > 0)
        found.append(f"{lost} outputs lost, {doubled} too many, of {sum(counts.values())}")
    wrong = sum(decode_balance(value)["balance"] != balances.get(key) for key, value in last.items())
    if wrong:
        found.append(f"{wrong} of {len(balances)} accounts end with another balance in their last output")
    folded: dict[bytes, int] = {}
    for message in read(client, changelog):
        account = _ACCOUNT.search(message.key())
        number = _NUMBER.search(message.value() or b"")
        if account is not None and number is not None:
            folded[account.group()] = int(number.group())
    if folded != balances:
        wrong = sum(folded.get(key) != balances.get(key) for key in folded.keys() | balances.keys())
        found.append(f"{wrong} of {len(balances)} accounts have another balance in the changelog")
    return found
