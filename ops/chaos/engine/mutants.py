"""Seeded bugs of the engine. Each is a change that a tired engineer could make; the checks must turn red on every one.

A mutant replaces functions of the engine inside a `with` block; nothing of it is in the engine itself.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from streams.exactly_once import committer, decider, effector, lane, lane_service, opening, pump, restore
from streams.exactly_once.errors import CommitAborted, LaneLost
from streams.exactly_once.layers import Layer, Layers, Stage
from streams.exactly_once.membership import Membership
from streams.exactly_once.transaction import LaneProducer, Receipt, Work

Lane, DeciderLane, EffectorLane = lane.Lane, decider.DeciderLane, effector.EffectorLane


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug: what it is, and where it is put."""

    name: str
    what: str
    target: Any
    attribute: str
    make: Callable[[Any], Any]  # the original to its replacement
    beside: Mutant | None = None  # another change without which this one could not show

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The engine with this bug."""
        original = getattr(self.target, self.attribute)
        beside = contextlib.nullcontext() if self.beside is None else self.beside.applied()
        with beside, patch.object(self.target, self.attribute, self.make(original)):
            yield


def _commit_one_more(original: Any) -> Any:
    def begin_commit(self: Any) -> Work:
        work: Work = original(self)
        work.offsets = {source: offset + 1 for source, offset in work.offsets.items()}
        return work

    return begin_commit


def _commit_one_less(original: Any) -> Any:
    def begin_commit(self: Any) -> Work:
        work: Work = original(self)
        work.offsets = {source: max(0, offset - 1) for source, offset in work.offsets.items()}
        return work

    return begin_commit


def _without_barrier(original: Any) -> Any:
    def close_offset(self: Any, source: Any, offset: int) -> None:
        self._open[source].pop(offset, None)
        self.positions[source] = max(self.positions.get(source, 0), offset + 1)

    return close_offset


def _apply_before_commit(original: Any) -> Any:
    def begin_commit(self: Any) -> Work:
        work: Work = original(self)
        if self.store is not None:
            self.store.apply(work.layer.rows, {})
        return work

    return begin_commit


def _unknown_is(outcome: str) -> Callable[[Any], Any]:
    def make(original: Any) -> Any:
        def commit(self: LaneProducer, *carried: Any) -> Receipt:
            try:
                return original(self, *carried)  # type: ignore[no-any-return]
            except LaneLost as error:
                if "EndTxn" not in str(error):
                    raise
                if outcome == "committed":
                    return self._receipt(carried[0])
                raise CommitAborted("taken for aborted") from error

        return commit

    return make


def _abort_unsaid(original: Any) -> Any:
    """The transaction is given up without a word to the brokers: its epoch, and what it holds, are the next one's."""

    def abort(self: LaneProducer, cause: Any) -> Any:
        with patch.object(self._producer, "abort_transaction", _pass):
            return original(self, cause)

    return abort


def _without_generation(original: Any) -> Any:
    def send_offsets(self: LaneProducer, works: Any, membership: Membership) -> None:
        original(self, works, Membership(membership.group, -1, "", None))

    return send_offsets


def _abort_is_committed(original: Any) -> Any:
    """What the producer refuses to commit is taken for done: a transaction of which a record was not delivered."""

    def commit(self: LaneProducer, *carried: Any) -> Receipt:
        try:
            return original(self, *carried)  # type: ignore[no-any-return]
        except CommitAborted:
            return self._receipt(carried[0])

    return commit


def _forget(layer: str) -> Callable[[Any], Any]:
    """Reads that do not see one of the layers."""

    def make(original: Any) -> Any:
        def get(self: Layers, table: Any, key: bytes, top: Layer | None = None) -> Any:
            hidden = Layer()
            kept = getattr(self, layer) if layer != "top" else None
            try:
                if layer != "top":
                    setattr(self, layer, hidden)
                return original(self, table, key, None if layer == "top" else top)
            finally:
                if layer != "top":
                    setattr(self, layer, kept)

        return get

    return make


def _keep_layers(original: Any) -> Any:
    def discard(self: Layers) -> None:
        self.committing = Layer()

    return discard


def _keep_positions(original: Any) -> Any:
    def rewind(self: Any) -> None:
        positions = dict(self.positions)
        original(self)
        self.positions = positions

    return rewind


def _keep_inbox(original: Any) -> Any:
    def rewind(self: Any) -> None:
        inbox = self.inbox.waiting
        original(self)
        self.inbox.extend(inbox)

    return rewind


def _newest_as_committed(original: Any) -> Any:
    def end_commit(self: Any, offsets: Any) -> None:
        newest = dict(self.positions)
        original(self, offsets)
        self.committed = newest

    return end_commit


def _offsets_read_later(original: Any) -> Any:
    """The snapshot's offsets are those of the moment when they are sent, not of the moment when it was taken."""

    def begin_commit(self: Any) -> Work:
        work: Work = original(self)
        work.offsets = self.positions
        return work

    return begin_commit


