"""What must turn red on a real cluster: stock Faust, and the engine with each of its seeded bugs.

A check that cannot go red is no check. Each mutant runs under the scenario that shows it; some can only show in the
simulation, which says so here with the reason.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from ops.chaos.engine import held_requests
from ops.chaos.engine.cluster import Cluster
from ops.chaos.engine.end_txn_proxy import EndTxnProxy, end_txn_proxy
from ops.chaos.engine.faults import FAULTS, stop_at
from ops.chaos.engine.harness import Harness, NoAnswer
from ops.chaos.engine.load import KEYS, Load, plain_producer
from ops.chaos.engine.mutants import MUTANTS, Mutant
from ops.chaos.engine.topology import Topics
from ops.chaos.engine.workers import STOCK

PARTITIONS, WORKERS, RATE = 4, 2, 500.0
START_S, RECOVERY_S, SETTLE_S = 90.0, 30.0, 6.0
STEADY_S = 2.0
STOCK_KILLS = 3
QUIET_TRIES, QUIET_S = 12, 0.6
ZOMBIES = 4
BAD_EVERY = 25  # one record in so many is poison or fails: some mutants show by nothing else

Say = Callable[[str], None]
Scenario = Callable[[Harness, random.Random], None]


def _for_a_while(harness: Harness, seconds: float = STEADY_S) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        harness.workers.revive()
        time.sleep(0.05)


def _steady(harness: Harness, source: random.Random) -> None:
    """No fault at all."""
    _for_a_while(harness)


def _faults(*names: str) -> Scenario:
    def scenario(harness: Harness, source: random.Random) -> None:
        for name in names:
            for _ in FAULTS[name].inject(harness, source):
                harness.recovery_s(RECOVERY_S)
            _for_a_while(harness, 0.5)

    return scenario


def _killed_at(*points: str) -> Scenario:
    """kill -9 at these failpoints, one after the other, at its fifth commit; the same worker starts again."""

    def scenario(harness: Harness, source: random.Random) -> None:
        for point in points:
            worker = harness.workers.all[0]
            harness.workers.arm(worker, f"{point}=kill:5")
            harness.workers.wait(worker)
            harness.recovery_s(RECOVERY_S)

    return scenario


def _state_set_back(harness: Harness, source: random.Random) -> None:
    """Every worker starts with its state of some time ago: only the changelog knows of what came after."""
    old = harness.root / "old"
    _for_a_while(harness)
    for _ in range(2):
        harness.workers.retire_all()
        for worker in harness.workers.all.values():
            if old.exists():
                shutil.rmtree(worker.state)
                shutil.copytree(old / str(worker.number), worker.state)
        if not old.exists():
            for worker in harness.workers.all.values():
                shutil.copytree(worker.state, old / str(worker.number))
        for worker in harness.workers.all.values():
            harness.workers.start(worker.number)
        harness.recovery_s(RECOVERY_S)
        _for_a_while(harness, 1.0)
    shutil.rmtree(old)


def _zombie_before_step_2(harness: Harness, source: random.Random) -> None:
    """Stopped with a snapshot in hand, which it takes through its transaction after others have taken over.

    Several times: the snapshot may be an effector's, whose answers may come twice, or hold nothing but offsets.
    """
    for number in range(ZOMBIES):
        worker = harness.workers.all[number % WORKERS]
        stop_at(harness, worker, "before_begin=stop:20")
        harness.recovery_s(RECOVERY_S)
        harness.workers.signal(worker, signal.SIGCONT)
        harness.recovery_s(RECOVERY_S)


def _aborted_with_timers_set(harness: Harness, source: random.Random) -> None:
    """An abort while timers wait, and nothing after it that sets another: only the lane's memory can fire them."""
    producer = plain_producer(harness.cluster)
    for number in range(QUIET_TRIES):
        for worker in harness.workers.all.values():
            harness.workers.arm(worker, f"after_offsets=abort:{2 + number % 3}")
        _for_a_while(harness, QUIET_S)  # longer than a timer waits
        for amount in ("1", "0"):
            producer.produce(harness.topics.inputs, amount, f"quiet-{number}.")
            producer.flush(RECOVERY_S)
    _for_a_while(harness, QUIET_S)


SCENARIOS: dict[str, Scenario] = {
    "drop the barrier": _killed_at(*["after_end"] * 8),
    "apply before commit": _killed_at("before_end", "before_end"),
    "skip the generation": _zombie_before_step_2,
    "an abort is committed": _faults("abort", "abort", "abort"),
    "an abort is not said": _faults("abort", "abort", "abort"),
    "an abort of one": _faults("abort", "abort", "abort"),
    "offsets of any lane": _state_set_back,
    "keep layers": _faults(*["abort"] * 8),
    "keep the inbox": _faults(*["abort"] * 8),
    "newest as committed": _faults(*["abort"] * 8),
    "offsets read later": _killed_at(*["after_end"] * 8),
    "no restore": _state_set_back,
    "restore off by one": _state_set_back,
    "no offsets": _killed_at("after_apply"),
    "timers lost by a rewind": _aborted_with_timers_set,
    "keep any lane": _faults(*["zombie"] * 3),
}
"""The fault that shows a mutant; all others show under load without any."""

