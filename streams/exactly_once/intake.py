"""From librdkafka's messages to records: what happens to each of them before its handler. Compiled (ops/compiled)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, final

from streams.exactly_once.errors import Poison
from streams.exactly_once.records import Record


class Run(NamedTuple):
    """Messages of one partition that were fetched one after the other."""

    topic: str
    partition: int
    messages: list[Any]


def runs(messages: list[Any]) -> tuple[list[Run], list[Any]]:
    """Fetched messages by their partition, in their order; and the errors that librdkafka hands over as messages."""
    found: list[Run] = []
    errors: list[Any] = []
    topic, partition = "", -1
    run: list[Any] = []
    for message in messages:
        error = message.error()
        if error is not None:
            errors.append(error)
            continue
        its_topic: str = message.topic()
        its_partition: int = message.partition()
        if its_partition != partition or its_topic != topic:
            topic, partition, run = its_topic, its_partition, []
            found.append(Run(topic, partition, run))
        run.append(message)
    return found, errors


@final
class Inbox:
    """What one lane has fetched and not yet taken up."""

    def __init__(self, partition: int, decoders: dict[str, Callable[[bytes], Any]]) -> None:
        self.partition = partition
        self.decoders = decoders  # by topic
        self.highest_timestamp_ms = 0  # of what was taken
        self.failure: Exception | None = None  # why `take` stopped at the message that is the first now
        self._messages: list[Any] = []
        self._at = 0  # of the first that was not taken

    def __len__(self) -> int:
        return len(self._messages) - self._at

    def extend(self, messages: list[Any]) -> None:
        """More has been fetched."""
        if self._at == len(self._messages):
            self._messages = messages
        else:
            self._messages = self._messages[self._at :] + messages
        self._at = 0

    def clear(self) -> None:
        """Forget everything."""
        self._messages = []
        self._at = 0

    @property
    def waiting(self) -> list[Any]:
        """The messages, in their order."""
        return self._messages[self._at :]

    def pop(self) -> Any:
        """Take the first message as it is."""
        message = self._messages[self._at]
        self._at += 1
        return message

    def take(self, most: int) -> list[Record]:
        """Up to `most` records. Where it stops before one that cannot be decoded, `failure` tells why."""
        self.failure = None
        records: list[Record] = []
        stop = min(self._at + most, len(self._messages))
        now_s = time.monotonic()
        while self._at < stop:
            try:
                record = self._record(self._messages[self._at], now_s)
            except Exception as error:
                self.failure = error
                break
            records.append(record)
            self._at += 1
        return records

    def _record(self, message: Any, now_s: float) -> Record:
        """Raises Poison for what means nothing, and whatever else the topic's decoder raises."""
        topic: str = message.topic()
        timestamp_ms: int = message.timestamp()[1]
        if timestamp_ms > self.highest_timestamp_ms:
            self.highest_timestamp_ms = timestamp_ms
        key, value = message.key(), message.value()
        if key is None or value is None:
            raise Poison("a null key" if key is None else "a null value")
        decoded = self.decoders[topic](value)
        headers = message.headers()
        return Record(
            topic,
            self.partition,
            message.offset(),
            key,
            decoded,
            timestamp_ms,
            tuple(headers) if headers else (),
            value,
            now_s,
        )


def positions_after(records: list[Record]) -> dict[str, int]:
    """By topic the offset after the last of these records; timers have none."""
    after: dict[str, int] = {}
    topic, offset = "", -1
    for record in records:
        if record.topic != topic:
            if offset >= 0:
                after[topic] = offset + 1
            topic = record.topic
        offset = record.offset
    if offset >= 0:
        after[topic] = offset + 1
    return after
