"""Grants on real Cassandra, as the services themselves: every cell of role x table x permission, and nothing more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cassandra import Unauthorized

from tables.records.errors import RecordsUnavailable
from tables.records.grants import GRANTS, SCHEMA_TABLE, TABLES, apply_grants
from tables.records.session import CassandraAddress, RecordsSession
from tables.records.store import RecordStore

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

SCHEMA_CHANGES = (
    "ALTER TABLE payments ADD note text",
    "DROP TABLE payments",
    "CREATE TABLE x (a text PRIMARY KEY)",
)
_VALUES: dict[str, str] = {"text": "'none'", "int": "0", "bigint": "0", "blob": "0x00"}


async def test_every_role_may_do_what_is_listed_and_nothing_else(
    store: RecordStore, keyspace: str, address_of: Callable[[str], CassandraAddress]
) -> None:
    await apply_grants(store.session, keyspace)
    keys = await _partition_keys(store.session, keyspace)
    assert set(keys) == {*TABLES, SCHEMA_TABLE}, "a table without its line in grants.py"
    wrong = []
    for role, tables in GRANTS.items():
        session = await RecordsSession.connect(address_of(role), keyspace)
        for table, key in keys.items():
            where = " AND ".join(f"{name} = {value}" for name, value in key.items())
            probes = {"SELECT": f"SELECT * FROM {table} WHERE {where}", "MODIFY": f"DELETE FROM {table} WHERE {where}"}
            for permission, probe in probes.items():
                expected = permission in tables.get(table, ())
                if await _allowed(session, probe) is not expected:
                    wrong.append(f"{role} {permission} {table}: {'refused' if expected else 'allowed'}")
        wrong.extend([f"{role} {ddl}: allowed" for ddl in SCHEMA_CHANGES if await _allowed(session, ddl)])
        await session.close()
    assert wrong == []


async def _partition_keys(session: RecordsSession, keyspace: str) -> dict[str, dict[str, str]]:
    """table -> partition key column -> a literal of its type."""
    cql = "SELECT table_name, column_name, kind, type FROM system_schema.columns WHERE keyspace_name = ?"
    keys: dict[str, dict[str, str]] = {}
    for row in await session.execute(cql, (keyspace,)):
        if row.kind == "partition_key":
            keys.setdefault(row.table_name, {})[row.column_name] = _VALUES[row.type]
    return keys


async def _allowed(session: RecordsSession, cql: str) -> bool:
    try:
        await session.execute_ddl(cql)
    except RecordsUnavailable as refusal:
        cause: Any = refusal.__cause__
        assert isinstance(cause, Unauthorized), cause
        return False
    return True
