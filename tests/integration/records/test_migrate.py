"""Migrations on real Cassandra: once, in order, by one at a time, and never a changed past."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
import pytest_asyncio

from ops.local.layout import STACK_ADMIN
from tables.records import migrate as migrations
from tables.records.errors import MigrationError, RecordsRefused
from tables.records.migrate import MIGRATIONS, Migration, load_migrations, migrate, split_statements, status
from tables.records.session import CassandraAddress, RecordsSession

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

FIRST = Migration(1, "first", "CREATE TABLE IF NOT EXISTS a (id text PRIMARY KEY);")
SECOND = Migration(2, "second", "ALTER TABLE a ADD IF NOT EXISTS name text; -- twice is harmless\n")


@pytest_asyncio.fixture(loop_scope="session")
async def session(address_of: Callable[[str], CassandraAddress], empty_keyspace: str) -> AsyncIterator[RecordsSession]:
    session = await RecordsSession.connect(address_of(STACK_ADMIN), empty_keyspace)
    yield session
    await session.close()


async def test_pending_migrations_are_applied_once_and_in_order(session: RecordsSession) -> None:
    assert [entry.applied_at for entry in await status(session, [FIRST, SECOND])] == [None, None]
    assert await migrate(session, [FIRST]) == [FIRST]
    assert await migrate(session, [FIRST]) == []
    assert await migrate(session, [FIRST, SECOND]) == [SECOND]
    assert all(entry.applied_at is not None for entry in await status(session, [FIRST, SECOND]))
    await session.execute("SELECT id, name FROM a")


async def test_many_at_once_apply_everything_exactly_once(
    session: RecordsSession, address_of: Callable[[str], CassandraAddress]
) -> None:
    others = [await RecordsSession.connect(address_of(STACK_ADMIN), session.keyspace) for _ in range(3)]
    try:
        applied = await asyncio.gather(*(migrate(each, [FIRST, SECOND]) for each in (session, *others)))
    finally:
        for other in others:
            await other.close()
    assert sorted(map(len, applied)) == [0, 0, 0, 2]


async def test_a_changed_old_migration_is_refused_with_a_way_out(session: RecordsSession) -> None:
    await migrate(session, [FIRST])
    changed = replace(FIRST, text=FIRST.text.replace("id text", "id blob"))
    for attempt in (migrate(session, [changed, SECOND]), status(session, [changed])):
        with pytest.raises(MigrationError, match=r"0001_first was applied as .* restore the file"):
            await attempt
    assert await migrate(session, [FIRST, SECOND]) == [SECOND], "the refusal let go of the lock"


async def test_line_ends_are_no_change(session: RecordsSession) -> None:
    await migrate(session, [FIRST, SECOND])
    checked_out_elsewhere = replace(SECOND, text=SECOND.text.replace("\n", "\r\n"))
    assert await migrate(session, [FIRST, checked_out_elsewhere]) == []


async def test_a_database_of_a_newer_release_is_refused(session: RecordsSession) -> None:
    await migrate(session, [FIRST, SECOND])
    with pytest.raises(MigrationError, match="0002_second, which this release does not know"):
        await migrate(session, [FIRST])


async def test_a_migration_that_was_cut_off_is_run_again(session: RecordsSession) -> None:
    broken = Migration(1, "first", FIRST.text + "CREATE TABLE nonsense;")
    with pytest.raises(RecordsRefused):
        await migrate(session, [broken])
    assert await migrate(session, [FIRST, SECOND]) == [FIRST, SECOND]


async def test_who_has_lost_the_lock_records_nothing(session: RecordsSession, monkeypatch: pytest.MonkeyPatch) -> None:
    await migrate(session, [])
    stolen = "UPDATE schema_migrations SET lock_holder = 'thief' WHERE scope = 'records' IF EXISTS"
    thieving = replace(FIRST, text=f"{FIRST.text} {stolen};")
    with pytest.raises(MigrationError, match="lost the migration lock"):
        await migrate(session, [thieving])
    monkeypatch.setattr(migrations, "LOCK_WAIT_S", 0.0)
    with pytest.raises(MigrationError, match="thief holds the migration lock"):
        await migrate(session, [FIRST])
    await session.execute_ddl(stolen.replace("'thief'", "null"))
    assert await migrate(session, [FIRST]) == [FIRST]


async def test_schema_cql_is_what_the_migrations_make(
    session: RecordsSession, keyspace: str, address_of: Callable[[str], CassandraAddress]
) -> None:
    for statement in split_statements((MIGRATIONS.parent / "schema.cql").read_text()):
        await session.execute_ddl(statement)
    assert session.keyspace is not None
    assert await _schema(session, session.keyspace) == await _schema(session, keyspace)
    assert len(load_migrations()) >= 4


async def _schema(session: RecordsSession, keyspace: str) -> dict[str, list[str]]:
    """Everything that Cassandra knows of a keyspace's tables and types, without their ids."""
    cql = {
        "columns": "SELECT table_name, column_name, clustering_order, kind, position, type FROM system_schema.columns",
        "tables": "SELECT table_name, comment, compaction, default_time_to_live FROM system_schema.tables",
        "types": "SELECT type_name, field_names, field_types FROM system_schema.types",
    }
    found = {}
    for what, select in cql.items():
        rows = await session.execute(f"{select} WHERE keyspace_name = ?", (keyspace,))
        found[what] = sorted(repr(tuple(row)) for row in rows if row[0] != "schema_migrations")
    return found
