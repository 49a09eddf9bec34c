"""A lane: one agent on one partition. The pump's thread owns it; only commits and effectors' handlers run elsewhere.

Steps of a commit (1 to 8, see transaction.py): this file does 1 (snapshot), 7 (RocksDB) and 8 (what waits goes on).
Deciders and effectors differ only in how records become effects: decider.py, effector.py.
"""

from __future__ import annotations

import enum
import json
import time
from collections.abc import Callable

import structlog
from confluent_kafka import Message

from streams.exactly_once import timers
from streams.exactly_once.agent import AgentSpec, DeadLetter
from streams.exactly_once.errors import Poison
from streams.exactly_once.failpoints import failpoint
from streams.exactly_once.intake import Inbox
from streams.exactly_once.lane_timers import LaneTimers
from streams.exactly_once.layers import Base, Layer, Layers, Row, Stage
from streams.exactly_once.membership import Membership
from streams.exactly_once.metrics import LaneMetrics
from streams.exactly_once.records import TIMERS, Record
from streams.exactly_once.store import LaneStore
from streams.exactly_once.table_spec import TableSpec
from streams.exactly_once.transaction import LaneProducer, Receipt, Work

log = structlog.get_logger(__name__)

Partition = tuple[str, int]  # (topic, partition)

GROUP_SENDS_MAX = 1_000  # a commit interval does not hold back more than this
BACKLOG_INTERVAL_S = 0.1  # between commits while more input waits than can be taken up: larger ones cost less
BACKLOG_SENDS_MAX = 10_000
DECODE_RETRY_MS = 500  # pause when a record cannot be decoded *now* (schema registry away), which is no poison


class LaneState(enum.Enum):
    """Where a lane stands between assignment and revocation."""

    RUNNING = "running"
    SUSPENDED = "suspended"  # the group has moved on; waits for the next assignment
    FENCED = "fenced"  # another owner has its transactional id; if assigned again, it starts anew
    DRAINING = "draining"  # takes nothing new, finishes what it has
    CLOSED = "closed"