def _no_restore(original: Any) -> Any:
    return lambda *arguments: 0


def _restore_too_late(original: Any) -> Any:
    def restore_table(reader: Any, store: Any, *rest: Any) -> int:
        class Ahead:
            def __getattr__(self, name: str) -> Any:
                return getattr(store, name)

            def offset(self, changelog: str) -> int | None:
                applied = store.offset(changelog)
                return None if applied is None else applied + 2

        return original(reader, Ahead(), *rest)  # type: ignore[no-any-return]

    return restore_table


def _first_lane_only(original: Any) -> Any:
    """An abort is heard by one lane of the transaction alone; the others wait for an outcome for ever."""
    return lambda self, lanes, reason: original(self, lanes[:1], reason)


def _offsets_of_any_lane(original: Any) -> Any:
    """A lane takes the last changelog offset that the transaction tells of, whichever partition's it is."""

    def own_offsets(self: Any, receipt: Receipt) -> dict[str, int]:
        told = {topic: offset for (topic, _), offset in sorted(receipt.changelog_offsets.items())}
        return {topic: told[topic] for topic in self._changelogs.values() if topic in told}

    return own_offsets


def _without_fencing(original: Any) -> Any:
    """A new owner takes over the epoch of its predecessor instead of asking for the next."""

    def initialise(self: LaneProducer, timeout_s: float = 30.0) -> None:
        producer: Any = self._producer
        coordinator = producer._broker.coordinators.get(producer._id)
        if coordinator is None:
            original(self, timeout_s)
        else:
            producer._epoch = coordinator.epoch

    return initialise


def _id_per_worker(original: Any) -> Any:
    """Owners of a lane do not share its transactional id: InitProducerId fences nobody."""

    def init(self: Any, clients: Any, config: Any, transactional_id: str) -> None:
        owner = f"{os.getpid()}-{id(clients)}"  # a process on a cluster, a worker in the simulation
        original(self, clients, config, f"{transactional_id}-{owner}")

    return init


def _without_offsets(original: Any) -> Any:
    return _pass


def _timer_stays(original: Any) -> Any:
    def run(self: Any, stage: Stage, batch: Any) -> None:
        with patch.object(stage, "cancel_timer", _pass):
            original(self, stage, batch)

    return run


def _drop_timers(original: Any) -> Any:
    def rewind(self: Any) -> None:
        original(self)
        self.timers._next_due_ms = None

    return rewind


def _silent_poison(original: Any) -> Any:
    return _pass


def _one_stage_for_all(original: Any) -> Any:
    """Records that are decided singly share a stage: what the failed one has staged stays."""

    def decide_singly(self: Any, batch: Any) -> None:
        stage = self._new_stage()
        with patch.object(self, "_new_stage", lambda: stage):
            original(self, batch)

    return decide_singly


def _skip_failing_batch(original: Any) -> Any:
    return _pass


def _late_acks(original: Any) -> Any:
    def complete(self: Any, running: Any) -> None:
        running.incarnation = self.incarnation
        self._open.setdefault((self.spec.inputs[0].topic, self.partition), {})
        self._waiting.setdefault(running.record.key, deque())
        original(self, running)

    return complete


def _keys_at_once(original: Any) -> Any:
    def admit(self: Any, running: Any) -> None:
        self._waiting.setdefault(running.record.key, deque())
        self._launch(running)

    return admit


def _last_sends_first(original: Any) -> Any:
    def absorb(self: Layer, newer: Layer) -> None:
        newer.sends.reverse()
        original(self, newer)

    return absorb


def _half_the_outbox(original: Any) -> Any:
    def absorb(self: Layer, newer: Layer) -> None:
        if len(newer.sends) > 1:
            newer.sends.pop()
        original(self, newer)

    return absorb


def _dirty_reads(original: Any) -> Any:
    def init(self: Any, config: Any, *, clients: Any, **options: Any) -> None:
        def consumer(settings: Any) -> Any:
            return clients.consumer({**settings, "isolation.level": "read_uncommitted"})

        original(self, config, clients=replace(clients, consumer=consumer), **options)

    return init


def _first(original: Any) -> Any:
    """A rest of its own, for the id has none any more."""

    def lender(self: Any, lanes: Any) -> Any:
        return next(lane for lane in self._lanes if lane.state is lanes[0].state)

    return lender


def _pass(*_: Any, **__: Any) -> None:
    """Nothing."""


def _always(original: Any) -> Any:
    return lambda old, new: True


ID_PER_WORKER = Mutant(
    "id per worker",
    "the first lock is taken away; the other two must hold",
    LaneProducer,
    "__init__",
    _id_per_worker,
)
"""No bug by itself: generation, stable offsets and the restore's wait keep two owners apart too, only later."""


def _late(original: Any) -> Any:
    def commit(self: LaneProducer, *carried: Any) -> Receipt:
        time.sleep(LATE_S)
        return original(self, *carried)  # type: ignore[no-any-return]

    return commit


