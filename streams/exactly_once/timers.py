"""How durable timers are kept: two rows each in the agent's own timer table, one by due time and one by identity.

    b"d" + due_ms (8 bytes, big-endian) + len(key) (2 bytes) + key + name  ->  payload
    b"i" + len(key) (2 bytes) + key + name                                 ->  due_ms (8 bytes)

The first is scanned in order of due time; the second finds a timer that is moved or cancelled.
"""

from __future__ import annotations

import struct

from streams.exactly_once.records import TimerFired
from streams.exactly_once.table_spec import TableSpec

DUE = b"d"
IDENTITY = b"i"
OFFSETS = b"o"
"""Key of the row with the lane's source offsets, so that state and group can be compared at start-up."""


def timer_table(agent: str) -> TableSpec:
    """The table of an agent's timers and source offsets; its values are bytes as they are."""
    return TableSpec(name=f"{agent}-timers", encode=bytes, decode=bytes)


def id_key(key: bytes, name: str) -> bytes:
    """Key of the row that finds timer `name` of `key`."""
    return IDENTITY + _identity(key, name)


def due_key(due_ms: int, key: bytes, name: str) -> bytes:
    """Key of the row that orders timer `name` of `key` by its due time."""
    return DUE + encode_due(due_ms) + _identity(key, name)


def encode_due(due_ms: int) -> bytes:
    """Epoch milliseconds as eight bytes that sort as numbers do."""
    return struct.pack(">Q", due_ms)


def decode_due(encoded: bytes) -> int:
    """The reverse of encode_due."""
    return int(struct.unpack(">Q", encoded)[0])


def due_until(now_ms: int) -> tuple[bytes, bytes]:
    """The range of due rows whose time is not after `now_ms`."""
    return DUE, DUE + encode_due(now_ms + 1)


def parse_due_row(row_key: bytes, payload: bytes) -> TimerFired:
    """The timer that a row of the due order stands for."""
    due_ms = decode_due(row_key[1:9])
    (length,) = struct.unpack(">H", row_key[9:11])
    return TimerFired(
        key=row_key[11 : 11 + length], name=row_key[11 + length :].decode(), due_ms=due_ms, payload=payload
    )


def _identity(key: bytes, name: str) -> bytes:
    return struct.pack(">H", len(key)) + key + name.encode()
