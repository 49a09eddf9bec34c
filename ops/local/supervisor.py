"""The process that keeps a stack running: `python -m ops.local.supervisor HOME`.

It starts every unit when what it needs is ready, restarts a process that dies (with backoff), writes `run/state.json`
at each change, and on SIGTERM stops services first and servers last. It never touches data.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import sys
import time
from pathlib import Path

import psutil

from ops.local.layout import Home, StackConfig, cache_directory
from ops.local.state import ProcessState, StackState, UnitState, write_state
from ops.local.units import Unit, base_environment, plan

POLL_S = 0.2  # between two readiness questions
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 30.0
STABLE_AFTER_S = 30.0  # a process that lived this long starts again with the first backoff
STEP_TRIES = 3
OWNER_CHECK_S = 1.0

log = logging.getLogger("supervisor")


class Supervised:
    """One unit and what became of it."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.ready = asyncio.Event()
        self.process: asyncio.subprocess.Process | None = None
        self.state = ProcessState.WAITING
        self.restarts = 0
        self.message = ""
        self.started_at = 0.0


class Supervisor:
    """Runs the units of one stack until told to stop."""

    def __init__(self, home: Home, config: StackConfig, units: list[Unit]) -> None:
        self._home = home
        self._config = config
        self._units = {unit.key: Supervised(unit) for unit in units}
        self._stopping = asyncio.Event()
        self._environment = base_environment(home)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        self._write()
        tasks = [asyncio.create_task(self._keep(supervised)) for supervised in self._units.values()]
        owner = asyncio.create_task(self._watch_owner())
        await self._stopping.wait()
        log.info("stopping")
        for task in (*tasks, owner):
            task.cancel()
        await asyncio.gather(*tasks, owner, return_exceptions=True)
        await self._stop_all()
        self._write(stopped=True)

    async def _keep(self, supervised: Supervised) -> None:
        """Start one unit and, if it is a process, start it again whenever it ends."""
        failures = 0
        while True:
            # Also before it starts again: without what it needs it could only fail, and take the cores from what heals.
            for key in supervised.unit.after:
                await self._units[key].ready.wait()
            await self._start(supervised)
            code = await self._watch(supervised)
            if supervised.unit.ready is None and code == 0:
                self._become(supervised, ProcessState.DONE)
                supervised.ready.set()
                return
            supervised.ready.clear()
            failures = 1 if time.monotonic() - supervised.started_at > STABLE_AFTER_S else failures + 1
            if supervised.unit.ready is None and failures >= STEP_TRIES:
                self._become(supervised, ProcessState.FAILED, f"failed {failures} times (exit code {code})")
                return
            self._become(supervised, ProcessState.RESTARTING, f"ended with exit code {code}")
            await asyncio.sleep(min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** (failures - 1)))
            supervised.restarts += 1

    async def _start(self, supervised: Supervised) -> None:
        unit = supervised.unit
        unit.log.parent.mkdir(parents=True, exist_ok=True)
        with unit.log.open("ab") as output:
            supervised.process = await asyncio.create_subprocess_exec(
                *unit.argv,
                env={**self._environment, **unit.environment()},
                cwd=self._home.root,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C in the terminal is for the supervisor to handle, not for each process
            )
        supervised.started_at = time.monotonic()
        self._become(supervised, ProcessState.STARTING)

    async def _watch(self, supervised: Supervised) -> int:
        """Wait until the process ends; on the way, find out when it is ready. Returns its exit code."""
        assert supervised.process is not None, "started just before"
        probing = asyncio.create_task(self._probe(supervised))
        try:
            return await supervised.process.wait()
        finally:
            probing.cancel()

    async def _probe(self, supervised: Supervised) -> None:
        ready = supervised.unit.ready
        if ready is None:
            return
        while not await ready():  # noqa: ASYNC110 - another process's readiness sets no event of ours
            await asyncio.sleep(POLL_S)
        self._become(supervised, ProcessState.RUNNING)
        supervised.ready.set()

    async def _watch_owner(self) -> None:
        """A stack that was started for one process (a test run) does not outlive it."""
        owner = self._config.owner_pid
        while owner is not None:
            if not psutil.pid_exists(owner):
                self._stopping.set()
            await asyncio.sleep(OWNER_CHECK_S)

    async def _stop_all(self) -> None:
        """Stop whoever depends on others before those; what does not stop in its time is killed."""
        remaining = [s for s in self._units.values() if s.process is not None and s.process.returncode is None]
        while remaining:
            needed = {key for supervised in remaining for key in self._needs(supervised.unit.key)}
            now = [s for s in remaining if s.unit.key not in needed]
            assert now, "dependencies have no cycle"
            await asyncio.gather(*(self._stop(supervised) for supervised in now))
            remaining = [supervised for supervised in remaining if supervised not in now]

    def _needs(self, key: str) -> set[str]:
        """Everything that a unit needs, directly or not."""
        direct = set(self._units[key].unit.after)
        return direct.union(*(self._needs(other) for other in direct))

    async def _stop(self, supervised: Supervised) -> None:
        process = supervised.process
        assert process is not None, "only running units are stopped"
        self._become(supervised, ProcessState.STOPPING)
        try:
            process.terminate()
            await asyncio.wait_for(process.wait(), supervised.unit.stop_timeout_s)
        except ProcessLookupError:
            log.info("%s had ended by itself", supervised.unit.key)
        except TimeoutError:
            log.warning("%s did not stop in %s s and is killed", supervised.unit.key, supervised.unit.stop_timeout_s)
            process.kill()
            await process.wait()
        self._become(supervised, ProcessState.STOPPED)

    def _become(self, supervised: Supervised, state: ProcessState, message: str = "") -> None:
        supervised.state, supervised.message = state, message
        log.info("%s is %s %s", supervised.unit.key, state.value, message)
        self._write()

    def _write(self, *, stopped: bool = False) -> None:
        units = [
            UnitState(
                name=s.unit.name,
                instance=s.unit.instance,
                is_step=s.unit.ready is None,
                state=s.state,
                pid=s.process.pid if s.process is not None and s.process.returncode is None else None,
                restarts=s.restarts,
                log=s.unit.log,
                message=s.message,
            )
            for s in self._units.values()
        ]
        pid = None if stopped else os.getpid()
        write_state(self._home, StackState(supervisor_pid=pid, units=units))


def let_nobody_preempt() -> None:
    """Decision 0030; all that is started inherits it. It makes the platform faster, and is not worth a refusal."""
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:  # a sandbox that knows one policy only
        log.warning("processes will preempt each other: %s", error)


def main() -> None:
    home = Home(Path(sys.argv[1]))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    let_nobody_preempt()
    with home.supervisor_lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # one supervisor per home; the kernel frees it when we die
        config = home.read_config()
        assert config is not None, "`up` writes the configuration before it starts us"
        asyncio.run(Supervisor(home, config, plan(home, cache_directory(), config)).run())


if __name__ == "__main__":
    main()
