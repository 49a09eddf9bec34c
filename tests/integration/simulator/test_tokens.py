"""Each magic token of the contract is decided as it says, in time, with its sends counted; and no failure changes that.

Decider, gateway and breaker with the real simulator; the clock is stepped (see `road`).
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable

import aiohttp
import msgspec
import pytest

from ops.runtime.clock import SystemClock
from ops.simulator.server import Simulator
from streams.agents.payments import GIVEN_UP
from streams.domain.payment import PaymentStatus, TransactionStatus, TransactionType
from streams.provider.circuit import CircuitPolicy
from streams.provider.simulator import SimulatorProvider
from tests.integration.simulator.conftest import SettingsOf
from tests.integration.simulator.road import Road, movements
from tests.unit.domain.payments_in_states import cancel, refund

AUTHORIZATION, VOID, REFUND = TransactionType.AUTHORIZATION, TransactionType.VOID, TransactionType.REFUND
DECIDED_MS_MAX = 45_000  # the contract's

APPROVED = ("AUTHORIZED", None, None)
UNAVAILABLE = ("FAILED", "provider_unavailable", None)


def declined(code: str) -> tuple[str, str, str]:
    return ("DECLINED", "card_declined", code)


TOKENS = [
    ("pm_card_visa", APPROVED, 1, ["authorization"]),
    ("pm_card_mastercard", APPROVED, 1, ["authorization"]),
    ("pm_card_declined", declined("generic_decline"), 1, []),
    ("pm_card_insufficient_funds", declined("insufficient_funds"), 1, []),
    ("pm_card_expired", declined("expired_card"), 1, []),
    ("pm_card_fraudulent", declined("fraudulent"), 1, []),
    ("pm_card_invalid", declined("invalid_card"), 1, []),
    ("pm_nobody_knows", declined("generic_decline"), 1, []),
    ("pm_provider_timeout", APPROVED, 1, ["authorization"]),
    ("pm_provider_timeout_uncharged", UNAVAILABLE, 5, []),
    ("pm_provider_error_twice", APPROVED, 3, ["authorization"]),
    ("pm_provider_rate_limited_twice", APPROVED, 3, ["authorization"]),
    ("pm_provider_reset_after_charge", APPROVED, 1, ["authorization"]),
    ("pm_provider_slow", APPROVED, 1, ["authorization"]),
    ("pm_provider_down", UNAVAILABLE, 5, []),
]


@pytest.fixture
async def patient(tls_of: Callable[[str], ssl.SSLContext], url: str) -> AsyncIterator[SimulatorProvider]:
    """An adapter with the local stack's own time-out."""
    provider = SimulatorProvider(url, timeout_s=5.0, tls=tls_of("provider-gateway"))
    await provider.start()
    yield provider
    await provider.stop()


@pytest.fixture
async def impatient(tls_of: Callable[[str], ssl.SSLContext], url: str) -> AsyncIterator[SimulatorProvider]:
    """An adapter for which silence is short; the road counts it as the full time-out."""
    provider = SimulatorProvider(url, timeout_s=0.5, tls=tls_of("provider-gateway"))
    await provider.start()
    yield provider
    await provider.stop()


@pytest.mark.parametrize(("token", "end", "attempts", "moved"), TOKENS, ids=[token for token, *_ in TOKENS])
async def test_each_token_is_decided_as_the_contract_says(
    patient: SimulatorProvider,
    impatient: SimulatorProvider,
    gateway: aiohttp.ClientSession,
    token: str,
    end: tuple[str, str | None, str | None],
    attempts: int,
    moved: list[str],
) -> None:
    road = Road(patient if token == "pm_provider_slow" else impatient)
    took_ms = await road.confirm(token)
    payment, authorization = road.payment, road.transaction(AUTHORIZATION)
    failure = (payment.failure.code, payment.failure.decline_code) if payment.failure else (None, None)
    assert (payment.status.value, *failure) == end
    assert authorization.attempts == attempts == road.provider.sends[authorization.transaction_id]
    assert await movements(gateway) == moved
    assert took_ms <= DECIDED_MS_MAX
    assert authorization.error == payment.failure
    assert [letter.fields["error_class"] for letter in road.letters] == [GIVEN_UP] * (end == UNAVAILABLE)
    ended_by_void = token == "pm_provider_timeout_uncharged"
    assert [each.status.value for each in payment.transactions if each.type is VOID] == ["SUCCEEDED"] * ended_by_void
    assert [timer.name for timer in road.bench.timers()] == []


