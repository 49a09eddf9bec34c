"""The faults of a round: what each does to workers or broker, and which steps of it must recover."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil

from ops.chaos.engine.harness import Harness
from ops.chaos.engine.workers import Worker
from streams.exactly_once.failpoints import IN_A_COMMIT

PASSES_MAX = 30  # a failpoint bites at one of its next passes
BITE_S = 30.0  # under load a failpoint is reached within seconds
BROKER_BACK_S = 120.0
POLL_S = 0.02
VISITOR = 9  # number of the worker that comes and goes; no static member


@dataclass(frozen=True, slots=True)
class Fault:
    """`inject` yields after each step from which the app must recover; its name is that of the step."""

    kind: str  # "kill", "zombie" or "gentle"
    inject: Callable[[Harness, random.Random], Iterator[str]]
    needs_broker: bool = False  # only where another one goes on


def _any(harness: Harness, source: random.Random) -> Worker:
    alive = [worker for worker in harness.workers.all.values() if worker.alive and worker.number != VISITOR]
    return source.choice(alive)


def _armed(source: random.Random, action: str) -> str:
    return f"{source.choice(IN_A_COMMIT)}={action}:{source.randint(1, PASSES_MAX)}"


def _kill(harness: Harness, source: random.Random) -> Iterator[str]:
    harness.workers.kill(_any(harness, source))
    yield "kill -9 of a worker"


def _kill_at_failpoint(harness: Harness, source: random.Random) -> Iterator[str]:
    worker = _any(harness, source)
    harness.workers.arm(worker, _armed(source, "kill"))
    try:
        harness.workers.wait(worker, BITE_S)
    except subprocess.TimeoutExpired:  # it has no lane now that commits: kill it wherever it is
        harness.workers.kill(worker)
    yield "kill -9 at a failpoint"


def _kill_all(harness: Harness, source: random.Random) -> Iterator[str]:
    for worker in list(harness.workers.all.values()):
        if worker.alive:
            harness.workers.kill(worker)
    yield "kill -9 of all workers"


def _kill_broker(harness: Harness, source: random.Random) -> Iterator[str]:
    harness.cluster.kill_broker(source.randrange(harness.cluster.nodes))
    yield "kill -9 of a broker"
    yield from _until_brokers_run(harness)


def _kill_broker_and_worker(harness: Harness, source: random.Random) -> Iterator[str]:
    harness.cluster.kill_broker(source.randrange(harness.cluster.nodes))
    harness.workers.kill(_any(harness, source))
    yield "kill -9 of broker and worker"
    yield from _until_brokers_run(harness)


def _abort(harness: Harness, source: random.Random) -> Iterator[str]:
    """A provable abort: the lane rewinds and goes on."""
    for worker in harness.workers.all.values():
        point = source.choice(("after_produce", "after_offsets"))
        harness.workers.arm(worker, f"{point}=abort:{source.randint(1, PASSES_MAX)}")
    yield "a transaction that cannot go on"


def _until_brokers_run(harness: Harness) -> Iterator[str]:
    """A second broker must not go before the first is back: with two of three gone nothing can commit."""
    deadline = time.monotonic() + BROKER_BACK_S
    while not harness.cluster.all_brokers_run() and time.monotonic() < deadline:
        harness.workers.revive()
        time.sleep(POLL_S)
    yield "a broker that is back"


def _zombie(harness: Harness, source: random.Random) -> Iterator[str]:
    worker = _any(harness, source)
    harness.workers.signal(worker, signal.SIGSTOP)
    yield "SIGSTOP"  # recovers only once the others own every partition
    harness.workers.signal(worker, signal.SIGCONT)
    yield "SIGCONT of a zombie"


def stop_at(harness: Harness, worker: Worker, armed: str) -> None:
    """Return once the worker has stopped itself at a failpoint, or was stopped because it did not come to it."""
    harness.workers.arm(worker, armed)
    assert worker.process is not None
    process = psutil.Process(worker.process.pid)
    deadline = time.monotonic() + BITE_S
    while worker.alive and process.status() != psutil.STATUS_STOPPED:
        if time.monotonic() > deadline:
            harness.workers.signal(worker, signal.SIGSTOP)
        time.sleep(POLL_S)


def _zombie_at_failpoint(harness: Harness, source: random.Random) -> Iterator[str]:
    worker = _any(harness, source)
    stop_at(harness, worker, _armed(source, "stop"))
    yield "SIGSTOP at a failpoint"
    harness.workers.signal(worker, signal.SIGCONT)
    yield "SIGCONT of a zombie in a commit"


def _short_stop(harness: Harness, source: random.Random) -> Iterator[str]:
    """Shorter than the session: nobody takes over, the worker just goes on."""
    worker = _any(harness, source)
    harness.workers.signal(worker, signal.SIGSTOP)
    stopped_until = time.monotonic() + source.uniform(0.5, 3.0)
    while time.monotonic() < stopped_until:
        time.sleep(POLL_S)
    harness.workers.signal(worker, signal.SIGCONT)
    yield "SIGSTOP for a moment"


def _terminate(harness: Harness, source: random.Random) -> Iterator[str]:
    worker = _any(harness, source)
    harness.workers.signal(worker, signal.SIGTERM)
    harness.workers.wait(worker)
    yield "SIGTERM of a worker"


def _churn(harness: Harness, source: random.Random) -> Iterator[str]:
    visitor = harness.workers.start(VISITOR, static=False)
    yield "a worker joins"
    harness.workers.retire(visitor)
    yield "a worker leaves"


def _storm(harness: Harness, source: random.Random) -> Iterator[str]:
    """Workers join and leave faster than rebalances settle."""
    for _ in range(2):
        visitor = harness.workers.start(VISITOR, static=False)
        stays_until = time.monotonic() + source.uniform(2.0, 5.0)
        while time.monotonic() < stays_until:
            time.sleep(POLL_S)
        if source.random() < 0.5:
            harness.workers.kill(visitor)
            visitor.process = None
        else:
            harness.workers.retire(visitor)
    yield "a rebalance storm"


FAULTS: dict[str, Fault] = {
    "kill": Fault("kill", _kill),
    "kill-at-failpoint": Fault("kill", _kill_at_failpoint),
    "kill-all": Fault("kill", _kill_all),
    "kill-broker": Fault("kill", _kill_broker, needs_broker=True),
    "kill-broker-and-worker": Fault("kill", _kill_broker_and_worker, needs_broker=True),
    "zombie": Fault("zombie", _zombie),
    "zombie-at-failpoint": Fault("zombie", _zombie_at_failpoint),
    "abort": Fault("gentle", _abort),
    "terminate": Fault("gentle", _terminate),
    "short-stop": Fault("gentle", _short_stop),
    "churn": Fault("gentle", _churn),
    "storm": Fault("gentle", _storm),
}


def one_round(source: random.Random, *, may_kill_broker: bool) -> list[str]:
    """One fault of each kind, in any order."""
    usable = {name: fault for name, fault in FAULTS.items() if may_kill_broker or not fault.needs_broker}
    kinds = sorted({fault.kind for fault in usable.values()})
    chosen = [source.choice([name for name, fault in usable.items() if fault.kind == kind]) for kind in kinds]
    source.shuffle(chosen)
    return chosen
