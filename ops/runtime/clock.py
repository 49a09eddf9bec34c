"""The clock port: every other module is handed the time, so that tests and replays choose it.

Unit everywhere: integer microseconds since the epoch, UTC.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_NAIVE = datetime(1970, 1, 1)  # noqa: DTZ001 - its texts name no offset, so that ours can be `Z`


class Clock(Protocol):
    """What tells the time."""

    def now_us(self) -> int:
        """Microseconds since the epoch, UTC."""
        ...


class SystemClock:
    """The host's clock."""

    def now_us(self) -> int:
        return time.time_ns() // 1_000


def to_rfc3339(instant_us: int) -> str:
    """`2026-11-22T18:07:00.000001Z`: always six decimals, so that texts sort as the times do."""
    return f"{(_EPOCH_NAIVE + timedelta(microseconds=instant_us)).isoformat(timespec='microseconds')}Z"


def from_rfc3339(text: str) -> int:
    """Microseconds since the epoch for an RFC 3339 time in any offset.

    Raises ValueError for anything else: a time without an offset, one outside the years 1 to 9999 in UTC.
    """
    if _RFC3339.fullmatch(text) is None:
        raise ValueError("not an RFC 3339 time")
    try:
        moment = datetime.fromisoformat(text.upper()).astimezone(UTC)  # its offset may lead out of the calendar
    except OverflowError:
        raise ValueError("before the year 1 or after 9999") from None
    return (moment - _EPOCH) // timedelta(microseconds=1)
