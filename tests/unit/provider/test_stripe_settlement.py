"""Step 8 (Settle) with the Stripe adapter: a chunk is its captures, each done once and answered for itself."""

from __future__ import annotations

import asyncio

import pytest

from streams.provider.port import ItemResult, NotFound, NotProcessed, Succeeded, Unknown
from streams.provider.stripe import StripeProvider
from tests.unit.provider.stripe_fake import StripeFake
from tests.unit.provider.stripe_operations import authorized, chunk


async def test_each_item_of_a_chunk_is_captured_under_a_key_of_its_own(
    stripe: StripeFake, provider: StripeProvider
) -> None:
    await authorized(provider, 3)
    settled = await provider.send(chunk(3))
    assert isinstance(settled, Succeeded)
    assert settled.items == tuple(
        ItemResult(payment_id=f"pay_{number}", provider_reference=f"ch_pi_{number}") for number in (1, 2, 3)
    )
    assert sorted(str(key) for action, key in stripe.calls if action == "capture") == ["txn_s1", "txn_s2", "txn_s3"]
    assert await provider.send(chunk(3)) == settled
    stripe.a_day_passes()
    assert await provider.send(chunk(3)) == settled  # the intents remember what the keys forgot
    assert stripe.moved("capture") == [2500] * 3


async def test_captures_are_made_a_few_at_a_time(stripe: StripeFake, provider: StripeProvider) -> None:
    await authorized(provider, 20)
    stripe.gate = asyncio.Event()
    sending = asyncio.create_task(provider.send(chunk(20)))
    for _ in range(8):
        await stripe.arrivals.get()
    assert stripe.at_once == 8
    stripe.gate.set()
    assert isinstance(await sending, Succeeded)
    assert stripe.at_once_max == 8


async def test_an_item_whose_hold_is_gone_fails_and_the_others_do_not(
    stripe: StripeFake, provider: StripeProvider
) -> None:
    await authorized(provider, 3)
    stripe.intents["pi_2"]["status"] = "canceled"  # holds expire after some days
    settled = await provider.send(chunk(3))
    assert isinstance(settled, Succeeded)
    first, second, third = settled.items
    assert (first.error, third.error) == (None, None)
    assert second.error is not None
    assert (second.error.code, second.error.retryable) == ("settlement_failed", False)


@pytest.mark.parametrize("fault", ["limit", "unavailable", "silence", "silence_after", "reset_after", "error"])
async def test_a_chunk_that_fails_in_the_middle_is_taken_up_again_and_nothing_is_captured_twice(
    stripe: StripeFake, provider: StripeProvider, fault: str
) -> None:
    await authorized(provider, 12)
    stripe.fail("capture", "ok", "ok", "ok", fault)
    answer = await provider.send(chunk(12))
    assert isinstance(answer, NotProcessed if fault == "limit" else Unknown)
    assert await provider.query(chunk(12)) == NotFound()
    settled = await provider.send(chunk(12))
    assert isinstance(settled, Succeeded)
    assert [item.error for item in settled.items] == [None] * 12
    assert stripe.moved("capture") == [2500] * 12


async def test_a_provider_that_limits_us_is_not_pressed_further(stripe: StripeFake, provider: StripeProvider) -> None:
    await authorized(provider, 30)
    stripe.fail("capture", *["limit"] * 30)
    answer = await provider.send(chunk(30))
    assert isinstance(answer, NotProcessed)
    assert (answer.cause, answer.retry_after_ms) == ("limited", 2_000)
    assert stripe.count("capture") <= 8


async def test_another_amount_than_ours_is_never_taken_for_success(
    stripe: StripeFake, provider: StripeProvider
) -> None:
    await authorized(provider, 1)
    stripe.intents["pi_1"].update(status="succeeded", amount_received=100)  # somebody at Stripe's dashboard
    settled = await provider.send(chunk(1))
    assert isinstance(settled, Succeeded)
    assert settled.items[0].error is not None


async def test_an_item_without_a_reference_is_found_by_its_payment(
    stripe: StripeFake, provider: StripeProvider
) -> None:
    await authorized(provider, 2)
    assert isinstance(await provider.send(chunk(2, references=False)), NotProcessed)
    stripe.index()
    assert isinstance(await provider.send(chunk(2, references=False)), Succeeded)


async def test_a_reference_that_it_does_not_know_is_a_refusal_and_blocks_no_chunk(provider: StripeProvider) -> None:
    settled = await provider.send(chunk(1))
    assert isinstance(settled, Succeeded)
    assert settled.items[0].error is not None
