"""A transactional producer and the commit's steps 2 to 6 (`Lane` does 1, 7 and 8).

    1. Snapshot what is complete.            5. Wait until every record is delivered.
    2. begin_transaction.                    6. commit_transaction.
    3. Produce outbox and changelog.         7. One RocksDB write batch.
    4. send_offsets_to_transaction.          8. Resolve what waited.

Steps 3 and 4 only hand over; step 5 comes before EndTxn, and librdkafka sends no EndTxn for a transaction that misses
a record: it asks for an abort, so a failed delivery is always a provable one (decision 0019). An abort after produce
flushes first: librdkafka answered INVALID_TXN_STATE to 11 of 750 aborts that did not.

When a connection breaks while the request of step 4 or 6, or an abort, may be on its way, a copy of it may arrive
during a later transaction of the same epoch. So the epoch is given up, whatever the call says: decision 0023.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Message, TopicPartition

from streams.exactly_once.bulk import produce_rows, produce_sends
from streams.exactly_once.clients import Clients
from streams.exactly_once.connections import TELL, ConnectionLog
from streams.exactly_once.errors import CommitAborted, LaneLost, LaneSuspended
from streams.exactly_once.failpoints import failpoint
from streams.exactly_once.layers import Layer
from streams.exactly_once.table_spec import TableSpec

TRANSACTION_TIMEOUT_MS = 10_000
"""A transaction is open for milliseconds; this is how long a dead lane's can block readers if nobody takes over."""

_STEP_TIMEOUT_S = 8.0  # within the transaction's time-out, so that the broker cannot abort behind our back first

_OVERDUE_S = _STEP_TIMEOUT_S + 4.0
"""A call still out after so long ignores its time-out. librdkafka 2.10 to 2.16 never returns from
send_offsets_to_transaction when the group's coordinator went away and came back meanwhile (its issues 5456, 5511)."""

_GENERATION_OVER = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.FENCED_INSTANCE_ID,
}


@dataclass(frozen=True, slots=True)
class Membership:
    """This worker's place in its consumer group, frozen when its lanes were assigned."""

    group: str
    generation: int
    member_id: str
    instance_id: str | None

    def encode(self) -> bytes:
        """The bytes that librdkafka reads as consumer group metadata (its `CGMDv2` form)."""
        head = b"CGMDv2:" + struct.pack("<i", self.generation) + self.group.encode() + b"\0"
        if self.instance_id is None:
            return head + self.member_id.encode() + b"\0\x01"
        return head + self.member_id.encode() + b"\0\x00" + self.instance_id.encode() + b"\0"


@dataclass(slots=True)
class Work:
    """Step 1: what one lane gives to a transaction. `changelogs` names the topic of each dirty table."""

    partition: int  # of the lane, and so of its changelogs
    layer: Layer
    offsets: dict[tuple[str, int], int]  # (topic, partition) -> next offset to read
    changelogs: Mapping[TableSpec, str]


@dataclass(slots=True, frozen=True)
class Receipt:
    """What a committed transaction tells."""

    changelog_offsets: dict[tuple[str, int], int]  # (topic, partition) -> the last record's
    broker_ms: int | None  # the brokers' time, if they set it


