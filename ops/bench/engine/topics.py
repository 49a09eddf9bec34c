"""Topics and offsets of the benchmark: made, filled, read back, and compared with what must be in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice, repeat
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from ops.bench.engine.workload import PARTITIONS, Movements, decode_balance, encode_state
from ops.local.group_offsets import group_offsets

_ACCOUNT = re.compile(rb"acc_\d{8}")
_NUMBER = re.compile(rb"-?\d+")

ASK_S = 30.0
AS_MANY_AS_BROKERS = -1  # replicas: the brokers' default

Client = Mapping[str, Any]


def create_topics(client: Client, names: list[str], compacted: list[str]) -> None:
    """Make topics of PARTITIONS partitions. Compacted ones have huge segments: the cleaner must not run meanwhile."""
    keep = {"cleanup.policy": "compact", "segment.bytes": "1073741824"}
    topics = [NewTopic(name, PARTITIONS, AS_MANY_AS_BROKERS) for name in names]
    topics += [NewTopic(name, PARTITIONS, AS_MANY_AS_BROKERS, config=keep) for name in compacted]
    admin = AdminClient(dict(client))  # its answers die with it
    for made in admin.create_topics(topics).values():
        made.result()


def delete_topics(client: Client, prefixes: tuple[str, ...]) -> None:
    """Remove every topic whose name begins with one of `prefixes`."""
    admin = AdminClient(dict(client))
    names = [name for name in admin.list_topics(timeout=10).topics if name.startswith(prefixes)]
    for gone in admin.delete_topics(names).values() if names else ():
        gone.result()


def fill(client: Client, topic: str, movements: Movements, count: int) -> None:
    """Append `count` movements to `topic`."""
    cycle = list(islice(movements.encoded(), count))
    _append(client, topic, islice(chain.from_iterable(repeat(cycle)), count))


def fill_changelog(client: Client, topic: str, movements: Movements) -> None:
    """Append a balance of nothing for every account."""
    nothing = encode_state(0)
    _append(client, topic, ((movements.account(number), nothing) for number in range(movements.keys)))


def _append(client: Client, topic: str, records: Iterable[tuple[bytes, bytes]]) -> None:
    """Append records, placed by the murmur2 of their keys."""
    producer = Producer({**client, "acks": "all", "enable.idempotence": True, "partitioner": "murmur2_random",
                         "linger.ms": 20, "queue.buffering.max.messages": 500_000})  # fmt: skip
    for key, value in records:
        while True:
            try:
                producer.produce(topic, value, key)
                break
            except BufferError:
                producer.poll(0.05)
    assert producer.flush(120) == 0, f"{topic} could not be written"


class Progress:
    """A group's offsets of one topic, asked by consumers that never join (admin clients crash, see restore.py)."""

    def __init__(self, client: Client, group: str, topic: str) -> None:
        settings = {**client, "group.id": group, "enable.auto.commit": False}
        self._now = Consumer({**settings, "isolation.level": "read_uncommitted"})
        self._stable = Consumer({**settings, "isolation.level": "read_committed"})
        self._partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]

    def committed(self) -> dict[int, int]:
        """Offset by partition; partitions without one are left out."""
        return self._of(self._now)

    def settled(self) -> dict[int, int] | None:
        """As `committed`, or None while a transaction is pending on one of them."""
        try:
            return self._of(self._stable)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNSTABLE_OFFSET_COMMIT:
                raise
            return None

    def close(self) -> None:
        """Let go of the clients while the broker still answers: librdkafka was seen to wait for ever after it."""
        self._now.close()
        self._stable.close()

    def _of(self, consumer: Consumer) -> dict[int, int]:
        found = group_offsets(consumer, self._partitions, ASK_S)
        return {partition: offset for (_, partition), offset in found.items()}


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


def differences(client: Client, movements: Movements, taken: dict[int, int], output: str, changelog: str) -> list[str]:
    """What is wrong in `output` and `changelog` after the first `taken` inputs: empty when every record is right.

    One output per input of each account, the last of them with the right balance; the changelog folds to the balances.
    """
    balances, counts = movements.expected(taken)
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
        if account is not None and number is not None and (balance := int(number.group())) != 0:
            folded[account.group()] = balance
    if folded != balances:
        wrong = sum(folded.get(key) != balances.get(key) for key in folded.keys() | balances.keys())
        found.append(f"{wrong} of {len(balances)} accounts have another balance in the changelog")
    return found
