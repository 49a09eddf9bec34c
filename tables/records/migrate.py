"""Numbered migrations of the records' schema: applied once, in order, by one migrator at a time.

What was applied is kept in `schema_migrations` with its checksum. A lock in the same partition, held by a lightweight
transaction and renewed before every statement, keeps other migrators waiting; whoever lost it can record nothing.
Statements are idempotent (IF NOT EXISTS), so a migration that was killed halfway is simply run again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import socket
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tables.records.errors import MigrationError, RecordsUnavailable
from tables.records.session import RecordsSession, Row

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK_TTL_S = 60  # a killed migrator delays the next one by this at most; a statement may take 30 s
LOCK_WAIT_S = 120.0
LOCK_POLL_S = 0.25
LWT_ATTEMPTS, LWT_TIMEOUT_S = 3, 10.0  # together they fit into the lock's time

_SCOPE = "records"
_NAMESPACE = uuid.UUID("5d1f3a52-1c52-4b0a-9f0e-7a6f5b6c2d11")  # of the table's id in each keyspace
# The id is derived: two nodes that create the same table at once would otherwise give it two, and disagree for good.
_CREATE_TABLE = """CREATE TABLE IF NOT EXISTS schema_migrations (
  scope text, version int, lock_holder text static, name text, checksum text, applied_at bigint, applied_by text,
  PRIMARY KEY ((scope), version)
) WITH id = '%s' AND comment = 'Migrations applied to this keyspace'"""
_LOCK = f"UPDATE schema_migrations USING TTL {LOCK_TTL_S} SET lock_holder = ? WHERE scope = ? IF lock_holder = "  # noqa: S608
_ACQUIRE = f"{_LOCK}null"
_RENEW = f"{_LOCK}?"
_RELEASE = "UPDATE schema_migrations SET lock_holder = null WHERE scope = ? IF lock_holder = ?"
_RECORD = (
    "UPDATE schema_migrations SET name = ?, checksum = ?, applied_at = ?, applied_by = ?"
    " WHERE scope = ? AND version = ? IF lock_holder = ?"
)
_SELECT = "SELECT version, name, checksum, applied_at FROM schema_migrations WHERE scope = ?"

_SELECT_TABLE = (
    "SELECT table_name FROM system_schema.tables WHERE keyspace_name = '%s' AND table_name = 'schema_migrations'"
)

_FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.cql")
_STATEMENT = re.compile(r"(?:'[^']*'|[^;'])+")
_COMMENT = re.compile(r"('[^']*')|--[^\n]*")


@dataclass(frozen=True)
class Migration:
    """One file of `migrations/`."""

    version: int
    name: str
    text: str

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of the text, the same whatever the checkout does to line ends."""
        return hashlib.sha256("\n".join(self.text.splitlines()).encode()).hexdigest()

    @property
    def statements(self) -> list[str]:
        """Its CQL statements without comments."""
        return split_statements(self.text)


@dataclass(frozen=True)
class Applied:
    """A migration and when it was applied (microseconds); None: it is pending."""

    migration: Migration
    applied_at: int | None


def split_statements(text: str) -> list[str]:
    """The statements of a CQL text, without comments and semicolons."""
    bare = _COMMENT.sub(lambda match: match.group(1) or "", text)
    return [statement.strip() for statement in _STATEMENT.findall(bare) if statement.strip()]


def load_migrations(folder: Path = MIGRATIONS) -> list[Migration]:
    """The migrations in order. Raises MigrationError for a gap, a number used twice or a strange file name."""
    found = []
    for path in sorted(folder.glob("*.cql")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"{path.name} is not named like 0001_what_it_does.cql")
        found.append(Migration(int(match[1]), match[2], path.read_text(encoding="utf-8")))
    for expected, migration in enumerate(found, start=1):
        if migration.version != expected:
            raise MigrationError(f"migration {expected:04d} is missing or used twice: number them without gaps")
    return found


