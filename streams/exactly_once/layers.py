"""Staged effects in layers: a handler's stage, what it promoted, what is committing, and the base store below them.

Reads fall through the layers from the newest to the base; a commit writes one layer down. Rows are kept with their
encoded bytes, so an effect that cannot be encoded fails in the handler that staged it and never in a commit.

Compiled (ops/compiled): every record passes through here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, Protocol, final

from mypy_extensions import mypyc_attr

from streams.exactly_once import timers
from streams.exactly_once.errors import EffectRefused, VersionConflict
from streams.exactly_once.records import Output
from streams.exactly_once.table_spec import TableSpec

GENERATION_BYTES: Final = 512 << 10
_ROW_BYTES: Final = 100  # what keeping a row costs besides its bytes

MAX_RECORD_BYTES: Final = 1_000_000
"""Largest key + value that may be staged: Kafka's limit of 1 MiB per batch less room for headers and framing."""


@final
@mypyc_attr(acyclic=True)
class Row:
    """A staged row: the object that readers get, and its bytes for the changelog. `encoded is None`: deleted."""

    __slots__ = ("encoded", "value")

    def __init__(self, value: Any, encoded: bytes | None) -> None:
        self.value = value
        self.encoded = encoded


@final
@mypyc_attr(acyclic=True)
class Send:
    """A staged record for another topic."""

    __slots__ = ("headers", "key", "partition", "topic", "value")

    def __init__(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        headers: tuple[tuple[str, bytes], ...],
    ) -> None:
        self.topic = topic
        self.key = key
        self.value = value
        self.partition = partition
        self.headers = headers


Rows = dict[bytes, Row]  # of one table, by key


class Layer:
    """Effects that become real together: dirty rows by table and key, and records to send in their order."""

    def __init__(self, rows: dict[TableSpec, Rows] | None = None, sends: list[Send] | None = None) -> None:
        self.rows: dict[TableSpec, Rows] = {} if rows is None else rows
        self.sends: list[Send] = [] if sends is None else sends

    def absorb(self, newer: Layer) -> None:
        """Lay `newer`, which is used up, over this layer; of two rows under one key the newer stays."""
        for table, rows in newer.rows.items():
            mine = self.rows.get(table)
            if mine is None:
                self.rows[table] = rows
            else:
                mine.update(rows)
        self.sends.extend(newer.sends)

    @property
    def records(self) -> int:
        """How many records a transaction has of it."""
        return len(self.sends) + sum([len(rows) for rows in self.rows.values()])

    def __bool__(self) -> bool:
        return bool(self.sends) or any(self.rows.values())


@final
class RecentRows:
    """Rows that were committed last, in two generations of so many bytes: what was written is often read next, and a
    read of RocksDB costs 2 us and the row's decoding. Deleted ones too: older rows under their keys are not seen.
    """

    def __init__(self) -> None:
        self._young: dict[TableSpec, Rows] = {}
        self._old: dict[TableSpec, Rows] = {}
        self._young_bytes = 0

    def get(self, table: TableSpec, key: bytes) -> Row | None:
        """The row that was committed last under `key`, if it is remembered."""
        rows = self._young.get(table)
        row = None if rows is None else rows.get(key)
        if row is None:
            rows = self._old.get(table)
            row = None if rows is None else rows.get(key)
        return row

    def remember(self, committed: dict[TableSpec, Rows]) -> None:
        """Keep rows that are in the base store now; the older generation makes room."""
        size = 0
        for rows in committed.values():
            for row in rows.values():
                size += _size(row)
        if size > GENERATION_BYTES:
            # More than a generation: the last of them. Older ones go: they would be read for those that are not kept.
            self._young, self._old, self._young_bytes = {}, {}, 0
            committed = _last_rows(committed)
            size = GENERATION_BYTES
        if self._young_bytes + size > GENERATION_BYTES:
            self._old = self._young  # in this order: readers in other threads look into both
            self._young = {}
            self._young_bytes = 0
        self._young_bytes += size
        for table, rows in committed.items():
            mine = self._young.get(table)
            if mine is None:
                self._young[table] = rows
            else:
                mine.update(rows)


def _size(row: Row) -> int:
    return _ROW_BYTES + (0 if row.encoded is None else len(row.encoded))


def _last_rows(committed: dict[TableSpec, Rows]) -> dict[TableSpec, Rows]:
    """Of each table so many rows that were written last as fit into its share of a generation."""
    share = GENERATION_BYTES // len(committed)
    kept: dict[TableSpec, Rows] = {}
    for table, rows in committed.items():
        last: Rows = {}
        size = 0
        for key in reversed(rows):
            row = rows[key]
            size += _size(row)
            if size > share:
                break
            last[key] = row
        kept[table] = last
    return kept


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
    """A lane's view of its tables: layers, newest first, over the rows committed last and the base store."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.promoted = Layer()
        self.committing = Layer()
        self.recent = RecentRows()

    def get(self, table: TableSpec, key: bytes, top: Layer | None = None) -> Any | None:
        """The row under `key` as the newest layer has it, or None."""
        row: Row | None = None
        if top is not None:
            row = _row(top, table, key)
        if row is None:
            row = _row(self.promoted, table, key)
        if row is None:
            row = _row(self.committing, table, key)
        if row is None:
            row = self.recent.get(table, key)
        return self.base.get(table, key) if row is None else row.value

    def scan(
        self, table: TableSpec, start: bytes, stop: bytes, top: Layer | None = None, *, base_start: bytes | None = None
    ) -> Iterator[tuple[bytes, Any]]:
        """Rows with start <= key < stop in ascending order, layers laid over the base.

        `base_start`, not before start: the base is known to have no row before it.
        """
        staged: dict[bytes, Row] = {}
        for layer in (self.committing, self.promoted, top):
            if layer is not None and (rows := layer.rows.get(table)):
                # list(): an effector's handler scans in the event loop while the pump may add rows.
                staged.update((key, row) for key, row in list(rows.items()) if start <= key < stop)
        base = self.base.scan(table, start if base_start is None else base_start, stop)
        return _merge(base, sorted(staged.items()))

    def begin_commit(self) -> Layer:
        """Move what is promoted into the committing layer and return it; processing goes on above it."""
        assert not self.committing, "a lane has one commit in flight"
        self.committing = self.promoted
        self.promoted = Layer()
        return self.committing

    def end_commit(self) -> None:
        """The committing layer's rows are in the base store now; they stay decoded for a while."""
        self.recent.remember(self.committing.rows)
        self.committing = Layer()

    def discard(self) -> None:
        """Drop everything that is not committed."""
        self.promoted = Layer()
        self.committing = Layer()


def _row(layer: Layer, table: TableSpec, key: bytes) -> Row | None:
    rows = layer.rows.get(table)
    return None if rows is None else rows.get(key)


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
