"""The pump: the one thread of a worker that fetches, decides and commits for all its lanes.

One librdkafka consumer, assigned by hand, feeds every lane; `incremental_assign` adds and removes lanes without
disturbing the others. One transaction at a time (committer.py) runs on a thread of its own while all lanes work on.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

import structlog
from confluent_kafka import OFFSET_BEGINNING, KafkaError, TopicPartition

from streams.exactly_once.clients import Clients
from streams.exactly_once.committer import Commit, Committer
from streams.exactly_once.effector import EffectorLane, Running
from streams.exactly_once.errors import CommitAborted, EngineError, LaneLost, LaneSuspended
from streams.exactly_once.intake import runs
from streams.exactly_once.lane import Lane, LaneState, Partition
from streams.exactly_once.membership import Membership
from streams.exactly_once.transaction import Receipt

log = structlog.get_logger(__name__)

FETCH_MAX = 2_000  # records taken from librdkafka in one go
INBOX_HIGH = 8_000  # back-pressure: a lane with more in hand is paused ...
INBOX_LOW = 2_000  # ... and resumed below this
BUSY_POLL_S = 0.001  # how soon a finished commit or handler is noticed when no record arrives to wake the pump
IDLE_POLL_S = 0.1
REST_BELOW = 100  # records of one fetch: with fewer, deciding them together costs less CPU than the wait is worth
REST_MAX_S = 0.02  # a commit that takes longer does not keep the pump from its other work
LAG_EVERY_S = 5.0


class Pump:
    """Start once per worker. Public methods may be called from any thread; lanes are touched by the pump's alone."""

    def __init__(
        self,
        consumer_config: Mapping[str, object],
        *,
        on_lost: Callable[[LaneLost], None],
        clock_ms: Callable[[], int],
        clients: Clients,
    ) -> None:
        self._consumer = clients.consumer(
            {
                **consumer_config,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "isolation.level": "read_committed",
                # An offset that is gone means lost input; going on elsewhere would hide it.
                "auto.offset.reset": "error",
                "fetch.queue.backoff.ms": 5,  # the default of 1 s cut a measured 332k records/s to 118k
                "queued.max.messages.kbytes": 16_384,
            }
        )
        self._on_lost = on_lost
        self._clock_ms = clock_ms
        self._lanes: list[Lane] = []
        self._by_source: dict[Partition, Lane] = {}
        self._paused: set[Lane] = set()
        self._commands: deque[Callable[[], None]] = deque()
        self._came_back: deque[Commit] = deque()
        self._handled: deque[tuple[EffectorLane, Running]] = deque()
        self._drains: dict[Lane, tuple[float, threading.Event]] = {}
        self._stopping = False
        self._failed = False
        self._backlog = False
        self.rebalancing = False  # set by the membership's side from revocation to the next assignment
        self._lag_at = 0.0
        self._fetched = 0  # records that have come since the last turn
        self._news = threading.Event()  # a commit has come back, or a command is there: set from other threads
        self._rest_s = 0.0
        self._poll_s = IDLE_POLL_S
        self._look_again_s = 0.0  # monotonic
        self.progressed_at = time.monotonic()
        self._executor = clients.executor()
        self._committer = Committer(self._lanes, self._start)
        self._thread = threading.Thread(target=self._run, name="lane-pump", daemon=True)

    @property
    def running(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop fetching and end the thread; lanes must have been removed before.

        After a failure commits may hang on a broker that is away, and nobody waits for what they bring.
        """
        self._stopping = True
        self._thread.join()
        if self._failed:
            self._executor.shutdown(wait=False, cancel_futures=True)
            return
        self._executor.shutdown(wait=True)
        self._consumer.close()

    def handled(self, lane: EffectorLane, running: Running) -> None:
        """An effector's handler is done (called in the event loop)."""
        self._handled.append((lane, running))

    def add(self, lane: Lane) -> threading.Event:
        """Begin to feed `lane` from its committed offsets; the event is set once it runs."""
        return self._command(lambda: self._add(lane))

    def keep(self, lane: Lane, membership: Membership) -> threading.Event:
        """Go on with `lane` under the new generation; a suspended lane resumes at its committed offsets."""
        return self._command(lambda: self._keep(lane, membership))

    def remove(self, lane: Lane, drain_s: float) -> threading.Event:
        """Stop feeding `lane`, commit what completes within `drain_s`, and close it; then the event is set."""
        gone = threading.Event()
        self._commands.append(lambda: self._begin_drain(lane, drain_s, gone))
        self._news.set()
        return gone

    def _command(self, action: Callable[[], None]) -> threading.Event:
        done = threading.Event()

        def run() -> None:
            action()
            done.set()

        self._commands.append(run)
        self._news.set()
        return done

    # Everything below runs in the pump's thread.

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
                self._rest()
                while not self._has_news() and time.monotonic() < self._look_again_s:
                    self._fetch(self._poll_s)  # no lane can have anything to do
                    self.progressed_at = time.monotonic()
        except LaneLost as error:
            self._failed = True
            self._on_lost(error)
        except Exception as error:
            self._failed = True
            log.exception("the pump failed")
            self._on_lost(LaneLost(f"the pump failed: {error!r}"))

    def _rest(self) -> None:
        """While few records come, those of a commit's time and of the pause after it are taken at once, and decided
        together just before the next commit: it could not have carried them sooner."""
        if self._rest_s > 0.0 and not self._stopping:
            self._news.wait(self._rest_s)
            fetched = self._fetched
            self._fetch(0.0)
            self._fetched += fetched
            self.progressed_at = time.monotonic()

    def _turn(self) -> None:
        self._news.clear()
        while self._commands:
            self._commands.popleft()()
        while self._handled:
            effector, running = self._handled.popleft()
            effector.complete(running)
        while self._came_back:
            self._take_commit(self._came_back.popleft())
        worked = False
        for lane in self._lanes:
            worked = lane.work() or worked
        self._committer.begin()
        self._end_drains()
        self._flow()
        self._plan_ahead(worked)
        self._fetch(self._poll_s)
        self.progressed_at = time.monotonic()

    def _plan_ahead(self, worked: bool) -> None:
        """When the lanes must be looked at again though nothing has come, and how long to wait for a record meanwhile:
        briefly while a commit or handler is in flight, else until a commit or timer is due."""
        waits_s = [IDLE_POLL_S]
        if worked:
            waits_s.append(0.0)
        elif self._drains:
            waits_s.append(BUSY_POLL_S)
        else:
            due_in_s = self._committer.due_in_s()
            if due_in_s is not None:
                waits_s.append(due_in_s)
            due_ms = [at for lane in self._lanes if (at := lane.idle_until_ms()) is not None]
            if due_ms:
                waits_s.append(max(0.0, (min(due_ms) - self._clock_ms()) / 1000))
        self._look_again_s = time.monotonic() + min(waits_s)
        if self._committer.commit is not None or any(lane.in_hand for lane in self._lanes):
            waits_s.append(BUSY_POLL_S)
        self._rest_s = self._may_rest_s()
        self._poll_s = 0.0 if self._rest_s > 0.0 else min(waits_s)

    def _may_rest_s(self) -> float:
        """How long nothing that comes could be of use before: while a commit is in flight, or the pause after one."""
        if self._fetched >= REST_BELOW or self._drains:
            return 0.0
        if any(lane.in_hand or isinstance(lane, EffectorLane) for lane in self._lanes):
            return 0.0  # a handler is started at once, for others wait for what it calls
        if self._committer.commit is not None:
            return REST_MAX_S
        return min(self._committer.due_in_s() or 0.0, REST_MAX_S)

    def _has_news(self) -> bool:
        return bool(self._fetched or self._came_back or self._handled or self._commands or self._stopping)

    def _fetch(self, patience_s: float) -> None:
        first = self._consumer.poll(patience_s)
        messages = [] if first is None else [first, *self._consumer.consume(FETCH_MAX, 0)]
        self._fetched = len(messages)
        self._note_backlog(len(messages) > FETCH_MAX)
        fetched, errors = runs(messages)
        for run in fetched:
            lane = self._by_source.get((run.topic, run.partition))
            if lane is not None and lane.state is LaneState.RUNNING:
                lane.feed(run.messages)
        for error in errors:
            self._judge_fetch_error(error)

    def _note_backlog(self, backlog: bool) -> None:
        """Whether librdkafka had at least as much as can be taken in one go."""
        if backlog is not self._backlog:
            self._backlog = backlog
            for lane in self._lanes:
                lane.has_backlog = backlog

    def _judge_fetch_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise LaneLost(f"fetch: {error.str()}. Input was deleted before it was read: see the runbook on lost input")
        log.warning("fetch error", code=error.name(), error=error.str())

    def _start(self, commit: Commit) -> None:
        self._executor.submit(self._commit, commit)

    def _commit(self, commit: Commit) -> None:
        """On the commit thread."""
        commit.run()
        self._came_back.append(commit)
        self._news.set()

    def _take_commit(self, commit: Commit) -> None:
        """Give every lane of a transaction its outcome. Raises LaneLost when the process must exit."""
        self._committer.ended()
        outcome = commit.outcome
        lanes = [lane for lane, incarnation in commit.lanes if lane.incarnation == incarnation]
        if isinstance(outcome, Receipt):
            for lane in lanes:
                lane.end_commit(outcome)
                lane.metrics.commit_seconds.observe(commit.seconds)
            return
        for lane in lanes:
            lane.metrics.aborts.inc()
        if isinstance(outcome, CommitAborted):
            self._aborted(lanes, outcome)
        elif isinstance(outcome, LaneSuspended):
            self._suspended(lanes, commit.membership, outcome)
        else:
            lost = outcome if isinstance(outcome, LaneLost) else LaneLost(f"{commit.lender.name}: {outcome!r}")
            self._lost(list(dict.fromkeys([*lanes, commit.lender])), lost)

    def _aborted(self, lanes: list[Lane], reason: CommitAborted) -> None:
        for lane in lanes:
            log.warning("transaction aborted, lane rewinds", lane=lane.name, reason=str(reason))
            self._rewind(lane)

    def _suspended(self, lanes: list[Lane], membership: Membership, reason: LaneSuspended) -> None:
        for lane in self._without_leaving(lanes, reason):
            if membership != lane.membership:
                # It went out under the generation before; the lane has been kept since, so it is still ours.
                self._rewind(lane)
            else:
                self._set_apart(lane, LaneState.SUSPENDED, reason)

    def _lost(self, lanes: list[Lane], reason: LaneLost) -> None:
        """The transaction's lanes and the one whose id it used, which can never be used again."""
        staying = self._without_leaving(lanes, reason)
        if staying and not self.rebalancing:
            raise reason
        # Fenced by a new owner before our own news of the assignment: the assignment itself decides.
        for lane in staying:
            self._set_apart(lane, LaneState.FENCED, reason)

    def _without_leaving(self, lanes: list[Lane], reason: EngineError) -> list[Lane]:
        """The lanes that stay here; those that leave have had their last commit."""
        leaving = [lane for lane in lanes if lane in self._drains]
        for lane in leaving:
            log.info("lane went to another owner before its last commit", lane=lane.name, reason=str(reason))
            self._drains[lane] = (0.0, self._drains[lane][1])
            lane.rewind()
            lane.state = LaneState.FENCED  # nothing of it can commit any more
        return [lane for lane in lanes if lane not in leaving]

    def _set_apart(self, lane: Lane, state: LaneState, reason: EngineError) -> None:
        """The lane stands still until the next assignment."""
        log.warning("lane waits for the next assignment", lane=lane.name, state=state.value, reason=str(reason))
        lane.rewind()
        lane.state = state
        self._consumer.incremental_unassign(self._partitions(lane))

    def _rewind(self, lane: Lane) -> None:
        lane.rewind()
        if lane.state is LaneState.RUNNING:
            self._consumer.incremental_unassign(self._partitions(lane))
            self._assign(lane)

    def _add(self, lane: Lane) -> None:
        self._lanes.append(lane)
        for partition in self._partitions(lane):
            self._by_source[partition.topic, partition.partition] = lane
        self._assign(lane)

    def _keep(self, lane: Lane, membership: Membership) -> None:
        lane.membership = membership
        if lane.state is LaneState.SUSPENDED:
            lane.state = LaneState.RUNNING
            self._assign(lane)

    def _begin_drain(self, lane: Lane, drain_s: float, gone: threading.Event) -> None:
        if lane not in self._lanes:
            gone.set()
            return
        if lane.state is LaneState.RUNNING:
            self._consumer.incremental_unassign(self._partitions(lane))
            lane.inbox.clear()
            lane.state = LaneState.DRAINING
        else:
            drain_s = 0.0  # suspended or fenced: nothing of it can commit
        self._drains[lane] = (time.monotonic() + drain_s, gone)

    def _end_drains(self) -> None:
        for lane, (deadline, gone) in list(self._drains.items()):
            complete = not lane.in_hand and lane.positions == lane.committed and not lane.layers.promoted
            if self._committer.uses(lane) or not (complete or time.monotonic() >= deadline):
                continue
            del self._drains[lane]
            self._lanes.remove(lane)
            self._committer.forget(lane)
            self._paused.discard(lane)
            self._by_source = {source: owner for source, owner in self._by_source.items() if owner is not lane}
            lane.close()
            gone.set()

    def _flow(self) -> None:
        """Back-pressure: pause lanes with much in hand, resume them later; refresh lag now and then."""
        for lane in self._lanes:
            if lane.state is not LaneState.RUNNING:
                continue
            in_hand = lane.in_hand
            if in_hand > INBOX_HIGH and lane not in self._paused:
                self._paused.add(lane)
                self._consumer.pause(self._partitions(lane))
            elif in_hand < INBOX_LOW and lane in self._paused:
                self._paused.discard(lane)
                self._consumer.resume(self._partitions(lane))
        if time.monotonic() - self._lag_at > LAG_EVERY_S:
            self._lag_at = time.monotonic()
            for lane in self._lanes:
                lane.metrics.lag.set(self._lag(lane))
                due_ms = lane.idle_until_ms()
                overdue_ms = 0 if due_ms is None else max(0, self._clock_ms() - due_ms)
                lane.metrics.timers_overdue_seconds.set(overdue_ms / 1000)

    def _lag(self, lane: Lane) -> int:
        lag = 0
        for partition in self._partitions(lane):
            _, end = self._consumer.get_watermark_offsets(partition, cached=True)
            lag += max(0, end - lane.committed.get((partition.topic, partition.partition), 0))
        return lag

    def _assign(self, lane: Lane) -> None:
        self._paused.discard(lane)
        self._consumer.incremental_assign(
            [
                TopicPartition(
                    partition.topic,
                    partition.partition,
                    lane.committed.get((partition.topic, partition.partition), OFFSET_BEGINNING),
                )
                for partition in self._partitions(lane)
            ]
        )

    def _partitions(self, lane: Lane) -> list[TopicPartition]:
        return [TopicPartition(source.topic, lane.partition) for source in lane.spec.inputs]
