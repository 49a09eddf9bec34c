"""`docker-compose.yml` describes the stack that `payments up` starts: same services, versions, settings and files."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest
import yaml

from ops.local import compose
from ops.local.layout import SERVERS, SERVICES
from ops.local.lock_jars import APICURIO, CASSANDRA, KAFKA
from ops.local.steps import STEPS
from tests.local_servers import ROOT


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    described = yaml.safe_load(compose.FILE.read_text())["services"]
    assert isinstance(described, dict)
    return described


def test_file_is_what_the_stack_says() -> None:
    assert compose.FILE.read_text() == compose.text(), "run: python -m ops.local.compose"


def test_every_service_and_server_is_there(services: dict[str, Any]) -> None:
    steps = set(STEPS) - {"cassandra-first-boot"}  # the container of Cassandra boots itself

    assert set(services) == {*SERVICES, *SERVERS, "apicurio", *steps}


def test_servers_have_the_locked_versions(services: dict[str, Any]) -> None:
    images = {name: services[name]["image"] for name in ("kafka", "cassandra", "apicurio")}

    assert images == {
        "kafka": f"apache/kafka:{KAFKA}",
        "cassandra": f"cassandra:{CASSANDRA}",
        "apicurio": f"apicurio/apicurio-registry:{APICURIO}",
    }


def test_no_secret_is_in_the_file(services: dict[str, Any]) -> None:
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            assert not any(word in name for word in ("PASSWORD", "SECRET_KEY", "TOKEN")), name
            assert "PRIVATE KEY" not in str(value)


def test_docker_understands_the_file() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode != 0:
        pytest.skip("no `docker compose` on this machine")

    checked = subprocess.run([docker, "compose", "config", "--quiet"], capture_output=True, text=True, cwd=ROOT)

    assert checked.returncode == 0, checked.stderr
