"""The record tables of a local stack: keyspace, migrations and grants, applied as the stack's administrator."""

from __future__ import annotations

from ops.local import cassandra
from ops.local.ca import tls_files
from ops.local.layout import STACK_ADMIN, Home, Ports, StackConfig
from tables.records.grants import apply_grants
from tables.records.migrate import create_keyspace, migrate
from tables.records.session import CassandraAddress, RecordsSession

KEYSPACE = "payments"


async def migrate_and_grant(home: Home, config: StackConfig, ports: Ports) -> None:
    """Idempotent. Raises MigrationError when what is there is not what this version knows."""
    address = cassandra_address(home, config, ports, STACK_ADMIN)
    session = await RecordsSession.connect(address, KEYSPACE)
    try:
        await create_keyspace(session, cassandra.DATACENTER, config.nodes)
        await migrate(session)
        await apply_grants(session, KEYSPACE)
    finally:
        await session.close()


def cassandra_address(home: Home, config: StackConfig, ports: Ports, identity: str) -> CassandraAddress:
    """Where this stack's Cassandra is, for a connection as `identity`."""
    authority, certificate, key = tls_files(home, identity)
    return CassandraAddress(
        contact_points=cassandra.contact_points(config),
        port=ports.cassandra,
        datacenter=cassandra.DATACENTER,
        tls_ca=authority,
        tls_cert=certificate,
        tls_key=key,
    )