async def test_the_rate_limiter_s_wish_is_waited_for(impatient: SimulatorProvider) -> None:
    assert await Road(impatient).confirm("pm_provider_rate_limited_twice") >= 2_000


@pytest.mark.parametrize("token", ["pm_provider_timeout", "pm_provider_reset_after_charge"])
async def test_status_queries_that_fail_are_no_attempts(
    impatient: SimulatorProvider, gateway: aiohttp.ClientSession, token: str
) -> None:
    road = Road(impatient)
    road.provider.queries_to_fail = 3
    await road.confirm(token)
    assert road.provider.queries == 4
    assert road.transaction(AUTHORIZATION).attempts == 1
    assert road.status is PaymentStatus.AUTHORIZED
    assert await movements(gateway) == ["authorization"]


async def test_while_only_queries_fail_the_last_error_and_the_true_attempts_can_be_seen(
    impatient: SimulatorProvider,
) -> None:
    road = Road(impatient)
    road.provider.queries_to_fail = 2
    road.begin("pm_provider_timeout")
    seen = []
    await road.call()
    for _ in range(2):
        authorization = road.transaction(AUTHORIZATION)
        assert authorization.error is not None
        seen.append((authorization.attempts, authorization.error.message))
        road.next_timer()
        await road.call()
    assert seen == [(1, "the provider did not answer in time"), (1, "the query failed")]


async def test_what_cannot_be_asked_about_is_voided_and_only_then_failed(
    impatient: SimulatorProvider, gateway: aiohttp.ClientSession
) -> None:
    road = Road(impatient)
    road.provider.queries_to_fail = 1_000
    await road.confirm("pm_provider_timeout")
    assert road.status is PaymentStatus.FAILED
    assert road.transaction(AUTHORIZATION).attempts == 1
    assert await movements(gateway) == ["authorization", "void"]  # it had been charged; it is not any more


@pytest.mark.parametrize(
    "token", ["pm_card_visa", "pm_provider_timeout", "pm_provider_error_twice", "pm_card_declined"]
)
async def test_a_gateway_that_dies_after_each_call_changes_no_end(
    impatient: SimulatorProvider, gateway: aiohttp.ClientSession, token: str
) -> None:
    road = Road(impatient)
    road.begin(token)
    for _ in range(20):
        if road.status is not PaymentStatus.PROCESSING:
            break
        if not road.requests:
            road.next_timer()
        await road.call(dies=True)
        await road.call()
    assert road.status is (PaymentStatus.DECLINED if token == "pm_card_declined" else PaymentStatus.AUTHORIZED)
    assert (await movements(gateway)).count("authorization") == (token != "pm_card_declined")


async def test_a_late_arrival_after_the_void_is_refused_and_changes_nothing(
    impatient: SimulatorProvider, gateway: aiohttp.ClientSession
) -> None:
    road = Road(impatient)
    road.begin("pm_provider_timeout_uncharged")
    (late,) = road.requests
    await road.go_on(lambda: road.status is PaymentStatus.FAILED)
    before = road.payment
    road.requests.append(late)
    await road.call()
    assert road.payment == before
    assert await movements(gateway) == []


async def test_a_provider_that_is_away_for_an_hour_leaves_nothing_open_once_it_is_back(
    settings_of: SettingsOf, tls_of: Callable[[str], ssl.SSLContext]
) -> None:
    first = Simulator(settings_of("provider-simulator"), SystemClock())
    await first.start()
    port = first.provider_port
    await first.stop()
    provider = SimulatorProvider(f"https://127.0.0.1:{port}", timeout_s=0.5, tls=tls_of("provider-gateway"))
    await provider.start()
    road = Road(provider)
    road.begin("pm_card_visa")
    back_ms = road.bench.now_ms + 3_600_000
    while road.bench.now_ms < back_ms:
        await road.step()
    assert road.status is PaymentStatus.PROCESSING  # an outcome that was asked about and not told is in doubt
    undecided = {"operation": "VOID", "stage": "undecided"}
    rounds = road.registry.get_sample_value("payments_provider_attempts_failed_total", undecided)
    assert rounds is not None  # an alert, for as long as it lasts
    assert rounds > 100
    assert road.transaction(VOID).status is TransactionStatus.PENDING
    second = Simulator(settings_of("provider-simulator", provider_port=port), SystemClock())
    await second.start()
    try:
        began_ms = road.bench.now_ms
        await road.go_on(lambda: road.status is PaymentStatus.FAILED)
        assert road.bench.now_ms - began_ms <= 60_000
        assert road.bench.timers() == []
    finally:
        await provider.stop()
        await second.stop()


