"""Effector `settlement_submissions`, step 8 (Settle): submits chunks to the provider and tells each payment's result.

A chunk goes out only when the items that `records` wrote from the payments' own events come to the control totals that
the settlement agent counted: two independent paths. While they differ, or the provider is away, a durable timer keeps
the request; it is never given up. An unknown outcome is asked about before anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, assert_never

import msgspec
from prometheus_client import CollectorRegistry, Counter

from ops.runtime.clock import Clock
from ops.runtime.logs import log_context, logger
from streams.agents.authorizations import PROVIDER_GATEWAY
from streams.agents.messages import message_of
from streams.domain import ids
from streams.domain.commands import SettlementOutcome
from streams.domain.envelope import Value
from streams.domain.payment import ProviderError
from streams.domain.retry import RetryPolicy, delay_ms
from streams.domain.settlement import SettleChunkRequest
from streams.exactly_once.effects import Effects, State
from streams.exactly_once.records import TIMERS, Output, Record
from streams.provider.port import (
    Answer,
    ItemResult,
    NotFound,
    NotProcessed,
    Provider,
    Refused,
    Settle,
    SettlementItem,
    Succeeded,
    Unknown,
)
from tables.records.errors import RecordsUnavailable

KINDS = {"SettleChunkRequest": SettleChunkRequest}

TIMER = "submit"
ALERT_AFTER = 6  # waits in a row, about 15 s: longer than `records` takes to catch up with a closed day


class RecordedItem(Protocol):
    """A payment of a batch as `records` wrote it from the payment's own events."""

    @property
    def payment_id(self) -> str: ...

    @property
    def amount(self) -> int: ...

    @property
    def currency(self) -> str: ...

    @property
    def authorization_reference(self) -> str | None: ...


class RecordedItems(Protocol):
    """Where the items are read. Raises RecordsUnavailable during an outage."""

    async def items_between(self, batch_id: str, first: str, last: str) -> Sequence[RecordedItem]:
        """The batch's items with first <= payment_id <= last, in that order, removed ones left out."""
        ...


class Submission(Value, frozen=True, kw_only=True, gc=False):
    """A request on its way to the provider, as a timer keeps it. `waits` counts the timers so far."""

    request: SettleChunkRequest
    in_doubt: bool = False
    waits: int = 0


class Waiting(Value, frozen=True, kw_only=True, gc=False):
    """Why a submission has to be taken up again later."""

    reason: str
    in_doubt: bool
    retry_after_ms: int | None = None


_decode_submission = msgspec.msgpack.Decoder(Submission).decode


