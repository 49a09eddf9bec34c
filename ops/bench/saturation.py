"""The rate at which POST /payments saturates the platform, and its latency at half of that rate.

The rate climbs step by step. A step is sustained when every request in it was answered 201: decided, recorded and told
within the time that a client waits. Beyond saturation answers are 202 (later than that) or 429 (admission by backlog).
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


class Saturation(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a run; rates in requests per second."""

    saturation_rate: float | None  # the highest that was sustained; None: not even the first
    steps: list[Latencies]
    at_half: Latencies | None


async def measure_saturation(platform: Platform, processes: Processes, step_s: float, seconds: float) -> Saturation:
    """Steps of `step_s` seconds each until one is not sustained, then `seconds` at half of the last one that was.

    In between the stack's `processes` come to rest again: what was too much for them has left its own work behind.
    Raises StackError when they do not.
    """
    idle = await rest(processes)
    async with open_session(platform) as session:
        load = Load(session, platform.urls["api"], platform.secret_key)
        steps = [step async for step in _climb(load, step_s)]
        sustained = [step.rate_wanted for step in steps if is_sustained(step)]
        if not sustained:
            return Saturation(saturation_rate=None, steps=steps, at_half=None)
        await rest(processes, idle)
        half = await _step(load, sustained[-1] / 2, seconds)
    return Saturation(saturation_rate=sustained[-1], steps=steps, at_half=half)


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
