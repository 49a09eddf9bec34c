"""`payments db` on real servers: what it prints, and one clear sentence for what goes wrong."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops.cli.db import app
from tables.records.migrate import load_migrations
from tests.local_servers import Servers

pytestmark = pytest.mark.servers


def test_a_running_stack_has_every_migration_and_migrating_again_changes_nothing(servers: Servers) -> None:
    home = ["--home", str(servers.home.root)]
    again = CliRunner().invoke(app, ["migrate", *home])
    assert (again.exit_code, again.stdout) == (0, "Nothing to apply.\n")
    shown = CliRunner().invoke(app, ["status", *home])
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [f"{m.version:04d}_{m.name}" for m in load_migrations()]
    assert all(" applied 20" in line for line in lines)


def test_a_keyspace_that_is_not_there_has_everything_pending(servers: Servers) -> None:
    keyspace = f"t_records_{uuid.uuid4().hex[:12]}"
    shown = CliRunner().invoke(app, ["status", "--home", str(servers.home.root), "--keyspace", keyspace])
    assert shown.exit_code == 1
    assert shown.stdout.count("pending") == len(load_migrations())


def test_what_is_not_there_is_said_in_one_sentence(tmp_path: Path) -> None:
    nowhere = CliRunner().invoke(app, ["status", "--home", str(tmp_path / "none")])
    assert nowhere.exit_code == 1
    assert nowhere.stderr.startswith("There is no stack in ")
    away = CliRunner().invoke(app, ["status", "--contact-point", "127.0.0.1", "--port", "1"])
    assert away.exit_code == 1
    assert away.stderr.startswith("Cassandra does not answer at 127.0.0.1:1: ")
    assert "Traceback" not in away.stderr + away.stdout
