"""How long a worker's partitions stand still when it is killed and nobody starts it again: another one takes over.

Two workers share an app; each keeps copies of the other's tables. One is killed with SIGKILL, and the clock runs until
a record appended then to each partition is answered: the session's time-out, the rebalance, and what the copies lack.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec

from ops.chaos.engine.checker import rows_of
from ops.chaos.engine.cluster import Cluster
from ops.chaos.engine.harness import Harness
from ops.chaos.engine.load import append
from ops.chaos.engine.topology import Topics
from ops.chaos.engine.workers import Worker

RECOVERY_S = 120.0
AMOUNT = "2"  # sets no timer


class Takeover(msgspec.Struct):
    """What one kill cost."""

    seconds: float  # until every partition answered
    restored: int  # changelog records that the copies lacked, of all lanes that were taken over
    rows: int  # that the tables held


def takeovers(
    cluster: Cluster, root: Path, times: int, rows: int, partitions: int, say: Callable[[str], None]
) -> list[Takeover]:
    """Kill one of two workers so many times, the one that did not take over last; the other is alone meanwhile."""
    harness = Harness(cluster, Topics(f"takeover-{uuid.uuid4().hex[:8]}", partitions), root)
    found = []
    with harness.prepared():
        for number in (0, 1):
            harness.workers.start(number)
        harness.recovery_s(RECOVERY_S)
        append(cluster, harness.topics, ((f"k{number}.", AMOUNT) for number in range(rows)))
        harness.settle(RECOVERY_S)
        for turn in range(times):
            victim, survivor = (harness.workers.all[(turn + place) % 2] for place in (0, 1))
            found.append(take_over(harness, victim, survivor))
            say(f"{found[-1].seconds:.1f} s, {found[-1].restored} records restored for {found[-1].rows} rows")
            said = len(harness.workers.log_of(victim.number))
            harness.workers.start(victim.number)
            while "lanes run" not in harness.workers.log_of(victim.number)[said:]:  # it has its share again
                harness.recovery_s(RECOVERY_S)
    return found


def take_over(harness: Harness, victim: Worker, survivor: Worker) -> Takeover:
    """Kill `victim` once `survivor` has copies of everything, and wait until every partition answers."""
    balances = harness.checker.expected().balances
    while not all(_holds(survivor, partition, rows) for partition, rows in balances.items()):
        harness.workers.revive()
    said = len(harness.workers.log_of(survivor.number))
    harness.workers.kill(victim)
    victim.process = None  # and nobody starts it again
    seconds = harness.recovery_s(RECOVERY_S)
    opened = re.findall(r"lane=sums-\S+ restored=(\d+)", harness.workers.log_of(survivor.number)[said:])
    return Takeover(round(seconds, 2), sum(map(int, opened)), sum(map(len, balances.values())))


def _holds(worker: Worker, partition: int, balances: dict[bytes, int]) -> bool:
    """Whether this worker's RocksDB of a partition, its own or a copy, holds exactly these rows."""
    path = worker.state / "sums" / str(partition)
    return path.exists() and rows_of(path).balances == balances
