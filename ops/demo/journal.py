"""The demo's own witness in Kafka: reads, as the auditor, what is committed to the topics from the run's start on.

It joins no group, so nothing that happens to a consumer group can hide a record from it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from confluent_kafka import Consumer, IsolationLevel, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from streams.exactly_once.errors import Poison
from topics import catalog
from topics.codec import Codec

POLL_S = 0.1
ADMIN_S = 30.0
CATCH_UP_S = 60.0  # a transaction that a killed worker left open holds readers back for its time-out


class JournalError(Exception):
    """Kafka did not let the demo read on."""


class Entry(NamedTuple):
    """One committed record."""

    topic: str
    partition: int
    offset: int
    at: float  # epoch seconds: when the broker appended it
    key: str
    name: str  # of the record's schema; "" when it cannot be decoded
    fields: Mapping[str, Any]


class Journal:
    """Entries of `topics` in the order in which they were read; `on_entry` hears of each on the event loop."""

    def __init__(
        self, settings: dict[str, str], codec: Codec, topics: Iterable[str], on_entry: Callable[[Entry], None]
    ) -> None:
        self._settings = {**settings, "log_level": "0"}  # a broker that is away is in nobody's way on the terminal
        self._codec = codec
        self._topics = tuple(topics)
        self._on_entry = on_entry
        self._reached: dict[tuple[str, int], int] = {}
        self._moved = asyncio.Event()
        self._failure: Exception | None = None
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None
        self.entries: list[Entry] = []

    async def start(self) -> None:
        """Note where each partition ends now; everything committed from here on will be an entry."""
        loop = asyncio.get_running_loop()
        self._reached = await asyncio.to_thread(self._end_offsets)
        self._thread = threading.Thread(target=self._run, args=(loop,), name="journal", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        self._ends.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    async def catch_up(self) -> None:
        """Return when everything that is committed now has been read. Raises JournalError after CATCH_UP_S."""
        targets = await asyncio.to_thread(self._end_offsets)
        try:
            async with asyncio.timeout(CATCH_UP_S):
                while any(self._reached[at] < end for at, end in targets.items()):
                    if self._failure is not None:
                        raise JournalError(f"reading Kafka failed: {self._failure}") from self._failure
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            behind = [f"{topic}[{p}]" for (topic, p), end in targets.items() if self._reached[topic, p] < end]
            raise JournalError(f"not read to the end in {CATCH_UP_S:.0f} s: {', '.join(behind)}") from None

    def _end_offsets(self) -> dict[tuple[str, int], int]:
        partitions = [TopicPartition(name, p) for name in self._topics for p in range(catalog.find(name).partitions)]
        admin = AdminClient(self._settings)  # its answers come only while it lives
        found = admin.list_offsets(
            dict.fromkeys(partitions, OffsetSpec.latest()),
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=ADMIN_S,
        )
        return {(at.topic, at.partition): answer.result(ADMIN_S).offset for at, answer in found.items()}

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._consume(loop)
        except Exception as error:  # told to whoever waits in `catch_up`
            self._failure = error
            loop.call_soon_threadsafe(self._moved.set)

    def _consume(self, loop: asyncio.AbstractEventLoop) -> None:
        consumer = Consumer(
            {
                **self._settings,
                "group.id": "demo",  # never joined: the library wants one
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,  # tells that markers at the end of a partition have been passed
            }
        )
        try:
            consumer.assign([TopicPartition(topic, p, offset) for (topic, p), offset in self._reached.items()])
            while not self._ends.is_set():
                for message in consumer.consume(num_messages=500, timeout=POLL_S):
                    self._take(message, loop)
        finally:
            consumer.close()

    def _take(self, message: Message, loop: asyncio.AbstractEventLoop) -> None:
        error, topic, partition, offset = message.error(), message.topic(), message.partition(), message.offset()
        if error is None:
            assert topic is not None
            assert partition is not None
            assert offset is not None
            entry = self._entry(message, topic, partition, offset)
            loop.call_soon_threadsafe(self._arrived, topic, partition, offset + 1, entry)
        elif error.code() == KafkaError._PARTITION_EOF:
            loop.call_soon_threadsafe(self._arrived, topic, partition, offset, None)
        elif error.fatal():
            raise JournalError(str(error))

    def _entry(self, message: Message, topic: str, partition: int, offset: int) -> Entry:
        try:
            name, fields = self._codec.decode(topic, message.value())
        except Poison:  # a tombstone, or garbage that somebody tries the platform with
            name, fields = "", {}
        key = message.key()
        shown = key.decode(errors="replace") if isinstance(key, bytes) else ""
        return Entry(topic, partition, offset, message.timestamp()[1] / 1000, shown, name, fields)

    def _arrived(self, topic: str, partition: int, next_offset: int, entry: Entry | None) -> None:
        self._reached[topic, partition] = max(self._reached[topic, partition], next_offset)
        self._moved.set()
        if entry is not None:
            self.entries.append(entry)
            self._on_entry(entry)
