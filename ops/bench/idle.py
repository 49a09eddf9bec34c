"""What the stack costs while nobody uses it: CPU, memory and threads of every process."""

from __future__ import annotations

import time

import msgspec
import psutil

from ops.local.layout import Home
from ops.local.status import status_document

MIB = 1 << 20


class ProcessCost(msgspec.Struct, frozen=True, kw_only=True):
    """One process over the measured time."""

    name: str
    instance: int
    cpu_percent: float  # of one core
    rss_mb: int
    threads: int
    voluntary_switches_per_s: float  # how often it woke up


def measure_idle(home: Home, seconds: float) -> list[ProcessCost]:
    """Watch every process of the stack for `seconds`; most expensive first. Raises StackError, psutil.NoSuchProcess."""
    services = [(s.name, s.instance, psutil.Process(s.pid)) for s in status_document(home).services if s.pid]
    before = [_spent(process) for _, _, process in services]
    began = time.monotonic()
    time.sleep(seconds)
    took_s = time.monotonic() - began
    costs = []
    for (name, instance, process), (cpu_s, switches) in zip(services, before, strict=True):
        cpu_after_s, switches_after = _spent(process)
        costs.append(
            ProcessCost(
                name=name,
                instance=instance,
                cpu_percent=round((cpu_after_s - cpu_s) / took_s * 100, 2),
                rss_mb=process.memory_info().rss // MIB,
                threads=process.num_threads(),
                voluntary_switches_per_s=round((switches_after - switches) / took_s, 1),
            )
        )
    return sorted(costs, key=lambda cost: -cost.cpu_percent)


def _spent(process: psutil.Process) -> tuple[float, int]:
    """(CPU seconds, voluntary context switches of its main thread) since the process began."""
    times = process.cpu_times()
    return times.user + times.system, process.num_ctx_switches().voluntary
