"""Which lanes of a worker commit, when, and under whose transactional id: one transaction at a time for all of them.

Whatever a worker's lanes have complete goes into one transaction, for a transaction costs the brokers and the client
the same whatever it carries; for the same reason the worker pauses after each. It goes out under the id of one lane,
the one whose id has rested longest: brokers refuse an id while they still write the markers of its last transaction.
All lanes of a worker are of one group, and the frozen generation that goes with the offsets speaks for each of them.
Each lane's own id is there to end, when the lane is opened elsewhere, what a dead worker left open under it (decision
0027).

Lanes that go to another owner commit by themselves. So does a lane of a transaction that was aborted, until it has
succeeded alone: what it has may be what could not be written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streams.exactly_once.lane import Lane, LaneState
from streams.exactly_once.membership import Membership
from streams.exactly_once.transaction import LaneProducer, Receipt, Work

RECORDS_MAX = 200_000  # of one transaction, which is in memory until brokers have all of it


@dataclass(slots=True, eq=False)
class Commit:
    """A transaction on its way: whose work it carries, under whose id, and once it has come back, what became of it."""

    lender: Lane  # whose transactional id it goes out under
    membership: Membership
    lanes: list[tuple[Lane, int]]  # with the incarnation of each
    works: list[Work]
    outcome: Receipt | Exception | None = None
    seconds: float = 0.0  # that it took

    def carries(self, lane: Lane) -> bool:
        """Whether some of the work is this lane's."""
        return any(lane is each for each, _ in self.lanes)

    @property
    def producer(self) -> LaneProducer:
        """The lender's."""
        return self.lender.producer

    def run(self) -> None:
        """Steps 2 to 6, on the commit thread."""
        began_s = time.monotonic()
        try:
            self.outcome = self.producer.commit(self.works, self.membership)
        except Exception as error:
            self.outcome = error
        self.seconds = time.monotonic() - began_s


class Committer:
    """For the pump's thread."""

    def __init__(self, lanes: Sequence[Lane], start: Callable[[Commit], None]) -> None:
        """`lanes` are the pump's, as they come and go; `start` runs a commit on another thread."""
        self.commit: Commit | None = None  # the one in flight
        self._lanes = lanes
        self._start = start
        self._suspects: dict[Lane, None] = {}  # of an aborted transaction; the first is tried next
        self._suspects_turn = True
        self._ended_s = float("-inf")  # monotonic; the last transaction

    def begin(self) -> None:
        """Start a transaction if it is time for one."""
        lanes = self._choose() if self.commit is None else []
        if all(lane.commit_due_in_s() != 0.0 for lane in lanes):
            return
        lender = self._lender(lanes)
        if self._waits_for_s(lanes, lender) > 0.0:
            return
        self._suspects_turn = lanes[0] not in self._suspects
        shares = [(lane, lane.incarnation) for lane in lanes]
        self.commit = Commit(lender, lanes[0].membership, shares, [lane.begin_commit() for lane in lanes])
        self._start(self.commit)

    def due_in_s(self) -> float | None:
        """Seconds until a transaction may begin; None while no lane wants one, or one is in flight."""
        lanes = self._choose() if self.commit is None else []
        if not lanes:
            return None
        waits_s = (lane.commit_due_in_s() or 0.0 for lane in lanes)
        return max(min(waits_s), self._waits_for_s(lanes, self._lender(lanes)))

    def ended(self) -> None:
        """The one in flight has come back."""
        assert self.commit is not None
        lanes = [lane for lane, _ in self.commit.lanes]
        for lane in lanes:
            self._suspects.pop(lane, None)
        if not isinstance(self.commit.outcome, Receipt):
            self._suspects.update(dict.fromkeys(lanes))
        self._ended_s = time.monotonic()
        self.commit = None

    def uses(self, lane: Lane) -> bool:
        """Whether the transaction in flight carries the lane's work, or goes out under its id."""
        return self.commit is not None and (self.commit.lender is lane or self.commit.carries(lane))

    def forget(self, lane: Lane) -> None:
        """The lane is closed."""
        self._suspects.pop(lane, None)

    def _waits_for_s(self, lanes: Sequence[Lane], lender: Lane) -> float:
        """Seconds until the worker has paused for long enough; lanes that leave wait for no more than their id."""
        since_s = self._ended_s if lanes[0].state is LaneState.RUNNING else lender.producer.rested_since_s
        return max(0.0, since_s + lender.spec.commit_pause_s - time.monotonic())

    def _choose(self) -> list[Lane]:
        """The lanes whose work the next transaction carries: all that have some, but for leaving ones and suspects."""
        wanting = [lane for lane in self._lanes if lane.wants_commit]
        leaving = [lane for lane in wanting if lane.state is LaneState.DRAINING]
        if leaving:
            return _that_fit(leaving)
        suspects = [lane for lane in self._suspects if lane in wanting]
        others = [lane for lane in wanting if lane not in self._suspects]
        return suspects[:1] if suspects and (self._suspects_turn or not others) else _that_fit(others)

    def _lender(self, lanes: Sequence[Lane]) -> Lane:
        """Whose id has rested longest, among those that a transaction of these lanes may go out under."""
        leaving = lanes[0].state is LaneState.DRAINING
        willing = lanes if leaving else [lane for lane in self._lanes if lane.state is LaneState.RUNNING]
        return min(willing, key=lambda lane: lane.producer.rested_since_s)


def _that_fit(lanes: list[Lane]) -> list[Lane]:
    """Those that belong to the group as the first does, and are not too many for one transaction."""
    chosen: list[Lane] = []
    records = 0
    for lane in lanes:
        records += lane.layers.promoted.records
        if lane.membership == lanes[0].membership and (not chosen or records <= RECORDS_MAX):
            chosen.append(lane)
    return chosen
