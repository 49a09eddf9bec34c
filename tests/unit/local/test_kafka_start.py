"""What precedes the start of a broker that was killed: its controller alone, until the fencing is committed."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from ops.local import kafka
from ops.local.kafka_start import fence
from ops.local.layout import Home, Ports, StackConfig

CONTROLLER = """
import signal, sys, time
for line in {lines!r}:
    print(line, flush=True)
if {stays}:
    signal.pause()
"""


def controller(*lines: str, stays: bool = True) -> list[str]:
    return [sys.executable, "-c", CONTROLLER.format(lines=lines, stays=stays)]


FENCING = "Fencing broker 1 at epoch 7 because its session has timed out."
COMMIT = "handleCommit: publishing new image with provenance 9"


def test_controller_ends_once_the_fencing_is_committed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        fence(controller(COMMIT, COMMIT, FENCING, COMMIT, COMMIT))
    assert caplog.messages == ["the broker that was killed is fenced"]


def test_commits_from_before_the_fencing_do_not_count(caplog: pytest.LogCaptureFixture) -> None:
    fence(controller(COMMIT, COMMIT, FENCING, COMMIT, stays=False))
    assert caplog.messages == ["the controller ended (0) before it fenced the broker"]


def test_a_broker_was_killed_if_it_ran_and_did_not_say_goodbye(tmp_path: Path) -> None:
    home = Home(tmp_path)
    data = home.path("data", "kafka-0")
    data.mkdir(parents=True)
    (data / "meta.properties").touch()
    assert not kafka.was_killed(home, 0), "formatted, and never ran"
    (data / "__cluster_metadata-0").mkdir()
    assert kafka.was_killed(home, 0)
    (data / ".kafka_cleanshutdown").touch()
    assert not kafka.was_killed(home, 0)


def test_the_controller_alone_is_the_brokers_but_for_what_a_broker_has(tmp_path: Path) -> None:
    home, config = Home(tmp_path), StackConfig(nodes=1, port_base=21_000)
    ports = Ports(config.port_base)
    whole = set(kafka.server_properties(home, config, ports, 0).splitlines())
    alone = set(kafka.controller_properties(home, config, ports, 0).splitlines())
    assert "process.roles=controller" in alone
    assert not any(line.startswith(("advertised.listeners", "inter.broker.listener.name")) for line in alone)
    assert {line for line in whole - alone if line.startswith(("node.id", "log.dirs", "ssl.", "super.users"))} == set()
