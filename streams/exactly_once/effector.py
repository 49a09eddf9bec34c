"""An effector's lane: handlers run as tasks in the event loop, many keys at once, each key strictly in order.

A record's effects join the next commit as soon as it is complete; only the offset waits for the contiguous prefix.
What lies beyond that prefix runs again after a crash: deterministic ids, keys and timestamps make it harmless.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from streams.exactly_once.errors import Poison
from streams.exactly_once.lane import Lane, LaneState, Partition
from streams.exactly_once.layers import Stage
from streams.exactly_once.records import TIMERS, Record

ATTEMPTS = 3  # of a record whose handler raises, before it is a dead letter
RETRY_DELAY_S = 0.2  # times the number of the attempt


@dataclass(slots=True, eq=False)
class Running:
    """One record on its way through the handler."""

    record: Record
    incarnation: int
    stage: Stage | None = None
    error: Exception | None = None
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class EffectorLane(Lane):
    """Keys in parallel, one key in order. `start` hands a function to the event loop, `finished` takes what is done."""

    _start: Callable[[Callable[[], None]], None]
    _finished: Callable[[EffectorLane, Running], None]

    def attach(
        self, start: Callable[[Callable[[], None]], None], finished: Callable[[EffectorLane, Running], None]
    ) -> None:
        """Connect the lane to the event loop: `start(f)` runs f there; handlers report to `finished` from there."""
        self._start, self._finished = start, finished
        self._open: dict[Partition, dict[int, None]] = {}  # offsets in hand, ascending
        self._read: dict[Partition, int] = dict(self.positions)
        self._waiting: dict[bytes, deque[Running]] = {}  # per busy key, what comes after the one that runs
        self._running: set[Running] = set()
        self._launched: list[Running] = []  # of them, those whose handlers are about to run

    @property
    def in_hand(self) -> int:
        """Records fetched and not yet complete."""
        return len(self.inbox) + sum(len(offsets) for offsets in self._open.values())

    @property
    def quiet(self) -> bool:
        """Whether no handler runs."""
        return not self._running

    def work(self) -> bool:
        """Start handlers for what is waiting, up to the agent's concurrency."""
        if self.state is not LaneState.RUNNING:
            return False
        worked = False
        for timer in self.timers.due():
            self.timers.busy.add((timer.key, timer.value.name))
            self._admit(Running(timer, self.incarnation))
            worked = True
        if worked:
            self.timers.refresh()
        while self.inbox and len(self._running) < self.spec.concurrency and self._may_decode():
            if not self._take_one():
                break
            worked = True
        self._spawn()
        return worked

    def complete(self, running: Running) -> None:
        """A handler is done (pump's thread): promote its effects, move the prefix, let the key's next one go."""
        if running.incarnation != self.incarnation or self.state is LaneState.CLOSED:
            return
        self._running.discard(running)
        stage = running.stage
        if running.error is not None:
            stage = self._stage_for(running)
            self._stage_failed(stage, running.record, running.error)
        assert stage is not None
        record = running.record
        if record.topic == TIMERS:
            self.timers.busy.discard((record.key, record.value.name))
        self._promote(stage.layer)
        if record.topic == TIMERS:
            self.timers.refresh()
        else:
            self._close_offset((record.topic, self.partition), record.offset)
        self.metrics.records.inc()
        if self.spec.ordered:
            self._next_of_key(record.key)
        self._spawn()

    def rewind(self) -> None:
        """As Lane.rewind; handlers that run are cancelled, and what they still report is ignored."""
        self._cancel_running()
        self._open, self._waiting, self._running, self._launched = {}, {}, set(), []
        self.timers.busy.clear()
        super().rewind()
        self._read = dict(self.positions)

    def close(self) -> None:
        """As Lane.close; handlers that run are cancelled."""
        self._cancel_running()
        super().close()

    def _cancel_running(self) -> None:
        running = list(self._running)

        def cancel() -> None:
            for entry in running:
                if entry.task is not None:
                    entry.task.cancel()

        self._start(cancel)

    def _take_one(self) -> bool:
        """Take up the first message; False when it cannot be decoded now."""
        taken = self.inbox.take(1)
        if not taken:
            assert self.inbox.failure is not None
            return self._refuse(self.inbox.failure)
        (record,) = taken
        self._open_offset((record.topic, self.partition), record.offset)
        self._admit(Running(record, self.incarnation))
        return True

    def _pass(self, topic: str, offset: int) -> None:
        source = (topic, self.partition)
        self._open_offset(source, offset)
        self._close_offset(source, offset)

    def _admit(self, running: Running) -> None:
        if not self.spec.ordered:
            self._launch(running)
            return
        waiting = self._waiting.get(running.record.key)
        if waiting is not None:
            waiting.append(running)
            return
        self._waiting[running.record.key] = deque()
        self._launch(running)

    def _next_of_key(self, key: bytes) -> None:
        waiting = self._waiting[key]
        if waiting:
            self._launch(waiting.popleft())
        else:
            del self._waiting[key]

    def _launch(self, running: Running) -> None:
        self._running.add(running)
        if running.record.topic == TIMERS and not self.timers.is_set(running.record):
            # Moved or cancelled by an earlier record of its key while it waited behind it.
            running.stage = self._new_stage()
            self._finished(self, running)
            return
        self._launched.append(running)

    def _spawn(self) -> None:
        """Run the handlers of what was launched: the event loop is woken once for all of them."""
        if not self._launched:
            return
        launched, self._launched = self._launched, []

        def spawn() -> None:
            loop = asyncio.get_running_loop()
            for running in launched:
                running.task = loop.create_task(self._handle(running))

        self._start(spawn)

    async def _handle(self, running: Running) -> None:
        """Run the handler in the event loop; retry it, each time on a fresh stage."""
        assert self.spec.effect is not None
        for attempt in range(1, ATTEMPTS + 1):
            running.stage = self._stage_for(running)
            try:
                await self.spec.effect(running.record, running.stage, running.stage)
            except Exception as error:
                if attempt < ATTEMPTS and not isinstance(error, Poison):
                    await asyncio.sleep(RETRY_DELAY_S * attempt)
                    continue
                running.error = error
            break
        self._finished(self, running)

    def _stage_for(self, running: Running) -> Stage:
        stage = self._new_stage()
        if running.record.topic == TIMERS:
            stage.cancel_timer(running.record.key, running.record.value.name)
        return stage

    def _open_offset(self, source: Partition, offset: int) -> None:
        self._open.setdefault(source, {})[offset] = None
        self._read[source] = offset + 1

    def _close_offset(self, source: Partition, offset: int) -> None:
        """The committable position is the lowest offset still open, or what follows the last one read."""
        offsets = self._open[source]
        offsets.pop(offset, None)
        self.positions[source] = next(iter(offsets), self._read[source])
