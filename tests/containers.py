"""Kafka, Cassandra and the registry as containers, for the same tests, where a Docker engine answers.

Opt in with PAYMENTS_TEST_CONTAINERS=1: `docker-compose.yml` then takes the place of `payments up` in the fixtures.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from testcontainers.compose import DockerCompose

from ops.local.layout import Home, StackConfig
from tests.local_servers import ROOT, Servers

SERVERS_ONLY = ["prepare", "kafka", "cassandra", "apicurio", "schema-registry", "topics", "records", "schemas"]


def wanted() -> bool:
    return os.environ.get("PAYMENTS_TEST_CONTAINERS") == "1"


def engine_answers() -> bool:
    """Whether a Docker engine (not only its client) is there."""
    client = shutil.which("docker")
    return client is not None and subprocess.run([client, "info"], capture_output=True).returncode == 0


@contextmanager
def containers(*, full: bool) -> Iterator[Servers]:
    """The stack in containers; skips the tests where no engine answers."""
    if not engine_answers():
        pytest.skip("no Docker engine answers")
    with tempfile.TemporaryDirectory(prefix="payments-compose-") as home:
        os.environ["PAYMENTS_COMPOSE_HOME"] = home
        with DockerCompose(ROOT, build=True, services=None if full else SERVERS_ONLY):
            yield Servers(Home(Path(home)), StackConfig(servers_only=not full), full)