async def test_an_open_circuit_is_waited_for_and_counts_no_attempt(
    impatient: SimulatorProvider, gateway: aiohttp.ClientSession
) -> None:
    road = Road(impatient)
    road.provider.queries_to_fail = CircuitPolicy().failures_max
    road.begin("pm_card_visa")
    (request,) = road.requests
    road.requests = [msgspec.structs.replace(request, query_first=True)]
    for _ in range(CircuitPolicy().failures_max):  # as the questions of so many other payments would
        await road.call(dies=True)
    road.requests = [request]
    await road.call()
    held_back = road.transaction(AUTHORIZATION)
    assert held_back.error is not None
    assert (held_back.attempts, held_back.error.code) == (0, "provider_unavailable")
    waits_ms = road.bench.timers()[0].due_ms - road.bench.now_ms
    assert 0 < waits_ms <= CircuitPolicy().open_ms
    await road.go_on(lambda: road.status is not PaymentStatus.PROCESSING)
    assert road.status is PaymentStatus.AUTHORIZED
    assert road.transaction(AUTHORIZATION).attempts == road.provider.sends[held_back.transaction_id] == 1
    assert await movements(gateway) == ["authorization"]


async def test_a_void_that_the_provider_refuses_leaves_the_payment_in_settlement(
    impatient: SimulatorProvider, gateway: aiohttp.ClientSession
) -> None:
    road = Road(impatient)
    await road.confirm("pm_void_refused")
    version = road.payment.version
    road.give(cancel())
    assert road.payment.batch_id is None
    await road.call()
    void = road.transaction(VOID)
    assert (void.status, void.attempts) == (TransactionStatus.FAILED, 1)
    assert void.error is not None
    assert (void.error.code, void.error.retryable) == ("void_refused", False)
    assert road.status is PaymentStatus.AUTHORIZED
    assert road.payment.settlement_date is not None
    assert road.payment.version == version
    assert await road.settle()
    assert await movements(gateway) == ["authorization", "capture"]


async def test_a_refund_that_the_provider_refuses_releases_its_amount(
    impatient: SimulatorProvider, gateway: aiohttp.ClientSession
) -> None:
    road = Road(impatient)
    await road.confirm("pm_refund_refused")
    assert await road.settle()
    version = road.payment.version
    for number in (1, 2):  # what was reserved for the first is there for the second
        road.give(refund(key=f"refund {number}"))
        await road.call()
    refused = road.transaction(REFUND)
    assert refused.error is not None
    assert (refused.status, refused.error.code) == (TransactionStatus.FAILED, "refund_refused")
    assert (road.status, road.payment.version) == (PaymentStatus.SETTLED, version)
    assert await movements(gateway) == ["authorization", "capture"]


@pytest.mark.parametrize(
    ("token", "days", "end", "moved"),
    [
        ("pm_settlement_fails_once", [False, True], PaymentStatus.SETTLED, ["authorization", "capture"]),
        ("pm_settlement_fails", [False, False, False], PaymentStatus.FAILED, ["authorization", "void"]),
    ],
)
async def test_a_settlement_is_tried_on_three_days_and_then_the_hold_is_released(
    impatient: SimulatorProvider,
    gateway: aiohttp.ClientSession,
    token: str,
    days: list[bool],
    end: PaymentStatus,
    moved: list[str],
) -> None:
    road = Road(impatient)
    await road.confirm(token)
    assert [await road.settle() for _ in days] == days
    assert road.status is end
    while road.requests:
        await road.call()
    assert await movements(gateway) == moved
    if end is PaymentStatus.FAILED:
        assert road.payment.failure is not None
        assert road.payment.failure.code == "settlement_failed"
