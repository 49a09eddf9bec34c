"""Effector `authorizations`, step 6 (Authorise): carries requests to the provider and tells what is known of them.

One attempt for each request. Whether and when to try again is the payment's to decide, with durable timers; nothing
waits here. A request that runs again after a crash is sent again under the same idempotency key, which is harmless.
"""

from __future__ import annotations

from typing import Any, TypeVar, assert_never

from prometheus_client import CollectorRegistry, Counter

from ops.runtime.clock import Clock
from ops.runtime.logs import log_context, logger
from streams.agents.messages import message_of
from streams.domain import ids
from streams.domain.commands import AttemptFailed, AuthorizationOutcome, ProviderOutcome, RefundOutcome, VoidOutcome
from streams.domain.envelope import Actor
from streams.domain.requests import AuthorizeRequest, ProviderRequest, RefundRequest, VoidRequest
from streams.exactly_once.agent import EffectorHandler
from streams.exactly_once.effects import Effects, State
from streams.exactly_once.failpoints import failpoint
from streams.exactly_once.records import Output, Record
from streams.provider.port import (
    Answer,
    Authorize,
    NotFound,
    NotProcessed,
    Operation,
    Provider,
    QueryAnswer,
    Refund,
    Refused,
    Succeeded,
    Unknown,
    Void,
)

PROVIDER_GATEWAY = Actor(identity="provider-gateway", role="service")
"""Actor of what the provider's answers cause."""

ASK_FIRST_AFTER_US = 3_600_000_000  # one hour: normally a request is a few milliseconds old

ALERT_AFTER = 5
"""Rounds: by then an authorisation is given up or being voided; whatever is still asked about wants eyes."""

KINDS: dict[str, type[ProviderRequest]] = {
    "AuthorizeRequest": AuthorizeRequest,
    "VoidRequest": VoidRequest,
    "RefundRequest": RefundRequest,
}

_OUTCOMES: dict[type[ProviderRequest], type[ProviderOutcome]] = {
    AuthorizeRequest: AuthorizationOutcome,
    VoidRequest: VoidOutcome,
    RefundRequest: RefundOutcome,
}

_OPERATIONS: dict[type[ProviderRequest], str] = {
    AuthorizeRequest: "AUTHORIZATION",
    VoidRequest: "VOID",
    RefundRequest: "REFUND",
}

Told = TypeVar("Told", bound=ProviderOutcome | AttemptFailed)


def authorizations(
    provider: Provider, outcomes: Output, clock: Clock, *, registry: CollectorRegistry | None = None
) -> EffectorHandler:
    """The handler of provider.requests; answers go to `outcomes`, keyed by payment."""
    failures = Counter(
        "payments_provider_attempts_failed_total",
        "Attempts without a decision, by operation; undecided (after five in a row) is an alert",
        ["operation", "stage"],
        registry=registry,
    )

    async def handle(record: Record, _state: State, effects: Effects) -> None:
        request: ProviderRequest | None = record.value
        if request is None:
            return
        with log_context(request_id=request.request_id, payment_id=request.payment_id):
            failpoint("before_provider")
            answer, sends = await _attempt(provider, request, clock.now_us())
            failpoint("after_provider")
            outcome = _outcome(request, answer, sends, clock.now_us())
            if isinstance(outcome, AttemptFailed):
                _report(outcome, failures)
            effects.send(outcomes, message_of(outcome), key=request.payment_id.encode())

    return handle


async def _attempt(provider: Provider, request: ProviderRequest, now_us: int) -> tuple[Answer, int]:
    """The answer to one attempt, and how often the operation has been sent by now; a status query is no send.

    While an earlier outcome is in doubt the provider is asked first; only "not found" allows another send. So it is
    for an old request: a gateway that died may have sent it, and providers forget idempotency keys after a day.
    """
    operation = _operation(request)
    sends = request.attempt - 1 if request.sends is None else request.sends
    if request.query_first or now_us - request.occurred_at > ASK_FIRST_AFTER_US:
        known: QueryAnswer = await provider.query(operation)
        if isinstance(known, Unknown):
            return known, sends
        if not isinstance(known, NotFound):
            return known, max(1, sends)  # it was found, so it was sent
    answer = await provider.send(operation)
    not_sent = isinstance(answer, NotProcessed) and answer.cause == "not_sent"
    return answer, sends if not_sent else sends + 1


def _operation(request: ProviderRequest) -> Operation:
    key, payment_id = request.transaction_id, request.payment_id
    match request:
        case AuthorizeRequest():
            return Authorize(
                key=key,
                payment_id=payment_id,
                amount=request.amount,
                currency=request.currency,
                payment_method_token=request.payment_method_token,
            )
        case VoidRequest():
            return Void(
                key=key,
                payment_id=payment_id,
                authorization_key=request.authorization_id,
                amount=request.amount,
                currency=request.currency,
                reference=request.authorization_reference,
            )
        case RefundRequest():
            return Refund(
                key=key,
                payment_id=payment_id,
                amount=request.amount,
                currency=request.currency,
                reference=request.authorization_reference,
            )
        case _:
            assert_never(request)


def _outcome(request: ProviderRequest, answer: Answer, sends: int, now_us: int) -> ProviderOutcome | AttemptFailed:
    match answer:
        case Succeeded(provider_reference=reference):
            return _final(request, sends, now_us, succeeded=True, provider_reference=reference)
        case Refused(provider_reference=reference, error=error):
            return _final(request, sends, now_us, succeeded=False, provider_reference=reference, error=error)
        case NotProcessed(error=error, retry_after_ms=retry_after_ms):
            # An earlier send in doubt was asked about first and not found: the outcome of all sends is known.
            known = True
        case Unknown(error=error, retry_after_ms=retry_after_ms):
            known = False
        case _:
            assert_never(answer)
    return _failed(request, sends, now_us, outcome_known=known, error=error, retry_after_ms=retry_after_ms)


def _final(request: ProviderRequest, sends: int, now_us: int, **fields: Any) -> ProviderOutcome:
    return _caused(
        _OUTCOMES[type(request)], request, now_us, attempts=sends, transaction_id=request.transaction_id, **fields
    )


def _failed(request: ProviderRequest, sends: int, now_us: int, **fields: Any) -> AttemptFailed:
    return _caused(
        AttemptFailed,
        request,
        now_us,
        transaction_id=request.transaction_id,
        operation=_OPERATIONS[type(request)],
        attempt=request.attempt,
        sends=sends,
        **fields,
    )


def _report(failed: AttemptFailed, failures: Counter) -> None:
    undecided = failed.attempt >= ALERT_AFTER
    failures.labels(failed.operation, "undecided" if undecided else "retrying").inc()
    log = logger().error if undecided else logger().warning
    log(
        "attempt failed",
        operation=failed.operation,
        attempt=failed.attempt,
        sends=failed.sends,
        outcome_known=failed.outcome_known,
        reason=failed.error.message,
    )


def _caused(kind: type[Told], request: ProviderRequest, now_us: int, **fields: Any) -> Told:
    """A value of `kind` caused by a request: of one request exactly one, whatever runs again."""
    return kind(
        id=ids.derived(ids.COMMAND, request.id, "outcome"),
        occurred_at=now_us,
        actor=PROVIDER_GATEWAY,
        request_id=request.request_id,
        traceparent=request.traceparent,
        reply_to=request.reply_to,
        payment_id=request.payment_id,
        **fields,
    )
