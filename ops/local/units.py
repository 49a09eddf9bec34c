"""What a stack consists of: processes that stay and steps that end, each naming what must be ready before it.

The supervisor starts a unit as soon as everything in `after` is ready (processes) or done (steps).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ops.local import cassandra, kafka, registry
from ops.local.layout import SERVICES, Home, Ports, StackConfig
from ops.local.probes import http_ok
from ops.local.service_environment import service_environment

HOME_VARIABLE = "PAYMENTS_STACK_HOME"  # in every process of a stack: so that what a crash left behind is found


PREPARED = ("topics-0", "schemas-0", "records-0")  # what every service of ours finds in place


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One process (`ready` set) or one step (`ready` None: done when it exits with 0)."""

    name: str
    instance: int = 0
    argv: list[str]
    environment: Callable[[], Mapping[str, str]] = dict  # asked at each start: what a step before it left counts
    after: tuple[str, ...] = ()
    log: Path
    ready: Callable[[], Awaitable[bool]] | None = None
    stop_timeout_s: float = 10.0

    @property
    def key(self) -> str:
        return f"{self.name}-{self.instance}"


def plan(home: Home, cache: Path, config: StackConfig) -> list[Unit]:
    """All units of the stack, dependencies first."""
    ports = Ports(config.port_base)
    servers = [*kafka_units(home, cache, config, ports), *_cassandra(home, cache, config, ports)]
    servers += _registry(home, cache, config, ports)
    if config.servers_only:
        return servers
    merchants = _step(
        home, "merchants", after=tuple(f"payment-api-{i}" for i in range(config.instances("payment-api")))
    )
    return [*servers, *_services(home, config, ports), merchants]


def base_environment(home: Home) -> dict[str, str]:
    """A clean one: nothing of the person's shell reaches a service but where programs and temporary files are."""
    names = ("PATH", "HOME", "TMPDIR", "PAYMENTS_CACHE", "PAYMENTS_JAVA")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {**kept, "LANG": "C.UTF-8", "TZ": "UTC", "PYTHONUNBUFFERED": "1", HOME_VARIABLE: str(home.root)}


def _step(home: Home, name: str, after: tuple[str, ...]) -> Unit:
    argv = [sys.executable, "-m", "ops.local.steps", name, str(home.root)]
    return Unit(name=name, argv=argv, after=after, log=home.log(name))


def kafka_units(home: Home, cache: Path, config: StackConfig, ports: Ports) -> list[Unit]:
    """The brokers, and what formats the disk of new ones."""
    units = []
    for node in range(config.nodes):
        after: tuple[str, ...] = ()
        if not kafka.is_formatted(home, node):
            log = home.log("kafka-format", node)
            units.append(
                Unit(
                    name="kafka-format",
                    instance=node,
                    argv=kafka.format_command(home, cache, node, config.nodes),
                    log=log,
                )
            )
            after = (f"kafka-format-{node}",)
        units.append(
            Unit(
                name="kafka",
                instance=node,
                argv=[sys.executable, "-m", "ops.local.kafka_start", str(home.root), str(node)],
                after=after,
                log=home.log("kafka", node),
                ready=lambda node=node: kafka.is_ready(home, ports.kafka(node)),  # type: ignore[misc]
                stop_timeout_s=20.0,
            )
        )
    return units


def _cassandra(home: Home, cache: Path, config: StackConfig, ports: Ports) -> list[Unit]:
    first_boot_step = []
    first_boot: tuple[str, ...] = ()
    if not cassandra.has_administrator(home):
        first_boot_step.append(_step(home, "cassandra-first-boot", after=()))
        first_boot = ("cassandra-first-boot-0",)
    nodes = [
        Unit(
            name="cassandra",
            instance=node,
            argv=[sys.executable, "-m", "ops.local.patient_start", *cassandra.start_command(home, cache, config, node)],
            after=first_boot,
            log=home.log("cassandra", node),
            ready=lambda node=node: cassandra.is_ready(home, ports, node),  # type: ignore[misc]
            stop_timeout_s=30.0,
        )
        for node in range(config.nodes)
    ]
    return [*first_boot_step, *nodes, _step(home, "records", after=tuple(node.key for node in nodes))]


def guard_environment(home: Home, ports: Ports) -> dict[str, str]:
    """The settings of the registry's guard."""
    return {
        "GUARD_PORT": str(ports.schema_registry),
        "GUARD_UPSTREAM": f"https://127.0.0.1:{ports.apicurio}",
        "GUARD_TLS_CA": str(home.ca),
        "GUARD_TLS_CERT": str(home.cert(registry.IDENTITY)),
        "GUARD_TLS_KEY": str(home.key(registry.IDENTITY)),
    }


def _registry(home: Home, cache: Path, config: StackConfig, ports: Ports) -> list[Unit]:
    brokers = tuple(f"kafka-{node}" for node in range(config.nodes))
    return [
        _step(home, "registry-access", after=brokers),
        _step(home, "topics", after=brokers),
        Unit(
            name="schema-registry",
            argv=registry.start_command(cache),
            environment=lambda: registry.environment(home, config, ports),
            after=("registry-access-0",),
            log=home.log("schema-registry", 0),
            ready=lambda: registry.is_ready(home, ports),
        ),
        Unit(
            name="schema-registry",
            instance=1,
            argv=[sys.executable, "-m", "ops.local.registry_guard"],
            environment=lambda: guard_environment(home, ports),
            after=("schema-registry-0",),
            log=home.log("schema-registry", 1),
            ready=lambda: registry.guard_is_ready(home, ports),
        ),
        _step(home, "schemas", after=("schema-registry-1",)),
    ]


def _services(home: Home, config: StackConfig, ports: Ports) -> list[Unit]:
    return [
        _service(home, config, ports, name, instance) for name in SERVICES for instance in range(config.instances(name))
    ]


def _configured_by(home: Home, service: str) -> tuple[str, ...]:
    """payment-worker's settings list merchants, which the first start of a home has yet to make."""
    return ("merchants-0",) if service == "payment-worker" and not home.merchants_file.exists() else ()


def _service(home: Home, config: StackConfig, ports: Ports, name: str, instance: int) -> Unit:
    admin_port = ports.admin(name, instance)
    return Unit(
        name=name,
        instance=instance,
        argv=[sys.executable, "-m", "ops.cli.main", "service", name, "--instance", str(instance)],
        environment=lambda: service_environment(home, config, ports, name, instance),
        after=(*PREPARED, *_configured_by(home, name)),
        log=home.log(name, instance),
        ready=lambda: http_ok(home, admin_port, "/readyz", "operator"),
    )
