"""Who may do what in Cassandra, cell by cell: denied is everything that is not listed here.

Roles are the services' names; only the cluster's administrator changes the schema. MODIFY includes TRUNCATE, and a
lightweight transaction needs SELECT beside MODIFY.
The stack grants from this data, and the tests check every cell of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from tables.records.session import RecordsSession

Permission = Literal["SELECT", "MODIFY"]

_READ: Final[frozenset[Permission]] = frozenset({"SELECT"})
_WRITE: Final[frozenset[Permission]] = frozenset({"SELECT", "MODIFY"})

RECORD_TABLES: Final = (
    "payments",
    "payment_history",
    "payments_by_merchant",
    "payment_days_by_merchant",
    "settlement_items",
    "settlement_batches",
    "settlement_batches_by_date",
    "settlement_batches_by_merchant",
    "settlement_run_partitions",
    "feed_events",
    "webhook_deliveries",
    "webhook_deliveries_by_endpoint",
    "webhook_delivery_days_by_endpoint",
)
CONTROL_TABLES: Final = (
    "settlement_runs",
    "merchants",
    "api_keys_by_hash",
    "api_keys_by_merchant",
    "webhook_endpoints",
    "data_keys",
    "audit_log",
    "audit_months",
)
TABLES: Final = RECORD_TABLES + CONTROL_TABLES
SCHEMA_TABLE: Final = "schema_migrations"

READS_EVERYTHING: Final = "auditor"

_API_WRITES = frozenset(CONTROL_TABLES) - {"settlement_runs"}

_RECORDS: Final[Mapping[str, Mapping[str, frozenset[Permission]]]] = {
    # SCHEMA_TABLE: what `RecordsSession.ready` reads, so every role with records has it.
    "payment-api": {
        SCHEMA_TABLE: _READ,
        **{table: _WRITE if table in _API_WRITES else _READ for table in TABLES},
    },
    "payment-worker": {},
    # webhook_endpoints: it disables an endpoint that `webhooks` found dead, by a lightweight transaction.
    "records-worker": {SCHEMA_TABLE: _READ, **dict.fromkeys(RECORD_TABLES, _WRITE), "webhook_endpoints": _WRITE},
    "provider-gateway": {SCHEMA_TABLE: _READ, "settlement_items": _READ},
    "batch-processor": {
        SCHEMA_TABLE: _READ,
        "settlement_runs": _WRITE,
        **dict.fromkeys(
            (
                "settlement_items",
                "settlement_batches",
                "settlement_batches_by_date",
                "settlement_batches_by_merchant",
                "settlement_run_partitions",
            ),
            _READ,
        ),
    },
    "webhook-dispatcher": dict.fromkeys(
        (SCHEMA_TABLE, "merchants", "webhook_endpoints", "data_keys", "feed_events", "webhook_deliveries"), _READ
    ),
    "provider-simulator": {},
    READS_EVERYTHING: dict.fromkeys(TABLES, _READ),
    "operator": {},
    "settlement-operator": {},
    "internal-producer": {},
}

GRANTS: Final[Mapping[str, Mapping[str, frozenset[Permission]]]] = {
    role: {**tables, SCHEMA_TABLE: _READ} if tables else {} for role, tables in _RECORDS.items()
}
"""role -> table -> permissions. Whoever uses the records may see that their schema is there (readiness)."""


def grant_statements(keyspace: str) -> list[str]:
    """The CQL that grants everything; the roles must exist. Granting again changes nothing."""
    return [
        f'GRANT {permission} ON TABLE {keyspace}.{table} TO "{role}"'
        for role, tables in GRANTS.items()
        for table, permissions in tables.items()
        for permission in sorted(permissions)
    ]


async def apply_grants(session: RecordsSession, keyspace: str) -> None:
    """Grant everything, as a superuser, after the migrations."""
    for statement in grant_statements(keyspace):
        await session.execute_ddl(statement)
