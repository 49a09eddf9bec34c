"""When the stack has done what came before, and what it costs from then on while nobody uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import psutil

from ops.local.errors import StackError
from ops.local.layout import Home
from ops.local.status import status_document

LOOK_S = 10.0
LOOKS = 18
STEADY = 0.9  # of what it was in the time before: it does not become less any more
AS_BEFORE = 1.5  # times an earlier rest: Cassandra compacts at a steady pace what a load has left behind

Processes = Sequence[tuple[str, int, psutil.Process]]
"""(service, instance, process)."""


def processes_of(home: Home) -> Processes:
    """Every process of the stack that runs. Raises StackError, psutil.NoSuchProcess."""
    return [(s.name, s.instance, psutil.Process(s.pid)) for s in status_document(home).services if s.pid]


def spent_s(processes: Processes) -> list[float]:
    """CPU seconds of each since it began."""
    times = [process.cpu_times() for _, _, process in processes]
    return [each.user + each.system for each in times]


async def rest(processes: Processes, earlier: Sequence[float] | None = None) -> list[float]:
    """CPU seconds per second of each, once it has become as little as it does: about what it was `earlier`, if given.

    Raises StackError when it does not.
    """
    most_s = float("inf") if earlier is None else AS_BEFORE * sum(earlier)
    last_s = float("inf")
    for _ in range(LOOKS):
        before = spent_s(processes)
        await asyncio.sleep(LOOK_S)
        costs = [(after - b) / LOOK_S for after, b in zip(spent_s(processes), before, strict=True)]
        if STEADY * last_s <= sum(costs) <= most_s:
            return costs
        last_s = sum(costs)
    raise StackError("the stack does not come to rest", "Measure when nobody else uses it.")
