"""Starts settlement runs, step 8: at midnight UTC by itself, or when an operator asks through payment-api.

A run is CloseSettlementDay to every partition of `settlement.closings`. Ids are derived from date and partition, and
closing a closed day is a no-op: two schedulers, a crash in the middle or a second request close the day once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
from aiohttp import web
from confluent_kafka import KafkaException, Producer

from ops.runtime.admin import AdminRoute
from ops.runtime.clock import Clock
from ops.runtime.logs import exception_fields, logger
from ops.runtime.problem import REQUEST_ID_HEADER, problem_response
from ops.runtime.request_ids import new_request_id
from streams.agents.messages import message_of
from streams.domain import ids
from streams.domain.commands import CloseSettlementDay
from streams.domain.envelope import Actor
from streams.exactly_once.records import Output
from tables.records.errors import RecordsUnavailable
from tables.records.settlement import SettlementRecords

CLOSINGS = "settlement.closings"
OPERATOR_HEADER = "Operator-Identity"  # set by payment-api, the only certificate that may call
SCHEDULER = Actor(identity="batch-processor", role="service")
FORCE_AHEAD_MAX = timedelta(days=31)
DELIVERY_TIMEOUT_S = 1.5  # payment-api gives up after 1.8 s
SCHEDULE_RETRY_S = 30.0
SCHEDULE_PAUSE_MAX_S = 60.0  # so that a stepped clock is noticed


class RunRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What payment-api asks for."""

    settlement_date: str
    force: bool = False


class DayOpen(ValueError):  # noqa: N818
    """The day is not over, and closing it was not forced."""


class SettlementRuns:
    """A component of batch-processor: producer of the closings, the midnight schedule, and the admin route."""

    def __init__(
        self,
        kafka: Mapping[str, Any],
        closings: Output,
        records: SettlementRecords,
        clock: Clock,
        *,
        partitions: int,
        may_force: bool,
    ) -> None:
        self._kafka = kafka
        self._closings = closings
        self._records = records
        self._clock = clock
        self._partitions = partitions
        self._may_force = may_force
        self._producer: Producer | None = None
        self._schedule: asyncio.Task[None] | None = None

    def route(self) -> AdminRoute:
        """POST /settlement_runs, for payment-api."""
        return AdminRoute("POST", "/settlement_runs", self._handle, frozenset({"payment-api"}))

    async def start(self) -> None:
        """Open the producer and begin to watch for midnight."""
        timeout_ms = int(DELIVERY_TIMEOUT_S * 1000)
        times = {"delivery.timeout.ms": timeout_ms, "request.timeout.ms": timeout_ms, "linger.ms": 1}
        self._producer = Producer({**self._kafka, **times, "acks": "all", "enable.idempotence": True})
        self._schedule = asyncio.create_task(self._close_at_midnights(), name="midnight schedule")

    async def stop(self) -> None:
        """Stop the schedule; every closing was acknowledged before its run was answered."""
        if self._schedule is not None:
            self._schedule.cancel()
            await asyncio.gather(self._schedule, return_exceptions=True)

    async def close(self, settlement_date: date, *, force: bool, actor: Actor, request_id: str) -> str:
        """Close the day and all before it; returns the run's status.

        Raises DayOpen, RecordsUnavailable, or KafkaException when a closing was not acknowledged: ask again.
        """
        today = self._today()
        if settlement_date >= today and not (force and self._may_force and settlement_date <= today + FORCE_AHEAD_MAX):
            raise DayOpen(f"{settlement_date} is not over yet (UTC)")
        day = settlement_date.isoformat()
        await self._records.create_run(
            day, requested_at=self._clock.now_us(), requested_by=actor.identity, forced=force
        )
        run = await self._records.run(day)
        if run is None or run.status == "CLOSING":
            await self._send(day, actor, request_id)
        return "CLOSING" if run is None else run.status

    async def _send(self, day: str, actor: Actor, request_id: str) -> None:
        """CloseSettlementDay to every partition of payments; returns when all are acknowledged."""
        loop = asyncio.get_running_loop()
        waiting = []
        assert self._producer is not None
        for partition in range(self._partitions):
            command = CloseSettlementDay(
                id=ids.derived("cmd_", "close", day, str(partition)),
                occurred_at=self._clock.now_us(),
                actor=actor,
                request_id=request_id,
                date=day,
                partition=partition,
            )
            future: asyncio.Future[None] = loop.create_future()
            self._producer.produce(
                CLOSINGS,
                self._closings.encode(message_of(command)),
                f"close:{day}:{partition}".encode(),
                partition,
                on_delivery=_resolver(loop, future),
            )
            waiting.append(future)
        await asyncio.to_thread(self._producer.flush, DELIVERY_TIMEOUT_S)
        async with asyncio.timeout(DELIVERY_TIMEOUT_S):
            await asyncio.gather(*waiting)

    async def _close_at_midnights(self) -> None:
        """Close yesterday now (the scheduler may have been down over midnight), then each day when it is over."""
        closed: date | None = None
        while True:
            yesterday = self._today() - timedelta(days=1)
            pause_s = min(SCHEDULE_PAUSE_MAX_S, self._seconds_to_midnight() + 0.5)
            if closed != yesterday:
                try:
                    await self.close(yesterday, force=False, actor=SCHEDULER, request_id=new_request_id())
                    closed = yesterday
                except (RecordsUnavailable, KafkaException, TimeoutError) as error:
                    logger().warning("settlement day not closed yet", **exception_fields(error))
                    pause_s = SCHEDULE_RETRY_S
            await asyncio.sleep(pause_s)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        request_id = request.headers.get(REQUEST_ID_HEADER) or new_request_id()
        try:
            wanted = msgspec.json.decode(await request.read(), type=RunRequest)
            day = date.fromisoformat(wanted.settlement_date)
        except ValueError as error:
            return problem_response(400, "invalid_request", str(error), request_id)
        actor = Actor(identity=request.headers.get(OPERATOR_HEADER, "operator"), role="operator")
        try:
            status = await self.close(day, force=wanted.force, actor=actor, request_id=request_id)
        except DayOpen as error:
            return problem_response(409, "settlement_date_open", str(error), request_id)
        except (RecordsUnavailable, KafkaException, TimeoutError):
            return problem_response(503, "unavailable", "the day could not be closed now: ask again", request_id)
        return web.json_response({"settlement_date": wanted.settlement_date, "status": status}, status=202)

    def _today(self) -> date:
        return self._now().date()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_us() / 1_000_000, UTC)

    def _seconds_to_midnight(self) -> float:
        now = self._now()
        midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
        return (midnight - now).total_seconds()


def _resolver(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> Any:
    """A delivery callback that settles `future` in its loop, from whatever thread serves the callbacks."""

    def settle(error: Any) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(KafkaException(error))

    return lambda error, _message: loop.call_soon_threadsafe(settle, error)
