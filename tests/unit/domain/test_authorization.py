"""Steps 5 and 6: attempts, doubt, giving up, and answers that come late, twice or against each other."""

from __future__ import annotations

from streams.domain.commands import RequestDue
from streams.domain.decision import SetTimer
from streams.domain.events import CommandRepeated, PaymentAuthorized, PaymentFailed, PaymentProcessing, PaymentUpdated
from streams.domain.payment import PaymentStatus, TransactionStatus, TransactionType
from streams.domain.requests import AuthorizeRequest, VoidRequest
from streams.domain.retry import RetryPolicy, delay_ms
from tests.unit.domain.payments_in_states import (
    AMOUNT,
    DECLINED,
    NOW_US,
    REPLY_TO,
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
    declined,
    spent,
    transaction,
    transaction_id,
    voided,
)

AUTHORIZATION, VOID = TransactionType.AUTHORIZATION, TransactionType.VOID


def _due_command(timers: tuple[object, ...]) -> RequestDue:
    (timer,) = [timer for timer in timers if isinstance(timer, SetTimer)]
    assert isinstance(timer.command, RequestDue)
    return timer.command


def test_confirm_stages_the_transaction_and_its_request_together() -> None:
    decision = decided_after(after(create()), confirm())

    assert isinstance(decision.event, PaymentProcessing)
    assert decision.event.reply_to == REPLY_TO
    (staged,) = decision.event.payment.transactions
    assert (staged.status, staged.amount, staged.idempotency_key, staged.attempts) == (
        TransactionStatus.PENDING,
        AMOUNT,
        "confirm",
        0,
    )
    (request,) = decision.requests
    assert isinstance(request, AuthorizeRequest)
    assert request.transaction_id == staged.transaction_id == transaction_id(AUTHORIZATION)
    assert (request.payment_method_token, request.attempt, request.query_first) == ("pm_card_visa", 1, False)
    assert request.reply_to == REPLY_TO  # so that `Prefer: wait` is answered with the outcome


def test_an_authorised_payment_enters_the_window_of_its_day() -> None:
    decision = decided_after(after(create(), confirm()), authorized())

    assert isinstance(decision.event, PaymentAuthorized)
    (entry,) = decision.entries
    payment = decision.event.payment
    assert (entry.settlement_date, entry.amount, entry.payment_id) == (TODAY, AMOUNT, payment.payment_id)
    assert (payment.settlement_date, payment.batch_id is not None) == (TODAY, True)
    assert decision.row is not None
    assert decision.row.operations == ()


def test_the_settlement_day_is_neither_closed_nor_a_wrong_clock_s() -> None:
    processing = after(create(), confirm())
    distant = decided_after(processing, authorized(occurred_at=NOW_US + 900 * 86_400_000_000))
    closed = decided_after(processing, authorized(), last_closed_date=TODAY)

    assert distant.entries[0].settlement_date == TOMORROW
    assert closed.entries[0].settlement_date == TOMORROW


def test_a_decline_is_final_and_says_why() -> None:
    row = after(create(), confirm(), declined())

    assert row.payment.status is PaymentStatus.DECLINED
    assert row.payment.failure == transaction(row, AUTHORIZATION).error == DECLINED


def test_a_failed_attempt_is_tried_again_by_a_durable_timer() -> None:
    failed = attempt_failed(known=True)
    decision = decided_after(after(create(), confirm()), failed)

    assert isinstance(decision.event, PaymentUpdated)
    assert decision.event.reply_to is None  # whoever waits, waits for the outcome
    assert decision.requests == ()
    (timer,) = decision.timers
    assert isinstance(timer, SetTimer)
    assert timer.due_us == NOW_US + 1000 * delay_ms(RetryPolicy(), failed.transaction_id, 1)
    assert decision.row is not None
    assert transaction(decision.row, AUTHORIZATION).attempts == 1
    assert transaction(decision.row, AUTHORIZATION).error == failed.error

    fired = decided_after(decision.row, timer.command)
    (request,) = fired.requests
    assert isinstance(request, AuthorizeRequest)
    assert (request.attempt, request.query_first, request.reply_to) == (2, False, REPLY_TO)
    assert fired.event is None


def test_the_provider_s_retry_after_is_respected() -> None:
    decision = decided_after(after(create(), confirm()), attempt_failed(known=True, retry_after_ms=7_000))
    (timer,) = decision.timers
    assert isinstance(timer, SetTimer)
    assert timer.due_us == NOW_US + 7_000_000


def test_after_an_unknown_outcome_the_provider_is_always_asked_first() -> None:
    row = after(create(), confirm(), attempt_failed())
    second = decided_after(row, attempt_failed(attempt=2, known=True))
    assert second.row is not None
    assert second.row.operations[0].in_doubt
    assert _due_command(second.timers).query_first


def test_attempts_that_were_surely_not_processed_end_in_failed() -> None:
    *first, last = spent(known=True)
    decision = decided_after(after(create(), confirm(), *first), last)

    assert isinstance(decision.event, PaymentFailed)
    assert decision.event.reply_to == REPLY_TO
    payment = decision.event.payment
    assert payment.failure is not None
    assert payment.failure.code == "provider_unavailable"
    assert payment.transactions[0].attempts == 5
    assert decision.requests == ()  # nothing to void