async def create_keyspace(session: RecordsSession, datacenter: str, replication_factor: int) -> None:
    """Create the session's keyspace where it is not there; one that is there keeps its replication."""
    replication = f"{{'class': 'NetworkTopologyStrategy', '{datacenter}': {replication_factor}}}"
    await session.execute_ddl(
        f"CREATE KEYSPACE IF NOT EXISTS {session.keyspace} WITH replication = {replication}", in_keyspace=False
    )


async def migrate(session: RecordsSession, migrations: Sequence[Migration] | None = None) -> list[Migration]:
    """Apply what is pending, on a session of the keyspace; returns it. Safe to run at once from several places.

    Raises MigrationError when what was applied is not what this release holds, and when the lock cannot be had.
    """
    known = load_migrations() if migrations is None else migrations
    await session.execute_ddl(_CREATE_TABLE % uuid.uuid5(_NAMESPACE, str(session.keyspace)))
    holder = f"{socket.gethostname()}:{os.getpid()}:{time.monotonic_ns()}"
    await _acquire(session, holder)
    try:
        pending = [entry.migration for entry in await _compare(session, known) if entry.applied_at is None]
        for migration in pending:
            await _apply(session, migration, holder)
    finally:
        with suppress(RecordsUnavailable):  # then the lock ends by itself
            await session.execute(_RELEASE, (_SCOPE, holder))
    return pending


async def status(session: RecordsSession, migrations: Sequence[Migration] | None = None) -> list[Applied]:
    """Every migration of this release and when it was applied.

    Raises MigrationError as `migrate` does; a keyspace without `schema_migrations` has everything pending.
    """
    known = load_migrations() if migrations is None else migrations
    exists = await session.execute_ddl(_SELECT_TABLE % session.keyspace, in_keyspace=False)
    return await _compare(session, known) if exists else [Applied(migration, None) for migration in known]


async def _compare(session: RecordsSession, known: Sequence[Migration]) -> list[Applied]:
    applied = {row.version: row for row in await session.execute(_SELECT, (_SCOPE,)) if row.version is not None}
    if applied and max(applied) > len(known):
        newest = applied[max(applied)]
        raise MigrationError(
            f"the database has migration {newest.version:04d}_{newest.name}, which this release does not know:"
            " run the newer release"
        )
    for migration in known:
        row = applied.get(migration.version)
        if row is not None and row.checksum != migration.checksum:
            raise MigrationError(
                f"migration {migration.version:04d}_{migration.name} was applied as {row.checksum[:12]} but its file"
                f" is now {migration.checksum[:12]}: restore the file and put the change into a new migration"
            )
    rows = [(migration, applied.get(migration.version)) for migration in known]
    return [Applied(migration, None if row is None else row.applied_at) for migration, row in rows]


async def _acquire(session: RecordsSession, holder: str) -> None:
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        row = await _lightweight(session, _ACQUIRE, (holder, _SCOPE))
        if row.applied or row.lock_holder == holder:  # a repeat of an acquisition whose answer was lost
            return
        if time.monotonic() > deadline:
            raise MigrationError(f"{row.lock_holder} holds the migration lock: wait for it, or {LOCK_TTL_S} s")
        await asyncio.sleep(LOCK_POLL_S)


async def _apply(session: RecordsSession, migration: Migration, holder: str) -> None:
    for statement in migration.statements:
        _require(await _lightweight(session, _RENEW, (holder, _SCOPE, holder)), migration)
        await session.execute_ddl(statement)
    now = time.time_ns() // 1000
    values = (migration.name, migration.checksum, now, holder, _SCOPE, migration.version, holder)
    _require(await _lightweight(session, _RECORD, values), migration)


async def _lightweight(session: RecordsSession, cql: str, values: Sequence[object]) -> Row:
    """A lightweight transaction that may be repeated when its outcome is unknown, as every one here may."""
    for _ in range(LWT_ATTEMPTS - 1):
        with suppress(RecordsUnavailable):
            return (await session.execute(cql, values, timeout_s=LWT_TIMEOUT_S))[0]
    return (await session.execute(cql, values, timeout_s=LWT_TIMEOUT_S))[0]


def _require(row: Row, migration: Migration) -> None:
    if not row.applied:
        raise MigrationError(
            f"lost the migration lock during {migration.version:04d}_{migration.name}: run the migration again"
        )