class LaneProducer:
    """The one producer that may use a lane's transactional id. Used by one thread at a time."""

    def __init__(self, clients: Clients, config: Mapping[str, object], transactional_id: str) -> None:
        self.rested_since_s = float("-inf")  # monotonic; the end of its last transaction
        self._broker_ms: int | None = None
        self._changelog_offsets: dict[tuple[str, int], int] = {}
        self._connections = ConnectionLog()
        self._calling: tuple[str, float] | None = None  # what librdkafka was asked to do, and when (monotonic seconds)
        self._producer = clients.producer(
            {
                **config,
                **TELL,
                "logger": self._connections,
                "transactional.id": transactional_id,
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "message.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 1,
                # A transaction that begins while the markers of the last one are being written is refused for a moment:
                # the default is to try again after 100 ms.
                "retry.backoff.ms": 10,
                "partitioner": "murmur2_random",
                "queue.buffering.max.messages": 1_000_000,
            }
        )

    def initialise(self, timeout_s: float = 30.0) -> None:
        """InitProducerId: ends whatever transaction a predecessor left open, and fences it.

        Raises LaneLost when the broker refuses the id for good.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self._producer.init_transactions(max(0.1, deadline - time.monotonic()))
                return
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise LaneLost(f"init_transactions: {error.args[0].str()}") from error

    def commit(self, works: Sequence[Work], membership: Membership) -> Receipt:
        """Steps 2 to 6, for the work of several lanes of one worker at once.

        Raises CommitAborted or LaneSuspended (nothing is visible) and LaneLost (nothing may be tried again).
        """
        try:
            return self._commit(works, membership)
        except SystemError as error:
            # A fatal error (fenced) that arrives inside a callback surfaces as this from the C binding.
            raise LaneLost(f"fatal error inside a delivery callback: {error.__cause__ or error}") from error
        finally:
            self._calling = None
            self.rested_since_s = time.monotonic()

    @property
    def overdue(self) -> str | None:
        """The call from which librdkafka has not come back long after its time-out; None while all is well.

        For another thread than the one that commits. Nothing can be done about such a call: its thread is gone for
        good, and the transaction is ended by the broker or by the successor.
        """
        calling = self._calling
        if calling is None or time.monotonic() - calling[1] < _OVERDUE_S:
            return None
        return calling[0]

    def _calls(self, what: str) -> None:
        self._calling = (what, time.monotonic())

    def _commit(self, works: Sequence[Work], membership: Membership) -> Receipt:
        failpoint("before_begin")
        self._calls("begin_transaction")
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            raise self._judge(error, "begin_transaction") from error
        try:
            self._produce(works)
            failpoint("after_produce")
            self._send_offsets(works, membership)
            failpoint("after_offsets")
            self._check_deliveries()
        except KafkaException as error:
            raise self._abort(error) from error
        except BufferError as error:
            raise self._abort(error) from error
        failpoint("before_end")
        broken = self._broken()
        self._calls("commit_transaction")
        try:
            self._producer.commit_transaction(_STEP_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].txn_requires_abort():
                raise self._abort(error) from error
            raise LaneLost(f"the outcome of EndTxn is unknown: {error.args[0].str()}") from error
        self._refuse_if_broken(broken, "EndTxn was under way")
        failpoint("after_end")
        return Receipt(self._changelog_offsets, self._broker_ms)

    def hear(self) -> None:
        """Take in what librdkafka has to tell. For an idle producer: what it logs while brokers are away adds up."""
        self._producer.poll(0)

    def _broken(self) -> int:
        """Connections that have broken so far."""
        self._producer.poll(0)
        return self._connections.broken

    def _refuse_if_broken(self, before: int, when: str) -> None:
        if self._broken() != before:
            raise LaneLost(f"a connection broke while {when}: a copy may arrive later, and this epoch is given up")

    def close(self) -> None:
        """Drop the producer without touching an open transaction: the successor's initialise ends that."""
        with contextlib.suppress(KafkaException):
            self._producer.purge()

    def _produce(self, works: Sequence[Work]) -> None:
        """Step 3: of each lane the outbox in its order, then one changelog record per dirty row.

        Only the last record of each changelog reports its delivery, for its offset. Each report would take the GIL from
        the pump, and librdkafka counts failed deliveries itself: commit_transaction refuses when there was one.
        """
        self._changelog_offsets = {}
        produce = self._producer.produce
        for work in works:
            produce_sends(produce, work.layer.sends)
            for table, rows in work.layer.rows.items():
                if rows:
                    produce_rows(produce, work.changelogs[table], work.partition, rows, self._on_changelog_delivery)

    def _send_offsets(self, works: Sequence[Work], membership: Membership) -> None:
        """Step 4. The frozen generation goes with every transaction, also with those of timers alone."""
        offsets = [
            TopicPartition(topic, partition, offset)
            for work in works
            for (topic, partition), offset in work.offsets.items()
        ]
        if not offsets:
            return
        deadline = time.monotonic() + _STEP_TIMEOUT_S
        broken, sent = self._broken(), False
        while not sent:
            try:
                remaining = max(0.1, deadline - time.monotonic())
                self._calls("send_offsets_to_transaction")
                self._producer.send_offsets_to_transaction(offsets, membership.encode(), remaining)
                sent = True
            except KafkaException as error:
                self._refuse_if_broken(broken, "TxnOffsetCommit was under way")
                if error.args[0].code() == KafkaError._TIMED_OUT:
                    raise LaneLost(f"the outcome of TxnOffsetCommit is unknown: {error.args[0].str()}") from error
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise
        self._refuse_if_broken(broken, "TxnOffsetCommit was under way")

    def _check_deliveries(self) -> None:
        """Step 5: nothing waits for its acknowledgement any more. What failed fails step 6."""
        self._calls("flush")
        if self._producer.flush(_STEP_TIMEOUT_S) > 0:
            raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT))

    def _on_changelog_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            return  # step 6 fails, and knows the cause: this may be a record purged because of another
        self._changelog_offsets[message.topic(), message.partition()] = message.offset()
        kind, timestamp_ms = message.timestamp()
        self._broker_ms = timestamp_ms if kind == TIMESTAMP_LOG_APPEND_TIME else None

    def _abort(self, cause: Exception) -> CommitAborted | LaneSuspended | LaneLost:
        """Abort, and say what that leaves us with."""
        verdict = self._judge(cause, "commit")
        if isinstance(verdict, LaneLost):
            return verdict
        try:
            self._calls("flush")
            self._producer.flush(_STEP_TIMEOUT_S)
            broken = self._broken()
            self._calls("abort_transaction")
            self._producer.abort_transaction(_STEP_TIMEOUT_S)
            self._refuse_if_broken(broken, "EndTxn was under way")
        except KafkaException as error:
            return LaneLost(f"abort_transaction: {error.args[0].str()} (after {cause})")
        except LaneLost as lost:
            return lost
        return verdict

    def _judge(self, cause: Exception, step: str) -> CommitAborted | LaneSuspended | LaneLost:
        if not isinstance(cause, KafkaException):
            return CommitAborted(f"{step}: {cause}")
        error: KafkaError = cause.args[0]
        if error.fatal():
            return LaneLost(f"{step}: {error.str()}")
        if error.code() in _GENERATION_OVER:
            return LaneSuspended(f"{step}: {error.str()}")
        return CommitAborted(f"{step}: {error.str()}")