class SettlementSubmissions:
    """The handler of settlement.requests and of its own timers; results go to `outcomes`, keyed by payment."""

    def __init__(
        self,
        provider: Provider,
        items: RecordedItems,
        outcomes: Output,
        clock: Clock,
        *,
        policy: RetryPolicy,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._provider = provider
        self._items = items
        self._outcomes = outcomes
        self._clock = clock
        self._policy = policy
        self._waits = Counter(
            "payments_settlement_chunk_waits_total",
            "Submissions of a chunk put off, by reason; control_totals is an alert",
            ["reason"],
            registry=registry,
        )

    async def __call__(self, record: Record, _state: State, effects: Effects) -> None:
        """One attempt to submit a chunk."""
        submission = _submission_of(record)
        if submission is None:
            return  # of a newer release
        request = submission.request
        with log_context(request_id=request.request_id, batch_id=request.batch_id, chunk=request.chunk):
            results = await self._submit(submission)
            if isinstance(results, Waiting):
                self._put_off(record, submission, results, effects)
                return
            for result in results:
                self._tell(request, result, effects)

    async def _submit(self, submission: Submission) -> Sequence[ItemResult] | Waiting:
        """A result for each payment of the chunk, or why there is none yet."""
        request = submission.request
        try:
            items = await self._items.items_between(request.batch_id, request.first_payment_id, request.last_payment_id)
        except RecordsUnavailable:
            return Waiting(reason="records_unavailable", in_doubt=submission.in_doubt)
        if (len(items), sum(item.amount for item in items)) != (request.count, request.amount):
            return Waiting(reason="control_totals", in_doubt=submission.in_doubt)
        answer = await self._ask(submission, items)
        match answer:
            case Succeeded(items=results):
                if sorted(result.payment_id for result in results) != sorted(item.payment_id for item in items):
                    return Waiting(reason="answer_incomplete", in_doubt=True)
                return results
            case Refused(error=error):
                return [_refused(item.payment_id, error) for item in items]
            case NotProcessed(retry_after_ms=retry_after_ms):
                return Waiting(reason="not_processed", in_doubt=submission.in_doubt, retry_after_ms=retry_after_ms)
            case Unknown(retry_after_ms=retry_after_ms):
                return Waiting(reason="outcome_unknown", in_doubt=True, retry_after_ms=retry_after_ms)
            case _:
                assert_never(answer)

    async def _ask(self, submission: Submission, items: Sequence[RecordedItem]) -> Answer:
        """The provider's answer; while an earlier one is in doubt, only "not found" allows another send."""
        operation = _operation(submission.request, items)
        if submission.in_doubt:
            known = await self._provider.query(operation)
            if not isinstance(known, NotFound):
                return known
        return await self._provider.send(operation)

    def _put_off(self, record: Record, submission: Submission, waiting: Waiting, effects: Effects) -> None:
        waits = submission.waits + 1
        kept = Submission(request=submission.request, in_doubt=waiting.in_doubt, waits=waits)
        delay = delay_ms(self._policy, submission.request.id, waits, waiting.retry_after_ms)
        due_ms = self._clock.now_us() // 1000 + delay
        effects.set_timer(record.key, TIMER, due_ms, msgspec.msgpack.encode(kept))
        self._waits.labels(waiting.reason).inc()
        log = logger().error if waits >= ALERT_AFTER else logger().warning
        log("settlement chunk waits", reason=waiting.reason, waits=waits, delay_ms=delay)

    def _tell(self, request: SettleChunkRequest, result: ItemResult, effects: Effects) -> None:
        outcome = SettlementOutcome(
            id=ids.derived(ids.COMMAND, request.id, result.payment_id),
            occurred_at=self._clock.now_us(),
            actor=PROVIDER_GATEWAY,
            request_id=request.request_id,
            traceparent=request.traceparent,
            reply_to=None,
            payment_id=result.payment_id,
            transaction_id=ids.settlement_transaction_id(result.payment_id, request.settlement_date),
            batch_id=request.batch_id,
            chunk=request.chunk,
            succeeded=result.error is None,
            provider_reference=result.provider_reference,
            error=result.error,
        )
        effects.send(self._outcomes, message_of(outcome), key=result.payment_id.encode())


def _operation(request: SettleChunkRequest, items: Sequence[RecordedItem]) -> Settle:
    chunk = tuple(
        SettlementItem(
            key=ids.settlement_transaction_id(item.payment_id, request.settlement_date),
            payment_id=item.payment_id,
            amount=item.amount,
            currency=item.currency,
            reference=item.authorization_reference,
        )
        for item in items
    )
    key = f"{request.batch_id}:{request.chunk}"
    return Settle(key=key, batch_id=request.batch_id, chunk=request.chunk, items=chunk)


def _submission_of(record: Record) -> Submission | None:
    if record.topic == TIMERS:
        return _decode_submission(record.value.payload)
    request: SettleChunkRequest | None = record.value
    return None if request is None else Submission(request=request)


def _refused(payment_id: str, error: ProviderError) -> ItemResult:
    return ItemResult(
        payment_id=payment_id,
        error=ProviderError(code="settlement_failed", retryable=error.retryable, message=error.message),
    )
