"""A decider's lane: a pure function over lists of records, called in the pump's thread."""

from __future__ import annotations

from confluent_kafka import Message

from streams.exactly_once.errors import Poison
from streams.exactly_once.lane import Lane, LaneState
from streams.exactly_once.layers import Stage
from streams.exactly_once.records import TIMERS, Record

ATTEMPTS = 3  # of a record that raises alone, before it is a dead letter
PROMOTED_SENDS_MAX = 20_000  # back-pressure: beyond this a lane waits for its commit


class DeciderLane(Lane):
    """Batches of one partition: due timers first, then records in their order."""

    def work(self) -> bool:
        """Decide one batch. If it raises, decide it again one record at a time."""
        if self.state is not LaneState.RUNNING or len(self.layers.promoted.sends) > PROMOTED_SENDS_MAX:
            return False
        batch: list[tuple[Record | Poison, Message | None]] = [(timer, None) for timer in self.timers.due()]
        if self._may_decode():
            self._take(batch)
        if not batch:
            return False
        self._decide(batch)
        return True

    def _take(self, batch: list[tuple[Record | Poison, Message | None]]) -> None:
        inbox, decode = self.inbox, self._decode
        for _ in range(min(len(inbox), self.spec.batch_max - len(batch))):
            decoded = decode(inbox[0])
            if decoded is None:
                return
            batch.append((decoded, inbox.popleft()))

    def _decide(self, batch: list[tuple[Record | Poison, Message | None]]) -> None:
        stage = self._new_stage()
        try:
            self._run(stage, batch)
        except Exception:
            self._decide_singly(batch)
        else:
            self._promote(stage.layer)
        last = {message.topic(): message for _, message in batch if message is not None}
        for topic, message in last.items():
            self.positions[topic, self.partition] = message.offset() + 1
        self.metrics.records.inc(len(batch))
        self.metrics.batch.observe(len(batch))

    def _run(self, stage: Stage, batch: list[tuple[Record | Poison, Message | None]]) -> None:
        assert self.spec.decide is not None
        records: list[Record] = []
        for record, message in batch:
            if isinstance(record, Poison):
                assert message is not None
                self._stage_poison(stage, message, record)
                continue
            if record.topic == TIMERS:
                stage.cancel_timer(record.key, record.value.name)
            records.append(record)
        if records:
            self.spec.decide(records, stage, stage)

    def _decide_singly(self, batch: list[tuple[Record | Poison, Message | None]]) -> None:
        """Every record in a stage of its own, so that only the one that raises is set aside."""
        for item in batch:
            record, message = item
            for attempt in range(1, ATTEMPTS + 1):
                stage = self._new_stage()
                try:
                    self._run(stage, [item])
                except Exception as error:
                    if attempt < ATTEMPTS and not isinstance(error, Poison):
                        continue
                    assert isinstance(record, Record)
                    stage = self._new_stage()
                    if record.topic == TIMERS:
                        stage.cancel_timer(record.key, record.value.name)
                    self._stage_failed(stage, record, message, error)
                self._promote(stage.layer)
                break
