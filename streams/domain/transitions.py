"""The state machines, as data. What is not listed here does not happen."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from streams.domain.commands import CancelPayment, ConfirmPayment, MerchantCommand, RefundPayment
from streams.domain.events import (
    PaymentAuthorized,
    PaymentCanceled,
    PaymentCreated,
    PaymentDeclined,
    PaymentEvent,
    PaymentExpired,
    PaymentFailed,
    PaymentProcessing,
    PaymentRefunded,
    PaymentSettled,
    PaymentUpdated,
)
from streams.domain.payment import Payment, PaymentStatus, TransactionStatus

TRANSITIONS: Mapping[tuple[PaymentStatus | None, PaymentStatus], type[PaymentEvent]] = MappingProxyType(
    {
        (None, PaymentStatus.PENDING): PaymentCreated,
        (PaymentStatus.PENDING, PaymentStatus.PROCESSING): PaymentProcessing,
        (PaymentStatus.PENDING, PaymentStatus.CANCELED): PaymentCanceled,
        (PaymentStatus.PENDING, PaymentStatus.EXPIRED): PaymentExpired,
        (PaymentStatus.PROCESSING, PaymentStatus.AUTHORIZED): PaymentAuthorized,
        (PaymentStatus.PROCESSING, PaymentStatus.DECLINED): PaymentDeclined,
        (PaymentStatus.PROCESSING, PaymentStatus.FAILED): PaymentFailed,
        (PaymentStatus.AUTHORIZED, PaymentStatus.CANCELED): PaymentCanceled,
        (PaymentStatus.AUTHORIZED, PaymentStatus.SETTLED): PaymentSettled,
        (PaymentStatus.AUTHORIZED, PaymentStatus.FAILED): PaymentFailed,
        (PaymentStatus.SETTLED, PaymentStatus.SETTLED): PaymentRefunded,
        (PaymentStatus.SETTLED, PaymentStatus.REFUNDED): PaymentRefunded,
    }
)
"""(from, to) -> the event that tells of it. No step is skipped, reverted or repeated; each raises the version."""

ACCEPTED_IN: Mapping[type[MerchantCommand], frozenset[PaymentStatus]] = MappingProxyType(
    {
        ConfirmPayment: frozenset({PaymentStatus.PENDING}),
        CancelPayment: frozenset({PaymentStatus.PENDING, PaymentStatus.AUTHORIZED}),
        RefundPayment: frozenset({PaymentStatus.SETTLED}),
    }
)
"""In which states a merchant's command has an effect; in every other it is `invalid_state`."""

TRANSACTION_TRANSITIONS = frozenset(
    {
        (TransactionStatus.PENDING, TransactionStatus.SUCCEEDED),
        (TransactionStatus.PENDING, TransactionStatus.FAILED),
    }
)


def evolve(payment: Payment | None, event: PaymentEvent) -> Payment:
    """Fold one event: the payment after it. Asserts that the event may follow `payment`; replays are the caller's."""
    after = event.payment
    before_version, before_revision = (0, 0) if payment is None else (payment.version, payment.revision)
    assert after.revision == before_revision + 1, f"revision {after.revision} after {before_revision}"
    if isinstance(event, PaymentUpdated):
        assert payment is not None, "an update before the creation"
        assert after.status is payment.status, f"an update from {payment.status} to {after.status}"
        assert after.version == before_version, "an update raised the version"
        assert event.sequence is None, "an update has a sequence"
    else:
        step = (None if payment is None else payment.status, after.status)
        assert TRANSITIONS.get(step) is type(event), f"{type(event).__name__} cannot tell of {step}"
        assert after.version == before_version + 1 == event.sequence, f"version {after.version} after {before_version}"
    assert_transactions_follow(payment, after)
    return after


def assert_transactions_follow(before: Payment | None, after: Payment) -> None:
    """Asserts that transactions are only added or answered, never removed, reordered or answered twice."""
    earlier = () if before is None else before.transactions
    assert len(after.transactions) >= len(earlier), "a transaction was removed"
    for old, new in zip(earlier, after.transactions, strict=False):
        assert old.transaction_id == new.transaction_id, "transactions were reordered"
        step = (old.status, new.status)
        assert old.status is new.status or step in TRANSACTION_TRANSITIONS, f"a transaction made the step {step}"
