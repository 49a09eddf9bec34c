"""The rate at which POST /payments saturates the platform, and its latency at half of that rate.

The rate climbs step by step. A step is sustained when every request in it was answered 201: decided, recorded and told
within the time that a client waits. Beyond saturation answers are 202 (later than that) or 429 (admission by backlog).

It climbs again until twice in a row that has not brought it higher: after a start the servers' compilers have minutes
of work, and what is measured is a platform that has run for a while.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from ops.bench.create import Latencies, Load, open_session
from ops.bench.rest import Processes, rest
from ops.demo.platform import Platform

FIRST_RATE = 50.0  # requests per second
GROWTH = 1.25
SUSTAINED = "201"
CLIMBS = 6  # at most


class Saturation(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a run; rates in requests per second."""

    saturation_rate: float | None  # the highest that was sustained; None: not even the first
    climbs: list[float | None]  # the same of each climb
    steps: list[Latencies]  # of the climb that went highest
    at_half: Latencies | None


async def measure_saturation(platform: Platform, processes: Processes, step_s: float, seconds: float) -> Saturation:
    """Climbs with steps of `step_s` seconds, then `seconds` at half of the highest rate that was sustained.

    In between the stack's `processes` come to rest again: what was too much for them has left its own work behind.
    Raises StackError when they do not.
    """
    idle = await rest(processes)
    async with open_session(platform) as session:
        load = Load(session, platform.urls["api"], platform.secret_key)
        climbs: list[list[Latencies]] = []
        while len(climbs) < CLIMBS and not _no_higher(climbs):
            climbs.append([step async for step in _climb(load, step_s)])
            await rest(processes, idle)
        highest = max(climbs, key=len)
        rates = [_top(steps) for steps in climbs]
        top = _top(highest)
        half = None if top is None else await _step(load, top / 2, seconds)
    return Saturation(saturation_rate=top, climbs=rates, steps=highest, at_half=half)


def _no_higher(climbs: list[list[Latencies]]) -> bool:
    """Whether the last two climbs went no higher than one before."""
    return len(climbs) > 2 and max(map(len, climbs[-2:])) <= max(map(len, climbs[:-2]))


def _top(steps: list[Latencies]) -> float | None:
    """The highest rate that a climb sustained: all but its last step were."""
    return steps[-2].rate_wanted if len(steps) > 1 else None


def is_sustained(step: Latencies) -> bool:
    """Whether the platform kept up with a step's rate."""
    return set(step.statuses) == {SUSTAINED}


async def _climb(load: Load, step_s: float) -> AsyncIterator[Latencies]:
    rate = FIRST_RATE
    while True:
        step = await _step(load, rate, step_s)
        yield step
        if not is_sustained(step):
            return
        rate *= GROWTH


async def _step(load: Load, rate: float, seconds: float) -> Latencies:
    load.forget()
    return load.latencies(rate, await load.run(rate, seconds))
