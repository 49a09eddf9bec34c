"""What a handler knows of a table: its name, how its rows become bytes, and where a row keeps its version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True, frozen=True, eq=False)
class TableSpec:
    """A changelog-backed table of one app. Keys are bytes in bytewise order; each partition has its own changelog."""

    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    version: Callable[[Any], int] | None = None  # enables `expected_version` of puts


def prefix_end(prefix: bytes) -> bytes:
    """The smallest key greater than every key that begins with `prefix` (for scans)."""
    trimmed = prefix.rstrip(b"\xff")
    assert trimmed, "a prefix of only 0xff bytes has no end"
    return trimmed[:-1] + bytes([trimmed[-1] + 1])
