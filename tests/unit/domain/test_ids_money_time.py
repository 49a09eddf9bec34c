"""Ids, money, back-off and settlement days: small rules, each as a table."""

from __future__ import annotations

import base64
import uuid

import pytest

from streams.domain import ids
from streams.domain.money import exponents, formatted, is_amount, is_currency
from streams.domain.retry import RetryPolicy, answer_wait_ms, delay_ms
from streams.domain.settlement_days import day_of, first_open, next_day, open_day

DAY_US = 86_400_000_000


def test_a_payment_s_id_is_that_of_the_contract() -> None:
    """pay_ + base32(uuid5(uuid5(NAMESPACE, merchant), key)), here with the standard library's own functions."""
    namespace = uuid.UUID(str(ids.NAMESPACE))
    expected = uuid.uuid5(uuid.uuid5(namespace, "mer_1"), "Schlüssel 1").bytes
    letters = base64.b32encode(expected).decode().rstrip("=").lower()
    assert ids.payment_id("mer_1", "Schlüssel 1") == f"pay_{letters}"


def test_the_same_input_gives_the_same_id_for_ever() -> None:
    assert ids.event_id("pay_1", 1) == "evt_xqmh7kxuojjhrb3s66q5hodovy"
    assert ids.batch_id("mer_1", "USD", "2026-11-22") == "sb_cdol6a7cljmivfy6i2bmgsnezy"


def test_ids_of_different_things_differ() -> None:
    made = {
        ids.event_id("pay_1", 1),
        ids.event_id("pay_1", 11),
        ids.event_id("pay_11", 1),
        ids.transaction_id("pay_1", "VOID", 0),
        ids.transaction_id("pay_1", "VOID", 1),
        ids.transaction_id("pay_1", "REFUND", 0),
        ids.settlement_transaction_id("pay_1", "2026-11-22"),
        ids.settlement_transaction_id("pay_1", "2026-11-23"),
    }
    assert len({each.partition("_")[2] for each in made}) == 8


def test_unkeyed_ids_sort_by_time() -> None:
    made = [ids.unkeyed(ids.PAYMENT) for _ in range(100)]
    assert len(set(made)) == 100
    assert made[0][:10] <= made[-1][:10]


@pytest.mark.parametrize("data", [bytes(16), b"\xff" * 16, bytes(range(16))])
def test_the_encoding_is_base32(data: bytes) -> None:
    assert ids.encoded("x_", data) == "x_" + base64.b32encode(data).decode().rstrip("=").lower()


@pytest.mark.parametrize(
    ("code", "accepted"),
    [("USD", True), ("JPY", True), ("BHD", True), ("XAU", False), ("XXX", False), ("usd", False), ("US", False)],
)
def test_currencies_are_iso_4217(code: str, accepted: bool) -> None:
    assert is_currency(code) is accepted


@pytest.mark.parametrize(
    ("amount", "accepted"), [(0, False), (-1, False), (1, True), (99_999_999_999, True), (100_000_000_000, False)]
)
def test_amounts_have_limits(amount: int, accepted: bool) -> None:
    assert is_amount(amount) is accepted


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (2500, "USD", "25.00"),
        (5, "USD", "0.05"),
        (2500, "JPY", "2500"),
        (2500, "BHD", "2.500"),
        (-7, "EUR", "-0.07"),
        (99_999_999_999, "USD", "999999999.99"),
    ],
)
def test_amounts_are_shown_with_their_currency_s_decimals(amount: int, currency: str, text: str) -> None:
    assert formatted(amount, currency) == text
    assert exponents()[currency] == len(text.partition(".")[2])


PLAIN = RetryPolicy(jitter=0.0)


@pytest.mark.parametrize(
    ("attempt", "retry_after_ms", "expected"),
    [
        (1, None, 250),
        (2, None, 500),
        (3, None, 1_000),
        (4, None, 2_000),
        (8, None, 30_000),
        (10_000, None, 30_000),
        (1, 7_000, 7_000),
        (4, 1_000, 2_000),
        (1, 90_000, 90_000),
    ],
)
def test_the_back_off_doubles_up_to_its_cap(attempt: int, retry_after_ms: int | None, expected: int) -> None:
    assert delay_ms(PLAIN, "txn_1", attempt, retry_after_ms) == expected


def test_the_jitter_is_derived_and_spreads() -> None:
    policy = RetryPolicy()
    delays = [delay_ms(policy, f"txn_{n}", 1) for n in range(1000)]
    assert delays == [delay_ms(policy, f"txn_{n}", 1) for n in range(1000)]
    assert 200 <= min(delays) < 205
    assert 295 < max(delays) <= 300


def test_five_time_outs_of_five_seconds_are_decided_within_the_contract_s_45_s() -> None:
    policy = RetryPolicy()
    waits = sum(delay_ms(policy, "txn_1", attempt) for attempt in range(1, policy.attempts_max))
    assert 5_000 * policy.attempts_max + waits < 40_000


def test_an_answer_is_waited_for_ever_longer() -> None:
    assert [answer_wait_ms(PLAIN, n) // 1000 for n in (0, 1, 2, 3, 4, 1000)] == [30, 60, 120, 240, 300, 300]


def test_days_follow_the_calendar() -> None:
    assert day_of(0) == "1970-01-01"
    assert day_of(DAY_US - 1) == "1970-01-01"
    assert next_day("2028-02-28") == "2028-02-29"
    assert next_day("2026-12-31") == "2027-01-01"


@pytest.mark.parametrize(
    ("stamped_day", "last_closed", "expected"),
    [
        (10, None, "1970-01-11"),
        (9, None, "1970-01-10"),  # a late outcome belongs to its own day while that is open
        (11, None, "1970-01-12"),  # just past midnight on a faster clock
        (20, None, "1970-01-12"),  # a clock that is wrong
        (10, "1970-01-11", "1970-01-12"),
        (9, "1970-01-20", "1970-01-21"),
        (11, "1970-01-11", "1970-01-12"),
    ],
)
def test_the_settlement_day_is_open_and_near(stamped_day: int, last_closed: str | None, expected: str) -> None:
    at_us, seen_us = stamped_day * DAY_US + 5, 10 * DAY_US + 5
    assert open_day(at_us, highest_us=seen_us, last_closed_date=last_closed) == expected


def test_a_day_that_has_closed_opens_no_more() -> None:
    assert first_open("2026-01-01", None) == "2026-01-01"
    assert first_open("2026-01-01", "2026-01-01") == "2026-01-02"
