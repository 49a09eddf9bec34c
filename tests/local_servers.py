"""The real servers that tests run against: one stack per test session, started through the `payments` command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ops.local import cassandra, kafka, preflight
from ops.local.layout import Home, Ports, StackConfig
from ops.local.record_tables import cassandra_address
from ops.local.status import status_document
from tables.records.session import CassandraAddress

FIRST_BASE, LAST_BASE, BASE_STEP = 23_000, 31_000, 200  # below the ephemeral ports, one block per session
UP_S, DOWN_S = 330, 120
TAIL_LINES = 40
ROOT = Path(__file__).resolve().parents[1]


class TlsFiles(NamedTuple):
    """PEM files of one identity."""

    ca: Path
    cert: Path
    key: Path


@dataclass
class Servers:
    """A running stack, seen from a test. With `full`, our own services run too."""

    home: Home
    config: StackConfig
    full: bool = False
    ports: Ports = field(init=False)

    def __post_init__(self) -> None:
        self.ports = Ports(self.config.port_base)

    @property
    def bootstrap(self) -> str:
        return kafka.bootstrap(self.config, self.ports)

    @property
    def cassandra_contact_points(self) -> list[str]:
        return cassandra.contact_points(self.config)

    @property
    def cassandra_port(self) -> int:
        return self.ports.cassandra

    @property
    def registry_url(self) -> str:
        return f"https://127.0.0.1:{self.ports.schema_registry}"

    def cassandra_address(self, identity: str) -> CassandraAddress:
        """For `RecordsSession.connect` as an identity."""
        return cassandra_address(self.home, self.config, self.ports, identity)

    @property
    def secrets_dir(self) -> Path:
        return self.home.secrets

    def tls(self, identity: str) -> TlsFiles:
        """Files of a service or client (`stack-admin` may do everything)."""
        return TlsFiles(self.home.ca, self.home.cert(identity), self.home.key(identity))

    def kafka_settings(self, identity: str) -> dict[str, str]:
        """librdkafka settings as an identity."""
        tls = self.tls(identity)
        return {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": "SSL",
            "ssl.ca.location": str(tls.ca),
            "ssl.certificate.location": str(tls.cert),
            "ssl.key.location": str(tls.key),
        }

    def status(self) -> dict[str, Any]:
        """The status document."""
        document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(status_document(self.home)))
        return document

    @cached_property
    def urls(self) -> dict[str, str]:
        return dict(self.status()["urls"])

    @cached_property
    def merchants(self) -> list[dict[str, str]]:
        """The demo merchants with their keys; empty without our services."""
        return list(self.status()["merchants"])


def running_servers() -> Servers | None:
    """The stack that PAYMENTS_TEST_HOME names, for developers who keep one running between test runs."""
    if "PAYMENTS_TEST_HOME" not in os.environ:
        return None
    home = Home(Path(os.environ["PAYMENTS_TEST_HOME"]))
    config = home.read_config()
    assert config is not None, "PAYMENTS_TEST_HOME holds no stack"
    return Servers(home, config, full=not config.servers_only)


def start_servers(*, full: bool) -> Servers:
    """Start a stack in a temporary home. It stops by itself when this process is gone."""
    home = Home(Path(tempfile.mkdtemp(prefix="payments-test-")).resolve())
    config = StackConfig(port_base=free_port_base(servers_only=not full), servers_only=not full)
    arguments = ["--detach", "--port-base", str(config.port_base), "--owner-pid", str(os.getpid())]
    finished = payments("up", *arguments, *([] if full else ["--servers-only"]), home=home.root, timeout=UP_S)
    servers = Servers(home, config, full)
    if finished.returncode != 0:
        report = f"{finished.stderr}\n{tails(servers, all_logs=True)}"
        stop_servers(servers)
        raise RuntimeError(f"the stack did not start: {report}")
    return servers


def stop_servers(servers: Servers, keep_logs_in: Path | None = None) -> None:
    """Stop the stack and remove its home; its logs are moved to `keep_logs_in` first."""
    payments("down", home=servers.home.root, timeout=DOWN_S)
    if keep_logs_in is not None and servers.home.path("logs").exists():
        shutil.rmtree(keep_logs_in, ignore_errors=True)
        shutil.copytree(servers.home.path("logs"), keep_logs_in)
    shutil.rmtree(servers.home.root)


def tails(servers: Servers, *, all_logs: bool = False) -> str:
    """The last lines of the logs of whatever died (or of everything)."""
    died = {
        f"{s['name']}-{s['instance']}" for s in servers.status()["services"] if s["restarts"] or s["state"] != "running"
    }
    parts = []
    for log in sorted(servers.home.path("logs").glob("*.log")):
        if all_logs or log.stem in died:
            lines = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
            parts.append("\n".join([f"---- {log.name}", *lines]))
    return "\n".join(parts)


def payments(*arguments: str, home: Path, timeout: float = 60, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the `payments` command on a home."""
    return subprocess.run(
        [sys.executable, "-m", "ops.cli.main", *arguments, "--home", str(home)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def free_port_base(*, servers_only: bool) -> int:
    """A block of ports for a stack of one node."""
    return preflight.free_port_base(
        range(FIRST_BASE, LAST_BASE, BASE_STEP),
        lambda base: preflight.listeners(StackConfig(port_base=base, servers_only=servers_only), Ports(base)),
    )
