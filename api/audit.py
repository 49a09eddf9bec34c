"""The audit log over HTTP and behind it: who did what to what, kept before the answer is given."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from aiohttp import web

from api.calls import Call
from api.documents import ActorDocument, AuditEntryDocument, ListDocument
from api.lists import ListQuery
from api.problems import Problem
from api.routes import READERS, Route
from ops.runtime.clock import Clock, to_rfc3339
from tables.records.audit import AuditedAct

PREFIX = "aud_"


class AuditLog(Protocol):
    """Where acts are kept. Raises RecordsUnavailable during an outage."""

    async def add(self, act: AuditedAct) -> None: ...


class AuditReads(Protocol):
    """What was kept, newest first. Raises RecordsUnavailable during an outage."""

    async def find(self, at: int, audit_id: str) -> AuditedAct | None: ...

    async def newest(self, *, limit: int, before: AuditedAct | None = None) -> Sequence[AuditedAct]: ...


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
        at = self._clock.now_us()
        await self._log.add(audited(call, act, subject, at, merchant_id=merchant_id, before=before, after=after))


class AuditTrail:
    """The handler of /audit_log."""

    def __init__(self, reads: AuditReads) -> None:
        self._reads = reads

    def routes(self) -> list[Route]:
        """The internal route of the audit log."""
        return [
            Route(
                method="GET",
                path="/audit_log",
                handler=self.list_page,
                summary="Audited acts, newest first",
                access=READERS,
                query={"limit": "1 to 100, default 10", "starting_after": "the last audit_id of the page before"},
                answers={200: ListDocument},
                problems=frozenset({"unavailable"}),
            )
        ]

    async def list_page(self, call: Call) -> web.Response:
        page = ListQuery.of(call.query)
        last = await self._found(page.starting_after) if page.starting_after is not None else None
        found = await self._reads.newest(limit=page.limit + 1, before=last)
        data = [_document(act) for act in found[: page.limit]]
        return call.answer(200, ListDocument(data=data, has_more=len(found) > page.limit))

    async def _found(self, audit_id: str) -> AuditedAct:
        at = time_in(audit_id)
        act = await self._reads.find(at, audit_id) if at is not None else None
        if act is None:
            raise Problem("invalid_request", "there is no such entry", param="starting_after")
        return act


def audited(
    call: Call,
    act: str,
    subject: str,
    at: int,
    *,
    merchant_id: str | None = None,
    before: Any = None,
    after: Any = None,
) -> AuditedAct:
    """What `call` did (or was refused) at `at`, microseconds."""
    actor = call.actor
    return AuditedAct(
        at=at,
        audit_id=audit_id_of(at, call.request_id, act),
        actor_identity=actor.identity,
        actor_role=actor.role,
        act=act,
        subject=subject,
        merchant_id=merchant_id,
        request_id=call.request_id,
        before=None if before is None else msgspec.json.encode(before).decode(),
        after=None if after is None else msgspec.json.encode(after).decode(),
    )


def audit_id_of(at: int, request_id: str, act: str) -> str:
    """The id of an act: its time (which finds its row again), then what tells it from others of that time."""
    told = hashlib.sha256(f"{request_id} {act}".encode()).digest()[:8]
    return PREFIX + base64.b32encode(at.to_bytes(8) + told).decode().rstrip("=").lower()


def time_in(audit_id: str) -> int | None:
    """The time in an id, microseconds; None for what is no id of an act."""
    text = audit_id.removeprefix(PREFIX)
    if text == audit_id or len(text) != 26 or not text.islower():
        return None
    try:
        at = int.from_bytes(base64.b32decode(text.upper() + "======")[:8])
    except (binascii.Error, ValueError):
        return None
    return at if at < 2**56 else None


def _document(act: AuditedAct) -> AuditEntryDocument:
    return AuditEntryDocument(
        audit_id=act.audit_id,
        actor=ActorDocument(identity=act.actor_identity, role=act.actor_role),
        act=act.act,
        subject=act.subject,
        request_id=act.request_id,
        at=to_rfc3339(act.at),
        before=None if act.before is None else msgspec.json.decode(act.before),
        after=None if act.after is None else msgspec.json.decode(act.after),
    )
