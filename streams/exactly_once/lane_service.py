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

from streams.exactly_once.agent import AgentSpec
from streams.exactly_once.clients import Clients
from streams.exactly_once.effector import EffectorLane
from streams.exactly_once.errors import EngineError, LaneLost
from streams.exactly_once.lane import Lane, LaneState, Partition
from streams.exactly_once.membership import Membership
from streams.exactly_once.metrics import EngineMetrics
from streams.exactly_once.opening import LaneOpener
from streams.exactly_once.pump import Pump
from streams.exactly_once.restore import Abandoned
from streams.exactly_once.standby import Standbys

log = structlog.get_logger(__name__)

STARTS_AT_ONCE = 4  # InitProducerId and restore mostly wait; more at once would only crowd the broker
STANDSTILL_S = 60.0  # an assignment that makes no step for so long never will: librdkafka's calls end within 30 s
WATCH_S = 1.0
STALL_S = 15.0  # a pump that has not turned for so long counts as dead: membership is no longer refreshed


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the group gave this worker, with its place in the group at that moment."""

    sources: frozenset[Partition]
    membership: Membership
    standbys: frozenset[Partition] = frozenset()  # changelog partitions to keep warm for others


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
        clients: Clients | None = None,
    ) -> None:
        self._app_id = app_id
        self._specs = specs
        self._kafka = kafka
        self._state_dir = state_dir
        self._on_lost = on_lost
        self._metrics = metrics
        self._drain_s = drain_s
        self._clock_ms = clock_ms
        self._clients = clients or Clients()
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._membership: Membership | None = None
        self._wanted = 0  # number of the newest assignment; older ones stop starting lanes
        self._settled = 0  # number of the last assignment whose lanes all run
        self._applying = asyncio.Lock()
        self._stepped_at = 0.0  # monotonic; set from threads, too
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opener: LaneOpener | None = None
        self._pump: Pump | None = None
        self._standbys: Standbys | None = None

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
        self._opener = LaneOpener(
            self._app_id, self._kafka, self._state_dir, self._metrics, self._clock_ms, self._clients
        )
        consumer_config = {**self._kafka, "group.id": self._app_id}
        self._pump = Pump(consumer_config, on_lost=self._report, clock_ms=self._clock_ms, clients=self._clients)
        self._pump.start()
        self._standbys = Standbys(consumer_config, self._state_dir, self._clients)
        self._standbys.start()

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
            if self._standbys is not None:
                await asyncio.to_thread(self._standbys.stop)

    def on_revoked(self) -> None:
        """A rebalance begins. Lanes go on: those that stay here must not stand still for it."""
        if self._pump is not None:
            self._pump.rebalancing = True

    async def apply(self, assignment: Assignment) -> None:
        """Make the lanes what the assignment says.

        Raises EngineError when a lane must not start, or when nothing moves any more: a call that never comes back
        would leave a member of the group whose partitions nobody works on.
        """
        self._wanted += 1
        number = self._wanted
        async with self._applying:
            if number != self._wanted or self._pump is None:
                return
            self._stepped_at = time.monotonic()
            changing = asyncio.create_task(self._change_to(assignment, number), name="lanes change")
            while not changing.done():
                await asyncio.wait({changing}, timeout=WATCH_S)
                if not changing.done() and time.monotonic() - self._stepped_at > STANDSTILL_S:
                    raise LaneLost(f"the lanes of an assignment have not come a step further for {STANDSTILL_S:.0f} s")
            await changing

    async def _change_to(self, assignment: Assignment, number: int) -> None:
        assert self._pump is not None
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
        await self._keep_standbys(assignment, frozenset(wanted))
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
        if self._membership is None or not continues(self._membership, new):
            return set()
        return {key for key, lane in self._lanes.items() if key in wanted and lane.state is not LaneState.FENCED}

    async def _keep_standbys(self, assignment: Assignment, active: frozenset[tuple[str, int]]) -> None:
        """Tail the changelogs of others' lanes; let go of those whose lanes open here next."""
        assert self._standbys is not None
        wanted = {}
        for spec in self._specs:
            tables = {f"{self._app_id}-{table.name}-changelog": table for table in spec.all_tables}
            for number in {number for topic, number in assignment.standbys if topic in tables}:
                complete = all((changelog, number) in assignment.standbys for changelog in tables)
                if complete and (spec.name, number) not in active:
                    wanted[spec.name, number] = tables
        kept = self._standbys.keep(wanted)
        while self._standbys.running and not await asyncio.to_thread(kept.wait, 0.5):
            pass

    async def _remove(self, keys: list[tuple[str, int]]) -> None:
        assert self._pump is not None
        gone = [self._pump.remove(self._lanes.pop(key), self._drain_s) for key in keys]
        for event in gone:
            await self._happened(event)

    async def _start_lanes(self, lanes: list[tuple[AgentSpec, int]], assignment: Assignment, number: int) -> None:
        assert self._pump is not None
        opener = self._opener
        assert opener is not None
        gate = asyncio.Semaphore(STARTS_AT_ONCE)
        membership = assignment.membership

        def wanted() -> bool:  # asked with every step of a lane that opens
            self._stepped_at = time.monotonic()
            return number == self._wanted

        async def start(spec: AgentSpec, partition: int) -> Lane | None:
            async with gate:
                try:
                    return await asyncio.to_thread(opener.open, spec, partition, membership, wanted)
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
        self._stepped_at = time.monotonic()


def continues(old: Membership, new: Membership) -> bool:
    """Whether no generation lies between the two, and both are the same member's: then no lane had another owner."""
    return old.member_id == new.member_id and new.generation in (old.generation, old.generation + 1)
