"""Staged effects in layers: a handler's stage, what it promoted, what is committing, and the base store below them.

Reads fall through the layers from the newest to the base; a commit writes one layer down. Rows are kept with their
encoded bytes, so an effect that cannot be encoded fails in the handler that staged it and never in a commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from streams.exactly_once import timers
from streams.exactly_once.errors import EffectRefused, VersionConflict
from streams.exactly_once.records import Output
from streams.exactly_once.table_spec import TableSpec

MAX_RECORD_BYTES = 1_000_000
"""Largest key + value that may be staged: Kafka's limit of 1 MiB per batch less room for headers and framing."""


class Row(msgspec.Struct, frozen=True, gc=False):  # a third of what a frozen dataclass costs to make
    """A staged row: the object that readers get, and its bytes for the changelog. `encoded is None`: deleted."""

    value: Any
    encoded: bytes | None


class Send(msgspec.Struct, frozen=True, gc=False):
    """A staged record for another topic."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None
    headers: tuple[tuple[str, bytes], ...]


@dataclass(slots=True)
class Layer:
    """Effects that become real together: dirty rows by table and key, and records to send in their order."""

    rows: dict[TableSpec, dict[bytes, Row]] = field(default_factory=dict)
    sends: list[Send] = field(default_factory=list)

    def absorb(self, newer: Layer) -> None:
        """Lay `newer` over this layer; of two rows under one key the newer stays."""
        for table, rows in newer.rows.items():
            self.rows.setdefault(table, {}).update(rows)
        self.sends.extend(newer.sends)

    def __bool__(self) -> bool:
        return bool(self.sends) or any(self.rows.values())


class Base(Protocol):
    """The committed rows of one lane."""

    def get(self, table: TableSpec, key: bytes) -> Any | None:
        """The committed row under `key`, decoded, or None."""

    def scan(self, table: TableSpec, start: bytes, stop: bytes) -> Iterator[tuple[bytes, Any]]:
        """Committed rows with start <= key < stop in ascending order."""


class EmptyBase:
    """The base of a lane without tables."""

    def get(self, table: TableSpec, key: bytes) -> Any | None:
        """Nothing is here."""

    def scan(self, table: TableSpec, start: bytes, stop: bytes) -> Iterator[tuple[bytes, Any]]:
        """Nothing is here."""
        return iter(())


class Layers:
    """A lane's view of its tables: layers, newest first, over the base store."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.promoted = Layer()
        self.committing = Layer()

    def get(self, table: TableSpec, key: bytes, top: Layer | None = None) -> Any | None:
        """The row under `key` as the newest layer has it, or None."""
        for layer in (top, self.promoted, self.committing):
            if layer is None:
                continue
            rows = layer.rows.get(table)
            if rows is not None and (row := rows.get(key)) is not None:
                return row.value
        return self.base.get(table, key)

    def scan(
        self, table: TableSpec, start: bytes, stop: bytes, top: Layer | None = None
    ) -> Iterator[tuple[bytes, Any]]:
        """Rows with start <= key < stop in ascending order, layers laid over the base."""
        staged: dict[bytes, Row] = {}
        for layer in (self.committing, self.promoted, top):
            if layer is not None and (rows := layer.rows.get(table)):
                # list(): an effector's handler scans in the event loop while the pump may add rows.
                staged.update((key, row) for key, row in list(rows.items()) if start <= key < stop)
        return _merge(self.base.scan(table, start, stop), sorted(staged.items()))

    def begin_commit(self) -> Layer:
        """Move what is promoted into the committing layer and return it; processing goes on above it."""
        assert not self.committing, "a lane has one commit in flight"
        self.committing = self.promoted
        self.promoted = Layer()
        return self.committing

    def end_commit(self) -> None:
        """Forget the committing layer: its rows are in the base store now."""
        self.committing = Layer()

    def discard(self) -> None:
        """Drop everything that is not committed."""
        self.promoted = Layer()
        self.committing = Layer()


