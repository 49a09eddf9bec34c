"""The workload's records by this repository's codec, for the contenders that are written with it."""

from __future__ import annotations

from functools import partial
from typing import Any

from ops.bench.engine.workload import BALANCE, HEADER, MOVEMENT
from topics.avro_bodies import body_reader, body_writer
from topics.schemas import parsed

_read = body_reader(parsed(MOVEMENT))

encode_balance = partial(body_writer(parsed(BALANCE)), HEADER)
"""The bytes of an output."""


def decode_movement(value: bytes) -> Any:
    """The fields of an input."""
    return _read(value, len(HEADER))