class Lane:
    """What deciders and effectors share: inbox, layers, offsets, timers, commits, rewinds."""

    def __init__(
        self,
        spec: AgentSpec,
        partition: int,
        *,
        producer: LaneProducer,
        store: LaneStore | None,
        base: Base,
        membership: Membership,
        committed: dict[Partition, int],
        changelogs: dict[str, str],
        clock_ms: Callable[[], int],
        metrics: LaneMetrics,
    ) -> None:
        self.spec = spec
        self.partition = partition
        self.producer = producer
        self.store = store
        self.membership = membership
        self.state = LaneState.RUNNING
        self.has_backlog = False  # more input waits than the pump can take up (the pump's to set)
        self.incarnation = 0  # rises at every rewind; what was started under another one is ignored
        self.inbox = Inbox(partition, {source.topic: source.decode for source in spec.inputs})
        self.metrics = metrics
        self.layers = Layers(base)
        self.committed = dict(committed)  # next offset to read, as the group has it
        self.positions = dict(committed)  # next offset after what is complete
        self._committing: dict[Partition, int] | None = None
        self._commit_began_s = float("-inf")  # monotonic
        self._changelogs = {table: changelogs[table.name] for table in spec.all_tables}
        self._clock_ms = clock_ms
        self._outputs = frozenset(output.topic for output in spec.outputs) | {
            spec.dead_letters(source.topic).topic for source in spec.inputs
        }
        self._decode_again_ms = 0
        self.timers = LaneTimers(self.name, self.layers, spec.timer_table, partition, clock_ms)

    # What the pump calls

    @property
    def name(self) -> str:
        """`<agent>-<partition>`, for logs and errors."""
        return f"{self.spec.name}-{self.partition}"

    @property
    def committing(self) -> bool:
        """Whether a commit is in flight."""
        return self._committing is not None

    @property
    def in_hand(self) -> int:
        """Records fetched and not yet complete."""
        return len(self.inbox)

    def feed(self, messages: list[Message]) -> None:
        """Take records that the pump has fetched."""
        self.inbox.extend(messages)

    def work(self) -> bool:
        """Handle some of what is waiting; whether there was anything to do."""
        raise NotImplementedError

    def idle_until_ms(self) -> int | None:
        """When the next timer will fire (epoch ms), or None."""
        return self.timers.next_due_ms if self.state is LaneState.RUNNING else None

    @property
    def wants_commit(self) -> bool:
        """Whether something is complete, and no commit of this lane in flight."""
        if self._committing is not None or self.state not in (LaneState.RUNNING, LaneState.DRAINING):
            return False
        return self.positions != self.committed or bool(self.layers.promoted) or self.timers.wants_comparison

    def begin_commit(self) -> Work:
        """Step 1: snapshot what is complete. For a lane that wants to commit."""
        assert self._committing is None, "a lane has one commit in flight"
        self._commit_began_s = time.monotonic()
        self._committing = dict(self.positions)
        if self.spec.timer_table is not None:
            self._stage_offsets(self.spec.timer_table, self._committing)
        layer = self.layers.begin_commit()
        return Work(self.partition, layer, self._committing, self._changelogs)

    def commit_due_in_s(self) -> float | None:
        """Seconds until this lane has waited long enough to commit; None while it does not want to.

        At once when nothing else waits, larger as load grows. A lane that drains, or has much to send, does not wait
        for an interval.
        """
        if not self.wants_commit:
            return None
        if self.state is not LaneState.RUNNING:
            return 0.0
        interval_s, sends = 0.0, len(self.layers.promoted.sends)
        if sends < GROUP_SENDS_MAX:
            interval_s = self.spec.commit_interval_s
        if self.has_backlog and sends < BACKLOG_SENDS_MAX:
            interval_s = max(interval_s, BACKLOG_INTERVAL_S)
        return max(0.0, self._commit_began_s + interval_s - time.monotonic())

    def end_commit(self, receipt: Receipt) -> None:
        """Steps 7 and 8, after the transaction has committed."""
        assert self._committing is not None
        failpoint("before_apply")
        if self.store is not None:
            self.store.apply(self.layers.committing.rows, self._own_offsets(receipt))
        if self.spec.timer_table is not None:
            self.timers.applied(self.layers.committing.rows.get(self.spec.timer_table, {}))
        failpoint("after_apply")
        self.layers.end_commit()
        self.committed, self._committing = self._committing, None
        self.timers.compare(receipt.broker_ms)
        self.metrics.timers_halted.set(self.timers.halted)

    def _own_offsets(self, receipt: Receipt) -> dict[str, int]:
        """By changelog, of a transaction that several lanes may have shared."""
        told = receipt.changelog_offsets
        places = ((topic, (topic, self.partition)) for topic in self._changelogs.values())
        return {topic: told[place] for topic, place in places if place in told}

    def rewind(self) -> None:
        """Drop everything that is not committed; the pump seeks to `committed` and records come again."""
        self.incarnation += 1
        self._committing = None
        self.inbox.clear()
        self.layers.discard()
        self.positions = dict(self.committed)
        self.timers.refresh()

    def close(self) -> None:
        """Let go of the store and the producer. What is not committed is for the next owner."""
        self.state = LaneState.CLOSED
        self.incarnation += 1
        if self.store is not None:
            self.store.close()
        self.producer.close()

    # What deciders and effectors share

    def _new_stage(self) -> Stage:
        return Stage(
            self.layers,
            partition=self.partition,
            highest_timestamp_ms=self.inbox.highest_timestamp_ms,
            timer_table=self.spec.timer_table,
            outputs=self._outputs,
        )

    def _may_decode(self) -> bool:
        return self._decode_again_ms <= (self._clock_ms() if self._decode_again_ms else 0)

    def _refuse(self, failure: Exception) -> bool:
        """What becomes of the first message, which cannot be decoded: True when it was poison, and is done with."""
        if not isinstance(failure, Poison):
            self._decode_again_ms = self._clock_ms() + DECODE_RETRY_MS
            log.warning("record cannot be decoded now", lane=self.name, error=str(failure))
            return False
        message = self.inbox.pop()
        stage = self._new_stage()
        self._stage_poison(stage, message, failure)
        self._promote(stage.layer)
        self._pass(message.topic(), message.offset())
        return True

    def _pass(self, topic: str, offset: int) -> None:
        """A record that no handler sees is done with."""
        raise NotImplementedError

    def _stage_poison(self, stage: Stage, message: Message, error: Exception) -> None:
        """A record that cannot be decoded goes to the DLQ with its cause; the lane goes on."""
        self._stage_dead_letter(
            stage,
            message.topic(),
            message.offset(),
            message.key(),
            message.value(),
            error,
            tuple(message.headers() or ()),
        )

    def _stage_failed(self, stage: Stage, record: Record, error: Exception) -> None:
        """A record whose handling failed alone: its dead letter, and what the agent's hook wants to be said."""
        of_timer = record.topic == TIMERS
        topic = self.spec.inputs[0].topic if of_timer else record.topic
        value = record.value.payload if of_timer else record.data
        self._stage_dead_letter(stage, topic, record.offset, record.key, value, error, record.headers)
        if self.spec.on_dead_letter is not None:
            self.spec.on_dead_letter(record, error, stage, stage)

    def _stage_dead_letter(
        self,
        stage: Stage,
        topic: str,
        offset: int,
        key: bytes | None,
        value: bytes | None,
        error: Exception,
        headers: tuple[tuple[str, bytes], ...],
    ) -> None:
        log.error(
            "record goes to the dead-letter queue",
            lane=self.name,
            topic=topic,
            offset=offset,
            error_class=type(error).__name__,
            error=str(error),
        )
        self.metrics.dead_letters.inc()
        letter = DeadLetter(topic, self.partition, offset, key, value, headers, type(error).__name__, str(error))
        stage.send(self.spec.dead_letters(topic), letter, key=key)

    def _promote(self, layer: Layer) -> None:
        """An event succeeded: its effects join what the next commit carries."""
        self.layers.promoted.absorb(layer)
        if self.spec.timer_table is not None and layer.rows.get(self.spec.timer_table):
            self.timers.refresh()

    def _stage_offsets(self, table: TableSpec, offsets: dict[Partition, int]) -> None:
        """The source offsets travel in the changelog too, so that state and group can be compared at start-up."""
        encoded = encode_offsets(offsets)
        self.layers.promoted.rows.setdefault(table, {})[timers.OFFSETS] = Row(encoded, encoded)


def encode_offsets(offsets: dict[Partition, int]) -> bytes:
    """Next offsets to read as the row that travels in the changelog."""
    return json.dumps([[topic, partition, offset] for (topic, partition), offset in sorted(offsets.items())]).encode()


def decode_offsets(encoded: bytes) -> dict[Partition, int]:
    """The reverse of encode_offsets."""
    return {(topic, partition): offset for topic, partition, offset in json.loads(encoded)}
