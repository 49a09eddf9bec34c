"""What a handler may do: stage effects and read state. Nothing here touches Kafka or RocksDB; the commit does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from streams.exactly_once.records import Output
from streams.exactly_once.table_spec import TableSpec


class Effects(Protocol):
    """Effects of one handler call; they become real together, in one Kafka transaction, or not at all."""

    def send(
        self,
        output: Output,
        value: Any,
        *,
        key: bytes | None,
        partition: int | None = None,
        headers: tuple[tuple[str, bytes], ...] = (),
    ) -> None:
        """Stage one record. Without `partition`, murmur2 of the key decides, as in Java's client."""

    def put(self, table: TableSpec, key: bytes, value: Any, *, expected_version: int | None = None) -> None:
        """Stage a row. With `expected_version`, raises VersionConflict unless the row there has it (0: no row yet)."""

    def delete(self, table: TableSpec, key: bytes) -> None:
        """Stage the removal of a row; removing what is not there is no error."""

    def set_timer(self, key: bytes, name: str, due_ms: int, payload: bytes = b"") -> None:
        """Stage a durable timer: a Record with topic TIMERS and this key comes to this lane once, at or after `due_ms`.

        (key, name) identifies it: setting it again moves it.
        """

    def cancel_timer(self, key: bytes, name: str) -> None:
        """Stage the removal of a timer; one that is not set, or has fired, is no error."""


class State(Protocol):
    """What a handler may read: committed rows plus everything that this lane has staged before, itself included."""

    partition: int  # of this lane, the same for all its inputs
    highest_timestamp_ms: int  # the highest broker time this lane has seen since it started; 0 before the first record

    def get(self, table: TableSpec, key: bytes) -> Any | None:
        """The row under `key`, or None. Rows are shared: treat them as immutable."""

    def scan(self, table: TableSpec, start: bytes, stop: bytes) -> Iterator[tuple[bytes, Any]]:
        """Rows with start <= key < stop in ascending order of their key's bytes."""
