"""One lane's committed rows in RocksDB: all its tables in one database, with the changelog offsets beside them.

A commit is one write batch, rows and offsets together, made only after the Kafka transaction has committed: state can
lag behind the changelog, and recovery reads on from the offset, but it can never run ahead of it.
"""

from __future__ import annotations

import shutil
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import structlog
from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options, Rdict, ReadOptions, WriteBatch

from streams.exactly_once.bulk import put_rows
from streams.exactly_once.errors import StateInUse
from streams.exactly_once.layers import Row
from streams.exactly_once.table_spec import TableSpec

log = structlog.get_logger(__name__)

_OFFSET_PREFIX = b"\x00"  # sorts before every table's rows: table names are not empty
_WRITTEN_AT = b"\x00\x00written-at"  # wall clock of the last write, in seconds
_AGE_MAX_S = 12 * 3600
"""Older state is rebuilt: a changelog keeps tombstones for 24 h (delete.retention.ms), so a later reader of the rest
would never learn of rows that were deleted meanwhile."""

_WRITE_BUFFER_BYTES = 8 << 20  # a worker has a dozen lanes; RocksDB's default of 64 MiB each would be its memory
_BLOCK_CACHE_BYTES = 8 << 20


class LaneStore:
    """The RocksDB of one lane. Owned by one thread at a time for writing; reads are safe from any thread."""

    def __init__(self, path: Path) -> None:
        """Open the database at `path`; a damaged one is wiped, because the changelog can rebuild it.

        Raises StateInUse when another process has it open.
        """
        self.path = path
        self.was_rebuilt = False
        self._last_read: tuple[bytes, int, Any] = (b"", -1, None)  # stored key, `_writes` at the time, decoded row
        self._writes = 0  # odd while one is under way
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = Rdict(str(path), _options())
            self._check_readable()
            if self._age_s() > _AGE_MAX_S:
                self.wipe()
        except Exception as error:  # rocksdict raises bare Exception for everything
            if "lock" in str(error).lower():
                raise StateInUse(f"{path} is open in another process: stop that one first") from error
            shutil.rmtree(path, ignore_errors=True)
            self._db = Rdict(str(path), _options())
            self.was_rebuilt = True

    def get(self, table: TableSpec, key: bytes) -> Any | None:
        """The committed row under `key`, decoded, or None."""
        stored_key = _prefix(table) + key
        last_key, last_writes, last_value = self._last_read
        writes = self._writes
        if last_key == stored_key and last_writes == writes:  # a versioned put reads again what its handler has read
            return last_value
        encoded = self._db.get(stored_key)
        value = None if encoded is None else table.decode(encoded)
        if not writes & 1:
            self._last_read = (stored_key, writes, value)
        return value

    def scan(self, table: TableSpec, start: bytes, stop: bytes) -> Iterator[tuple[bytes, Any]]:
        """Committed rows with start <= key < stop in ascending order."""
        prefix = _prefix(table)
        within = ReadOptions()  # for as long as `rows`, which reads the bound where this one keeps it
        within.set_iterate_upper_bound(prefix + stop)  # or it looks beyond, through all that was deleted there
        rows = self._db.iter(within)
        rows.seek(prefix + start)
        while rows.valid():
            yield rows.key()[len(prefix) :], table.decode(rows.value())
            rows.next()

    def offset(self, changelog: str) -> int | None:
        """Offset of the last record of `changelog` that is applied here, or None."""
        encoded = self._db.get(_OFFSET_PREFIX + changelog.encode())
        return None if encoded is None else int(struct.unpack(">q", encoded)[0])

    def apply(self, rows: Mapping[TableSpec, dict[bytes, Row]], offsets: Mapping[str, int]) -> None:
        """Step 7 of a commit: dirty rows and changelog offsets in one write batch."""
        batch = WriteBatch(raw_mode=True)
        for table, dirty in rows.items():
            put_rows(batch, _prefix(table), dirty)
        self._write(batch, offsets)

    def restore(
        self, table: TableSpec, records: Iterable[tuple[bytes, bytes | None]], offsets: Mapping[str, int]
    ) -> None:
        """Apply changelog records (value None: deleted) and their offsets in one write batch."""
        prefix = _prefix(table)
        batch = WriteBatch(raw_mode=True)
        for key, value in records:
            if value is None:
                batch.delete(prefix + key)
            else:
                batch.put(prefix + key, value)
        self._write(batch, offsets)

    def wipe(self) -> None:
        """Delete everything and start empty."""
        self._writes += 2  # what was read last is no more
        self._db.close()
        shutil.rmtree(self.path, ignore_errors=True)
        self._db = Rdict(str(self.path), _options())
        self.was_rebuilt = True

    def set_aside(self) -> None:
        """Start empty, and keep what there was beside it as `<path>.set-aside`, in place of an earlier one.

        For state that its changelog contradicts: should the changelog be what is wrong, this may be the only copy.
        """
        self._writes += 2
        self._db.close()
        aside = self.path.with_name(f"{self.path.name}.set-aside")
        shutil.rmtree(aside, ignore_errors=True)
        self.path.rename(aside)
        log.warning("state was set aside", path=str(aside))
        self._db = Rdict(str(self.path), _options())
        self.was_rebuilt = True

    def close(self) -> None:
        """Release the database's lock."""
        self._db.close()

    def _write(self, batch: WriteBatch, offsets: Mapping[str, int]) -> None:
        for changelog, offset in offsets.items():
            batch.put(_OFFSET_PREFIX + changelog.encode(), struct.pack(">q", offset))
        batch.put(_WRITTEN_AT, struct.pack(">d", time.time()))
        self._writes += 1
        self._db.write(batch)
        self._writes += 1

    def _age_s(self) -> float:
        written_at = self._db.get(_WRITTEN_AT)
        return 0.0 if written_at is None else time.time() - float(struct.unpack(">d", written_at)[0])

    def _check_readable(self) -> None:
        rows = self._db.iter()
        rows.seek_to_first()
        if rows.valid():
            rows.value()
        rows.status()


@lru_cache(maxsize=256)  # an app has a dozen tables, and every read and write asks
def _prefix(table: TableSpec) -> bytes:
    return table.name.encode() + b"\x00"


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_keep_log_file_num(2)
    options.set_max_background_jobs(2)
    options.set_compression_type(DBCompressionType.lz4())
    # RocksDB recovers up to the first torn record of its log: a prefix of the commits, which the changelog continues.
    blocks = BlockBasedOptions()
    blocks.set_block_cache(Cache(_BLOCK_CACHE_BYTES))
    blocks.set_bloom_filter(10, block_based=False)
    options.set_block_based_table_factory(blocks)
    return options
