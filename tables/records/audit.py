"""The audit log as operators read it: acts are added, never changed."""

from __future__ import annotations

import msgspec

from tables.records import cql
from tables.records.payments import day_of
from tables.records.session import RecordsSession

_LOG = "audit"  # the one partition of audit_months: twelve rows a year
_COLUMNS = "at, audit_id, actor_identity, actor_role, act, subject, merchant_id, request_id, before, after"
_INSERT = cql.insert("audit_log", f"month, {_COLUMNS}")
_INSERT_MONTH = cql.insert("audit_months", "log, month")
_SELECT_MONTHS_ALL = cql.select("month", "audit_months", "WHERE log = ?")
_SELECT_MONTHS = f"{_SELECT_MONTHS_ALL} AND month <= ?"
_SELECT = cql.select(_COLUMNS, "audit_log", "WHERE month = ? LIMIT ?")
_SELECT_ONE = cql.select(_COLUMNS, "audit_log", "WHERE month = ? AND at = ? AND audit_id = ?")
_SELECT_BEFORE = cql.select(_COLUMNS, "audit_log", "WHERE month = ? AND (at, audit_id) < (?, ?) LIMIT ?")


class AuditedAct(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what to what. `before` and `after` are JSON without secrets; None: it did not exist, or is gone."""

    at: int  # microseconds
    audit_id: str
    actor_identity: str
    actor_role: str
    act: str  # merchant.created, api_key.revoked, ...
    subject: str  # id of what was acted on
    merchant_id: str | None = None
    request_id: str
    before: str | None = None
    after: str | None = None


class AuditRecords:
    """Reads and writes of audit_log and audit_months."""

    def __init__(self, session: RecordsSession) -> None:
        self._session = session

    async def add(self, act: AuditedAct) -> None:
        """Add an act; adding it again changes nothing."""
        month = day_of(act.at)[:7]
        values = [getattr(act, name) for name in cql.names(_COLUMNS)]
        await self._session.write([(_INSERT, (month, *values, act.at))], [(_INSERT_MONTH, (_LOG, month, act.at))])

    async def find(self, at: int, audit_id: str) -> AuditedAct | None:
        """The act of that time and id."""
        rows = await self._session.execute(_SELECT_ONE, (day_of(at)[:7], at, audit_id))
        return AuditedAct(**rows[0]._asdict()) if rows else None

    async def newest(self, *, limit: int, before: AuditedAct | None = None) -> list[AuditedAct]:
        """Up to `limit` acts, newest first, those older than `before`."""
        found: list[AuditedAct] = []
        if before is None:
            months = await self._session.execute(_SELECT_MONTHS_ALL, (_LOG,))
        else:
            months = await self._session.execute(_SELECT_MONTHS, (_LOG, day_of(before.at)[:7]))
        for row in months:
            wanted = limit - len(found)
            if wanted <= 0:
                break
            if before is None:
                rows = await self._session.execute(_SELECT, (row.month, wanted))
            else:
                rows = await self._session.execute(_SELECT_BEFORE, (row.month, before.at, before.audit_id, wanted))
            found.extend(AuditedAct(**act._asdict()) for act in rows)
        return found
