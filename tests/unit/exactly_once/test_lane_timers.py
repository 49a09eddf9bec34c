"""A lane's timers: which is next, when it fires, and what stops them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from streams.exactly_once.decider import DeciderLane
from streams.exactly_once.layers import Stage
from streams.exactly_once.records import TIMERS, Record
from streams.exactly_once.store import LaneStore
from streams.exactly_once.transaction import Receipt
from tests.unit.exactly_once.lanes import OUT, Fetched, echo, lane_of, sent, spec_of


def test_a_timer_is_gone_with_the_effects_of_its_handler_and_comes_back_when_they_are_dropped() -> None:
    now = [1_000]

    def arm(batch: Sequence[Record], state: Stage, effects: Stage) -> None:
        for record in batch:
            if record.topic == TIMERS:
                effects.send(OUT, f"fired at {record.timestamp_ms}", key=record.key)
            else:
                effects.set_timer(record.key, "t", 2_000)

    lane = lane_of(DeciderLane, spec_of(arm), lambda: now[0])
    lane.feed([Fetched(0, b"a")])
    lane.work()
    assert lane.idle_until_ms() == 2_000
    for table, rows in lane.begin_commit().layer.rows.items():
        lane.layers.base.rows.setdefault(table.name, {}).update({key: row.encoded for key, row in rows.items()})
    lane.end_commit(Receipt({}, None))
    now[0] = 2_500
    for _ in range(2):
        assert lane.work()
        assert sent(lane) == [("out", b"fired at 2500")]
        assert not lane.work()
        lane.rewind()


def test_timers_stand_still_while_host_and_broker_clocks_differ_by_more_than_five_minutes() -> None:
    now = [10_000_000]

    def arm(batch: Sequence[Record], state: Stage, effects: Stage) -> None:
        for record in batch:
            if record.topic == TIMERS:
                effects.send(OUT, "fired", key=record.key)
            elif record.value == "a":
                effects.set_timer(record.key, "t", now[0] + 1_000)

    lane = lane_of(DeciderLane, spec_of(arm), lambda: now[0])
    lane.feed([Fetched(0, b"a")])
    lane.work()
    now[0] += 2_000
    assert not lane.work(), "no commit has told the brokers' time yet"
    lane.begin_commit()
    for table, rows in lane.layers.committing.rows.items():
        lane.layers.base.rows.setdefault(table.name, {}).update({key: row.encoded for key, row in rows.items()})
    lane.end_commit(Receipt({}, now[0] - 300_001))
    assert not lane.work()
    assert lane.idle_until_ms() is None
    lane.feed([Fetched(1, b"b")])
    lane.work()
    lane.begin_commit()
    lane.end_commit(Receipt({}, now[0] - 299_999))
    assert lane.work()
    assert ("out", b"fired") in sent(lane)


def test_a_lane_that_starts_with_a_due_timer_asks_the_brokers_time_before_it_fires() -> None:
    lane = lane_of(DeciderLane, spec_of(echo))
    assert not lane.wants_commit
    lane.layers.promoted.absorb(_armed(lane, due_ms=1_000))
    lane.timers.refresh()
    assert lane.timers.wants_comparison


class Timers:
    """A lane and what its timers should be: timer "t" of each key, by due time."""

    def __init__(self, chance: random.Random, directory: Path) -> None:
        self._chance = chance
        self.now_ms = 1_000
        self.fired: list[tuple[int, bytes]] = []
        self.promoted: dict[bytes, int] = {}
        self._committing: dict[bytes, int] | None = None
        self._committed: dict[bytes, int] = {}
        self.lane = lane_of(DeciderLane, spec_of(self._handle), lambda: self.now_ms, LaneStore(directory / "lane"))
        self.lane.timers.compare(None)

    def _handle(self, batch: Sequence[Record], state: Stage, effects: Stage) -> None:
        for record in batch:
            if record.topic == TIMERS:
                self.fired.append((record.value.due_ms, record.key))
            elif record.value == "cancel":
                effects.cancel_timer(record.key, "t")
            else:
                effects.set_timer(record.key, "t", int(record.value))

    def feed(self, value: str) -> None:
        key = f"k{self._chance.randrange(40):02}".encode()
        self.lane.feed([Fetched(0, value.encode(), key)])
        self.fire()
        self.promoted.pop(key, None)
        if value != "cancel":
            self.promoted[key] = int(value)

    def set(self) -> None:
        self.feed(str(self.now_ms + self._chance.randrange(1, 400)))

    def cancel(self) -> None:
        self.feed("cancel")

    def fire(self) -> None:
        self.fired.clear()
        self.lane.work()
        due = {key: due_ms for key, due_ms in self.promoted.items() if due_ms <= self.now_ms}
        assert self.fired == sorted((due_ms, key) for key, due_ms in due.items())
        self.promoted = {key: due_ms for key, due_ms in self.promoted.items() if key not in due}

    def pass_time(self) -> None:
        self.now_ms += self._chance.randrange(60)
        self.fire()

    def commit(self) -> None:
        if self._committing is not None:
            self.lane.end_commit(Receipt({}, None))
            self._committed, self._committing = self._committing, None
        elif self.lane.wants_commit:
            self.lane.begin_commit()
            self._committing = dict(self.promoted)

    def rewind(self) -> None:
        self.lane.rewind()
        self.promoted, self._committing = dict(self._committed), None


@pytest.mark.parametrize("seed", range(8))
def test_the_next_timer_is_known_whatever_is_set_moved_and_cancelled(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    timers = Timers(chance, tmp_path)
    steps = (timers.set, timers.cancel, timers.pass_time, timers.commit, timers.rewind)
    for step in chance.choices(steps, (45, 15, 15, 22, 3), k=600):
        step()
        assert timers.lane.idle_until_ms() == min(timers.promoted.values(), default=None)
    timers.lane.close()


def _armed(lane: Any, due_ms: int) -> Any:
    stage = lane._new_stage()
    stage.set_timer(b"k", "t", due_ms)
    return stage.layer