def _merge(base: Iterable[tuple[bytes, Any]], staged: Iterable[tuple[bytes, Row]]) -> Iterator[tuple[bytes, Any]]:
    pending = iter(staged)
    head = next(pending, None)
    for key, value in base:
        while head is not None and head[0] < key:
            if head[1].encoded is not None:
                yield head[0], head[1].value
            head = next(pending, None)
        if head is not None and head[0] == key:
            if head[1].encoded is not None:
                yield key, head[1].value
            head = next(pending, None)
            continue
        yield key, value
    while head is not None:
        if head[1].encoded is not None:
            yield head[0], head[1].value
        head = next(pending, None)


class Stage:
    """What one handler call sees and does: State and Effects in one object, over a layer of its own."""

    def __init__(
        self,
        layers: Layers,
        *,
        partition: int,
        highest_timestamp_ms: int,
        timer_table: TableSpec | None,
        outputs: frozenset[str] | None = None,
    ) -> None:
        self.partition = partition
        self.highest_timestamp_ms = highest_timestamp_ms
        self.layer = Layer()
        self._layers = layers
        self._timers = timer_table
        self._outputs = outputs  # declared topics; None: any (tests)

    # State

    def get(self, table: TableSpec, key: bytes) -> Any | None:
        """As State.get."""
        return self._layers.get(table, key, self.layer)

    def scan(self, table: TableSpec, start: bytes, stop: bytes) -> Iterator[tuple[bytes, Any]]:
        """As State.scan. Staging while a scan is open does not change what the scan gives."""
        return self._layers.scan(table, start, stop, self.layer)

    # Effects

    def send(
        self,
        output: Output,
        value: Any,
        *,
        key: bytes | None,
        partition: int | None = None,
        headers: tuple[tuple[str, bytes], ...] = (),
    ) -> None:
        """As Effects.send. Raises EffectRefused for an undeclared topic or a record over MAX_RECORD_BYTES."""
        if self._outputs is not None and output.topic not in self._outputs:
            raise EffectRefused(f"{output.topic} is not declared among the agent's outputs: add it to `outputs=`")
        encoded = output.encode(value)
        size = len(encoded) + len(key or b"")
        if size > MAX_RECORD_BYTES:
            raise EffectRefused(f"a record for {output.topic} has {size} bytes, the limit is {MAX_RECORD_BYTES}")
        self.layer.sends.append(Send(output.topic, key, encoded, partition, headers))

    def put(self, table: TableSpec, key: bytes, value: Any, *, expected_version: int | None = None) -> None:
        """As Effects.put. Raises VersionConflict, or EffectRefused for a row over MAX_RECORD_BYTES."""
        if expected_version is not None:
            assert table.version is not None, f"table {table.name} has no versions"
            current = self.get(table, key)
            found = 0 if current is None else table.version(current)
            if found != expected_version:
                raise VersionConflict(f"{table.name}[{key!r}] has version {found}, expected {expected_version}")
        encoded = table.encode(value)
        if len(encoded) + len(key) > MAX_RECORD_BYTES:
            raise EffectRefused(f"a row of {table.name} has {len(encoded)} bytes, the limit is {MAX_RECORD_BYTES}")
        self.layer.rows.setdefault(table, {})[key] = Row(value, encoded)

    def delete(self, table: TableSpec, key: bytes) -> None:
        """As Effects.delete."""
        self.layer.rows.setdefault(table, {})[key] = Row(None, None)

    def set_timer(self, key: bytes, name: str, due_ms: int, payload: bytes = b"") -> None:
        """As Effects.set_timer."""
        if self._timers is None:
            raise EffectRefused("this agent keeps no timers: declare it with `timers=True`")
        self.cancel_timer(key, name)
        self.put(self._timers, timers.id_key(key, name), timers.encode_due(due_ms))
        self.put(self._timers, timers.due_key(due_ms, key, name), payload)

    def cancel_timer(self, key: bytes, name: str) -> None:
        """As Effects.cancel_timer."""
        if self._timers is None:
            return
        identity = timers.id_key(key, name)
        due = self.get(self._timers, identity)
        if due is not None:
            self.delete(self._timers, identity)
            self.delete(self._timers, timers.due_key(timers.decode_due(due), key, name))
