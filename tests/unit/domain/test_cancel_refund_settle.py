"""What follows an authorisation: cancelling, settling on up to three days, giving back."""

from __future__ import annotations

import pytest

from streams.domain.commands import PaymentCommand
from streams.domain.events import CommandRejected, PaymentRefunded
from streams.domain.payment import PaymentStatus, ProviderError, TransactionStatus, TransactionType
from streams.domain.requests import RefundRequest, VoidRequest
from streams.domain.settlement import EntryAdded, EntryFailed, EntryRemoved, EntrySettled
from tests.unit.domain.payments_in_states import (
    AMOUNT,
    PATHS,
    REFUSED,
    TODAY,
    TOMORROW,
    after,
    attempt_failed,
    authorized,
    cancel,
    confirm,
    continued,
    create,
    decided_after,
    refund,
    refunded,
    row_in,
    settled,
    spent,
    transaction,
    voided,
)

VOID, REFUND, SETTLEMENT = TransactionType.VOID, TransactionType.REFUND, TransactionType.SETTLEMENT
RETRYABLE = ProviderError(code="settlement_failed", retryable=True, message="not today")


def test_cancelling_an_authorised_payment_leaves_its_window_at_once() -> None:
    decision = decided_after(row_in("AUTHORIZED"), cancel())

    (entry,) = decision.entries
    assert isinstance(entry, EntryRemoved)
    assert entry.settlement_date == TODAY
    (request,) = decision.requests
    assert isinstance(request, VoidRequest)
    assert request.reply_to is None  # the 202 was the answer
    assert decision.row is not None
    payment = decision.row.payment
    assert (payment.status, payment.batch_id, payment.settlement_date) == (PaymentStatus.AUTHORIZED, None, None)
    assert decision.row.idempotency[-1].status_code == 202


def test_a_payment_whose_day_has_closed_can_no_longer_be_voided() -> None:
    decision = decided_after(row_in("AUTHORIZED"), cancel(), last_closed_date=TODAY)
    assert isinstance(decision.event, CommandRejected)
    assert (decision.event.code, decision.event.idempotency_kept) == ("payment_in_settlement", True)


@pytest.mark.parametrize("ending", [[voided(succeeded=False)], spent(VOID, known=True)])
def test_a_refused_void_puts_the_payment_back_into_settlement(ending: list[PaymentCommand]) -> None:
    voiding = continued(after(*PATHS["VOIDING"]), *ending[:-1])
    decision = decided_after(voiding, ending[-1], last_closed_date=TODAY)

    (entry,) = decision.entries
    assert isinstance(entry, EntryAdded)
    assert entry.settlement_date == TOMORROW
    assert decision.row is not None
    assert decision.row.payment.version == 3  # no version: its merchant sees the failed VOID transaction only
    assert transaction(decision.row, VOID).status is TransactionStatus.FAILED
    assert decided_after(decision.row, cancel("again")).row is not None


def test_a_void_in_doubt_is_never_given_up() -> None:
    row = after(*PATHS["VOIDING"], *spent(VOID), attempt_failed(VOID, 6, known=True))
    assert transaction(row, VOID).status is TransactionStatus.PENDING
    assert row.operations[0].attempt == 7


def test_a_settled_payment_has_its_settlement_transaction_and_is_counted() -> None:
    decision = decided_after(row_in("AUTHORIZED"), settled())

    assert decision.row is not None
    capture = transaction(decision.row, SETTLEMENT)
    assert (capture.status, capture.amount) == (TransactionStatus.SUCCEEDED, AMOUNT)
    assert capture.idempotency_key == f"{decision.row.payment.batch_id}:0"
    (entry,) = decision.entries
    assert isinstance(entry, EntrySettled)


