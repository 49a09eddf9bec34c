"""One stack of real servers for the whole session, started when the first test asks for it.

`servers`: Kafka, Cassandra and the schema registry, with topics, schemas and record tables in place. `stack`: our
services as well. When any collected test wants `stack`, there is one full stack and `servers` is a view of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.compiled import finder
from tests import containers
from tests.local_servers import Servers, running_servers, start_servers, stop_servers, tails

if os.environ.get("PAYMENTS_TEST_COMPILED") != "1":  # tests replace functions; processes that they start run compiled
    finder.uninstall()

FULL = pytest.StashKey[bool]()
REPORT = pytest.StashKey[str]()
START_S = 300


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs servers, so that `-m "not servers"` runs without them."""
    for item in items:
        if {"servers", "stack"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.servers)


def pytest_collection_finish(session: pytest.Session) -> None:
    session.config.stash[FULL] = any("stack" in getattr(item, "fixturenames", ()) for item in session.items)


@pytest.fixture(scope="session")
def running_stack(request: pytest.FixtureRequest) -> Iterator[Servers]:
    """The session's one stack. After a failure its logs stay in `.cache/test-logs`."""
    full = request.config.stash[FULL]
    if running := running_servers():
        assert running.full or not full, "PAYMENTS_TEST_HOME runs servers only, but a test wants the whole platform"
        yield running
        return
    if containers.wanted():
        with containers.containers(full=full) as contained:
            yield contained
        return
    servers = start_servers(full=full)
    yield servers
    kept: Path | None = None
    if request.session.testsfailed:
        kept = request.config.rootpath / ".cache" / "test-logs"
        request.config.stash[REPORT] = f"{tails(servers)}\nAll logs: {kept}"
    stop_servers(servers, keep_logs_in=kept)


@pytest.fixture(scope="session")
def servers(running_stack: Servers) -> Servers:
    """Kafka, Cassandra and the schema registry."""
    return running_stack


@pytest.fixture(scope="session")
def stack(running_stack: Servers) -> Servers:
    """The whole platform."""
    assert running_stack.full, "a test that was not collected with the others asked for the whole platform"
    return running_stack


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if report := config.stash.get(REPORT, ""):
        terminalreporter.section("services that died, and the logs")
        terminalreporter.write_line(report)
