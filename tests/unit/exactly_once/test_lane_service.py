"""An assignment that never comes to its end ends the worker: its partitions must not wait for ever."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from streams.exactly_once import lane_service
from streams.exactly_once.agent import AgentSpec
from streams.exactly_once.attachment import LaneRecovery
from streams.exactly_once.errors import EngineError, LaneLost
from streams.exactly_once.lane_service import Assignment, LaneService
from streams.exactly_once.membership import Membership
from streams.exactly_once.metrics import EngineMetrics
from streams.exactly_once.records import Input, Output
from streams.exactly_once.restore import Abandoned

MEMBERSHIP = Membership("app", 1, "member", None)
NOWHERE = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}


def spec() -> AgentSpec:
    return AgentSpec(
        "agent", (Input("in", bytes.decode),), (), (), decide=lambda *_: None, effect=None, timer_table=None,
        dead_letters=lambda topic: Output(f"{topic}.dlq", bytes),
    )  # fmt: skip


class StuckOpener:
    """A librdkafka call that does not come back, `after` some steps."""

    def __init__(self, steps: int) -> None:
        self.released = threading.Event()
        self._steps = steps

    def open(self, spec: AgentSpec, partition: int, membership: Membership, wanted: Any) -> None:
        for _ in range(self._steps):
            wanted()
            self.released.wait(0.1)
        self.released.wait()
        raise Abandoned


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LaneService:
    monkeypatch.setattr(lane_service, "STANDSTILL_S", 0.5)
    monkeypatch.setattr(lane_service, "WATCH_S", 0.05)
    return LaneService(
        "app", [spec()], kafka=NOWHERE, state_dir=tmp_path, on_lost=lambda _: None, metrics=EngineMetrics()
    )


@pytest.mark.parametrize("steps", [0, 10])  # ten steps take longer than a standstill may
async def test_a_lane_that_never_opens_ends_the_worker(service: LaneService, steps: int) -> None:
    service.start()
    opener = StuckOpener(steps)
    service._opener = opener  # type: ignore[assignment]
    try:
        with pytest.raises(LaneLost, match="not come a step further"):
            await service.apply(Assignment(frozenset({("in", 0)}), MEMBERSHIP))
        assert not service.ready
    finally:
        opener.released.set()
        await service.stop()


async def test_an_unforeseen_error_while_lanes_open_ends_the_worker() -> None:
    class NoSpace:
        async def apply(self, assignment: Assignment) -> None:
            raise OSError("no space left")

    class FaustApp:
        assignment = Assignment(frozenset(), MEMBERSHIP)
        lanes = NoSpace()

        async def fail(self, error: EngineError) -> None:
            self.failure = error

    app = FaustApp()
    await LaneRecovery._apply(None, app)  # type: ignore[arg-type]
    assert isinstance(app.failure, LaneLost)
    assert "no space left" in str(app.failure)
