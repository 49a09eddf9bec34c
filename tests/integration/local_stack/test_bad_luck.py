"""What a start says when it cannot go on: one sentence with a way out, exit code 1, nothing lost. No server starts."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ops.local.errors import StackError
from ops.local.layout import Home, Ports, StackConfig
from ops.local.preflight import GIB, check_disk, check_memory
from tests.local_servers import free_port_base, payments

UP = ("up", "--detach", "--servers-only")


@pytest.fixture
def port_base() -> int:
    return free_port_base(servers_only=True)


def one_sentence(output: str) -> str:
    """The command's complaint: one line, no traceback."""
    (line,) = output.strip().splitlines()
    return line


@pytest.mark.parametrize("service", ["kafka", "cassandra", "schema-registry"])
def test_port_in_use_names_the_port_and_the_service(tmp_path: Path, port_base: int, service: str) -> None:
    ports = Ports(port_base)
    port = {"kafka": ports.kafka(0), "cassandra": ports.cassandra, "schema-registry": ports.schema_registry}[service]
    with socket.create_server(("127.0.0.1", port)):
        finished = payments(*UP, "--port-base", str(port_base), home=tmp_path / "home")

    assert finished.returncode == 1
    complaint = one_sentence(finished.stderr)
    assert str(port) in complaint
    assert service in complaint
    assert "--port-base" in complaint
    assert not (tmp_path / "home" / "data").exists()


def test_wrong_java_is_named(tmp_path: Path, port_base: int) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"21.0.1\" 2023-10-17' >&2\n")
    java.chmod(0o755)

    finished = payments(*UP, "--port-base", str(port_base), home=tmp_path / "home", PAYMENTS_JAVA=str(java))

    assert finished.returncode == 1
    assert "Java 17 is needed" in one_sentence(finished.stderr)
    assert "21.0.1" in finished.stderr


def test_java_that_does_not_run_is_named(tmp_path: Path, port_base: int) -> None:
    missing = tmp_path / "missing"

    finished = payments(*UP, "--port-base", str(port_base), home=tmp_path / "home", PAYMENTS_JAVA=str(missing))

    assert finished.returncode == 1
    assert str(missing) in one_sentence(finished.stderr)


def test_too_little_memory_is_said_before_anything_starts() -> None:
    with pytest.raises(StackError, match=r"0\.5 GiB of memory are free.*needs 5\.5 GiB.*--nodes 1"):
        check_memory(StackConfig(nodes=3), GIB // 2)
    check_memory(StackConfig(nodes=1), 5 * GIB // 2)


def test_too_little_disk_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"1\.0 GiB are free.*needs 2 GiB.*--home"):
        check_disk(tmp_path, GIB)
    check_disk(tmp_path, 3 * GIB)


def test_home_of_another_version_is_left_alone(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.config_file.write_text(json.dumps({"layout": 0, "nodes": 1}))
    (tmp_path / "data").mkdir()

    for command in (UP, ("status",)):
        finished = payments(*command, home=tmp_path)
        assert finished.returncode == 1
        assert "another version (layout 0" in one_sentence(finished.stderr)
        assert "--home" in finished.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "stack.json"]


def test_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("irreplaceable")

    assert payments(*UP, home=tmp_path).returncode == 1
    wiped = payments("down", "--wipe", home=tmp_path)

    assert wiped.returncode == 1
    assert "holds no stack" in one_sentence(wiped.stderr)
    assert (tmp_path / "thesis.txt").read_text() == "irreplaceable"


def test_number_of_nodes_of_a_home_cannot_change(tmp_path: Path) -> None:
    Home(tmp_path).write_config(StackConfig(nodes=1))

    finished = payments(*UP, "--nodes", "3", home=tmp_path)

    assert finished.returncode == 1
    assert "holds a stack of 1 node" in one_sentence(finished.stderr)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--nodes", "2"), "1 or 3 nodes"),
        (("--scale", "kafka=2"), "not SERVICE=N"),
        (("--scale", "payment-api=0"), "from 1"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path: Path, arguments: tuple[str, ...], complaint: str) -> None:
    finished = payments(*UP, *arguments, home=tmp_path / "home")

    assert finished.returncode == 1
    assert complaint in one_sentence(finished.stderr)


def test_status_without_a_stack_says_how_to_start_one(tmp_path: Path) -> None:
    finished = payments("status", home=tmp_path / "none")

    assert finished.returncode == 1
    assert "`payments up`" in one_sentence(finished.stderr)


def test_help_is_fast_because_commands_are_imported_when_called() -> None:
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ops.cli.main", "--help"], capture_output=True, text=True, check=True
    ).stderr

    heavy = {"aiohttp", "cassandra", "confluent_kafka", "cryptography", "faust", "jgo", "yaml"}
    assert not heavy & {line.rpartition("|")[2].strip() for line in loaded.splitlines()}
