"""Audited acts of operators: who did what to what, kept before the answer is given."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from api.calls import Call
from ops.runtime.clock import Clock
from streams.domain import ids
from tables.records.audit import AuditedAct


class AuditLog(Protocol):
    """Where acts are kept. Raises RecordsUnavailable during an outage."""

    async def add(self, act: AuditedAct) -> None: ...


class Auditor:
    """Writes down what was done through the API."""

    def __init__(self, log: AuditLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock

    async def record(
        self,
        call: Call,
        act: str,
        subject: str,
        *,
        merchant_id: str | None = None,
        before: Any = None,
        after: Any = None,
    ) -> None:
        """`before` and `after` are documents without secrets; None: it did not exist, or is gone."""
        await self._log.add(
            AuditedAct(
                at=self._clock.now_us(),
                audit_id=ids.derived("aud_", call.request_id, act),
                actor_identity=call.actor.identity,
                actor_role=call.actor.role,
                act=act,
                subject=subject,
                merchant_id=merchant_id,
                request_id=call.request_id,
                before=None if before is None else msgspec.json.encode(before).decode(),
                after=None if after is None else msgspec.json.encode(after).decode(),
            )
        )
