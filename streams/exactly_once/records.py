"""What travels through a lane: records from Kafka and timers that have come due. Compiled (ops/compiled)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

from mypy_extensions import mypyc_attr

TIMERS = "@timers"
"""The `topic` of a record that a durable timer made; no Kafka topic can have this name."""


@final
@mypyc_attr(acyclic=True)
class Record:
    """One input of a handler.

    `value` is what the input's decoder returned (for a timer: TimerFired). `timestamp_ms` is the broker's append time
    for a Kafka record and the lane's clock for a timer: handlers take time from here and nowhere else.

    `received_s` is for effectors alone: when this process took the record up, by its monotonic clock. What is read of
    the world after that knows all that was so when the record was appended.
    """

    __slots__ = ("data", "headers", "key", "offset", "partition", "received_s", "timestamp_ms", "topic", "value")

    def __init__(
        self,
        topic: str,
        partition: int,
        offset: int,  # -1 for a timer
        key: bytes,
        value: Any,
        timestamp_ms: int,
        headers: tuple[tuple[str, bytes], ...] = (),
        data: bytes | None = None,  # what `value` was decoded from, for dead letters; None for a timer
        received_s: float = 0.0,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.key = key
        self.value = value
        self.timestamp_ms = timestamp_ms
        self.headers = headers
        self.data = data
        self.received_s = received_s

    def __repr__(self) -> str:
        return f"Record({self.topic}-{self.partition} @ {self.offset}, key={self.key!r}, value={self.value!r})"


@dataclass(slots=True, frozen=True)
class TimerFired:
    """The value of a record with topic TIMERS: the timer `name` of `key` was due at `due_ms` (epoch milliseconds)."""

    key: bytes
    name: str
    due_ms: int
    payload: bytes


@dataclass(slots=True, frozen=True)
class Input:
    """A topic that an agent reads. `decode` makes an object of a value's bytes; if it raises, the record is poison."""

    topic: str
    decode: Callable[[bytes], Any]


@dataclass(slots=True, frozen=True)
class Output:
    """A topic that an agent writes. `encode` makes bytes of what a handler sends; if it raises, the handler failed."""

    topic: str
    encode: Callable[[Any], bytes]
