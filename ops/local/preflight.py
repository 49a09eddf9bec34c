"""What is checked before anything starts: each failure is one sentence with a way out."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from ops.local import cassandra, kafka
from ops.local.errors import StackError
from ops.local.java import check_java, java_binary
from ops.local.layout import SERVICES, Home, Ports, StackConfig

GIB = 1 << 30
DISK_BYTES = 2 * GIB  # logs and commit logs of a first day, and room to compact
SERVERS_BYTES_PER_NODE = 3 * GIB // 2  # Kafka and Cassandra of one node, as measured
OTHERS_BYTES = 1 * GIB  # registry and the Python services


def check(home: Home, config: StackConfig, ports: Ports) -> None:
    """Raises StackError for the first thing that would make the start fail."""
    check_java(java_binary())
    check_memory(config, psutil.virtual_memory().available)
    check_disk(home.root, shutil.disk_usage(home.root).free)
    for name, address, port in listeners(config, ports):
        check_port(name, address, port)


def check_memory(config: StackConfig, available: int) -> None:
    wanted = config.nodes * SERVERS_BYTES_PER_NODE + (0 if config.servers_only else OTHERS_BYTES)
    if available < wanted:
        raise StackError(
            f"{available / GIB:.1f} GiB of memory are free, but the stack needs {wanted / GIB:.1f} GiB.",
            "Close something, or start with --nodes 1.",
        )


def check_disk(root: Path, free: int) -> None:
    if free < DISK_BYTES:
        raise StackError(
            f"{free / GIB:.1f} GiB are free on the disk of {root}, but the stack needs {DISK_BYTES / GIB:.0f} GiB.",
            "Make room, or name a home on another disk with --home.",
        )


def listeners(config: StackConfig, ports: Ports) -> list[tuple[str, str, int]]:
    """Every (service, address, port) that the stack will listen on."""
    found = [("schema-registry", "127.0.0.1", ports.schema_registry), ("schema-registry", "127.0.0.1", ports.apicurio)]
    found += kafka.listeners(config.nodes, ports)
    for node in range(config.nodes):
        found += [("cassandra", cassandra.address(node), port) for port in (ports.cassandra, ports.cassandra_storage)]
    if config.servers_only:
        return found
    found += [("provider-simulator", "127.0.0.1", port) for port in (ports.provider, ports.vault)]
    for name in SERVICES:
        found += [(name, "127.0.0.1", ports.admin(name, instance)) for instance in range(config.instances(name))]
    for instance in range(config.instances("payment-api")):
        api_ports = (ports.api(instance), ports.internal(instance), ports.api_loopback(instance))
        found += [("payment-api", "127.0.0.1", port) for port in api_ports]
    return found


def free_port_base(blocks: range, ports_of: Callable[[int], Iterable[tuple[str, str, int]]]) -> int:
    """The first port of a block that nobody uses now; processes try the blocks from different places.

    `ports_of` says which ports a stack with that base listens on: (name, address, port). Raises StackError.
    """
    for attempt in range(len(blocks)):
        base = blocks[(os.getpid() + attempt) % len(blocks)]
        try:
            for name, address, port in ports_of(base):
                check_port(name, address, port)
        except StackError:
            continue  # taken: try the next block
        return base
    raise StackError("No block of free ports was found.", "End what listens on them, or wait for other runs to end.")


def check_port(name: str, address: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # sockets in TIME_WAIT do not count
        try:
            probe.bind((address, port))
        except OSError as error:
            raise StackError(
                f"Port {port} on {address}, which {name} needs, is taken ({error.strerror}).",
                "Stop what uses it, or start with --port-base to use other ports.",
            ) from error
