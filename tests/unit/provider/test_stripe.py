"""The Stripe adapter against a stateful fake of its API: what is known after each fault, and what money really did."""

from __future__ import annotations

import asyncio
import io
import logging
import socket
from typing import Any

import pytest
import structlog

from streams.provider.port import (
    ItemResult,
    NotFound,
    NotProcessed,
    Refund,
    Refused,
    Settle,
    SettlementItem,
    Succeeded,
    Unknown,
)
from streams.provider.stripe import StripeProvider
from streams.provider.stripe_answers import stripe_amount
from tests.unit.provider.stripe_fake import DECLINES, SECRET, StripeFake
from tests.unit.provider.stripe_operations import authorize, chunk, provider_at, void

# Authorisations


@pytest.mark.parametrize(
    ("fault", "known", "then", "holds"),
    [
        (("confirm", "ok"), Succeeded, Succeeded, 1),
        (("confirm", "limit"), NotProcessed, NotFound, 0),
        (("confirm", "lock"), NotProcessed, NotFound, 0),
        (("confirm", "unavailable"), Unknown, NotFound, 0),  # Stripe does not say that a 503 was not processed
        (("confirm", "error"), Unknown, NotFound, 0),
        (("confirm", "error_after"), Unknown, Succeeded, 1),
        (("confirm", "silence"), Unknown, NotFound, 0),
        (("confirm", "silence_after"), Unknown, Succeeded, 1),
        (("confirm", "reset_after"), Unknown, Succeeded, 1),
        (("create", "limit"), NotProcessed, NotFound, 0),
        (("create", "silence"), NotProcessed, NotFound, 0),  # without its id no intent can hold money
        (("create", "silence_after"), NotProcessed, NotFound, 0),
        (("create", "reset_after"), NotProcessed, NotFound, 0),
    ],
)
async def test_what_a_send_lets_us_know_and_what_the_query_adds(
    stripe: StripeFake, provider: StripeProvider, fault: tuple[str, str], known: type, then: type, holds: int
) -> None:
    stripe.fail(*fault)
    assert type(await provider.send(authorize())) is known
    assert type(await provider.query(authorize())) is then
    assert stripe.moved("hold") == [2500] * holds


@pytest.mark.parametrize("fault", ["limit", "lock", "unavailable", "silence", "silence_after", "reset_after"])
async def test_however_often_it_is_sent_it_holds_once(stripe: StripeFake, provider: StripeProvider, fault: str) -> None:
    stripe.fail("create", fault)
    stripe.fail("confirm", fault)
    for _ in range(4):
        answer = await provider.send(authorize())
    assert answer == Succeeded(provider_reference="pi_1")
    assert stripe.moved("hold") == [2500]
    assert {key for action, key in stripe.calls if action == "confirm"} == {"txn_1"}


async def test_a_kept_failure_hides_a_hold_from_a_resend_but_not_from_the_query(
    stripe: StripeFake, provider: StripeProvider
) -> None:
    stripe.fail("confirm", "error_after")
    assert isinstance(await provider.send(authorize()), Unknown)
    assert isinstance(await provider.send(authorize()), Unknown)  # the same answer, for a day
    assert await provider.query(authorize()) == Succeeded(provider_reference="pi_1")


async def test_a_creation_that_failed_for_good_is_known_to_hold_nothing(
    stripe: StripeFake, provider: StripeProvider
) -> None:
    stripe.fail("create", "error_after")
    for _ in range(5):
        assert isinstance(await provider.send(authorize()), NotProcessed)
    stripe.index()
    assert await provider.query(authorize()) == NotFound()
    assert stripe.count("confirm") == 0


async def test_sent_twice_at_once_it_holds_once(stripe: StripeFake, provider: StripeProvider) -> None:
    answers = await asyncio.gather(*(provider.send(authorize()) for _ in range(8)))
    assert {type(answer) for answer in answers} <= {Succeeded, Unknown, NotProcessed}
    assert await provider.query(authorize()) == Succeeded(provider_reference="pi_1")
    assert stripe.moved("hold") == [2500]
    assert len(stripe.intents) == 1


