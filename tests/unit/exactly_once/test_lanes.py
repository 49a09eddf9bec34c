"""Lanes without a broker: what is promoted, what is committed, and in which order keys run."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from streams.exactly_once.agent import AgentSpec, DeadLetter
from streams.exactly_once.decider import DeciderLane
from streams.exactly_once.effector import EffectorLane, Running
from streams.exactly_once.errors import Poison
from streams.exactly_once.lane import LaneState, decode_offsets, encode_offsets
from streams.exactly_once.layers import Stage
from streams.exactly_once.membership import Membership
from streams.exactly_once.metrics import EngineMetrics
from streams.exactly_once.records import TIMERS, Input, Output, Record
from streams.exactly_once.store import LaneStore
from streams.exactly_once.testing import MemoryBase
from streams.exactly_once.timers import timer_table
from streams.exactly_once.transaction import Receipt

MEMBERSHIP = Membership("group", 3, "member-1", None)
OUT = Output("out", str.encode)


class Fetched:
    """A fetched message as librdkafka hands it over."""

    def __init__(self, offset: int, value: bytes | None, key: bytes | None = b"k", topic: str = "in") -> None:
        self._offset, self._value, self._key, self._topic = offset, value, key, topic

    def topic(self) -> str:
        return self._topic

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_000 + self._offset


def decode(value: bytes) -> str:
    if value == b"garbage":
        raise Poison("it means nothing")
    if value == b"later":
        raise ConnectionError("the registry is away")
    return value.decode()


def dead_letter(letter: DeadLetter) -> bytes:
    return f"{letter.source_offset}:{letter.error_class}:{letter.error_text}".encode()


def spec_of(decide: Any = None, effect: Any = None, *, timers: bool = True, **options: Any) -> AgentSpec:
    return AgentSpec(
        "agent", (Input("in", decode),), (), (OUT,), decide=decide, effect=effect,
        timer_table=timer_table("agent") if timers else None,
        dead_letters=lambda topic: Output(f"{topic}.dlq", dead_letter), **options,
    )  # fmt: skip


def lane_of(
    kind: type[Any], spec: AgentSpec, clock_ms: Callable[[], int] = lambda: 5_000, store: LaneStore | None = None
) -> Any:
    class NoProducer:
        def close(self) -> None:
            """Nothing to release."""

    return kind(
        spec, 0, producer=NoProducer(), store=store, base=store or MemoryBase(),
        membership=MEMBERSHIP, committed={("in", 0): 0},
        changelogs={table.name: f"app-{table.name}-changelog" for table in spec.all_tables}, clock_ms=clock_ms,
        metrics=EngineMetrics().lane("agent", 0),
    )  # fmt: skip


def sent(lane: Any) -> list[tuple[str, bytes | None]]:
    return [(send.topic, send.value) for send in lane.layers.promoted.sends]


def echo(batch: Sequence[Record], state: Stage, effects: Stage) -> None:
    for record in batch:
        if record.value == "bad":
            raise ValueError("bad")
        effects.send(OUT, record.value, key=record.key)


def test_one_bad_record_in_a_batch_is_set_aside_and_the_others_are_decided_in_order() -> None:
    lane = lane_of(DeciderLane, spec_of(echo))
    lane.feed([Fetched(0, b"a"), Fetched(1, b"garbage"), Fetched(2, b"bad"), Fetched(3, b"b"), Fetched(4, None)])
    assert lane.work()
    assert sent(lane) == [
        ("out", b"a"),
        ("in.dlq", b"1:Poison:it means nothing"),
        ("in.dlq", b"2:ValueError:bad"),
        ("out", b"b"),
        ("in.dlq", b"4:Poison:a null value"),
    ]
    assert lane.positions == {("in", 0): 5}


def test_a_handler_may_bury_a_record_with_the_bytes_that_it_was_read_from() -> None:
    def bury(batch: Sequence[Record], state: Stage, effects: Stage) -> None:
        for record in batch:
            assert record.data is not None
            effects.send(Output("in.dlq", bytes), record.data, key=record.key)

    lane = lane_of(DeciderLane, spec_of(bury))
    lane.feed([Fetched(0, b"a")])
    lane.work()
    assert sent(lane) == [("in.dlq", b"a")]


def test_a_record_that_cannot_be_decoded_now_waits_and_keeps_its_place() -> None:
    lane = lane_of(DeciderLane, spec_of(echo))
    lane.feed([Fetched(0, b"a"), Fetched(1, b"later"), Fetched(2, b"b")])
    lane.work()
    assert sent(lane) == [("out", b"a")]
    assert lane.positions == {("in", 0): 1}
    assert lane.in_hand == 2


def test_a_commit_carries_offsets_of_every_input_and_an_abort_drops_what_came_after_it() -> None:
    lane = lane_of(DeciderLane, spec_of(echo))
    lane.feed([Fetched(0, b"a")])
    lane.work()
    work = lane.begin_commit()
    assert work.offsets == {("in", 0): 1}
    (rows,) = work.layer.rows.values()
    assert decode_offsets(next(iter(rows.values())).encoded) == {("in", 0): 1}
    lane.feed([Fetched(1, b"b")])
    lane.work()
    assert not lane.wants_commit, "one commit at a time"
    lane.rewind()
    assert lane.positions == {("in", 0): 0}
    assert sent(lane) == []
    assert not lane.wants_commit, "nothing is left to commit"


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


class Loop:
    """Stands for the event loop and the pump between which effectors go back and forth."""

    def __init__(self) -> None:
        self.done: list[tuple[EffectorLane, Running]] = []

    def attach(self, lane: EffectorLane) -> EffectorLane:
        loop = asyncio.get_running_loop()

        def start(function: Callable[[], None]) -> None:
            loop.call_soon(function)

        lane.attach(start, lambda *item: self.done.append(item))
        return lane

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
            while self.done:
                lane, running = self.done.pop(0)
                lane.complete(running)


async def test_an_effector_keeps_a_key_in_order_and_commits_only_the_contiguous_prefix() -> None:
    gates = {value: asyncio.Event() for value in ("a1", "b1", "a2")}
    started: list[str] = []

    async def slow(record: Record, state: Stage, effects: Stage) -> None:
        started.append(record.value)
        await gates[record.value].wait()
        effects.send(OUT, record.value, key=record.key)

    loop = Loop()
    lane = loop.attach(lane_of(EffectorLane, spec_of(effect=slow)))
    lane.feed([Fetched(0, b"a1", b"a"), Fetched(1, b"a2", b"a"), Fetched(2, b"b1", b"b")])
    lane.work()
    await loop.settle()
    assert started == ["a1", "b1"], "a2 waits for a1, b1 does not"
    gates["b1"].set()
    await loop.settle()
    assert sent(lane) == [("out", b"b1")], "b1's effects need not wait"
    assert lane.positions == {("in", 0): 0}, "its offset must"
    gates["a1"].set()
    gates["a2"].set()
    await loop.settle()
    assert sent(lane) == [("out", b"b1"), ("out", b"a1"), ("out", b"a2")]
    assert lane.positions == {("in", 0): 3}
    assert lane.in_hand == 0


async def test_an_effector_without_order_runs_the_records_of_a_key_together() -> None:
    gates = {value: asyncio.Event() for value in ("a1", "a2")}
    started: list[str] = []

    async def slow(record: Record, state: Stage, effects: Stage) -> None:
        started.append(record.value)
        await gates[record.value].wait()

    loop = Loop()
    lane = loop.attach(lane_of(EffectorLane, spec_of(effect=slow, ordered=False)))
    lane.feed([Fetched(0, b"a1", b"a"), Fetched(1, b"a2", b"a")])
    lane.work()
    await loop.settle()
    assert started == ["a1", "a2"]
    gates["a2"].set()
    await loop.settle()
    assert lane.positions == {("in", 0): 0}, "the offset waits for a1"
    gates["a1"].set()
    await loop.settle()
    assert lane.positions == {("in", 0): 2}
    assert lane.in_hand == 0


async def test_what_an_effector_reports_after_a_rewind_is_ignored() -> None:
    gate = asyncio.Event()

    async def stubborn(record: Record, state: Stage, effects: Stage) -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            effects.send(OUT, "too late", key=record.key)

    loop = Loop()
    lane = loop.attach(lane_of(EffectorLane, spec_of(effect=stubborn)))
    lane.feed([Fetched(0, b"a")])
    lane.work()
    await loop.settle()
    lane.rewind()
    await loop.settle()
    assert sent(lane) == []
    assert lane.in_hand == 0


async def test_a_timer_moved_by_an_earlier_record_of_its_key_does_not_fire() -> None:
    now = [1_000]
    fired: list[int] = []
    gate = asyncio.Event()

    async def handle(record: Record, state: Stage, effects: Stage) -> None:
        if record.topic == TIMERS:
            fired.append(record.value.due_ms)
        elif record.value == "arm":
            effects.set_timer(record.key, "t", 1_500)
        else:
            await gate.wait()
            effects.set_timer(record.key, "t", 9_000)

    loop = Loop()
    lane = loop.attach(lane_of(EffectorLane, spec_of(effect=handle), lambda: now[0]))
    lane.timers.compare(None)
    lane.feed([Fetched(0, b"arm")])
    lane.work()
    await loop.settle()
    lane.feed([Fetched(1, b"move")])
    lane.work()
    await loop.settle()
    now[0] = 2_000
    assert lane.work(), "the timer is due and queues behind the record that will move it"
    gate.set()
    await loop.settle()
    assert fired == []
    assert lane.idle_until_ms() == 9_000


def test_offsets_survive_their_way_through_the_changelog() -> None:
    offsets = {("in", 3): 17, ("b:c", 3): 0}
    assert decode_offsets(encode_offsets(offsets)) == offsets


def test_a_commit_interval_groups_commits_but_never_delays_the_first_one_after_a_pause() -> None:
    lane = lane_of(DeciderLane, spec_of(echo, commit_interval_s=3600.0))
    lane.feed([Fetched(0, b"a")])
    lane.work()
    assert lane.commit_due_in_s() == 0.0
    lane.begin_commit()
    assert lane.commit_due_in_s() is None, "a commit is in flight"
    lane.end_commit(Receipt({}, None))
    lane.feed([Fetched(1, b"b")])
    lane.work()
    assert 3590 < lane.commit_due_in_s() <= 3600
    lane.state = LaneState.DRAINING
    assert lane.commit_due_in_s() == 0.0, "a draining lane does not wait"


def test_a_lane_with_a_backlog_makes_larger_commits() -> None:
    lane = lane_of(DeciderLane, spec_of(echo))
    lane.feed([Fetched(0, b"a")])
    lane.work()
    lane.begin_commit()
    lane.end_commit(Receipt({}, None))
    lane.feed([Fetched(1, b"b")])
    lane.work()
    assert lane.commit_due_in_s() == 0.0
    lane.has_backlog = True
    assert 0.05 < lane.commit_due_in_s() <= 0.1


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
