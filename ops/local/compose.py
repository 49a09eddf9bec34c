"""The same stack as containers: `python -m ops.local.compose` writes `docker-compose.yml` from the stack's own data.

The servers' images take the very configuration files that `payments up` uses: the step `prepare` writes them into the
one directory that all containers share. All use the host's network, so addresses, ports and certificates are the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ops.local import cassandra, kafka, registry
from ops.local.jars import read_lock
from ops.local.layout import CHECKOUT, SERVICES, Home, Ports, StackConfig
from ops.local.service_environment import service_environment
from ops.local.units import guard_environment

FILE = CHECKOUT / "docker-compose.yml"
SHARED = Home(Path("/payments"))  # inside every container
CONFIG = StackConfig()
HEADER = "# Written by `python -m ops.local.compose`; a test keeps it in step with `payments up`.\n"
DONE = {"condition": "service_completed_successfully"}
STARTED = {"condition": "service_started"}

# The entry points change files that are ours, so the servers are started directly.
KAFKA_SCRIPT = """\
/opt/kafka/bin/kafka-storage.sh format --ignore-formatted --cluster-id="$$(cat /payments/conf/kafka-cluster-id)" \
-c /payments/conf/kafka-0.properties
exec /opt/kafka/bin/kafka-server-start.sh /payments/conf/kafka-0.properties
"""
CASSANDRA_SCRIPT = """\
if [ ! -e /payments/data/cassandra-administrator ]; then
  cassandra -R -f -Dcassandra.config=file:///payments/conf/cassandra-0-first-boot.yaml &
  until [ -e /payments/data/cassandra-administrator ]; do sleep 1; done
  kill $$! && wait $$! || true
fi
exec cassandra -R -f -Dcassandra.config=file:///payments/conf/cassandra-0.yaml
"""


def document() -> dict[str, Any]:
    """The compose file as data."""
    services = {**_steps(), **_servers()}
    services |= {name: _service(name) for name in SERVICES}
    return {"name": "payments", "services": services}


def text() -> str:
    return HEADER + yaml.dump(document(), Dumper=_PlainDumper, sort_keys=False, width=120)


class _PlainDumper(yaml.SafeDumper):
    """Repeats equal parts instead of pointing to them: for readers."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _versions() -> dict[str, str]:
    """Server versions as locked for `payments up`."""
    return {name: locked.roots[0].split(":")[2] for name, locked in read_lock().servers.items()}


def _base() -> dict[str, Any]:
    return {"network_mode": "host", "user": "0", "volumes": ["${PAYMENTS_COMPOSE_HOME:-./.local-compose}:/payments"]}


def _ours(command: list[str], needs: dict[str, Any]) -> dict[str, Any]:
    build = {"context": ".", "dockerfile": "ops/local/Dockerfile"}
    return {**_base(), "build": build, "image": "payments", "command": command, "depends_on": needs}


def _step(name: str, needs: dict[str, Any]) -> dict[str, Any]:
    return {**_ours(["python", "-m", "ops.local.steps", name, str(SHARED.root)], needs), "restart": "on-failure"}


def _steps() -> dict[str, Any]:
    return {
        "prepare": _step("prepare", {}),
        "cassandra-administrator": _step("cassandra-administrator", {"cassandra": STARTED}),
        "records": _step("records", {"cassandra-administrator": DONE}),
        "registry-access": _step("registry-access", {"kafka": STARTED}),
        "topics": _step("topics", {"kafka": STARTED}),
        "schemas": _step("schemas", {"schema-registry": STARTED}),
        "merchants": _step("merchants", {"payment-api": STARTED}),
    }


def _servers() -> dict[str, Any]:
    ports, versions = Ports(CONFIG.port_base), _versions()
    prepared = {**_base(), "depends_on": {"prepare": DONE}, "restart": "unless-stopped"}
    return {
        "kafka": {
            **prepared,
            "image": f"apache/kafka:{versions['kafka']}",
            "environment": {
                "KAFKA_HEAP_OPTS": f"-Xms{kafka.HEAP_MB}m -Xmx{kafka.HEAP_MB}m -XX:MaxGCPauseMillis={kafka.PAUSE_MS}"
            },
            "entrypoint": ["bash", "-ec", KAFKA_SCRIPT],
        },
        "cassandra": {
            **prepared,
            "image": f"cassandra:{versions['cassandra']}",
            "environment": {
                "MAX_HEAP_SIZE": f"{cassandra.HEAP_MB}m",
                "HEAP_NEWSIZE": f"{cassandra.YOUNG_MB}m",
                "JVM_EXTRA_OPTS": "-Dcassandra-rackdc.properties=file:///payments/conf/cassandra-rackdc.properties",
            },
            "entrypoint": ["bash", "-ec", CASSANDRA_SCRIPT],
        },
        "apicurio": {
            **prepared,
            "image": f"apicurio/apicurio-registry:{versions['schema-registry']}",
            "environment": {**registry.environment(SHARED, CONFIG, ports), "JAVA_OPTS_APPEND": "-Xmx192m"},
            "depends_on": {"registry-access": DONE},
        },
        "schema-registry": {
            **_ours(["python", "-m", "ops.local.registry_guard"], {"apicurio": STARTED}),
            "environment": guard_environment(SHARED, ports),
            "restart": "unless-stopped",
        },
    }


def _service(name: str) -> dict[str, Any]:
    needs = dict.fromkeys(("topics", "schemas", "records"), DONE)
    return {
        **_ours(["payments", "service", name, "--instance", "0"], needs),
        "environment": service_environment(SHARED, CONFIG, Ports(CONFIG.port_base), name, 0),
        "restart": "unless-stopped",
        "stop_grace_period": "15s",
    }


def main() -> None:
    FILE.write_text(text())


if __name__ == "__main__":
    main()
