"""Lanes without a broker: what is promoted, what is committed, and in which order keys run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from streams.exactly_once.decider import DeciderLane
from streams.exactly_once.effector import EffectorLane, Running
from streams.exactly_once.lane import LaneState, decode_offsets, encode_offsets
from streams.exactly_once.layers import Stage
from streams.exactly_once.records import TIMERS, Output, Record
from streams.exactly_once.transaction import Receipt
from tests.unit.exactly_once.lanes import OUT, Fetched, echo, lane_of, sent, spec_of


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
