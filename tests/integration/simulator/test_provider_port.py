"""The provider port's adapter against the real simulator: what each fault lets us know, and what was really moved."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from ops.simulator.server import Simulator
from streams.provider.breaker import BreakingProvider
from streams.provider.configured import open_provider
from streams.provider.port import (
    Authorize,
    NotFound,
    NotProcessed,
    Refund,
    Refused,
    Settle,
    SettlementItem,
    Succeeded,
    Unknown,
    Void,
)
from streams.provider.simulator import SimulatorProvider
from tests.integration.simulator.conftest import SettingsOf

TlsOf = Callable[[str], ssl.SSLContext]


async def authorize(provider: SimulatorProvider, token: str, key: str = "txn_1") -> Any:
    return await provider.send(authorization(token, key))


def authorization(token: str = "", key: str = "txn_1") -> Authorize:
    return Authorize(key=key, payment_id="pay_1", amount=2500, currency="USD", payment_method_token=token)


async def movements(gateway: aiohttp.ClientSession) -> list[str]:
    async with gateway.get("/v1/ledger") as response:
        return [movement["type"] for movement in (await response.json())["data"]]


@pytest.mark.parametrize(
    ("token", "known", "then"),
    [
        ("pm_card_visa", Succeeded, Succeeded),
        ("pm_card_declined", Refused, Refused),
        ("pm_provider_timeout", Unknown, Succeeded),
        ("pm_provider_timeout_uncharged", Unknown, NotFound),
        ("pm_provider_reset_after_charge", Unknown, Succeeded),
        ("pm_provider_error_twice", Unknown, NotFound),
        ("pm_provider_rate_limited_twice", NotProcessed, NotFound),
        ("pm_provider_down", NotProcessed, NotFound),
        ("pm_provider_slow", Unknown, Unknown),
    ],
)
async def test_what_a_send_lets_us_know_and_what_the_query_adds(
    provider: SimulatorProvider, gateway: aiohttp.ClientSession, token: str, known: type, then: type
) -> None:
    assert type(await authorize(provider, token)) is known
    assert type(await provider.query(authorization())) is then
    assert await movements(gateway) == (["authorization"] if then is Succeeded else [])


async def test_retry_after_comes_through(provider: SimulatorProvider) -> None:
    answer = await authorize(provider, "pm_provider_rate_limited_twice")
    assert isinstance(answer, NotProcessed)
    assert answer.retry_after_ms == 1_000


async def test_the_road_of_one_payment(provider: SimulatorProvider, gateway: aiohttp.ClientSession) -> None:
    assert isinstance(await authorize(provider, "pm_card_visa"), Succeeded)
    item = SettlementItem(key="txn_3", payment_id="pay_1", amount=2500, currency="USD")
    chunk = Settle(key="sb_1:0", batch_id="sb_1", chunk=0, items=(item,))
    settled = await provider.send(chunk)
    assert isinstance(settled, Succeeded)
    assert [(result.payment_id, result.error) for result in settled.items] == [("pay_1", None)]
    assert await provider.query(chunk) == settled
    refund = Refund(key="txn_2", payment_id="pay_1", amount=500, currency="USD")
    assert isinstance(await provider.send(refund), Succeeded)
    assert await movements(gateway) == ["authorization", "capture", "refund"]


async def test_a_void_closes_a_key_before_its_authorisation_arrives(provider: SimulatorProvider) -> None:
    void = Void(key="txn_2", payment_id="pay_1", authorization_key="txn_1")
    assert isinstance(await provider.send(void), Succeeded)
    late = await authorize(provider, "pm_card_visa")
    assert isinstance(late, Refused)
    assert late.error.code == "provider_unavailable"


async def test_a_provider_that_is_not_there_has_processed_nothing(tls_of: TlsOf) -> None:
    with socket.socket() as bound:  # bound and not listening: connections are refused
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        provider = SimulatorProvider(f"https://127.0.0.1:{port}", timeout_s=1, tls=tls_of("provider-gateway"))
        await provider.start()
        try:
            assert isinstance(await authorize(provider, "pm_card_visa"), NotProcessed)
            assert isinstance(await provider.query(authorization()), Unknown)
        finally:
            await provider.stop()


async def test_a_wrong_certificate_is_an_outage_and_not_a_decline(tls_of: TlsOf, url: str) -> None:
    provider = SimulatorProvider(url, timeout_s=1, tls=tls_of("payment-worker"))
    await provider.start()
    try:
        assert isinstance(await authorize(provider, "pm_card_visa"), NotProcessed)
        assert isinstance(await provider.query(authorization()), Unknown)
    finally:
        await provider.stop()


async def test_the_gateway_s_settings_lead_to_the_simulator_behind_a_breaker(
    settings_of: SettingsOf, simulator: Simulator
) -> None:
    chosen = settings_of("provider-gateway", provider_port=simulator.provider_port)
    provider = BreakingProvider(open_provider(chosen))
    await provider.start()
    try:
        await provider.check()
        assert isinstance(await provider.send(authorization("pm_card_visa")), Succeeded)
    finally:
        await provider.stop()
