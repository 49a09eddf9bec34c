"""Starting and stopping a stack from a command: prepare the home, hand over to the supervisor, follow it.

Safe to repeat and to interrupt: everything is made only if missing, and what a crash left running is stopped first.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from ops.local import cassandra, kafka, preflight
from ops.local.ca import ensure_certificates
from ops.local.errors import StackError
from ops.local.jars import ensure_jars
from ops.local.key_files import ensure_key_files
from ops.local.layout import IDENTITIES, SERVICES, Home, Ports, StackConfig, cache_directory
from ops.local.state import ProcessState, StackState, UnitState, read_state, supervisor_is_alive
from ops.local.units import HOME_VARIABLE, base_environment

Report = Callable[[str], None]
HANDOVER_S = 20.0  # for the supervisor to write its first state
STOP_S = 90.0  # sum of what the services and servers may take, one after the other
POLL_S = 0.1


def start(home: Home, config: StackConfig, report: Report) -> bool:
    """Have a supervisor for `home`. Returns False if one was running already. Raises StackError."""
    _check_compatible(home, config)
    home.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _one_starter(home):
        if supervisor_is_alive(home):
            if not _has_failed(home):
                return False
            report("The last start failed and is tried again.")
            stop(home, report)
        stop_leftovers(home, report)
        ports = Ports(config.port_base)
        preflight.check(home, config, ports)
        ensure_jars(cache_directory(), report)
        prepare(home, config)
        _start_supervisor(home)
    return True


def prepare(home: Home, config: StackConfig) -> None:
    """Write everything that the servers and services read: certificates, keys, configuration."""
    home.write_config(config)
    ensure_certificates(home, IDENTITIES)
    ensure_key_files(home)
    ports = Ports(config.port_base)
    kafka.write_configuration(home, config, ports)
    cassandra.write_configuration(home, config, ports)
    for service in SERVICES:
        for instance in range(config.instances(service)):
            home.state(service, instance).mkdir(parents=True, exist_ok=True, mode=0o700)


def _has_failed(home: Home) -> bool:
    state = read_state(home)
    return state is not None and state.failed_step is not None


def _check_compatible(home: Home, config: StackConfig) -> None:
    existing = home.read_config()
    if existing is not None and existing.nodes != config.nodes:
        raise StackError(
            f"{home.root} holds a stack of {existing.nodes} node(s), and its data cannot move to {config.nodes}.",
            "Start without --nodes, or name another --home.",
        )


def spawn_supervisor(home: Home, module: str) -> subprocess.Popen[bytes]:
    """`python -m module HOME`, beside us and not ended by what ends us; its output is the home's supervisor log."""
    home.log("supervisor").parent.mkdir(exist_ok=True)
    home.supervisor_lock.parent.mkdir(exist_ok=True)
    with home.log("supervisor").open("ab") as output:
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", module, str(home.root)],
            env=base_environment(home),
            cwd=home.root,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _start_supervisor(home: Home) -> None:
    home.state_file.unlink(missing_ok=True)
    supervisor = spawn_supervisor(home, "ops.local.supervisor")
    deadline = time.monotonic() + HANDOVER_S
    while read_state(home) is None:
        if supervisor.poll() is not None or time.monotonic() > deadline:
            raise StackError("The supervisor did not start.", f"Its log says why: {home.log('supervisor')}")
        time.sleep(POLL_S)


def stop(home: Home, report: Report) -> None:
    """Stop the stack, services before servers; also what a killed supervisor left behind."""
    state = read_state(home)
    if state is not None and state.supervisor_pid is not None and supervisor_is_alive(home):
        supervisor = psutil.Process(state.supervisor_pid)
        supervisor.terminate()
        deadline = time.monotonic() + STOP_S
        while supervisor_is_alive(home):
            if time.monotonic() > deadline:
                raise StackError("The supervisor does not stop.", f"Its log says why: {home.log('supervisor')}")
            time.sleep(POLL_S)
        psutil.wait_procs([supervisor], timeout=5)  # it lets go of the lock a moment before it ends
    stop_leftovers(home, report)


def restart(home: Home, unit: UnitState) -> None:
    """End one process; returns when its successor is ready. Raises StackError when that takes too long."""
    if unit.pid is not None:
        os.kill(unit.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline:
        state = read_state(home)
        for now in state.processes if state else []:
            is_successor = (now.name, now.instance) == (unit.name, unit.instance) and now.restarts > unit.restarts
            if is_successor and now.state is ProcessState.RUNNING:
                return
        time.sleep(POLL_S)
    raise StackError(f"{unit.name} {unit.instance} is not ready again.", f"Its log says why: {unit.log}")


def leftovers(home: Home) -> list[psutil.Process]:
    """Processes of this stack, told by the home that their environment names."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(HOME_VARIABLE) == str(home.root) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # ended meanwhile, or somebody else's: not ours
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in found if process.pid not in own]


def stop_leftovers(home: Home, report: Report) -> None:
    """Stop what still runs of this home although its supervisor is gone."""
    orphans = leftovers(home)
    if not orphans:
        return
    report(f"Stopping {len(orphans)} processes that an interrupted run left behind.")
    for process in orphans:
        _signal(process.terminate)
    _, stubborn = psutil.wait_procs(orphans, timeout=20)
    for process in stubborn:
        _signal(process.kill)
    psutil.wait_procs(stubborn, timeout=10)


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        return  # it ended by itself, which is what we want


def wipe(home: Home) -> None:
    """Remove a stopped home with all its data, of whatever version. Raises StackError for a directory that is none."""
    if not home.config_file.exists():
        raise StackError(f"{home.root} holds no stack; it is left alone.", "Name the right one with --home.")
    shutil.rmtree(home.root, ignore_errors=False)


def follow(home: Home, on_change: Callable[[StackState], None], timeout_s: float) -> StackState:
    """Watch the supervisor until the stack is ready. Raises StackError when it cannot become so."""
    deadline = time.monotonic() + timeout_s
    while True:
        state = read_state(home)
        if state is not None:
            on_change(state)
            if state.is_ready:
                return state
            if (failed := state.failed_step) is not None:
                raise StackError(f"{failed.name} {failed.message}.", f"Its log says why: {failed.log}")
        if not supervisor_is_alive(home):
            raise StackError("The supervisor has ended.", f"Its log says why: {home.log('supervisor')}")
        if time.monotonic() > deadline:
            waiting = ", ".join(u.name for u in state.processes if u.state != "running") if state else "everything"
            raise StackError(f"Not ready after {timeout_s:.0f} s: {waiting}.", f"The logs are in {home.path('logs')}.")
        time.sleep(POLL_S)


@contextmanager
def _one_starter(home: Home) -> Iterator[None]:
    """A second `up` waits until the first one has handed over."""
    home.path("run").mkdir(exist_ok=True, mode=0o700)
    with home.path("run", "start.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
