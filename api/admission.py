"""Admission by backlog: no command is taken that would wait longer than a client should, nor more than memory bounds.

What waits is known here: commands that were sent and not yet answered, and how fast answers come. A new command would
wait for all that are before it: their number divided by the rate of answers. That number is also the honest
Retry-After. While no answer comes at all, a dependency is away: creates are still taken (202), up to a fixed number.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge

from api.problems import Problem
from ops.runtime.settings import Settings

RATE_WINDOW_S = 5.0
RATE_STEP_S = 0.1
OVERTAKEN_S = 60.0  # an answer to a command sent so much later means that the earlier one's is lost
RETRY_AFTER_MAX_S = 60.0


class Backlog:
    """The commands of this process that wait for their answer, by correlation id. Only the event loop touches it."""

    def __init__(self, settings: Settings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._sent_at: OrderedDict[str, float] = OrderedDict()
        self._answers: deque[tuple[float, int]] = deque()  # (time, answers within a step from it on)
        self._busy_since = 0.0

    def __len__(self) -> int:
        return len(self._sent_at)

    def oldest_s(self) -> float:
        """For how long the oldest unanswered command has waited."""
        return self._monotonic() - next(iter(self._sent_at.values())) if self._sent_at else 0.0

    def admit(self) -> None:
        """Raises Problem overloaded when one more command would wait too long."""
        limits, oldest_s = self._settings, self.oldest_s()
        late_s = limits.reply_timeout_s  # an answer that takes longer than this is 202 or 503
        if len(self) < limits.commands_waiting_free or (oldest_s <= late_s and len(self) < limits.commands_waiting_max):
            return
        rate = self._answers_per_s()
        wait_s = len(self) / rate if rate else None
        if len(self) >= limits.commands_waiting_max:
            raise _overloaded(oldest_s if wait_s is None else wait_s)  # an outage lasts about as long as it has lasted
        if wait_s is not None and wait_s > limits.command_wait_max_s:
            raise _overloaded(wait_s - late_s)

    def sent(self, correlation_id: str) -> None:
        """From now on the command waits."""
        now = self._monotonic()
        if not self._sent_at:
            self._busy_since = now
            self._answers.clear()
        self._sent_at[correlation_id] = now

    def withdrawn(self, correlation_id: str) -> None:
        """The command did not become durable."""
        self._sent_at.pop(correlation_id, None)

    def answered(self, correlation_id: str) -> None:
        """The first reply counts; later ones of the same command tell of its effects."""
        sent_at = self._sent_at.pop(correlation_id, None)
        if sent_at is None:
            return
        now = self._monotonic()
        if self._answers and now - self._answers[-1][0] < RATE_STEP_S:
            at, count = self._answers.pop()
            self._answers.append((at, count + 1))
        else:
            self._answers.append((now, 1))
        while self._sent_at and next(iter(self._sent_at.values())) < sent_at - OVERTAKEN_S:
            self._sent_at.popitem(last=False)

    def describe(self, registry: CollectorRegistry) -> None:
        """Shows the backlog among the process's figures."""
        Gauge("payments_commands_unanswered", "Commands sent and not answered", registry=registry).set_function(
            lambda: float(len(self))
        )
        Gauge(
            "payments_commands_oldest_seconds", "Age of the oldest unanswered command", registry=registry
        ).set_function(self.oldest_s)

    def _answers_per_s(self) -> float:
        now = self._monotonic()
        since = max(now - RATE_WINDOW_S, self._busy_since)
        while self._answers and self._answers[0][0] < since:
            self._answers.popleft()
        return sum(count for _, count in self._answers) / max(now - since, RATE_STEP_S)


def _overloaded(wait_s: float) -> Problem:
    seconds = math.ceil(min(max(wait_s, 1.0), RETRY_AFTER_MAX_S))
    return Problem("overloaded", "commands wait longer than they should", headers={"Retry-After": str(seconds)})
