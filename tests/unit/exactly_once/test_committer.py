"""Which lanes share a transaction, under whose id it goes out, and when: without a broker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from unittest.mock import Mock

import pytest

from streams.exactly_once.agent import AgentSpec
from streams.exactly_once.committer import RECORDS_MAX, Commit, Committer
from streams.exactly_once.decider import DeciderLane
from streams.exactly_once.effects import Effects, State
from streams.exactly_once.errors import CommitAborted
from streams.exactly_once.lane import LaneState
from streams.exactly_once.layers import Layer, Send
from streams.exactly_once.membership import Membership
from streams.exactly_once.metrics import EngineMetrics
from streams.exactly_once.records import Input, Output, Record
from streams.exactly_once.testing import MemoryBase
from streams.exactly_once.timers import timer_table
from streams.exactly_once.transaction import Receipt, Work

NOW = Membership("group", 3, "member-1", None)
BEFORE = Membership("group", 2, "member-1", None)
LONG_AGO_S = -1e6  # monotonic time begins with the machine, which may be young
SEND = Send("out", b"k", b"v", None, ())


def nothing(batch: Sequence[Record], state: State, effects: Effects) -> None:
    """Nothing is decided here."""


class Producer:
    """A transactional id that has rested for some time."""

    def __init__(self, rested_since_s: float) -> None:
        self.rested_since_s = rested_since_s

    def commit(self, works: Sequence[Work], membership: Membership) -> Receipt:
        self.rested_since_s = time.monotonic()
        return Receipt({}, None)


class Stand:
    """Some lanes and what they commit."""

    def __init__(self, lanes: int, *, pause_s: float = 0.0, interval_s: float = 0.0) -> None:
        self.started: list[Commit] = []
        self.lanes = [self._lane(number, pause_s, interval_s) for number in range(lanes)]
        self.committer = Committer(self.lanes, self.started.append)

    def _lane(self, number: int, pause_s: float, interval_s: float) -> DeciderLane:
        spec = AgentSpec(
            "agent", (Input("in", bytes.decode),), (), (), decide=nothing, effect=None,
            timer_table=timer_table("agent"), dead_letters=lambda topic: Output(f"{topic}.dlq", bytes),
            commit_pause_s=pause_s, commit_interval_s=interval_s,
        )  # fmt: skip
        producer: Any = Producer(LONG_AGO_S + number)
        return DeciderLane(
            spec, number, producer=producer, store=None, base=MemoryBase(), membership=NOW,
            committed={("in", number): 0}, changelogs={"agent-timers": "changelog"}, clock_ms=lambda: 5_000,
            metrics=EngineMetrics().lane("agent", number),
        )  # fmt: skip

    def complete(self, *numbers: int, records: int = 1) -> None:
        """Something is complete in each of these lanes."""
        for number in numbers:
            self.lanes[number].layers.promoted.absorb(Layer(sends=[SEND] * records))

    def begin(self) -> tuple[list[int], int] | None:
        """The partitions that a transaction carries, and the one whose id it goes out under; None: none is begun."""
        before = len(self.started)
        self.committer.begin()
        if len(self.started) == before:
            return None
        commit = self.started[-1]
        return [lane.partition for lane, _ in commit.lanes], commit.lender.partition

    def end(self, outcome: Receipt | Exception | None = None) -> None:
        """The transaction in flight comes back, its lanes hear of it."""
        commit = self.started[-1]
        commit.run()
        commit.outcome = outcome or commit.outcome
        self.committer.ended()
        for lane, _ in commit.lanes:
            if isinstance(commit.outcome, Receipt):
                lane.end_commit(commit.outcome)
            else:
                lane.rewind()


def test_all_lanes_that_have_something_share_a_transaction_and_the_next_waits_for_it() -> None:
    stand = Stand(3)
    assert stand.begin() is None
    stand.complete(0, 2)
    assert stand.begin() == ([0, 2], 0)
    stand.complete(1)
    assert stand.begin() is None, "one at a time"
    assert stand.committer.due_in_s() is None
    stand.end()
    assert stand.begin() == ([1], 1)


def test_the_ids_take_turns() -> None:
    stand = Stand(2)
    for expected in (0, 1, 0):
        stand.complete(0)
        assert stand.committer.due_in_s() == 0.0
        assert stand.begin() == ([0], expected), "a lane's work goes out under any id of the worker's"
        stand.end()


def test_once_a_lane_is_due_those_that_could_wait_go_with_it() -> None:
    stand = Stand(2, interval_s=3600.0)
    stand.complete(0)
    assert stand.begin() == ([0], 0)
    stand.end()
    stand.complete(0)
    assert stand.begin() is None, "its interval is not over"
    stand.complete(1)
    assert stand.begin() == ([0, 1], 1)


def test_lanes_that_leave_commit_by_themselves_under_an_id_that_leaves_too() -> None:
    stand = Stand(3)
    stand.complete(0, 1, 2)
    stand.lanes[2].state = LaneState.DRAINING
    assert stand.begin() == ([2], 2)
    assert stand.committer.uses(stand.lanes[2])
    assert not stand.committer.uses(stand.lanes[0])
    stand.end()
    assert stand.begin() == ([0, 1], 0)


def test_lanes_of_two_generations_share_no_transaction() -> None:
    stand = Stand(2)
    stand.lanes[1].membership = BEFORE
    stand.complete(0, 1)
    assert stand.begin() == ([0], 0)
    assert stand.started[0].membership == NOW
    stand.end()
    assert stand.begin() == ([1], 1)
    assert stand.started[1].membership == BEFORE


def test_after_an_abort_each_lane_is_tried_alone_and_the_one_at_fault_holds_up_nobody() -> None:
    stand = Stand(4)
    stand.complete(0, 1)
    assert stand.begin() == ([0, 1], 0)
    stand.end(CommitAborted("a record is too large"))
    stand.complete(0, 1, 2, 3)
    assert stand.begin() == ([0], 1)
    stand.end(CommitAborted("it was this one"))
    stand.complete(0)
    assert stand.begin() == ([2, 3], 2), "in turns with what is not suspected"
    stand.end()
    assert stand.begin() == ([1], 3)
    stand.end()
    stand.complete(1, 2)
    assert stand.begin() == ([1, 2], 0), "it has succeeded alone"
    stand.end()
    assert stand.begin() == ([0], 1)
    stand.end()
    stand.complete(0, 1)
    assert stand.begin() == ([0, 1], 2)


def test_a_transaction_has_a_largest_size() -> None:
    stand = Stand(3)
    stand.complete(0, 1, records=RECORDS_MAX)
    stand.complete(2)
    assert stand.begin() == ([0], 0)
    stand.end()
    assert stand.begin() == ([1], 1)


@pytest.mark.parametrize(
    "state", [LaneState.SUSPENDED, LaneState.FENCED, LaneState.CLOSED], ids=lambda state: state.value
)
def test_a_lane_that_stands_still_neither_commits_nor_lends_its_id(state: LaneState) -> None:
    stand = Stand(2)
    stand.complete(0, 1)
    stand.lanes[0].state = state
    assert stand.begin() == ([1], 1)


def test_an_error_of_the_thread_is_the_transactions_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    stand = Stand(1)
    stand.complete(0)
    stand.begin()
    monkeypatch.setattr(stand.started[0].producer, "commit", Mock(side_effect=ZeroDivisionError))
    stand.started[0].run()
    assert isinstance(stand.started[0].outcome, ZeroDivisionError)


def test_a_worker_pauses_after_each_transaction() -> None:
    stand = Stand(2, pause_s=3600.0)
    stand.complete(0)
    assert stand.begin() == ([0], 0), "the first after a quiet time goes out at once"
    stand.end()
    stand.complete(1)
    assert stand.begin() is None
    due_in_s = stand.committer.due_in_s()
    assert due_in_s is not None
    assert 3500 < due_in_s <= 3600


def test_lanes_that_leave_do_not_pause() -> None:
    stand = Stand(2, pause_s=3600.0)
    stand.complete(0)
    stand.begin()
    stand.end()
    stand.complete(1)
    stand.lanes[1].state = LaneState.DRAINING
    assert stand.begin() == ([1], 1)