LATE_S = 0.03
LATE_COMMITS = Mutant("late commits", "no bug: the pool's threads are busy", LaneProducer, "commit", _late)
"""A lane works on between its snapshot and its transaction, and again before its next one."""

ONE_ID = Mutant(
    "one id", "every transaction goes out under the first lane's id", committer.Committer, "_lender", _first
)
"""No bug: but the next transaction is of the same id, which is what the one before could leave something to."""

MUTANTS: tuple[Mutant, ...] = (
    Mutant("commit N+1", "offsets one too high", Lane, "begin_commit", _commit_one_more),
    Mutant("commit N-1", "offsets one too low", Lane, "begin_commit", _commit_one_less),
    Mutant(
        "drop the barrier",
        "an offset passes records in hand",
        EffectorLane,
        "_close_offset",
        _without_barrier,
    ),
    Mutant(
        "apply before commit",
        "RocksDB is written first",
        Lane,
        "begin_commit",
        _apply_before_commit,
    ),
    Mutant("an abort is not said", "brokers do not hear of an abort", LaneProducer, "_abort", _abort_unsaid, ONE_ID),
    Mutant("unknown is committed", "unknown taken for done", LaneProducer, "_commit", _unknown_is("committed"), ONE_ID),
    Mutant("unknown is aborted", "unknown taken for aborted", LaneProducer, "_commit", _unknown_is("aborted")),
    Mutant(
        "skip the generation",
        "offsets go out unfenced",
        LaneProducer,
        "_send_offsets",
        _without_generation,
        ID_PER_WORKER,
    ),
    Mutant("an abort is committed", "a failed delivery taken for done", LaneProducer, "_commit", _abort_is_committed),
    Mutant("forget the stage", "a handler does not see its own writes", Layers, "get", _forget("top")),
    Mutant("forget promoted", "reads miss what was promoted", Layers, "get", _forget("promoted"), LATE_COMMITS),
    Mutant("forget committing", "reads miss what is committing", Layers, "get", _forget("committing")),
    Mutant("keep layers", "an abort leaves promoted effects", Layers, "discard", _keep_layers),
    Mutant("keep positions", "an abort leaves positions", Lane, "rewind", _keep_positions),
    Mutant("keep the inbox", "an abort leaves fetched records", Lane, "rewind", _keep_inbox),
    Mutant("newest as committed", "a commit marks more than it carried", Lane, "end_commit", _newest_as_committed),
    Mutant(
        "offsets read later",
        "a snapshot's offsets move with the lane",
        Lane,
        "begin_commit",
        _offsets_read_later,
        LATE_COMMITS,
    ),
    Mutant("no restore", "tables start as they lie on disk", opening, "restore_tables", _no_restore),
    Mutant("restore off by one", "recovery skips a changelog record", restore, "_restore_table", _restore_too_late),
    Mutant(
        "an abort of one",
        "the other lanes of an aborted transaction hear nothing",
        pump.Pump,
        "_aborted",
        _first_lane_only,
    ),
    Mutant(
        "offsets of any lane", "a lane notes another's changelog offset", Lane, "_own_offsets", _offsets_of_any_lane
    ),
    Mutant("no fencing", "a new owner shares its predecessor's epoch", LaneProducer, "initialise", _without_fencing),
    Mutant("no offsets", "transactions carry no offsets", LaneProducer, "_send_offsets", _without_offsets),
    Mutant("timer stays", "a fired timer is not removed", DeciderLane, "_run", _timer_stays),
    Mutant("timers lost by a rewind", "an abort forgets due times", Lane, "rewind", _drop_timers),
    Mutant("silent poison", "undecodable records vanish", Lane, "_stage_poison", _silent_poison),
    Mutant("silent failure", "failed records vanish", Lane, "_stage_failed", _silent_poison),
    Mutant("one stage for all", "a failed record's effects stay", DeciderLane, "_decide_singly", _one_stage_for_all),
    Mutant("skip the failing batch", "a raising batch is dropped", DeciderLane, "_decide_singly", _skip_failing_batch),
    Mutant("late acks", "handlers of an earlier incarnation count", EffectorLane, "complete", _late_acks),
    Mutant("keys at once", "one key's records run together", EffectorLane, "_admit", _keys_at_once),
    Mutant("swapped effects", "a batch's records are sent last first", Layer, "absorb", _last_sends_first),
    Mutant("half the outbox", "a stage's last record is lost", Layer, "absorb", _half_the_outbox),
    Mutant("dirty reads", "input of aborted transactions is processed", pump.Pump, "__init__", _dirty_reads),
    Mutant(
        "keep any lane",
        "lanes go on whatever happened between generations",
        lane_service,
        "continues",
        _always,
        ID_PER_WORKER,
    ),
)


def mutant_named(name: str) -> Mutant:
    """Raises KeyError for a name that no mutant has."""
    return {mutant.name: mutant for mutant in (*MUTANTS, ID_PER_WORKER)}[name]
