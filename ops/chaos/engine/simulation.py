"""The simulation: real lanes, pump and restore against a model broker, in an order and with faults that a seed decides.

One seed is one history: workers join, leave, stall as zombies and are killed in the middle of any call; requests and
answers get lost, EndTxn is delayed past its time-out, records arrive, timers come due. At the end everything heals, and
`violations` compares what the logs say with the fold of the input. Same seed, same history.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import structlog
from confluent_kafka import KafkaException

from ops.chaos.engine.judgement import violations
from ops.chaos.engine.model_broker import TRANSACTION_TIMEOUT_MS, Broker, Crash
from ops.chaos.engine.model_clients import ModelConsumer, ModelProducer, ModelStore
from ops.chaos.engine.model_worker import LaterExecutor, Worker
from ops.chaos.engine.subject import GROUP, KEYS, PARTITIONS, TOPICS, specs
from streams.exactly_once import lane_service
from streams.exactly_once.clients import Clients
from streams.exactly_once.effector import EffectorLane
from streams.exactly_once.errors import EngineError
from streams.exactly_once.lane import LaneState
from streams.exactly_once.membership import Membership
from streams.exactly_once.metrics import EngineMetrics
from streams.exactly_once.opening import LaneOpener
from streams.exactly_once.pump import Pump
from streams.exactly_once.restore import Abandoned

WORKERS = ("w0", "w1")
RESTARTS_MAX = 4  # while healing; an engine that needs more is not healing
TURNS_MAX = 600
ENTRIES_MAX = 5_000  # an engine that writes without end has failed already
QUIET_TURNS = 14  # without a new entry in any log: longer than timers and the transaction time-out


class Simulation:
    """One seed's world. `run` lives through it; `violations` judges it."""

    def __init__(self, seed: int, steps: int = 220) -> None:
        self._random = random.Random(seed)
        self._steps = steps
        self._faulty = True
        self._depth = 0
        changelogs = dict.fromkeys((f"{GROUP}-balances-changelog", f"{GROUP}-sums-timers-changelog"), PARTITIONS)
        self.broker = Broker({**TOPICS, **changelogs})
        self.workers = [Worker(name) for name in WORKERS]
        self._specs = specs()
        self._loop = asyncio.new_event_loop()
        self._births = 0
        self.history: Counter[str] = Counter()

    # The world's course

    def run(self) -> None:
        """Live through the seed's history, heal, and let everything come to rest."""
        try:
            for _ in range(self._steps):
                self._step()
            self._heal()
        finally:
            for worker in self.workers:
                self._kill(worker)
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()

    def _step(self, besides: Worker | None = None) -> None:
        """One thing happens; `besides`: not to this worker, which is in the middle of a call."""
        action = self._random.choices(
            (
                self._produce,
                self._turn,
                self._commit,
                self._rebalance,
                self._hear,
                self._die,
                self._pass_time,
                self._late,
            ),
            (14, 40, 30, 4, 10, 1.5, 6, 3),
        )[0]
        self.history[action.__name__] += 1
        action(besides)

    def _produce(self, besides: Worker | None) -> None:
        """Input from a plain producer, or from a transactional one that may abort."""
        aborts = self._random.random() < 0.1
        for _ in range(self._random.randrange(1, 6)):
            key = self._random.choice(KEYS)
            value = str(self._random.randrange(1, 30)).encode()
            if self._random.random() < 0.04:
                value = self._random.choice((b"garbage", b"666"))
            log = ("in", key[0] % PARTITIONS)
            if aborts:
                epoch = self.broker.initialise("upstream")
                self.broker.append(log, key, value, self.broker.begin_implicitly("upstream", epoch))
                self.broker.end("upstream", epoch, "aborted")
            else:
                self.broker.append(log, key, value)

    def _turn(self, besides: Worker | None) -> None:
        worker = self._any_worker(besides)
        if worker is not None:
            self._survive(worker, lambda: self._turn_once(worker))

    def _turn_once(self, worker: Worker) -> None:
        assert worker.pump is not None
        worker.pump._turn()
        self._loop.run_until_complete(asyncio.sleep(0))

    def _commit(self, besides: Worker | None) -> None:
        worker = self._any_worker(besides)
        if worker is not None and worker.executor.waiting:
            at = self._random.randrange(len(worker.executor.waiting))
            call, arguments = worker.executor.waiting.pop(at)
            self._survive(worker, lambda: call(*arguments))

    def _rebalance(self, besides: Worker | None) -> None:
        """A worker joins, leaves, or is taken for dead while it still runs; everybody hears of it later, or never."""
        if not self._faulty:
            return
        worker = self._random.choice(self.workers)
        if worker is besides:
            return
        if worker.alive and worker.member_id in self.broker.members:
            self.broker.members.discard(worker.member_id)  # expelled: it goes on as a zombie until it hears
        else:
            self._join(worker)
        self._assign()

    def _join(self, worker: Worker) -> None:
        if not worker.alive:
            self._start(worker)
        self._births += 1
        worker.member_id = f"{worker.name}-{self._births}"
        self.broker.members.add(worker.member_id)

    def _assign(self) -> None:
        """The group moves to its next generation; partitions are dealt out among its members."""
        self.broker.generation += 1
        members = [worker for worker in self.workers if worker.member_id in self.broker.members]
        for index, worker in enumerate(members):
            share = frozenset(n for n in range(PARTITIONS) if (n + self.broker.generation) % len(members) == index)
            membership = Membership(GROUP, self.broker.generation, worker.member_id, None)
            worker.pending = (membership, share)
            if worker.pump is not None:
                worker.pump.rebalancing = True

    def _hear(self, besides: Worker | None) -> None:
        worker = self._any_worker(besides)
        if worker is not None and worker.pending is not None:
            self._survive(worker, lambda: self._apply(worker))

    def _apply(self, worker: Worker) -> None:
        """As LaneService.apply: keep, remove and open lanes."""
        assert worker.pump is not None
        assert worker.opener is not None
        assert worker.pending is not None
        (membership, share), worker.pending = worker.pending, None
        wanted = {(spec.name, number): spec for spec in self._specs for number in share}
        old = worker.membership
        kept = set()
        if old is not None and lane_service.continues(old, membership):
            kept = {key for key, lane in worker.lanes.items() if key in wanted and lane.state is not LaneState.FENCED}
        worker.membership = membership
        for key in [key for key in worker.lanes if key not in kept]:
            worker.pump.remove(worker.lanes.pop(key), drain_s=0.0)
        for key in kept:
            worker.pump.keep(worker.lanes[key], membership)
        worker.pump.rebalancing = False
        self._drain(worker)
        for key, spec in wanted.items():
            if key in kept:
                continue
            lane = worker.opener.open(spec, key[1], membership, self._patience(worker, membership))
            if isinstance(lane, EffectorLane):
                lane.attach(self._call_soon, worker.pump.handled)
            worker.lanes[key] = lane
            worker.pump.add(lane)

    def _call_soon(self, action: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon(action)

    def _drain(self, worker: Worker) -> None:
        """Lanes that go must be gone before their successors open; their last commits run now."""
        for _ in range(20):
            self._turn_once(worker)
            while worker.executor.waiting:
                call, arguments = worker.executor.waiting.pop(0)
                call(*arguments)

    def _patience(self, worker: Worker, membership: Membership) -> Callable[[], bool]:
        """`wanted` of an opening lane: until another assignment is there, and not for ever."""
        asked = 0

        def wanted() -> bool:
            nonlocal asked
            asked += 1
            return asked < 50 and (worker.pending is None or worker.pending[0] == membership)

        return wanted

    def _die(self, besides: Worker | None) -> None:
        worker = self._any_worker(besides)
        if worker is not None and self._faulty:
            self._kill(worker)

    def _pass_time(self, _: Worker | None) -> None:
        self.broker.now_ms += self._random.randrange(1, 60)
        self.broker.expire()

    def _late(self, _: Worker | None) -> None:
        """A delayed request arrives after all."""
        if self.broker.delayed:
            arrive = self.broker.delayed.pop(self._random.randrange(len(self.broker.delayed)))
            try:
                arrive()
            except KafkaException:
                self.history["late request fenced"] += 1
            else:
                self.history["late request applied"] += 1

    def _heal(self) -> None:
        """No more faults: late requests arrive, the dead and zombies restart, and work goes on until all is quiet."""
        self._faulty = False
        while self.broker.delayed:
            self._late(None)
        for worker in self.workers:
            if not worker.alive or worker.member_id not in self.broker.members:
                self._rejoin(worker)
        self._assign()
        for _ in range(RESTARTS_MAX):
            self._settle()
        quiet, before = 0, -1
        for _ in range(TURNS_MAX):
            self.broker.now_ms += 20
            self.broker.expire()
            for worker in self.workers:
                if worker.alive:
                    self._survive(worker, partial(self._drain, worker))
            written = sum(len(log) for log in self.broker.logs.values())
            quiet, before = (quiet + 1 if written == before else 0), written
            if quiet == QUIET_TURNS or written > ENTRIES_MAX:
                return

    def _settle(self) -> None:
        """Everybody hears of the assignment; a worker that had to exit over it restarts as a new member."""
        self.broker.now_ms += 2 * TRANSACTION_TIMEOUT_MS
        self.broker.expire()
        for worker in self.workers:
            if worker.pending is not None:
                self._survive(worker, partial(self._apply, worker))
        if not all(worker.alive for worker in self.workers):
            for worker in self.workers:
                if not worker.alive:
                    self._rejoin(worker)
            self._assign()

    def _rejoin(self, worker: Worker) -> None:
        self._kill(worker)
        self.broker.members.discard(worker.member_id)
        self._join(worker)

    # Workers' lives

    def _any_worker(self, besides: Worker | None) -> Worker | None:
        candidates = [worker for worker in self.workers if worker.alive and worker is not besides]
        return self._random.choice(candidates) if candidates else None

    def _start(self, worker: Worker) -> None:
        worker.executor = LaterExecutor()
        clients = Clients(
            producer=lambda config: cast(Any, ModelProducer(self.broker, self, worker.name, config)),
            consumer=lambda config: ModelConsumer(self.broker, config),
            executor=lambda: worker.executor,
            store=lambda path: cast(Any, ModelStore(worker.disk.setdefault(str(path), {}))),
            sleep=lambda seconds: None,
        )

        def now_ms() -> int:
            return self.broker.now_ms

        worker.pump = Pump({}, on_lost=lambda error: None, clock_ms=now_ms, clients=clients)
        worker.opener = LaneOpener(GROUP, {}, Path("state"), EngineMetrics(), now_ms, clients)
        worker.lanes, worker.membership, worker.pending = {}, None, None

    def _kill(self, worker: Worker) -> None:
        for lane in worker.lanes.values():
            if isinstance(lane, EffectorLane):
                lane._cancel_running()
        worker.pump = worker.opener = None
        worker.lanes, worker.pending = {}, None

    def _survive(self, worker: Worker, act: Callable[[], None]) -> None:
        """A worker acts; it may be killed in the act, or find that it must exit."""
        try:
            act()
        except Crash:
            self.history["killed in a call"] += 1
            self._kill(worker)
        except Abandoned:
            self.history["start abandoned"] += 1
            self._kill(worker)
        except EngineError as error:
            self.history[f"exit: {type(error).__name__}"] += 1
            self._kill(worker)

    # Faults

    def at(self, worker: str, call: str) -> str:
        """What happens to a call of `worker`: others may act in the middle of it, it may be killed, lost or delayed."""
        if not self._faulty:
            return ""
        caller = next(one for one in self.workers if one.name == worker)
        if self._depth == 0 and self._random.random() < 0.25:
            self._depth += 1
            try:
                for _ in range(self._random.randrange(1, 4)):
                    self._step(besides=caller)
            finally:
                self._depth -= 1
        if self._depth == 0 and self._random.random() < 0.03:
            self._take_over(caller)
        return self._lot(call)

    def _lot(self, call: str) -> str:
        chance = self._random.random()
        if chance < 0.015:
            raise Crash
        lots = (
            (0.03, True, "lost"),
            (0.045, True, "unanswered"),
            (0.085, call in {"flush", "offsets", "end", "abort"}, "delayed"),
            (0.13, call in {"flush", "offsets"}, "lost"),
        )
        return next((lot for below, fits, lot in lots if chance < below and fits), "")

    def _take_over(self, caller: Worker) -> None:
        """In the middle of its call a worker is taken for dead, and another owns its lanes before it goes on."""
        others = [worker for worker in self.workers if worker.alive and worker is not caller]
        if not others or caller.member_id not in self.broker.members:
            return
        self._depth += 1
        self.broker.members.discard(caller.member_id)
        self._assign()
        for worker in others:
            if worker.pending is not None:
                self._survive(worker, partial(self._apply, worker))
        self.history["taken over in a call"] += 1
        self._depth -= 1

    def violations(self) -> list[str]:
        """What exactly-once would not allow; empty when all is well."""
        return violations(self.broker, [lane for worker in self.workers for lane in worker.lanes.values()])


def simulate(seed: int) -> list[str]:
    """Live through one seed; returns its violations."""
    with _quiet():
        simulation = Simulation(seed)
        simulation.run()
        return simulation.violations()


@contextmanager
def _quiet() -> Iterator[None]:
    """Thousands of seeds a minute would drown in their lines; whoever simulates keeps the logs they had configured."""
    configured = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**configured)
