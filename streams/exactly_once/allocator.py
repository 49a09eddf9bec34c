"""What glibc's malloc is told; with another C library nothing happens.

Sources: mallopt(3), malloc_trim(3).
"""

from __future__ import annotations

import contextlib
import ctypes

_M_ARENA_MAX = -8
ARENAS = 2
"""By default each thread gets an arena of its own, up to eight for each core, and none gives back what it once held. A
worker has a dozen threads, of librdkafka's: with two arenas it is 254 MB instead of 317, and no slower."""


def keep_few_arenas() -> None:
    """For the arenas that are not made yet: call it early."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS)


def give_memory_back() -> None:
    """What has been freed goes back to the system: after a restore of three million keys that is 76 MB."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
