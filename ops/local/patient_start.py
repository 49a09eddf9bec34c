"""Becomes a server whose timers may be a millisecond late: `python -m ops.local.patient_start COMMAND...`.

Cassandra's idle workers look for work again after 10 to 100 us, which took half of its CPU at 100 payments a second.
The kernel lets a process say how exact its timers need to be (prctl(2), PR_SET_TIMERSLACK; 50 us if it does not), so
that they wake seldom. What a socket or another thread wakes is not delayed. Decision 0025.
"""

from __future__ import annotations

import ctypes
import os
import sys

TIMER_SLACK_NS = 1_000_000
_PR_SET_TIMERSLACK = 29


def become(command: list[str]) -> None:
    """Replace this process by `command`; its threads inherit the slack."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(TIMER_SLACK_NS))
    os.execv(command[0], command)  # noqa: S606 - it keeps our process id, which the supervisor knows


if __name__ == "__main__":
    become(sys.argv[1:])