@pytest.mark.parametrize("searchable", [True, False])
async def test_a_query_needs_the_search_only_once_the_key_is_forgotten(
    stripe: StripeFake, provider: StripeProvider, searchable: bool
) -> None:
    stripe.fail("confirm", "silence_after")
    await provider.send(authorize())
    if searchable:
        stripe.a_day_passes()
    assert await provider.query(authorize()) == Succeeded(provider_reference="pi_1")
    assert len(stripe.intents) == 1


async def test_a_search_that_cannot_be_made_leaves_the_outcome_unknown(
    stripe: StripeFake, provider: StripeProvider
) -> None:
    """Absence has to be seen: creating again on top of what the search hides would be a second intent after a day."""
    await provider.send(authorize())
    stripe.a_day_passes()
    stripe.search_fails = True
    assert isinstance(await provider.query(authorize()), Unknown)
    assert len(stripe.intents) == 1


@pytest.mark.parametrize("faults", [("retrieve", "silence"), ("retrieve", "error"), ("search", "limit_by_503")])
async def test_a_query_without_an_answer_says_nothing(
    stripe: StripeFake, provider: StripeProvider, faults: tuple[str, str]
) -> None:
    await provider.send(authorize())
    stripe.fail(faults[0], faults[1].replace("limit_by_503", "unavailable"))
    assert isinstance(await provider.query(authorize()), Unknown)


DECLINE_CODES = {
    "pm_card_visa_chargeDeclined": "generic_decline",
    "pm_card_visa_chargeDeclinedInsufficientFunds": "insufficient_funds",
    "pm_card_visa_chargeDeclinedFraudulent": "fraudulent",
    "pm_card_visa_chargeDeclinedStolenCard": "fraudulent",
    "pm_card_chargeDeclinedExpiredCard": "expired_card",
    "pm_card_chargeDeclinedIncorrectCvc": "invalid_card",
    "pm_card_chargeDeclinedProcessingError": "generic_decline",
    "pm_card_authenticationRequired": "generic_decline",
}


@pytest.mark.parametrize("token", DECLINES)
async def test_a_decline_is_final_in_the_contracts_words(
    stripe: StripeFake, provider: StripeProvider, token: str
) -> None:
    sent = await provider.send(authorize(token))
    assert isinstance(sent, Refused)
    assert (sent.error.code, sent.error.decline_code) == ("card_declined", DECLINE_CODES[token])
    assert not sent.error.retryable
    again, asked = await provider.send(authorize(token)), await provider.query(authorize(token))
    assert again == sent == asked
    assert stripe.moved("hold") == []


async def test_a_token_that_it_does_not_know_is_an_invalid_card_and_is_not_repeated(provider: StripeProvider) -> None:
    answer = await provider.send(authorize("pm_nobody_knows"))
    assert isinstance(answer, Refused)
    assert answer.error.decline_code == "invalid_card"
    assert "pm_nobody_knows" not in str(answer)


async def test_an_amount_that_it_does_not_take_is_refused_for_good(provider: StripeProvider) -> None:
    answer = await provider.send(authorize(amount=1))
    assert isinstance(answer, Refused)
    assert (answer.error.code, answer.error.retryable) == ("provider_unavailable", False)


# Amounts


@pytest.mark.parametrize(
    ("amount", "currency", "stated"),
    [
        (2500, "USD", 2500),
        (2500, "JPY", 2500),  # none, and none there
        (2500, "KRW", 2500),
        (500, "ISK", 50_000),  # none in ISO 4217, but two there
        (500, "UGX", 50_000),
        (2500, "HUF", 2500),
        (2500, "MGA", 25),  # two in ISO 4217, none there
        (2501, "MGA", None),
        (5120, "KWD", 5120),
        (5124, "KWD", None),  # nothing is ever rounded
        (5120, "IQD", 512),  # three in ISO 4217, two there
        (5125, "IQD", None),
    ],
)
def test_an_amount_is_stated_exactly_or_not_at_all(amount: int, currency: str, stated: int | None) -> None:
    assert stripe_amount(amount, currency) == stated


async def test_money_without_decimals_goes_through_a_whole_life(stripe: StripeFake, provider: StripeProvider) -> None:
    yen = authorize(amount=700, currency="JPY")
    assert await provider.send(yen) == Succeeded(provider_reference="pi_1")
    item = SettlementItem(key="txn_s1", payment_id="pay_1", amount=700, currency="JPY", reference="pi_1")
    settled = await provider.send(Settle(key="sb_1:0", batch_id="sb_1", chunk=0, items=(item,)))
    assert settled == Succeeded(items=(ItemResult(payment_id="pay_1", provider_reference="ch_pi_1"),))
    refund = Refund(key="txn_r", payment_id="pay_1", amount=300, currency="JPY", reference="pi_1")
    assert isinstance(await provider.send(refund), Succeeded)
    assert stripe.ledger == [("hold", "pi_1", 700), ("capture", "pi_1", 700), ("refund", "pi_1", 300)]