def test_whoever_gives_up_has_asked_about_every_send() -> None:
    """A gateway may have died between a send and its answer; its successor's 503 knows nothing of that send."""
    row = after(create(), confirm())
    asked = []
    for attempt in range(1, RetryPolicy().attempts_max):
        decision = decided_after(row, attempt_failed(attempt=attempt, known=True))
        assert decision.row is not None
        row = decision.row
        asked.append(_due_command(decision.timers).query_first)
    assert asked == [False, False, False, True]  # of the attempts 2, 3, 4 and, before giving up, 5


def test_attempts_are_sends_and_not_status_queries() -> None:
    row = after(create(), confirm(), attempt_failed(sends=1), attempt_failed(attempt=2, sends=1))
    assert transaction(row, AUTHORIZATION).attempts == 1
    row = continued(row, attempt_failed(attempt=3, sends=2))
    assert transaction(row, AUTHORIZATION).attempts == 2
    due = _due_command(decided_after(row, attempt_failed(attempt=4, sends=2)).timers)
    (request,) = decided_after(continued(row, attempt_failed(attempt=4, sends=2)), due).requests
    assert (request.attempt, request.sends) == (5, 2)


def test_a_void_and_a_refund_name_the_hold_as_the_provider_knows_it() -> None:
    (void,) = decided_after(after(create(), confirm(), authorized()), cancel()).requests
    assert isinstance(void, VoidRequest)
    assert (void.authorization_id, void.authorization_reference) == (transaction_id(AUTHORIZATION), "ref")
    assert (void.amount, void.currency) == (AMOUNT, "USD")
    *first, last = spent()
    (doubt,) = decided_after(after(create(), confirm(), *first), last).requests
    assert isinstance(doubt, VoidRequest)
    assert doubt.authorization_reference is None  # it never told us


def test_a_doubt_ends_only_with_a_confirmed_void() -> None:
    *first, last = spent()
    decision = decided_after(after(create(), confirm(), *first), last)

    assert isinstance(decision.event, PaymentUpdated)
    assert decision.event.payment.status is PaymentStatus.PROCESSING
    (request,) = decision.requests
    assert isinstance(request, VoidRequest)
    assert request.authorization_id == transaction_id(AUTHORIZATION)
    assert decision.row is not None

    ended = decided_after(decision.row, voided())
    assert isinstance(ended.event, PaymentFailed)
    assert [each.status.value for each in ended.event.payment.transactions] == ["FAILED", "SUCCEEDED"]
    assert ended.event.payment.failure is not None
    assert ended.event.payment.failure.code == "provider_unavailable"


def test_one_unknown_attempt_among_known_ones_is_a_doubt() -> None:
    attempts = [attempt_failed(attempt=n, known=n != 2) for n in range(1, 6)]
    row = after(create(), confirm(), *attempts)
    assert row.payment.status is PaymentStatus.PROCESSING
    assert transaction(row, VOID).status is TransactionStatus.PENDING


def test_an_authorisation_that_arrives_while_it_is_voided_changes_nothing() -> None:
    row = after(create(), confirm(), *spent())
    late = decided_after(row, authorized())
    assert isinstance(late.event, CommandRepeated)
    assert late.row is None
    assert late.entries == ()


def test_where_the_void_is_refused_the_authorisation_is_asked_about_until_it_is_known() -> None:
    row = after(create(), confirm(), *spent())
    refused = decided_after(row, voided(succeeded=False))
    assert refused.row is not None
    assert refused.row.payment.status is PaymentStatus.PROCESSING
    due = _due_command(refused.timers)
    assert (due.transaction_id, due.query_first) == (transaction_id(AUTHORIZATION), True)

    still = decided_after(refused.row, attempt_failed(attempt=due.attempt))
    assert still.row is not None
    assert still.row.payment.count(VOID) == 1  # no second void of what cannot be voided
    assert decided_after(still.row, authorized()).row is not None


def test_late_duplicate_and_contradicting_answers_are_recorded_and_change_nothing() -> None:
    row = after(create(), confirm(), authorized())
    for answer in (authorized(), declined(), attempt_failed()):
        decision = decided_after(row, answer)
        assert isinstance(decision.event, CommandRepeated)
        assert decision.event.reply_to is None
        assert (decision.row, decision.requests, decision.entries, decision.timers) == (None, (), (), ())


def test_an_attempt_is_counted_once() -> None:
    row = after(create(), confirm(), attempt_failed())
    again = decided_after(row, attempt_failed())
    assert isinstance(again.event, CommandRepeated)
    assert again.row is None


def test_a_lost_answer_is_asked_for_again_ever_more_rarely() -> None:
    row = after(create(), confirm())
    timers = decided_after(after(create()), confirm()).timers
    waits = []
    for _ in range(5):
        decision = decided_after(row, _due_command(timers))
        (request,) = decision.requests
        assert isinstance(request, AuthorizeRequest)
        assert (request.attempt, request.query_first) == (1, True)
        (timer,) = decision.timers
        assert isinstance(timer, SetTimer)
        waits.append((timer.due_us - NOW_US) // 1_000_000)
        timers = decision.timers
        row = decision.row or row
    assert waits == [60, 120, 240, 300, 300]
    assert row.operations[0].in_doubt  # the lost answer may have been "unknown"
    assert len(row.operations) == 1


def test_history_never_goes_back_when_another_broker_s_clock_is_behind() -> None:
    row = after(create())
    event = decided_after(row, confirm(), now_us=NOW_US - 5_000_000).event
    assert event is not None
    assert event.occurred_at == NOW_US
