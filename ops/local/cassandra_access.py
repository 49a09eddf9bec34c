"""Who may do what in Cassandra: the first administrator, one role per identity, the grants of the record tables."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, Session
from cassandra.policies import DCAwareRoundRobinPolicy

from ops.local import cassandra
from ops.local.ca import spiffe_uri
from ops.local.layout import CLIENTS, SERVICES, STACK_ADMIN, Home, Ports, StackConfig, cache_directory
from ops.local.probes import client_context
from ops.local.units import base_environment
from tables.records.session import CertificateAuthProvider

READY_WITHIN_S = 120.0
DEFAULT_USER = DEFAULT_PASSWORD = "cassandra"  # noqa: S105 - what every new cluster has, until the first boot drops it
ROLES = (*SERVICES, *CLIENTS)
STATEMENT_TIMEOUT_S = 20.0


def add_administrator(home: Home, config: StackConfig, ports: Ports) -> None:
    """First boot: run the nodes with passwords, create the administrator with its certificate, stop them again."""
    asyncio.run(_first_boot(home, config, ports))


async def _first_boot(home: Home, config: StackConfig, ports: Ports) -> None:
    nodes: list[asyncio.subprocess.Process] = []
    try:
        for node in range(config.nodes):
            command = cassandra.start_command(home, cache_directory(), config, node, first_boot=True)
            nodes.append(await asyncio.create_subprocess_exec(*command, env=base_environment(home)))
        async with asyncio.timeout(READY_WITHIN_S):
            for node in range(config.nodes):
                await _until_ready(home, ports, node, nodes[node])
        await asyncio.to_thread(_create_administrator, home, config, ports)
    finally:
        for process in nodes:
            if process.returncode is None:
                process.terminate()
        await asyncio.gather(*(process.wait() for process in nodes))


async def _until_ready(home: Home, ports: Ports, node: int, process: asyncio.subprocess.Process) -> None:
    while not await cassandra.is_ready(home, ports, node):
        if process.returncode is not None:
            raise RuntimeError(f"Cassandra node {node} ended with exit code {process.returncode} on its first boot")
        await asyncio.sleep(0.2)


def _create_administrator(home: Home, config: StackConfig, ports: Ports) -> None:
    password = PlainTextAuthProvider(DEFAULT_USER, DEFAULT_PASSWORD)
    with connected(home, config, ports, STACK_ADMIN, password) as session:
        session.execute(f'CREATE ROLE IF NOT EXISTS "{STACK_ADMIN}" WITH SUPERUSER = true AND LOGIN = true')
        _bind(session, STACK_ADMIN)


def apply_roles(home: Home, config: StackConfig, ports: Ports) -> None:
    """One role per service and client, bound to its certificate. Idempotent. The default user is dropped."""
    with connected(home, config, ports, STACK_ADMIN) as session:
        session.execute(f"DROP ROLE IF EXISTS {DEFAULT_USER}")
        known = {row.role for row in session.execute("LIST ROLES")}
        for role in ROLES:
            if role not in known:
                session.execute(f'CREATE ROLE IF NOT EXISTS "{role}" WITH LOGIN = true')
            _bind(session, role)
    cassandra.mark_administrator(home)


async def add_administrator_elsewhere(home: Home, config: StackConfig, ports: Ports) -> None:
    """First boot where somebody else runs the node (containers): wait for it, create the administrator, say so."""
    if cassandra.has_administrator(home):
        return
    async with asyncio.timeout(READY_WITHIN_S):
        while not await cassandra.is_ready(home, ports, 0):  # noqa: ASYNC110 - another process sets no event of ours
            await asyncio.sleep(0.5)
    await asyncio.to_thread(_create_administrator, home, config, ports)
    cassandra.mark_administrator(home)


def _bind(session: Session, role: str) -> None:
    session.execute(f"ADD IDENTITY IF NOT EXISTS '{spiffe_uri(role)}' TO ROLE '{role}'")


@contextmanager
def connected(home: Home, config: StackConfig, ports: Ports, identity: str, provider: Any = None) -> Iterator[Session]:
    """A session as `identity`, by its certificate."""
    context: ssl.SSLContext = client_context(home, identity)
    context.check_hostname = False  # the driver does not pass a name; the chain is still verified
    profile = ExecutionProfile(
        load_balancing_policy=DCAwareRoundRobinPolicy(local_dc=cassandra.DATACENTER),
        request_timeout=STATEMENT_TIMEOUT_S,
    )
    cluster = Cluster(
        cassandra.contact_points(config),
        port=ports.cassandra,
        ssl_context=context,
        auth_provider=provider or CertificateAuthProvider(),
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        protocol_version=5,
        connect_timeout=10,
    )
    try:
        yield cluster.connect()
    finally:
        cluster.shutdown()
