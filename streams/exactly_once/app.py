"""The Faust app whose agents are deciders and effectors: `App.decider`, `App.effector`, `App.table`."""

from __future__ import annotations

import asyncio
import gc
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import faust
from prometheus_client import CollectorRegistry
from yarl import URL

from streams.exactly_once.agent import COMMIT_PAUSE_S, AgentSpec, DeadLetterHook, DeciderHandler, EffectorHandler
from streams.exactly_once.allocator import keep_few_arenas
from streams.exactly_once.attachment import LaneTable, LaneTableManager, LaneTransport, lane_config
from streams.exactly_once.errors import EngineError
from streams.exactly_once.lane_service import Assignment, LaneService
from streams.exactly_once.metrics import EngineMetrics
from streams.exactly_once.records import Input, Output
from streams.exactly_once.table_spec import TableSpec
from streams.exactly_once.timers import timer_table

SESSION_TIMEOUT_S = 6.0  # a killed worker's partitions move after this; brokers accept no less by default
HEARTBEAT_S = 0.5
GC_ALLOCATIONS = 50_000
"""Containers made between two looks for cycles. Records in hand are thousands of them and none is part of a cycle; at
the default of 700 the collector walked them over and over, for a sixth of a busy worker's CPU time."""

GC_ALLOCATIONS_OF_EFFECTORS = 4_000
"""What talks to the world leaves cycles behind, a dozen objects for each request to Cassandra: of 50,000 at once the
collector stopped the process for a tenth of a second."""

SWITCH_INTERVAL_S = 0.001  # at the default 5 ms a commit's callbacks waited 47 ms for the interpreter lock


