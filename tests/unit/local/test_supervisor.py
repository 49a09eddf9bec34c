"""Whom a supervisor starts again, and when: real processes that do nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ops.local.layout import Home, StackConfig
from ops.local.state import ProcessState
from ops.local.supervisor import Supervised, Supervisor, let_nobody_preempt
from ops.local.units import Unit

WITHIN_S = 20.0


class Stack:
    """A server that is ready while the test says so, and a client that needs it."""

    def __init__(self, directory: Path) -> None:
        self.server_is_ready = True
        home = Home(directory)
        home.path("run").mkdir()
        sleeper = [sys.executable, "-c", "import signal; signal.pause()"]

        async def ready() -> bool:
            return self.server_is_ready

        async def at_once() -> bool:
            return True

        units = [
            Unit(name="server", argv=sleeper, log=home.log("server"), ready=ready),
            Unit(name="client", argv=sleeper, log=home.log("client"), ready=at_once, after=("server-0",)),
        ]
        self.supervisor = Supervisor(home, StackConfig(nodes=1, port_base=21_000), units)
        self.server, self.client = (self.supervisor._units[key] for key in ("server-0", "client-0"))

    @staticmethod
    def kill(supervised: Supervised) -> None:
        assert supervised.process is not None
        os.kill(supervised.process.pid, signal.SIGKILL)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # noqa: ASYNC110 - the supervisor has no event for its tests
            await asyncio.sleep(0.01)


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    stack = Stack(tmp_path)
    running = asyncio.create_task(stack.supervisor.run())
    await until(lambda: stack.client.state is ProcessState.RUNNING)
    yield stack
    stack.supervisor._stopping.set()
    await running


async def test_a_process_that_ends_is_started_again(stack: Stack) -> None:
    Stack.kill(stack.client)
    await until(lambda: stack.client.restarts == 1 and stack.client.state is ProcessState.RUNNING)
    assert stack.server.restarts == 0


async def test_what_needs_a_server_that_is_away_waits_for_it(stack: Stack) -> None:
    stack.server_is_ready = False
    Stack.kill(stack.server)
    await until(lambda: stack.server.restarts == 1 and stack.server.state is ProcessState.STARTING)
    Stack.kill(stack.client)
    await until(lambda: stack.client.restarts == 1)
    for _ in range(20):  # of the loop's turns: it would start in the next one
        await asyncio.sleep(0.01)
    assert stack.client.state is ProcessState.RESTARTING
    stack.server_is_ready = True
    await until(lambda: stack.client.state is ProcessState.RUNNING)


def test_a_sandbox_that_knows_one_policy_only_is_no_reason_not_to_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    let_nobody_preempt()
    assert "Operation not permitted" in caplog.text