def test_a_retryable_refusal_re_enters_the_next_day_three_days_at_most() -> None:
    row = row_in("AUTHORIZED")
    assert row is not None
    for day, following in ((TODAY, TOMORROW), (TOMORROW, "2026-09-23")):
        decision = decided_after(row, settled(day, error=RETRYABLE), last_closed_date=day)
        failed, added = decision.entries
        assert isinstance(failed, EntryFailed)
        assert isinstance(added, EntryAdded)
        assert (failed.settlement_date, failed.retryable) == (day, True)
        assert added.settlement_date == following
        assert decision.row is not None
        row = decision.row
        assert row.payment.status is PaymentStatus.AUTHORIZED
        assert row.payment.settlement_date == following

    decision = decided_after(row, settled("2026-09-23", error=RETRYABLE))
    assert decision.row is not None
    payment = decision.row.payment
    assert payment.failure is not None
    assert (payment.status, payment.failure.code) == (PaymentStatus.FAILED, "settlement_failed")
    assert payment.failure in [transaction.error for transaction in payment.transactions]
    assert len({each.transaction_id for each in payment.transactions if each.type is SETTLEMENT}) == 3
    (entry,) = decision.entries
    assert isinstance(entry, EntryFailed)
    assert not entry.retryable
    (request,) = decision.requests
    assert isinstance(request, VoidRequest)  # releases the hold


def test_a_refusal_that_comes_late_skips_the_days_that_have_closed_since() -> None:
    decision = decided_after(row_in("AUTHORIZED"), settled(TODAY, error=RETRYABLE), last_closed_date=TOMORROW)
    assert decision.row is not None
    assert decision.row.payment.settlement_date == "2026-09-23"


def test_a_refusal_for_good_ends_at_once() -> None:
    row = after(*PATHS["AUTHORIZED"], settled(error=REFUSED))
    assert row.payment.status is PaymentStatus.FAILED


def test_an_answer_for_a_batch_that_the_payment_has_left_changes_nothing() -> None:
    row = after(*PATHS["AUTHORIZED"], settled(error=RETRYABLE))
    assert decided_after(row, settled(TODAY)).row is None
    assert decided_after(row, settled(TODAY, error=RETRYABLE)).entries == ()


def test_refunds_are_reserved_and_each_success_is_a_version() -> None:
    row = after(*PATHS["SETTLED"], refund(1000), refund(500, key="two"))
    assert row.payment.amount_refunded == 0
    too_much = decided_after(row, refund(1001, key="three"))
    assert isinstance(too_much.event, CommandRejected)
    assert (too_much.event.code, too_much.event.idempotency_kept) == ("amount_exceeds_refundable", True)

    first = decided_after(row, refunded(0))
    assert isinstance(first.event, PaymentRefunded)
    assert (first.event.payment.amount_refunded, first.event.payment.status) == (1000, PaymentStatus.SETTLED)
    assert first.row is not None
    assert first.row.payment.version == row.payment.version + 1
    row = continued(first.row, refund(key="rest"))
    assert transaction(row, REFUND).amount == 1000
    row = continued(row, refunded(1), refunded(2))
    assert (row.payment.status, row.payment.amount_refunded) == (PaymentStatus.REFUNDED, AMOUNT)


def test_a_refused_refund_releases_its_amount() -> None:
    row = after(*PATHS["SETTLED"], refund(), refunded(succeeded=False), refund(key="again"))
    assert [each.status.value for each in row.payment.transactions if each.type is REFUND] == ["FAILED", "PENDING"]
    error = row.payment.transactions[2].error
    assert error is not None
    assert error.code == "refund_refused"


@pytest.mark.parametrize("amount", [0, -1, AMOUNT + 1])
def test_an_amount_that_cannot_be_given_back_is_refused(amount: int) -> None:
    decision = decided_after(row_in("SETTLED"), refund(amount))
    assert isinstance(decision.event, CommandRejected)
    assert decision.event.code == "amount_exceeds_refundable"


def test_a_refund_s_request_carries_its_own_amount() -> None:
    (request,) = decided_after(row_in("SETTLED"), refund(700)).requests
    assert isinstance(request, RefundRequest)
    assert request.amount == 700


def test_states_that_hold_no_money_have_no_window() -> None:
    for path in ([create()], [create(), confirm()], [create(), cancel()]):
        assert after(*path).payment.batch_id is None
    assert after(create(), confirm(), authorized()).payment.batch_id is not None