async def test_an_amount_that_cannot_be_stated_is_never_sent(stripe: StripeFake, provider: StripeProvider) -> None:
    assert isinstance(await provider.send(authorize(amount=5124, currency="KWD")), Refused)
    assert stripe.calls == []


# Voids


async def test_a_hold_is_released_once(stripe: StripeFake, provider: StripeProvider) -> None:
    await provider.send(authorize())
    for _ in range(3):
        assert await provider.send(void("pi_1")) == Succeeded(provider_reference="pi_1")
    assert await provider.query(void("pi_1")) == Succeeded(provider_reference="pi_1")
    assert stripe.moved("release") == [2500]


async def test_a_void_of_a_key_never_seen_is_a_tombstone(stripe: StripeFake, provider: StripeProvider) -> None:
    assert await provider.send(void()) == Succeeded(provider_reference="pi_1")
    late = await provider.send(authorize())
    assert isinstance(late, Refused)
    assert (late.error.code, late.error.retryable) == ("provider_unavailable", False)
    asked = await provider.query(authorize())
    assert isinstance(asked, Refused)
    stripe.a_day_passes()
    assert isinstance(await provider.query(authorize()), Refused)
    assert stripe.ledger == []  # no money was held, not even for a moment
    assert len(stripe.intents) == 1


async def test_a_void_in_doubt_releases_what_was_held_without_an_answer(
    stripe: StripeFake, provider: StripeProvider
) -> None:
    stripe.fail("confirm", "silence_after")
    await provider.send(authorize())
    assert await provider.send(void()) == Succeeded(provider_reference="pi_1")
    assert stripe.ledger == [("hold", "pi_1", 2500), ("release", "pi_1", 2500)]


@pytest.mark.parametrize(
    ("fault", "known", "then"),
    [
        ("limit", NotProcessed, NotFound),
        ("unavailable", Unknown, NotFound),
        ("error", Unknown, NotFound),
        ("silence", Unknown, NotFound),
        ("error_after", Succeeded, Succeeded),  # the intent says so
        ("silence_after", Unknown, Succeeded),
        ("reset_after", Unknown, Succeeded),
    ],
)
async def test_what_a_void_lets_us_know_and_what_the_query_adds(
    stripe: StripeFake, provider: StripeProvider, fault: str, known: type, then: type
) -> None:
    await provider.send(authorize())
    stripe.fail("cancel", fault)
    assert type(await provider.send(void("pi_1"))) is known
    assert type(await provider.query(void("pi_1"))) is then
    assert isinstance(await provider.send(void("pi_1")), Succeeded)  # also where a 500 is kept under the key
    assert stripe.moved("release") == [2500]


async def test_what_was_captured_cannot_be_voided(provider: StripeProvider) -> None:
    await provider.send(authorize())
    await provider.send(chunk(1))
    refused = await provider.send(void("pi_1"))
    assert isinstance(refused, Refused)
    assert refused.error.code == "void_refused"
    assert await provider.query(void("pi_1")) == refused


# Refunds


REFUND = Refund(key="txn_r1", payment_id="pay_1", amount=1000, currency="USD", reference="pi_1")


@pytest.mark.parametrize(
    ("fault", "known", "then"),
    [
        ("limit", NotProcessed, NotFound),
        ("silence", Unknown, NotFound),
        ("silence_after", Unknown, Succeeded),
        ("reset_after", Unknown, Succeeded),
        ("error_after", Unknown, Succeeded),
    ],
)
async def test_a_refund_is_made_once_and_found_in_the_list_whatever_became_of_its_key(
    stripe: StripeFake, provider: StripeProvider, fault: str, known: type, then: type
) -> None:
    await provider.send(authorize())
    await provider.send(chunk(1))
    stripe.fail("refund", fault)
    assert type(await provider.send(REFUND)) is known
    stripe.a_day_passes()
    asked = await provider.query(REFUND)
    assert type(asked) is then
    if isinstance(asked, NotFound):
        assert isinstance(await provider.send(REFUND), Succeeded)
    assert stripe.moved("refund") == [1000]


