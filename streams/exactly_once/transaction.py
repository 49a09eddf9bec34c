"""What a lane commits with: a transactional id of its own, and the commit's steps 2 to 6 (`Lane` does 1, 7 and 8).

    1. Snapshot what is complete.            5. send_offsets_to_transaction.
    2. begin_transaction.                    6. commit_transaction.
    3. Hand over outbox and changelog.       7. One RocksDB write batch.
    4. Flush: every record is delivered.     8. Resolve what waited.

Each transaction has an epoch of its own, so an abort is final: whatever of it is still on its way, the brokers refuse
(decision 0029). Only when EndTxn itself has no answer the outcome is unknown, and nothing may be tried again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException

from streams.exactly_once.bulk import produce_rows, produce_sends
from streams.exactly_once.clients import Clients
from streams.exactly_once.errors import CommitAborted, LaneLost, LaneSuspended
from streams.exactly_once.failpoints import failpoint
from streams.exactly_once.layers import Layer
from streams.exactly_once.membership import Membership
from streams.exactly_once.table_spec import TableSpec

TRANSACTION_TIMEOUT_MS = 10_000
"""A transaction is open for milliseconds; this is how long a dead lane's can block readers if nobody takes over."""

_STEP_TIMEOUT_S = 8.0  # within the transaction's time-out, so that the broker cannot abort behind our back first

_GENERATION_OVER = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.FENCED_INSTANCE_ID,
}


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
        self._producer = clients.producer(
            {**config, "transactional.id": transactional_id, "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS}
        )

    def initialise(self, timeout_s: float = 30.0) -> None:
        """InitProducerId: ends whatever transaction a predecessor left open, and fences it.

        Raises LaneLost when the brokers refuse the id, or none answers.
        """
        try:
            self._producer.init_transactions(timeout_s)
        except KafkaException as error:
            raise LaneLost(f"init_transactions: {error.args[0].str()}") from error

    def commit(self, works: Sequence[Work], membership: Membership) -> Receipt:
        """Steps 2 to 6, for the work of several lanes of one worker at once.

        Raises CommitAborted or LaneSuspended (nothing is visible) and LaneLost (nothing may be tried again).
        """
        try:
            return self._commit(works, membership)
        finally:
            self.rested_since_s = time.monotonic()

    def close(self) -> None:
        """Drop the producer without touching an open transaction: the successor's initialise ends that."""
        self._producer.close()

    def _commit(self, works: Sequence[Work], membership: Membership) -> Receipt:
        failpoint("before_begin")
        self._producer.begin_transaction()
        try:
            self._produce(works)
            failpoint("after_produce")
            self._send_offsets(works, membership)
            failpoint("after_offsets")
        except KafkaException as error:
            raise self._abort(error) from error
        failpoint("before_end")
        try:
            self._producer.commit_transaction(_STEP_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].txn_requires_abort():
                raise self._abort(error) from error
            raise LaneLost(f"the outcome of EndTxn is unknown: {error.args[0].str()}") from error
        failpoint("after_end")
        return self._receipt(works)

    def _produce(self, works: Sequence[Work]) -> None:
        """Steps 3 and 4: of each lane the outbox in its order, then one changelog record per dirty row."""
        produce = self._producer.produce
        for work in works:
            produce_sends(produce, work.layer.sends)
            for table, rows in work.layer.rows.items():
                produce_rows(produce, work.changelogs[table], work.partition, rows)
        self._producer.flush(_STEP_TIMEOUT_S)

    def _send_offsets(self, works: Sequence[Work], membership: Membership) -> None:
        """Step 5. The frozen generation goes with every transaction, also with those of timers alone."""
        offsets = {place: offset for work in works for place, offset in work.offsets.items()}
        if offsets:
            self._producer.send_offsets_to_transaction(offsets, membership, _STEP_TIMEOUT_S)

    def _receipt(self, works: Sequence[Work]) -> Receipt:
        changelogs = {topic for work in works for topic in work.changelogs.values()}
        told = {place: last for place, last in self._producer.delivered.items() if place[0] in changelogs}
        broker_ms = max((last.append_ms for last in told.values() if last.append_ms is not None), default=None)
        return Receipt({place: last.offset for place, last in told.items()}, broker_ms)

    def _abort(self, cause: KafkaException) -> CommitAborted | LaneSuspended | LaneLost:
        """Abort, and say what that leaves us with."""
        verdict = self._judge(cause.args[0])
        if isinstance(verdict, LaneLost):
            return verdict
        try:
            self._producer.abort_transaction(_STEP_TIMEOUT_S)
        except KafkaException as error:
            return LaneLost(f"abort_transaction: {error.args[0].str()} (after {cause.args[0].str()})")
        return verdict

    def _judge(self, error: KafkaError) -> CommitAborted | LaneSuspended | LaneLost:
        text = f"commit: {error.str()}"
        if error.fatal():
            return LaneLost(text)
        if error.code() in _GENERATION_OVER:
            return LaneSuspended(text)
        return CommitAborted(text)
