"""From Faust's assignments to running lanes: starts, keeps and removes lanes as the group's generations come.

Runs in the app's event loop; the slow parts (InitProducerId, restore) run on threads in the background, never inside
Faust's rebalance callbacks, because heartbeats begin only after those return.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from confluent_kafka.admin import AdminClient

from streams.exactly_once import timers
from streams.exactly_once.agent import AgentSpec
from streams.exactly_once.decider import DeciderLane
from streams.exactly_once.effector import EffectorLane
from streams.exactly_once.errors import EngineError, LaneLost
from streams.exactly_once.lane import Lane, LaneState, Partition, decode_offsets
from streams.exactly_once.layers import Base, EmptyBase
from streams.exactly_once.metrics import EngineMetrics
from streams.exactly_once.pump import Pump
from streams.exactly_once.restore import Abandoned, check_offsets, committed_offsets, restore_tables
from streams.exactly_once.store import LaneStore
from streams.exactly_once.transaction import LaneProducer, Membership

log = structlog.get_logger(__name__)

STALL_S = 15.0  # a pump that has not turned for so long counts as dead: membership is no longer refreshed


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the group gave this worker, with its place in the group at that moment."""

    sources: frozenset[Partition]
    membership: Membership


class LaneService:
    """All lanes of one worker."""

    def __init__(
        self,
        app_id: str,
        specs: Sequence[AgentSpec],
        *,
        kafka: Mapping[str, object],
        state_dir: Path,
        on_lost: Callable[[EngineError], None],
        metrics: EngineMetrics,
        drain_s: float = 5.0,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._app_id = app_id
        self._specs = specs
        self._kafka = kafka
        self._consumer_config = {**kafka, "group.id": app_id}
        self._state_dir = state_dir
        self._on_lost = on_lost
        self._metrics = metrics
        self._drain_s = drain_s
        self._clock_ms = clock_ms
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._membership: Membership | None = None
        self._wanted = 0  # number of the newest assignment; older ones stop starting lanes
        self._settled = 0  # number of the last assignment whose lanes all run
        self._applying = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._admin: AdminClient | None = None
        self._pump: Pump | None = None

    @property
    def ready(self) -> bool:
        """Whether every lane of the newest assignment runs."""
        return self._wanted > 0 and self._settled == self._wanted

    @property
    def alive(self) -> bool:
        """Whether the pump still turns."""
        return self._pump is not None and time.monotonic() - self._pump.progressed_at < STALL_S

    @property
    def lanes(self) -> list[str]:
        """Names of the lanes that run here, for status pages."""
        return sorted(lane.name for lane in self._lanes.values())

    def start(self) -> None:
        """Start the pump. Call in the event loop that runs effectors."""
        self._loop = asyncio.get_running_loop()
        self._admin = AdminClient(dict(self._kafka))
        self._pump = Pump(self._consumer_config, on_lost=self._report, clock_ms=self._clock_ms)
        self._pump.start()

    async def stop(self) -> None:
        """Drain every lane (bounded), commit, and stop the pump."""
        self._wanted += 1
        if self._pump is None:
            return
        async with self._applying:
            with contextlib.suppress(LaneLost):
                await self._remove(list(self._lanes))
            await asyncio.to_thread(self._pump.stop)
            self._pump = None

    def on_revoked(self) -> None:
        """A rebalance begins. Lanes go on: those that stay here must not stand still for it."""
        if self._pump is not None:
            self._pump.rebalancing = True

    async def apply(self, assignment: Assignment) -> None:
        """Make the lanes what the assignment says. Raises EngineError when a lane must not start."""
        self._wanted += 1
        number = self._wanted
        async with self._applying:
            if number != self._wanted or self._pump is None:
                return
            wanted = {
                (spec.name, partition): spec
                for spec in self._specs
                for partition in self._partitions_of(spec, assignment.sources)
            }
            kept = self._kept(wanted, assignment.membership)
            self._membership = assignment.membership
            await self._remove([key for key in self._lanes if key not in kept])
            for key in kept:
                await self._happened(self._pump.keep(self._lanes[key], assignment.membership))
            self._pump.rebalancing = False
            await self._start_lanes([(wanted[key], key[1]) for key in wanted if key not in kept], assignment, number)
            if number == self._wanted:
                self._settled = number
                log.info("lanes run", lanes=self.lanes, generation=assignment.membership.generation)

    def _partitions_of(self, spec: AgentSpec, sources: frozenset[Partition]) -> list[int]:
        topics = [source.topic for source in spec.inputs]
        numbers = {number for topic, number in sources if topic in topics}
        for number in numbers:
            missing = [topic for topic in topics if (topic, number) not in sources]
            if missing:
                raise LaneLost(
                    f"{spec.name}: partition {number} of {topics[0]} came without that of {missing[0]}. "
                    "Inputs of one agent need the same number of partitions"
                )
        return sorted(numbers)

    def _kept(self, wanted: Mapping[tuple[str, int], AgentSpec], new: Membership) -> set[tuple[str, int]]:
        """Lanes that may go on: nobody else can have owned them since, and their producer is not fenced."""
        old = self._membership
        if old is None or old.member_id != new.member_id or new.generation not in (old.generation, old.generation + 1):
            return set()
        return {key for key, lane in self._lanes.items() if key in wanted and lane.state is not LaneState.FENCED}

    async def _remove(self, keys: list[tuple[str, int]]) -> None:
        assert self._pump is not None
        gone = [self._pump.remove(self._lanes.pop(key), self._drain_s) for key in keys]
        for event in gone:
            await self._happened(event)

    async def _start_lanes(self, lanes: list[tuple[AgentSpec, int]], assignment: Assignment, number: int) -> None:
        assert self._pump is not None
        gate = asyncio.Semaphore(4)

        async def start(spec: AgentSpec, partition: int) -> Lane | None:
            async with gate:
                try:
                    return await asyncio.to_thread(self._open, spec, partition, assignment, number)
                except Abandoned:
                    return None

        opened = await asyncio.gather(*(start(spec, partition) for spec, partition in lanes))
        for lane in opened:
            if lane is None:
                continue
            if isinstance(lane, EffectorLane):
                lane.attach(self._call_soon, self._pump.handled)
            self._lanes[lane.spec.name, lane.partition] = lane
            await self._happened(self._pump.add(lane))

    def _open(self, spec: AgentSpec, partition: int, assignment: Assignment, number: int) -> Lane:
        """On a thread: everything between assignment and the first record, in the order that fencing asks for."""
        assert self._admin is not None

        def still_wanted() -> bool:
            return number == self._wanted

        if not still_wanted():
            raise Abandoned
        began = time.monotonic()
        metrics = self._metrics.lane(spec.name, partition)
        name = f"{spec.name}-{partition}"
        producer = LaneProducer(self._kafka, f"{self._app_id}-{name}", partition)
        producer.initialise()
        if not still_wanted():
            raise Abandoned
        sources = [(source.topic, partition) for source in spec.inputs]
        committed = committed_offsets(self._admin, self._app_id, sources, still_wanted)
        changelogs = {table.name: f"{self._app_id}-{table.name}-changelog" for table in spec.all_tables}
        base: Base = EmptyBase()
        store: LaneStore | None = None
        restored = 0
        if spec.all_tables:
            base = store = LaneStore(self._state_dir / spec.name / str(partition))
            by_table = {table: changelogs[table.name] for table in spec.all_tables}
            try:
                restored = restore_tables(store, by_table, partition, self._consumer_config, metrics, still_wanted)
                self._check(name, spec, store, committed)
            except BaseException:
                store.close()
                raise
        log.info("lane opened", lane=name, restored=restored, seconds=round(time.monotonic() - began, 3))
        kind = DeciderLane if spec.decide is not None else EffectorLane
        return kind(
            spec,
            partition,
            producer=producer,
            store=store,
            base=base,
            membership=assignment.membership,
            committed=committed,
            changelogs=changelogs,
            clock_ms=self._clock_ms,
            metrics=metrics,
        )

    def _check(self, name: str, spec: AgentSpec, store: LaneStore, committed: dict[Partition, int]) -> None:
        assert spec.timer_table is not None
        encoded = store.get(spec.timer_table, timers.OFFSETS)
        check_offsets(name, None if encoded is None else decode_offsets(encoded), committed, self._app_id)

    def _call_soon(self, action: Callable[[], None]) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(action)

    def _report(self, error: EngineError) -> None:
        self._call_soon(lambda: self._on_lost(error))

    async def _happened(self, event: threading.Event) -> None:
        """Wait for the pump to have done something; a pump that has died will never do it."""
        assert self._pump is not None
        while not await asyncio.to_thread(event.wait, 0.5):
            if not self._pump.running:
                raise LaneLost("the pump has stopped")
