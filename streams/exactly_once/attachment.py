"""Where the engine is attached to Faust 0.15.3: what is replaced of its transport, recovery and tables, and why.

Faust (through aiokafka) keeps membership, assignment, agents, tables, supervision, web and CLI. It neither fetches,
commits, produces nor recovers here: lanes do that through librdkafka. Each override below names what it takes away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

import faust
import structlog
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.consumer import TransactionManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Service

from streams.exactly_once.errors import EngineError, LaneLost
from streams.exactly_once.lane_service import Assignment
from streams.exactly_once.membership import Membership

if TYPE_CHECKING:
    from streams.exactly_once.app import App

log = structlog.get_logger(__name__)


class LaneRebalanceListener(driver.ConsumerRebalanceListener):
    """Freezes generation and member id in aiokafka's thread, where they belong to this very assignment.

    Read later they would be unsound: JoinGroup sets the next generation before its callback, and a reset leaves
    generation -1 with an empty member id, which a broker accepts unfenced.
    """

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        consumer = self._thread._ensure_consumer()
        partitions = list(assigned)
        consumer.pause(*partitions)  # lanes fetch; aiokafka must not
        coordinator = consumer._coordinator
        app = cast("App", self._thread.app)
        app.assignment = Assignment(
            frozenset((partition.topic, partition.partition) for partition in partitions),
            Membership(
                group=app.conf.id,
                generation=coordinator.generation,
                member_id=coordinator.member_id,
                instance_id=app.conf.consumer_group_instance_id or None,
            ),
            frozenset((partition.topic, partition.partition) for partition in app.assignor.assigned_standbys()),
        )
        await super().on_partitions_assigned(partitions)


class LaneConsumer(driver.Consumer):
    """Membership only: every way in which Faust's consumer fetches, seeks or commits is taken out."""

    RebalanceListener = LaneRebalanceListener

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Lanes commit their own offsets inside their transactions."""
        return False

    async def wait_empty(self) -> None:
        """Lanes drain when they are removed; a rebalance does not stop those that stay."""

    async def perform_seek(self) -> None:
        """Lanes seek."""

    async def verify_all_partitions_active(self) -> None:
        """Faust's livelock detector watches fetches that never happen here; `keep_membership` watches the pump."""

    def resume_partitions(self, tps: Any) -> None:
        """Stay paused: lanes fetch."""

    async def _drain_messages(self, fetcher: Any) -> None:
        await fetcher.wait_until_stopped()

    async def create_topic(self, topic: str, *args: Any, **kwargs: Any) -> None:
        """Topics come from the catalogue, with their ACLs, before an app starts."""

    @Service.task
    async def keep_membership(self) -> None:
        """Tell aiokafka that records are being fetched, for as long as the pump turns.

        Nothing is fetched through aiokafka, so its idle time would grow until it left the group. A dead pump stops
        the refresh, and the group gives the partitions to a worker that lives.
        """
        app = cast("App", self.app)
        while not self.should_stop:
            await self.sleep(1.0)
            consumer = self._thread._consumer
            if consumer is not None and app.lanes.alive:
                consumer._subscription._last_fetch_ended = time.monotonic()


class LaneProducerTransport(driver.Producer):
    """Faust's own producer: only for ordinary agents beside lanes; it may not create topics."""

    async def create_topic(self, topic: str, *args: Any, **kwargs: Any) -> None:
        """Topics come from the catalogue."""


class LaneTransactionManager(TransactionManager):
    """Faust's transactional producers are never started: their ids follow destination partitions, ours follow lanes."""

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """A rebalance begins; lanes go on until the assignment says otherwise."""
        cast("App", self.app).lanes.on_revoked()

    async def on_rebalance(self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP]) -> None:
        """Lanes bring their own producers."""

    async def flush(self) -> None:
        """Nothing is buffered here."""


class LaneTransport(driver.Transport):
    """Faust's Kafka transport with the parts above."""

    Consumer = LaneConsumer
    Producer = LaneProducerTransport
    TransactionManager = LaneTransactionManager


class LaneRecovery(Recovery):
    """Hands an assignment to the lanes, which restore their own tables from the offsets embedded in RocksDB."""

    @Service.task
    async def _restart_recovery(self) -> None:
        app = cast("App", self.app)
        tasks: set[asyncio.Task[None]] = set()
        while not self.should_stop:
            if await self.wait_for_stopped(self.signal_recovery_start):
                break
            self.signal_recovery_start.clear()
            task = asyncio.create_task(self._apply(app))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            await app.on_rebalance_complete.send()
            self.completed.set()
            app.flow_control.resume()
            self.tables.on_actives_ready()
            self.tables.on_standbys_ready()
            app.on_rebalance_end()

    @Service.task
    async def _slurp_changelogs(self) -> None:
        """Changelogs are read by the lanes' restores."""

    async def _apply(self, app: App) -> None:
        assert app.assignment is not None
        try:
            await app.lanes.apply(app.assignment)
        except EngineError as error:
            await app.fail(error)
        except Exception as error:
            # Left to the task, it would leave a member of the group without lanes.
            log.exception("lanes could not be started")
            await app.fail(LaneLost(f"lanes could not be started: {error!r}"))

    def flush_buffers(self) -> None:
        """Nothing is buffered here."""


class LaneTableManager(TableManager):
    """Faust's table manager with LaneRecovery."""

    _recovery: LaneRecovery | None = None

    @property
    def recovery(self) -> LaneRecovery:
        """The recovery service, made on first use."""
        if self._recovery is None:
            self._recovery = LaneRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery


class LaneTable(faust.Table):
    """A table that Faust lists, co-partitions and names a changelog for; its rows live in lanes.

    Plain writes raise: a write outside a lane's transaction would be lost, doubled or torn by the first failure.
    """

    def _refuse(self, *_: Any) -> None:
        raise TypeError(f"table {self.name} is written through effects.put in a decider or effector, nowhere else")

    __setitem__ = _refuse
    __delitem__ = _refuse
    on_key_set = _refuse
    on_key_del = _refuse
    send_changelog = cast(Any, _refuse)


def lane_config(bootstrap: str, tls: Mapping[str, str]) -> dict[str, object]:
    """librdkafka's connection settings for `bootstrap` with PEM files `ca`, `cert`, `key` (empty: plaintext)."""
    config: dict[str, object] = {"bootstrap.servers": bootstrap, "log_level": 4}
    if tls:
        config |= {
            "security.protocol": "ssl",
            "ssl.ca.location": tls["ca"],
            "ssl.certificate.location": tls["cert"],
            "ssl.key.location": tls["key"],
        }
    return config