RATES = {
    "drop the barrier": 2_000.0,
    "keep the inbox": 4_000.0,
    "newest as committed": 4_000.0,
    "keep layers": 2_000.0,
    "an abort of one": 2_000.0,
    "offsets of any lane": 4_000.0,
    "timers lost by a rewind": 0.0,
}
"""A handler must be at work when its lane commits, records in hand when a commit fails, a transaction of many lanes."""

MANY_KEYS = {"restore off by one": 100_000, "offsets of any lane": 100_000}
"""A row that is lost shows only while its key is not written again."""

HELD = {
    "unknown is committed": held_requests.request_late,
    "unknown is aborted": held_requests.answer_late,
}
"""What shows by nothing but an EndTxn that the network holds: through a proxy, without load."""

SIMULATION_ONLY = {
    "keep positions": "the records that come again mend it, unless a kill falls into the same milliseconds",
    "late acks": "an effector's record may run twice across an abort; only the model sees which run was counted",
    "no fencing": "only the model's broker can be asked for the epoch that it is at",
}


def run_mutant(cluster: Cluster, root: Path, mutant: Mutant, seed: int = 1) -> list[str]:
    """The violations that the engine with this bug shows; none: it stayed green."""
    topics = Topics(f"mutant-{uuid.uuid4().hex[:8]}", PARTITIONS)
    state = root / topics.id
    state.mkdir()
    harness = Harness(cluster, topics, state, mutant=mutant.name)
    if mutant.name in HELD:
        return _run_held(harness, HELD[mutant.name])
    scenario = SCENARIOS.get(mutant.name, _steady)
    found = []
    with harness.prepared():
        for number in range(WORKERS):
            harness.workers.start(number)
        rate, keys = RATES.get(mutant.name, RATE), MANY_KEYS.get(mutant.name, KEYS)
        load = Load(cluster, topics, rate, seed, keys=keys, bad_every=BAD_EVERY) if rate else contextlib.nullcontext()
        try:
            harness.recovery_s(START_S)
            with load:
                scenario(harness, random.Random(seed))
        except NoAnswer as error:
            found.append(str(error))
        return [*found, *harness.finish(SETTLE_S).violations]


def _run_held(harness: Harness, scenario: Callable[[Harness, EndTxnProxy], None]) -> list[str]:
    direct, harness.cluster = harness.cluster, harness.cluster.through_proxy
    harness.workers.cluster = harness.cluster
    with end_txn_proxy(direct) as proxy, harness.prepared():
        try:
            scenario(harness, proxy)
            harness.recovery_s(RECOVERY_S)
        except NoAnswer as error:
            return [*harness.workers.complaints(), str(error)]
        return harness.finish(SETTLE_S).violations


def run_mutants(cluster: Cluster, root: Path, only: str, say: Say) -> bool:
    """Every mutant that can show on a cluster; True when all are red."""
    green = []
    for mutant in MUTANTS:
        if only not in mutant.name:
            continue
        if mutant.name in SIMULATION_ONLY:
            say(f"{mutant.name:<26} only in the simulation: {SIMULATION_ONLY[mutant.name]}")
            continue
        if mutant.name in HELD and cluster.proxied is None:
            say(f"{mutant.name:<26} not here: only brokers of our own can be put behind a proxy")
            continue
        began = time.monotonic()
        found = run_mutant(cluster, root, mutant)
        seconds = time.monotonic() - began
        say(f"{mutant.name:<26} {'red' if found else 'GREEN'} {seconds:5.1f} s  {found[0][:110] if found else ''}")
        if not found:
            green.append(mutant.name)
    say(f"{len(green)} stayed green: {', '.join(green)}" if green else "Every seeded bug turned red.")
    return not green


def stock_violations(cluster: Cluster, root: Path, seed: int) -> list[str]:
    """What stock Faust breaks under a few kills. Raises NoAnswer if it does not even work without a fault."""
    topics = Topics(f"stock-{uuid.uuid4().hex[:8]}", PARTITIONS, PARTITIONS)
    state = root / topics.id
    state.mkdir()
    harness = Harness(cluster, topics, state, module=STOCK)
    source = random.Random(seed)
    found = []
    with harness.prepared():
        for number in range(WORKERS):
            harness.workers.start(number)
        harness.recovery_s(START_S, topics.out)
        try:
            with Load(cluster, topics, RATE, seed):
                for _ in range(STOCK_KILLS):
                    _for_a_while(harness, 1.0)
                    harness.workers.kill(harness.workers.all[source.randrange(WORKERS)])
                    harness.recovery_s(RECOVERY_S, topics.out)
            harness.settle(SETTLE_S, topics.out)
        except NoAnswer as error:
            found.append(str(error))
        harness.workers.retire_all()
        verdict = harness.checker.check(None, echoes=False)
        return [*found, *verdict.violations]


def run_stock(cluster: Cluster, root: Path, seed: int, say: Say) -> bool:
    """True when stock Faust turns red."""
    found = stock_violations(cluster, root, seed)
    for sentence in found:
        say(sentence)
    say("Stock Faust turned red." if found else "Stock Faust stayed GREEN: this check shows nothing.")
    return bool(found)
