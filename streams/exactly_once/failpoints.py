"""Named places where a test may kill, stop or delay a worker. One switch, read once; free when off.

`configure("after_end=kill:3")` makes the third pass through `after_end` kill the process with SIGKILL.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

Action = Callable[[], None]

_armed: dict[str, tuple[int, Action]] = {}
_passed: dict[str, int] = {}

_ACTIONS: dict[str, Action] = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


def configure(text: str) -> None:
    """Arm failpoints: `name=action:count`, separated by commas. Raises ValueError for what it does not know."""
    for item in filter(None, text.split(",")):
        name, _, rest = item.partition("=")
        action, _, count = rest.partition(":")
        if action not in _ACTIONS:
            raise ValueError(f"unknown failpoint action {action!r}: use one of {', '.join(_ACTIONS)}")
        _armed[name] = (int(count or 1), _ACTIONS[action])


def failpoint(name: str) -> None:
    """Do what was armed for `name` when its count is reached."""
    if not _armed or name not in _armed:
        return
    _passed[name] = _passed.get(name, 0) + 1
    count, action = _armed[name]
    if _passed[name] == count:
        action()