def tune_interpreter(*, effectors: bool = False) -> None:
    """For a process that has started: how seldom its collector looks, and how often its threads take turns."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()  # what start-up made lives as long as the process
    gc.set_threshold(GC_ALLOCATIONS_OF_EFFECTORS if effectors else GC_ALLOCATIONS)


class App(faust.App):
    """A Faust app with exactly-once lanes.

    `kafka` is host:port[,host:port]; `tls` names PEM files under `ca`, `cert` and `key` (empty: plaintext, for tests).
    Topics and changelogs (`<id>-<table>-changelog`) must exist: the app creates none.
    """

    def __init__(
        self,
        id: str,
        *,
        kafka: str,
        tls: Mapping[str, str],
        state_dir: Path,
        instance_id: str | None = None,
        dead_letters: Callable[[str], Output],
        clock_ms: Callable[[], int] | None = None,
        drain_s: float = 5.0,
        metrics: CollectorRegistry | None = None,
        **options: Any,
    ) -> None:
        self.specs: list[AgentSpec] = []
        self.assignment: Assignment | None = None
        self.failure: EngineError | None = None
        self._dead_letters = dead_letters
        self._instance_id = instance_id
        self._lanes: LaneService | None = None
        self._lane_options: dict[str, Any] = {
            "kafka": lane_config(kafka, tls),
            "state_dir": state_dir,
            "drain_s": drain_s,
            "metrics": EngineMetrics(metrics),
        }
        if clock_ms is not None:
            self._lane_options["clock_ms"] = clock_ms
        super().__init__(
            id,
            broker=[URL(f"kafka://{address}") for address in kafka.split(",")],
            broker_credentials=_credentials(tls),
            broker_session_timeout=SESSION_TIMEOUT_S,
            broker_heartbeat_interval=HEARTBEAT_S,
            broker_request_timeout=90.0,  # longer than a rebalance may hold JoinGroup
            consumer_group_instance_id=instance_id,
            consumer_auto_offset_reset="earliest",
            processing_guarantee="exactly_once",
            datadir=str(state_dir),
            store="memory://",
            Table=LaneTable,
            TableManager=LaneTableManager,
            topic_allow_declare=False,
            topic_disable_leader=True,
            reply_create_topic=False,
            stream_recovery_delay=0.0,
            stream_wait_empty=True,
            web_enabled=False,
            **options,
        )

    def _load_settings(self, *, silent: bool = False) -> Any:
        """Faust's default for the instance id is "", to aiokafka a static member's: all workers would be that one."""
        settings = super()._load_settings(silent=silent)
        if self._instance_id is None:
            settings.consumer_group_instance_id = None
        return settings

    @property
    def lanes(self) -> LaneService:
        """The lanes of this worker."""
        if self._lanes is None:
            self._lanes = LaneService(self.conf.id, self.specs, on_lost=self._lane_lost, **self._lane_options)
        return self._lanes

    def decider(
        self,
        name: str,
        *,
        inputs: Sequence[Input],
        outputs: Sequence[Output] = (),
        tables: Sequence[TableSpec] = (),
        on_dead_letter: DeadLetterHook | None = None,
        commit_interval_s: float = 0.0,
        commit_pause_s: float = COMMIT_PAUSE_S,
    ) -> Callable[[DeciderHandler], DeciderHandler]:
        """Declare the decorated function a decider: exactly once, in batches of one partition, no I/O.

        Its lanes are the partitions that `inputs` share. A transaction costs the brokers two
        milliseconds of CPU, whatever it carries. So `commit_interval_s` groups what nobody waits for, and
        `commit_pause_s` after each transaction what somebody does: the first after a quiet time goes out at once.
        """

        def declare(handler: DeciderHandler) -> DeciderHandler:
            self._declare(
                AgentSpec(
                    name,
                    tuple(inputs),
                    tuple(tables),
                    tuple(outputs),
                    decide=handler,
                    effect=None,
                    timer_table=timer_table(name),
                    dead_letters=self._dead_letters,
                    on_dead_letter=on_dead_letter,
                    commit_interval_s=commit_interval_s,
                    commit_pause_s=commit_pause_s,
                )
            )
            return handler

        return declare

    def effector(
        self,
        name: str,
        *,
        inputs: Sequence[Input],
        outputs: Sequence[Output] = (),
        tables: Sequence[TableSpec] = (),
        timers: bool = False,
        concurrency: int = 200,
        ordered: bool = True,
        on_dead_letter: DeadLetterHook | None = None,
        commit_interval_s: float = 0.0,
    ) -> Callable[[EffectorHandler], EffectorHandler]:
        """Declare the decorated coroutine function an effector: it may do I/O, keys in parallel, one key in order.

        Not `ordered`: also the records of one key run in parallel, where what they do is independent of each other.

        After a crash a completed record may run again; what it does outside Kafka must be idempotent.
        """

        def declare(handler: EffectorHandler) -> EffectorHandler:
            self._declare(
                AgentSpec(
                    name,
                    tuple(inputs),
                    tuple(tables),
                    tuple(outputs),
                    decide=None,
                    effect=handler,
                    timer_table=timer_table(name) if timers or tables else None,
                    dead_letters=self._dead_letters,
                    concurrency=concurrency,
                    ordered=ordered,
                    on_dead_letter=on_dead_letter,
                    commit_interval_s=commit_interval_s,
                )
            )
            return handler

        return declare

    async def fail(self, error: EngineError) -> None:
        """A lane cannot go on: the process must end, so that state and offsets are read anew."""
        self.failure = self.failure or error
        await self.crash(error)

    async def on_start(self) -> None:
        """Start the pump before the group can assign anything."""
        keep_few_arenas()
        tune_interpreter(effectors=any(spec.effect is not None for spec in self.specs))
        self.lanes.start()
        await super().on_start()

    async def on_stop(self) -> None:
        """Drain and commit while membership still holds, then leave the group."""
        await self.lanes.stop()
        await super().on_stop()

    def _declare(self, spec: AgentSpec) -> None:
        """Make it a Faust agent: its body registers the topics, so that Faust subscribes, and reads nothing."""
        self.specs.append(spec)
        for table in spec.all_tables:
            self.Table(table.name, key_type=bytes, value_type=bytes)
        topic = self.topic(*(source.topic for source in spec.inputs), key_type=bytes, value_type=bytes, internal=False)

        async def body(stream: Any) -> None:
            stream.channel.__aiter__()  # registers the topics with Faust's conductor
            await asyncio.Event().wait()  # until the agent is cancelled; lanes do the work

        body.__name__ = body.__qualname__ = spec.name
        handler = spec.decide or spec.effect
        body.__doc__ = handler.__doc__
        self.agent(topic, name=spec.name)(body)

    def _lane_lost(self, error: EngineError) -> None:
        self.add_future(self.fail(error))

    def _new_transport(self) -> LaneTransport:
        return LaneTransport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> LaneTransport:
        return LaneTransport(self.conf.broker_producer, self)


def _credentials(tls: Mapping[str, str]) -> Any:
    if not tls:
        return None
    context = ssl.create_default_context(cafile=tls["ca"])
    context.load_cert_chain(tls["cert"], tls["key"])
    return faust.SSLCredentials(context)
