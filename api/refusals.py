"""Refusals of access (403) in the audit log: who tried what. Their volume is bounded, and no answer waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

from prometheus_client import CollectorRegistry, Counter

from api.audit import AuditLog, audited
from api.calls import Call
from api.limits import TokenBuckets
from ops.runtime.clock import Clock
from ops.runtime.logs import exception_fields, logger
from tables.records.audit import AuditedAct
from tables.records.errors import RecordsRefused, RecordsUnavailable

ACT = "access.refused"
PER_KIND_S = 60.0  # one entry a minute for each actor, operation and code; a program that repeats itself says no more
PENDING_MAX = 256
RETRY_S = 1.0
FLUSH_S = 2.0


class RefusalAudit:
    """Writes refusals down in the background. A component: start, note, stop."""

    def __init__(self, log: AuditLog, clock: Clock, registry: CollectorRegistry) -> None:
        self._log = log
        self._clock = clock
        self._kinds = TokenBuckets(1.0 / PER_KIND_S, 1.0)
        self._pending: asyncio.Queue[AuditedAct] = asyncio.Queue(PENDING_MAX)
        self._task: asyncio.Task[None] | None = None
        self._unaudited = Counter(
            "payments_refusals_unaudited",
            "Refusals left out of the audit log: repeated, or too many",
            registry=registry,
        )

    async def start(self) -> None:
        self._task = asyncio.create_task(self._write(), name="refusals")

    async def stop(self) -> None:
        """Writes what is pending, if that can be done soon."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await self._pending.join()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def note(self, call: Call, path: str | None, code: str) -> None:
        """Remembers that a known caller was refused; who is not known at all gets no entry."""
        if call.caller is None and call.operator is None:
            return
        subject = f"{call.request.method} {path or 'unknown'}"
        actor = call.actor
        if self._pending.full() or self._kinds.take(f"{actor.identity} {subject} {code}") > 0.0:
            self._unaudited.inc()
            return
        merchant_id = call.caller.merchant_id if call.caller is not None else None
        act = audited(call, ACT, subject, self._clock.now_us(), merchant_id=merchant_id, after={"code": code})
        self._pending.put_nowait(act)

    async def _write(self) -> None:
        while True:
            await self._write_until_kept(await self._pending.get())
            self._pending.task_done()

    async def _write_until_kept(self, act: AuditedAct) -> None:
        for pause_s in itertools.chain((0.0,), itertools.repeat(RETRY_S)):  # an outage ends; the queue is bounded
            await asyncio.sleep(pause_s)
            if await self._written(act):
                return

    async def _written(self, act: AuditedAct) -> bool:
        try:
            await self._log.add(act)
        except RecordsUnavailable:
            logger().warning("refusal not audited yet", actor=act.actor_identity, subject=act.subject)
            return False
        except RecordsRefused as error:
            logger().error("refusal not audited", **exception_fields(error))
            self._unaudited.inc()
        return True
