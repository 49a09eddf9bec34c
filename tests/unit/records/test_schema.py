"""Migrations and grants as data: rules that need no server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tables.records.errors import MigrationError
from tables.records.grants import GRANTS, READS_EVERYTHING, TABLES, grant_statements
from tables.records.migrate import Migration, load_migrations, split_statements

IDEMPOTENT = re.compile(
    r"(CREATE (TABLE|TYPE) IF NOT EXISTS|ALTER (TABLE|TYPE) \w+ ADD IF NOT EXISTS|DROP \w+ IF EXISTS) "
)


def test_every_statement_may_be_run_again_after_a_migration_was_cut_off() -> None:
    for migration in load_migrations():
        assert migration.statements, migration.name
        for statement in migration.statements:
            assert IDEMPOTENT.match(statement), f"{migration.version:04d}: {statement[:60]}"


def test_there_are_no_counters_and_no_secondary_indexes() -> None:
    text = " ".join(statement for migration in load_migrations() for statement in migration.statements).lower()
    assert not re.search(r"\bcounter\b|create (custom )?index|materialized view", text)


def test_grants_name_every_table_and_no_other() -> None:
    statements = [statement for migration in load_migrations() for statement in migration.statements]
    created = {match[1] for s in statements if (match := re.match(r"CREATE TABLE IF NOT EXISTS (\w+)", s))}
    assert created == set(TABLES)
    assert set(GRANTS[READS_EVERYTHING]) >= created


@pytest.mark.parametrize(
    ("role", "writes"),
    [
        ("payment-worker", set()),
        ("provider-gateway", set()),
        ("webhook-dispatcher", set()),
        ("auditor", set()),
        ("operator", set()),
        ("batch-processor", {"settlement_runs"}),
    ],
)
def test_who_only_reads_records_cannot_write_them(role: str, writes: set[str]) -> None:
    assert {table for table, permissions in GRANTS[role].items() if "MODIFY" in permissions} == writes


def test_only_two_services_reach_data_keys() -> None:
    readers = {role for role, tables in GRANTS.items() if "data_keys" in tables}
    assert readers == {"payment-api", "webhook-dispatcher", READS_EVERYTHING}  # wrapped: only the two can open them


def test_no_service_writes_a_payment_but_the_recorder() -> None:
    writers = {role for role, tables in GRANTS.items() if "MODIFY" in tables.get("payments", ())}
    assert writers == {"records-worker"}
    assert 'GRANT MODIFY ON TABLE k.payments TO "records-worker"' in grant_statements("k")


def test_statements_are_split_outside_of_texts_and_comments() -> None:
    text = "-- one; two\nCREATE TABLE a (b text) WITH comment = 'c; -- d';\n\nDROP TABLE e; -- f\n;"
    assert split_statements(text) == ["CREATE TABLE a (b text) WITH comment = 'c; -- d'", "DROP TABLE e"]


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["0001_a.cql", "0003_b.cql"], "migration 0002 is missing or used twice"),
        (["0001_a.cql", "0001_b.cql"], "migration 0002 is missing or used twice"),
        (["0002_a.cql"], "migration 0001 is missing"),
        (["1_a.cql"], "1_a.cql is not named like"),
    ],
)
def test_migrations_are_numbered_without_gaps(tmp_path: Path, names: list[str], complaint: str) -> None:
    for name in names:
        (tmp_path / name).write_text("")
    with pytest.raises(MigrationError, match=complaint):
        load_migrations(tmp_path)


def test_a_checksum_knows_every_change_but_line_ends() -> None:
    text = "CREATE TABLE a;\n"
    assert Migration(1, "a", text).checksum == Migration(1, "a", "CREATE TABLE a;\r\n").checksum
    assert Migration(1, "a", text).checksum != Migration(1, "a", "CREATE TABLE b;\n").checksum
