"""How a service process runs: start its components in order, wait for SIGTERM or a crash, stop them in reverse.

The exit status is 0 after SIGTERM or SIGINT, 1 after a crash; a crash leaves one log line that says what and where.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol

import uvloop
from prometheus_client import CollectorRegistry

from ops.runtime.admin import Readiness
from ops.runtime.logs import configure_logs, exception_fields, logger
from ops.runtime.metrics import new_registry
from ops.runtime.settings import Settings

DRAIN_S = 10.0  # from SIGTERM to exit; the supervisor kills after it
LEAVE_S = 2.0  # from the end of the drain to the end of the process


class Component(Protocol):
    """A part of a service with a life of its own: a server, a consumer, a session, a Faust app."""

    async def start(self) -> None:
        """Returns when the component does its work. An exception ends the service."""
        ...

    async def stop(self) -> None:
        """Finishes what is under way and releases what it holds, within the drain time."""
        ...


class Service:
    """What the components of one process share: settings, metrics, readiness, and the way to end it all."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.registry: CollectorRegistry = new_registry(settings)
        self.readiness = Readiness()
        self._ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[Any]] = set()

    def fail(self, error: BaseException) -> None:
        """Ends the process with status 1; the first caller's error is the one that is logged. On the loop's thread."""
        if not self._ended.done():
            self._ended.set_result(error)

    def end(self) -> None:
        """Ends the process with status 0, after a drain."""
        if not self._ended.done():
            self._ended.set_result(None)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Runs `work` beside everything else. When it raises, the service fails; cancelled at its end."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    async def until_ended(self) -> BaseException | None:
        """The error that ended the service, or None when it was asked to end."""
        return await asyncio.shield(self._ended)

    async def cancel_tasks(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


Build = Callable[[Service], Awaitable[Sequence[Component]]]
"""Makes a service's components, in the order in which they start. It may connect to what they need."""


def run(settings: Settings, build: Build) -> int:
    """Runs the service until it is told to end or fails; returns the process's exit status."""
    configure_logs(settings)
    sys.setswitchinterval(0.001)  # delivery reports take the GIL inside a commit: see the engine's notes on latency
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(_serve(settings, build))
        _leave_within(LEAVE_S, status)
    return status


def _leave_within(seconds: float, status: int) -> None:
    """End the process even if a library's task ignores its cancellation or its thread never returns.

    Python waits for all of them. After a broker was away some do never end; the supervisor would go on believing in a
    process that does nothing. Whatever is ours has been stopped by now.
    """
    timer = threading.Timer(seconds, os._exit, (status,))
    timer.daemon = True
    timer.start()


async def _serve(settings: Settings, build: Build) -> int:
    service = Service(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.end)
    started: list[Component] = []
    error: BaseException | None
    try:
        starting = asyncio.create_task(_start(service, build, started), name="start")
        ending = asyncio.create_task(service.until_ended(), name="ending")
        await asyncio.wait({starting, ending}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            logger().info("service ready", components=[type(component).__name__ for component in started])
        else:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        error = await ending
    except Exception as failure:
        error = failure
    if error is not None:
        logger().critical("service failed", **exception_fields(error))
    drained = await _stop(service, started)
    logger().info("service ended", drained=drained)
    return 0 if error is None and drained else 1


async def _start(service: Service, build: Build, started: list[Component]) -> None:
    for component in await build(service):
        started.append(component)  # before it starts: a half-started one has things to release, too
        await component.start()
    gc.collect()
    gc.freeze()  # what start-up made lives as long as the process: the collector need not walk it again


async def _stop(service: Service, started: list[Component]) -> bool:
    """Stops what was started, last first. False when something failed or the drain time ran out."""
    clean = True
    try:
        async with asyncio.timeout(DRAIN_S):
            for component in reversed(started):
                try:
                    await component.stop()
                except Exception as error:
                    clean = False
                    logger().error("stop failed", component=type(component).__name__, **exception_fields(error))
            await service.cancel_tasks()
    except TimeoutError:
        logger().error("drain time ran out", drain_s=DRAIN_S)
        return False
    return clean
