"""A model of Kafka for the simulation: logs, transactions, a group's offsets, and what may go wrong with a call.

One thread, no time. It answers as a broker and the producer together would, down to error flags; what it leaves out is
replication and batching. Every call passes `Faults.at`, where a seed may lose the request, lose the answer, delay a
request, kill the caller, or let somebody else act first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from confluent_kafka import KafkaError, KafkaException

from streams.exactly_once.membership import Membership

Log = tuple[str, int]

TRANSACTION_TIMEOUT_MS = 200  # of the model's time, in which a step takes 2 ms on average


class Crash(BaseException):
    """The calling worker is killed here; nothing after this line runs."""


class Faults(Protocol):
    """Decides what happens to a call."""

    def at(self, worker: str, call: str) -> str:
        """Empty when all is well, else lost (not applied), unanswered (applied), delayed (later). May raise Crash."""
        ...


@dataclass(slots=True)
class Entry:
    """One place in a log: a record, or a control marker."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    transaction: Transaction | None = None  # None: plain
    is_marker: bool = False


@dataclass(slots=True, eq=False)
class Transaction:
    """One transaction of a transactional id; `state` is open, committed or aborted."""

    epoch: int
    opened_at_ms: int
    state: str = "open"
    touched: set[Log] = field(default_factory=set)
    offsets: dict[Log, int] = field(default_factory=dict)


@dataclass(slots=True)
class Coordinator:
    """What the transaction coordinator knows of one transactional id."""

    epoch: int = -1
    current: Transaction | None = None


class Fetched:
    """A record as a consumer or a delivery report gives it; `error` instead of a record for the end of a partition."""

    __slots__ = ("_entry", "_error", "_offset", "_partition", "_topic")

    def __init__(self, log: Log, offset: int, entry: Entry | None, error: KafkaError | None = None) -> None:
        self._topic, self._partition = log
        self._offset, self._entry, self._error = offset, entry, error

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def error(self) -> KafkaError | None:
        return self._error

    def key(self) -> bytes | None:
        return None if self._entry is None else self._entry.key

    def value(self) -> bytes | None:
        return None if self._entry is None else self._entry.value

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, 0 if self._entry is None else self._entry.timestamp_ms


class Broker:
    """All state that survives workers."""

    def __init__(self, partitions: dict[str, int]) -> None:
        self.partitions = partitions
        self.logs: dict[Log, list[Entry]] = {
            (topic, number): [] for topic, count in partitions.items() for number in range(count)
        }
        self.coordinators: dict[str, Coordinator] = {}
        self.committed: dict[Log, int] = {}
        self.generation = 0
        self.members: set[str] = set()
        self.now_ms = 1_000_000
        self.delayed: list[Callable[[], object]] = []

    def append(self, log: Log, key: bytes | None, value: bytes | None, transaction: Transaction | None = None) -> int:
        """Append a record; returns its offset."""
        entries = self.logs[log]
        entries.append(Entry(key, value, self.now_ms, transaction))
        if transaction is not None:
            transaction.touched.add(log)
        return len(entries) - 1

    def stable_end(self, log: Log) -> int:
        """The last stable offset: where the first open transaction of this log begins."""
        for offset, entry in enumerate(self.logs[log]):
            if entry.transaction is not None and entry.transaction.state == "open" and not entry.is_marker:
                return offset
        return len(self.logs[log])

    def visible(self, log: Log) -> list[tuple[int, Entry]]:
        """What a read_committed reader would ever get of this log."""
        entries = self.logs[log][: self.stable_end(log)]
        return [
            (offset, entry)
            for offset, entry in enumerate(entries)
            if not entry.is_marker and (entry.transaction is None or entry.transaction.state == "committed")
        ]

    def initialise(self, transactional_id: str) -> int:
        """InitProducerId: abort what is open, and give the next epoch."""
        coordinator = self.coordinators.setdefault(transactional_id, Coordinator())
        if coordinator.current is not None:
            self._finish(coordinator, "aborted")
        coordinator.epoch += 1
        return coordinator.epoch

    def begin_implicitly(self, transactional_id: str, epoch: int) -> Transaction:
        """The transaction of this epoch; the first thing put into it opens it. Raises when the epoch is fenced."""
        coordinator = self._current(transactional_id, epoch)
        if coordinator.current is None:
            coordinator.current = Transaction(epoch, self.now_ms)
        return coordinator.current

    def end(self, transactional_id: str, epoch: int, state: str) -> int:
        """EndTxn; the epoch of the next transaction. Ending nothing is no error. Raises when the epoch is fenced."""
        coordinator = self._current(transactional_id, epoch)
        if coordinator.current is not None:
            self._finish(coordinator, state)
        coordinator.epoch += 1
        return coordinator.epoch

    def add_offsets(self, transactional_id: str, epoch: int, offsets: dict[Log, int], membership: Membership) -> None:
        """TxnOffsetCommit, fenced by generation and member; -1 without a member is accepted, as brokers do."""
        transaction = self.begin_implicitly(transactional_id, epoch)
        if membership.generation >= 0 or membership.member_id:
            if membership.member_id not in self.members:
                raise abortable(KafkaError.UNKNOWN_MEMBER_ID)
            if membership.generation != self.generation:
                raise abortable(KafkaError.ILLEGAL_GENERATION)
        transaction.offsets.update(offsets)

    def pending_offsets(self, log: Log) -> bool:
        """Whether an open transaction would change the group's offset of `log`."""
        return any(state.current is not None and log in state.current.offsets for state in self.coordinators.values())

    def open_transactions(self) -> list[str]:
        """Transactional ids with an open transaction."""
        return [name for name, state in self.coordinators.items() if state.current is not None]

    def expire(self) -> None:
        """Abort, and fence, transactions that have been open for longer than the time-out."""
        for coordinator in self.coordinators.values():
            current = coordinator.current
            if current is not None and self.now_ms - current.opened_at_ms > TRANSACTION_TIMEOUT_MS:
                self._finish(coordinator, "aborted")
                coordinator.epoch += 1

    def _current(self, transactional_id: str, epoch: int) -> Coordinator:
        coordinator = self.coordinators[transactional_id]
        if epoch != coordinator.epoch:
            raise KafkaException(KafkaError(KafkaError._FENCED, "fenced", fatal=True))
        return coordinator

    def _finish(self, coordinator: Coordinator, state: str) -> None:
        transaction = coordinator.current
        assert transaction is not None
        transaction.state = state
        for log in transaction.touched:
            self.logs[log].append(Entry(None, None, self.now_ms, transaction, is_marker=True))
        if state == "committed":
            self.committed.update(transaction.offsets)
        coordinator.current = None


def abortable(code: int) -> KafkaException:
    """An error after which the transaction can only be aborted."""
    return KafkaException(KafkaError(code, "abort", txn_requires_abort=True))


def timed_out() -> KafkaException:
    """No answer: whether the call was applied is not known."""
    return KafkaException(KafkaError(KafkaError._TIMED_OUT, "timed out", retriable=True))
