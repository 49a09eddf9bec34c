"""Settlement days: UTC dates as `YYYY-MM-DD`, which sort as they follow each other."""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache

DAY_US = 86_400_000_000
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


@lru_cache(maxsize=1024)  # one of a few days, millions of times
def _date(days_since_epoch: int) -> str:
    return date.fromordinal(_EPOCH_ORDINAL + days_since_epoch).isoformat()


def day_of(time_us: int) -> str:
    """The UTC date of a time in epoch microseconds."""
    return _date(time_us // DAY_US)


def is_date(text: str) -> bool:
    """True for `YYYY-MM-DD` of a day that exists."""
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


@lru_cache(maxsize=1024)
def next_day(day: str) -> str:
    """The date after `day`."""
    return (date.fromisoformat(day) + timedelta(days=1)).isoformat()


def open_day(stamped_us: int, *, highest_us: int, last_closed_date: str | None) -> str:
    """The day in whose batch a payment authorised at `stamped_us` settles.

    The stamp is another machine's clock: it counts up to a day past the highest broker time that the lane has seen,
    so a wrong clock cannot park a payment in a distant year; and never a day that has closed.
    """
    day = _date(min(stamped_us // DAY_US, highest_us // DAY_US + 1))
    return first_open(day, last_closed_date)


def first_open(day: str, last_closed_date: str | None) -> str:
    """`day`, or the first day that is still open if `day` has closed."""
    if last_closed_date is not None and day <= last_closed_date:
        return next_day(last_closed_date)
    return day
