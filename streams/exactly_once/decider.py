"""A decider's lane: a pure function over lists of records, called in the pump's thread."""

from __future__ import annotations

from streams.exactly_once.errors import Poison
from streams.exactly_once.intake import positions_after
from streams.exactly_once.lane import Lane, LaneState
from streams.exactly_once.layers import Stage
from streams.exactly_once.records import TIMERS, Record

ATTEMPTS = 3  # of a record that raises alone, before it is a dead letter
PROMOTED_SENDS_MAX = 20_000  # back-pressure: beyond this a lane waits for its commit


class DeciderLane(Lane):
    """Batches of one partition: due timers first, then records in their order."""

    def work(self) -> bool:
        """Decide one batch, or, where records that cannot be decoded cut it, its parts."""
        if self.state is not LaneState.RUNNING or len(self.layers.promoted.sends) > PROMOTED_SENDS_MAX:
            return False
        batch = self.timers.due()
        room = self.spec.batch_max - len(batch)
        worked = False
        while True:
            failure = None
            if self._may_decode():
                taken = self.inbox.take(room)
                room -= len(taken)
                batch += taken
                failure = self.inbox.failure
            if batch:
                self._decide(batch)
                batch, worked = [], True
            if failure is None or not self._refuse(failure):
                return worked
            worked = True

    def _decide(self, batch: list[Record]) -> None:
        """If a batch raises, it is decided again one record at a time."""
        stage = self._new_stage()
        try:
            self._run(stage, batch)
        except Exception:
            self._decide_singly(batch)
        else:
            self._promote(stage.layer)
        for topic, position in positions_after(batch).items():
            self.positions[topic, self.partition] = position
        self.metrics.records.inc(len(batch))
        self.metrics.batch.observe(len(batch))

    def _pass(self, topic: str, offset: int) -> None:
        self.positions[topic, self.partition] = offset + 1
        self.metrics.records.inc()

    def _run(self, stage: Stage, batch: list[Record]) -> None:
        assert self.spec.decide is not None
        for record in batch:
            if record.topic != TIMERS:  # they come first
                break
            stage.cancel_timer(record.key, record.value.name)
        self.spec.decide(batch, stage, stage)

    def _decide_singly(self, batch: list[Record]) -> None:
        """Every record in a stage of its own, so that only the one that raises is set aside."""
        for record in batch:
            for attempt in range(1, ATTEMPTS + 1):
                stage = self._new_stage()
                try:
                    self._run(stage, [record])
                except Exception as error:
                    if attempt < ATTEMPTS and not isinstance(error, Poison):
                        continue
                    stage = self._new_stage()
                    if record.topic == TIMERS:
                        stage.cancel_timer(record.key, record.value.name)
                    self._stage_failed(stage, record, error)
                self._promote(stage.layer)
                break
