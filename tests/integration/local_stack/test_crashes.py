"""A stack of its own is killed, started twice and stopped: it heals, says what it does, and keeps what it stored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ops.local.cassandra_access import connected
from ops.local.layout import STACK_ADMIN, Home
from ops.local.start import leftovers
from ops.local.state import StackState, UnitState, read_state
from tests.local_servers import Servers, free_port_base, payments

pytestmark = [pytest.mark.servers, pytest.mark.timeout(420)]

WITHIN_S = 120.0


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    root = Path(tempfile.mkdtemp(prefix="payments-crash-")).resolve() / "home"
    home = Home(root)
    yield home
    payments("down", "--wipe", home=root, timeout=120)
    root.parent.rmdir()
    assert leftovers(home) == []


def until(condition: Callable[[StackState], UnitState | None], home: Home) -> UnitState:
    """The unit that `condition` finds in the stack's state, as soon as it does."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        state = read_state(home)
        if state is not None and (found := condition(state)) is not None:
            return found
        time.sleep(0.1)
    raise AssertionError("the stack did not come to the expected state")


def running(name: str, *, restarts: int = 0) -> Callable[[StackState], UnitState | None]:
    """Finds the first process of that name once it is ready, having been restarted at least so often."""
    return lambda state: next(
        (u for u in state.processes if u.name == name and u.state == "running" and u.restarts >= restarts), None
    )


def has_a_server(name: str) -> Callable[[StackState], UnitState | None]:
    """Finds the first step of that name once it has started the server that it needs."""
    return lambda state: next(
        (u for u in state.units if u.name == name and u.pid and psutil.Process(u.pid).children()), None
    )


def up(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    return payments("up", "--detach", "--servers-only", *arguments, home=home.root, timeout=240)


def test_start_that_was_killed_halfway_is_healed_by_the_next(home: Home) -> None:
    base = str(free_port_base(servers_only=True))
    argv = ["up", "--home", str(home.root), "--detach", "--servers-only", "--port-base", base]
    starting = subprocess.Popen([sys.executable, "-m", "ops.cli.main", *argv], stderr=subprocess.DEVNULL)
    first_boot = until(has_a_server("cassandra-first-boot"), home)  # what else runs by now may end by itself
    state = read_state(home)
    assert state is not None
    assert state.supervisor_pid is not None
    assert first_boot.pid is not None
    for pid in (starting.pid, state.supervisor_pid, first_boot.pid):
        os.kill(pid, signal.SIGKILL)
    starting.wait()
    assert leftovers(home), "servers outlive a supervisor that is killed"
    assert payments("status", home=home.root).returncode == 1

    finished = up(home)

    assert finished.returncode == 0, finished.stderr
    assert "that an interrupted run left behind" in finished.stderr
    assert payments("status", home=home.root).returncode == 0


def test_second_up_says_that_it_runs_already(home: Home) -> None:
    before = read_state(home)

    finished = up(home)

    assert finished.returncode == 0
    assert "Already running" in finished.stderr
    assert "ready" in finished.stdout
    assert read_state(home) == before


def test_servers_that_die_are_started_again(home: Home) -> None:
    names = ("kafka", "cassandra", "schema-registry")
    before = [until(running(name), home) for name in names]
    for unit in before:
        assert unit.pid is not None
        os.kill(unit.pid, signal.SIGKILL)

    after = [until(running(unit.name, restarts=unit.restarts + 1), home) for unit in before]

    assert not {unit.pid for unit in before} & {unit.pid for unit in after}


def test_down_and_up_keep_what_was_stored_and_the_stack_ends_with_its_owner(home: Home) -> None:
    servers = seen(home)
    with connected(home, servers.config, servers.ports, STACK_ADMIN) as session:
        session.execute("CREATE KEYSPACE t_crash WITH replication = {'class': 'NetworkTopologyStrategy', 'local': 1}")
        session.execute("CREATE TABLE t_crash.kept (id int PRIMARY KEY)")
        session.execute("INSERT INTO t_crash.kept (id) VALUES (7)")

    stopped = payments("down", home=home.root, timeout=120)
    assert stopped.returncode == 0
    assert leftovers(home) == []
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert up(home, "--owner-pid", str(owner.pid)).returncode == 0

    with connected(home, servers.config, servers.ports, STACK_ADMIN) as session:
        assert [row.id for row in session.execute("SELECT id FROM t_crash.kept")] == [7]

    state = read_state(home)
    assert state is not None
    assert state.supervisor_pid is not None
    supervisor = psutil.Process(state.supervisor_pid)

    owner.communicate(b"\n")

    supervisor.wait(90)
    assert leftovers(home) == []


def seen(home: Home) -> Servers:
    config = home.read_config()
    assert config is not None
    return Servers(home, config)
