"""Opens a lane: everything between assignment and the first record, in the order that fencing asks for.

InitProducerId (ends and fences the predecessor), stable committed offsets, restore, comparison, and only then work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from streams.exactly_once import timers
from streams.exactly_once.agent import AgentSpec
from streams.exactly_once.clients import Clients
from streams.exactly_once.decider import DeciderLane
from streams.exactly_once.effector import EffectorLane
from streams.exactly_once.lane import Lane, Partition, decode_offsets
from streams.exactly_once.layers import Base, EmptyBase
from streams.exactly_once.membership import Membership
from streams.exactly_once.metrics import EngineMetrics
from streams.exactly_once.restore import Abandoned, check_offsets, committed_offsets, restore_tables
from streams.exactly_once.store import LaneStore
from streams.exactly_once.transaction import LaneProducer

log = structlog.get_logger(__name__)


class LaneOpener:
    """Makes lanes of one app. `open` blocks and is called on threads."""

    def __init__(
        self,
        app_id: str,
        kafka: Mapping[str, object],
        state_dir: Path,
        metrics: EngineMetrics,
        clock_ms: Callable[[], int],
        clients: Clients,
    ) -> None:
        self._app_id = app_id
        self._kafka = kafka
        self._state_dir = state_dir
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._clients = clients

    def open(self, spec: AgentSpec, partition: int, membership: Membership, wanted: Callable[[], bool]) -> Lane:
        """A lane that stands where its last transaction committed.

        Raises Abandoned once `wanted` says no; LaneLost, StateMismatch or StateInUse when it must not start.
        """
        if not wanted():
            raise Abandoned
        began = time.monotonic()
        name = f"{spec.name}-{partition}"
        producer = LaneProducer(self._clients, self._kafka, f"{self._app_id}-{name}")
        producer.initialise()
        if not wanted():
            raise Abandoned
        sources = [(source.topic, partition) for source in spec.inputs]
        in_group = {**self._kafka, "group.id": self._app_id}
        committed = committed_offsets(self._clients, in_group, sources, wanted)
        changelogs = {table.name: f"{self._app_id}-{table.name}-changelog" for table in spec.all_tables}
        store, restored = self._open_store(spec, partition, changelogs, committed, wanted)
        base: Base = EmptyBase() if store is None else store
        log.info("lane opened", lane=name, restored=restored, seconds=round(time.monotonic() - began, 3))
        kind = DeciderLane if spec.decide is not None else EffectorLane
        return kind(
            spec,
            partition,
            producer=producer,
            store=store,
            base=base,
            membership=membership,
            committed=committed,
            changelogs=changelogs,
            clock_ms=self._clock_ms,
            metrics=self._metrics.lane(spec.name, partition),
        )

    def _open_store(
        self,
        spec: AgentSpec,
        partition: int,
        changelogs: Mapping[str, str],
        committed: dict[Partition, int],
        wanted: Callable[[], bool],
    ) -> tuple[LaneStore | None, int]:
        if spec.timer_table is None:
            return None, 0
        store = self._clients.store(self._state_dir / spec.name / str(partition))
        try:
            restored = restore_tables(
                store,
                {table: changelogs[table.name] for table in spec.all_tables},
                partition,
                self._clients,
                {**self._kafka, "group.id": self._app_id},
                self._metrics.lane(spec.name, partition),
                wanted,
            )
            encoded = store.get(spec.timer_table, timers.OFFSETS)
            embedded = None if encoded is None else decode_offsets(encoded)
            check_offsets(f"{spec.name}-{partition}", embedded, committed, self._app_id)
        except BaseException:
            store.close()
            raise
        return store, restored
