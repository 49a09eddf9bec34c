"""Kills services in the middle of payments' steps while the demo drives payments and judges every hop of them.

What must hold is told by others: `payments demo` (every answered payment final, one operation each in the provider's
ledger, every webhook) and `payments reconcile` (topics = table = Cassandra = ledger).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from ops.chaos.payments.plan import Kill, plan
from ops.local.errors import StackError
from ops.local.layout import CHECKOUT, Home
from ops.local.state import ProcessState, UnitState, read_state

BITE_S = 30.0  # under load a failpoint is reached within seconds
BACK_S = 90.0
DEMO_S = 600.0
RECONCILE_S = 300.0
POLL_S = 0.05
PAYMENTS = 60  # of one demo

Say = Callable[[str], None]


class Bite(msgspec.Struct, frozen=True):
    """A kill that happened. Seconds until the failpoint was reached, and from there until the service was ready."""

    service: str
    failpoint: str
    reached_s: float
    back_s: float


class Report(msgspec.Struct):
    """One run."""

    seed: int
    seconds: float = 0.0
    payments: int = 0
    kills: list[Bite] = []
    not_reached: list[str] = []  # "<service> <failpoint>": no payment came there in time
    violations: list[str] = []

    def as_json(self) -> bytes:
        """For machines."""
        return msgspec.json.format(msgspec.json.encode(self))


class _Load:
    """One demo after the other, until it is told that the one under way is the last."""

    def __init__(self, home: Home, logs: Path, seed: int) -> None:
        self._home, self._logs, self._seed = home, logs, seed
        self._demo: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self.violations: list[str] = []
        self.demos = 0

    @property
    def is_under_way(self) -> bool:
        """Whether somebody pays."""
        return self._demo is not None and self._demo.poll() is None and self._has_begun

    def go_on(self) -> None:
        """Judge the demo that has ended, and start the next, for which every service must be there."""
        if self._demo is not None:
            if self._demo.poll() is None:
                if time.monotonic() - self._began > DEMO_S:
                    self._demo.kill()
                    raise StackError(f"A demo did not end within {DEMO_S:.0f} s.", f"It said: {self._log}")
                return
            self._judge()
        state = read_state(self._home)
        if state is None or not state.is_ready:
            return
        self.demos += 1
        self._began = time.monotonic()
        with self._log.open("wb") as log:
            arguments = ["demo", "--payments", str(PAYMENTS), "--seed", str(self._seed + self.demos)]
            self._demo = subprocess.Popen(_command(self._home, *arguments), cwd=CHECKOUT, stdout=log, stderr=log)  # noqa: S603

    def end(self) -> None:
        """Wait for the last one."""
        if self._demo is not None:
            self._demo.wait(DEMO_S)
            self._judge()

    def stop(self) -> None:
        """Whatever happens, nothing of it stays."""
        if self._demo is not None and self._demo.poll() is None:
            self._demo.kill()
            self._demo.wait()

    @property
    def _has_begun(self) -> bool:
        """Whether the demo has found the platform ready."""
        return self._log.read_bytes().startswith(b"%d payments" % PAYMENTS)

    @property
    def _log(self) -> Path:
        return self._logs / f"demo-{self.demos}.log"

    def _judge(self) -> None:
        assert self._demo is not None
        if not self._has_begun:
            self.demos -= 1  # a service was killed before it had looked whether all of them are there
        elif self._demo.returncode != 0:
            self.violations.append(f"demo {self.demos} ended with {self._demo.returncode}: {self._log}")
        self._demo = None


def run_payments_chaos(home: Home, seed: int, most: int | None, logs: Path, say: Say) -> Report:
    """Kill a service at every planned failpoint. Raises StackError when the stack does not come back."""
    began = time.monotonic()
    report = Report(seed)
    load = _Load(home, logs, seed)
    try:
        for number, kill in enumerate(plan(seed, most), 1):
            bite = _kill(home, kill, load)
            if bite is None:
                report.not_reached.append(f"{kill.service} {kill.failpoint}")
                say(f"{number}: {kill.service} never came to {kill.failpoint}")
                continue
            report.kills.append(bite)
            say(f"{number}: {kill.service} killed at {kill.failpoint}, ready again after {bite.back_s:.1f} s")
        load.end()
    finally:
        load.stop()
    report.payments = load.demos * PAYMENTS
    report.violations = [*load.violations, *_differences(home)]
    report.seconds = round(time.monotonic() - began, 1)
    return report


def _kill(home: Home, kill: Kill, load: _Load) -> Bite | None:
    """Arm the failpoint and wait until it has killed its service and the supervisor has started that again."""
    _unit(home, kill.service)  # where no platform is, none is waited for
    began = time.monotonic()
    while not load.is_under_way:
        load.go_on()
        if time.monotonic() - began > BACK_S:
            raise StackError(
                f"No demo found the platform in {home.root} ready for {BACK_S:.0f} s.", "`payments status` tells."
            )
        time.sleep(POLL_S)
    began = time.monotonic()
    before = _unit(home, kill.service)
    assert before.pid is not None
    home.failpoints(kill.service).write_text(kill.armed)
    os.kill(before.pid, signal.SIGUSR1)
    while (now := _unit(home, kill.service)).pid == before.pid:
        load.go_on()
        if time.monotonic() - began > BITE_S:
            home.failpoints(kill.service).write_text("")
            os.kill(before.pid, signal.SIGUSR1)
            return None
        time.sleep(POLL_S)
    reached = time.monotonic()
    while (now := _unit(home, kill.service)).state is not ProcessState.RUNNING or now.pid == before.pid:
        load.go_on()
        if time.monotonic() - reached > BACK_S:
            raise StackError(f"{kill.service} was not ready {BACK_S:.0f} s after its kill.", f"Its log: {now.log}")
        time.sleep(POLL_S)
    return Bite(kill.service, kill.failpoint, round(reached - began, 2), round(time.monotonic() - reached, 2))


def _unit(home: Home, service: str) -> UnitState:
    state = read_state(home)
    found = None if state is None else next((unit for unit in state.processes if unit.name == service), None)
    if found is None:
        raise StackError(f"There is no {service} in {home.root}.", "`payments up` starts the platform.")
    return found


def _differences(home: Home) -> list[str]:
    finished = subprocess.run(  # noqa: S603
        _command(home, "reconcile", "--wait", "60"), cwd=CHECKOUT, capture_output=True, text=True, timeout=RECONCILE_S
    )
    return [] if finished.returncode == 0 else [f"reconcile: {line}" for line in finished.stdout.splitlines()]


def _command(home: Home, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "ops.cli.main", *arguments, "--home", str(home.root)]
