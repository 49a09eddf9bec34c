"""Named places where a test may kill or stop a worker, or make a step fail. One switch; free when off.

`configure("after_end=kill:3")` makes the third pass through `after_end` kill the process with SIGKILL. `abort` makes
the step fail as a lost connection would, which between begin_transaction and EndTxn is a provable abort. `hold` keeps
the thread there, and no other, until failpoints are configured anew.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException

IN_A_COMMIT = (
    "before_begin",
    "after_produce",
    "after_offsets",
    "before_end",
    "after_end",
    "before_apply",
    "after_apply",
)
"""Those of a lane's commit, in their order. `abort` means something up to `after_offsets`."""

Action = Callable[[], None]

_HOLD_POLL_S = 0.01
_configured = 0  # how often
_armed: dict[str, tuple[int, Action]] = {}
_passed: dict[str, int] = {}


def _fail() -> None:
    raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT, "failpoint"))


def _hold() -> None:
    held_by = _configured
    while _configured == held_by:
        time.sleep(_HOLD_POLL_S)


_ACTIONS: dict[str, Action] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "abort": _fail,
    "hold": _hold,
}


def configure(text: str) -> None:
    """Arm these failpoints and no others: `name=action:count`, separated by commas, counting from now.

    Raises ValueError for an action that it does not know.
    """
    global _configured
    _configured += 1
    _armed.clear()
    for item in filter(None, text.split(",")):
        name, _, rest = item.partition("=")
        action, _, count = rest.partition(":")
        if action not in _ACTIONS:
            raise ValueError(f"unknown failpoint action {action!r}: use one of {', '.join(_ACTIONS)}")
        _passed[name] = 0
        _armed[name] = (int(count or 1), _ACTIONS[action])


def failpoint(name: str) -> None:
    """Do what was armed for `name` when its count is reached."""
    if not _armed or (armed := _armed.get(name)) is None:
        return
    _passed[name] = _passed.get(name, 0) + 1
    count, action = armed
    if _passed[name] == count:
        action()