async def test_the_list_of_refunds_is_read_to_its_end(stripe: StripeFake, provider: StripeProvider) -> None:
    await provider.send(authorize())
    await provider.send(chunk(1))
    refunds = [
        Refund(key=f"txn_r{number}", payment_id="pay_1", amount=100, currency="USD", reference="pi_1")
        for number in range(5)
    ]
    for refund in refunds:
        assert isinstance(await provider.send(refund), Succeeded)
    for refund in refunds:
        assert isinstance(await provider.query(refund), Succeeded)
    assert await provider.query(REFUND.__class__(**{**_fields(REFUND), "key": "txn_other"})) == NotFound()


def _fields(refund: Refund) -> dict[str, Any]:
    return {name: getattr(refund, name) for name in refund.__struct_fields__}


async def test_a_refund_that_fails_is_refused(provider: StripeProvider) -> None:
    await provider.send(authorize("pm_card_refundFail"))
    await provider.send(chunk(1))
    refused = await provider.send(REFUND)
    assert isinstance(refused, Refused)
    assert refused.error.code == "refund_refused"
    assert await provider.query(REFUND) == refused


async def test_more_than_what_is_left_is_refused(provider: StripeProvider) -> None:
    await provider.send(authorize())
    await provider.send(chunk(1))
    too_much = Refund(key="txn_r9", payment_id="pay_1", amount=2501, currency="USD", reference="pi_1")
    assert isinstance(await provider.send(too_much), Refused)


async def test_a_refund_without_a_reference_waits_until_the_search_shows_the_payment(
    stripe: StripeFake, provider: StripeProvider
) -> None:
    await provider.send(authorize())
    await provider.send(chunk(1))
    unnamed = Refund(key="txn_r1", payment_id="pay_1", amount=1000, currency="USD")
    assert isinstance(await provider.send(unnamed), NotProcessed)
    stripe.index()
    assert isinstance(await provider.send(unnamed), Succeeded)


# The connection


async def test_another_request_under_a_known_key_is_never_taken_for_its_outcome(provider: StripeProvider) -> None:
    await provider.send(authorize())
    assert isinstance(await provider.send(authorize(amount=9900)), NotProcessed)  # no intent, so nothing was held
    assert isinstance(await provider.send(authorize("pm_card_mastercard")), Unknown)


async def test_a_provider_that_is_not_there_has_processed_nothing() -> None:
    with socket.socket() as bound:  # bound and not listening: connections are refused
        bound.bind(("127.0.0.1", 0))
        provider = provider_at(f"http://127.0.0.1:{bound.getsockname()[1]}")
        await provider.start()
        try:
            assert isinstance(await provider.send(authorize()), NotProcessed)
            assert isinstance(await provider.query(authorize()), Unknown)
            with pytest.raises(ConnectionError):
                await provider.check()
        finally:
            await provider.stop()


async def test_a_wrong_key_is_an_outage_and_not_a_decline(stripe: StripeFake) -> None:
    provider = provider_at(stripe.url, secret="sk_test_rolled")
    await provider.start()
    try:
        answer = await provider.send(authorize())
        assert isinstance(answer, NotProcessed)
        assert answer.cause == "rejected"
        with pytest.raises(ConnectionError):
            await provider.check()
    finally:
        await provider.stop()


async def test_it_is_ready_when_it_answers(provider: StripeProvider) -> None:
    await provider.check()


async def test_neither_the_secret_nor_a_token_reaches_a_log_or_an_answer(
    stripe: StripeFake, provider: StripeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    printed = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(printed))
    caplog.set_level(logging.DEBUG)
    said: list[object] = []
    try:
        for fault in ("ok", "limit", "error", "silence", "reset_after"):
            stripe.fail("confirm", fault)
            for token in ("pm_card_visa", "pm_card_visa_chargeDeclined", "pm_nobody_knows"):
                said += [await provider.send(authorize(token)), await provider.query(authorize(token))]
        said.append(repr(provider))
    finally:
        structlog.reset_defaults()
    text = "\n".join([printed.getvalue(), caplog.text, *map(repr, said)])
    assert SECRET not in text
    assert "Bearer" not in text
    assert "pm_" not in text
