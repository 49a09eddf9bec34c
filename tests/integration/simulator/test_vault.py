"""The vault over its real port: a browser's way in, and what never leaves it again."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from ops.simulator.server import Simulator
from tests.tls_sessions import tls_session

CARD = {"number": "4242 4242 4242 4242", "exp_month": 12, "exp_year": 2040, "cvc": "123"}
KEY = {"Authorization": "Bearer pk_test_1"}


@pytest.fixture
async def browser(simulator: Simulator, settings_of: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """A client without a certificate."""
    context = ssl.create_default_context(cafile=settings_of("auditor").tls_ca)
    url = f"https://127.0.0.1:{simulator.vault_port}"
    async with tls_session(url, context) as session:
        yield session


async def tokenise(browser: aiohttp.ClientSession, **card: Any) -> tuple[int, dict[str, Any]]:
    async with browser.post("/v1/tokens", json={"card": {**CARD, **card}}, headers=KEY) as response:
        return response.status, await response.json()


@pytest.mark.parametrize(
    ("number", "decline_code"),
    [
        ("4242424242424242", None),
        ("5555-5555-5555-4444", None),
        ("6011111111111117", None),
        ("4000000000000002", "generic_decline"),
        ("4000000000009995", "insufficient_funds"),
        ("4000000000000069", "expired_card"),
        ("4100000000000019", "fraudulent"),
        ("4000000000000127", "invalid_card"),
    ],
)
async def test_a_token_behaves_like_its_card(
    browser: aiohttp.ClientSession, gateway: aiohttp.ClientSession, number: str, decline_code: str | None
) -> None:
    status, answer = await tokenise(browser, number=number)
    assert status == 201
    body = {"payment_id": "pay_1", "amount": 1, "currency": "USD", "payment_method_token": answer["token"]}
    async with gateway.post("/v1/authorizations", json=body, headers={"Idempotency-Key": "txn_1"}) as response:
        authorized = await response.json()
    assert (authorized["error"] or {}).get("decline_code") == decline_code


@pytest.mark.parametrize(
    "card",
    [
        {"number": "4242424242424241"},
        {"number": "４２４２４２４２４２４２４２４２"},
        {"number": "42424242"},
        {"exp_month": 13},
        {"exp_year": 2020},
        {"cvc": "12"},
        {"cvc": "12x"},
    ],
)
async def test_an_impossible_card_is_refused(browser: aiohttp.ClientSession, card: dict[str, Any]) -> None:
    status, answer = await tokenise(browser, **card)
    assert (status, answer["code"]) == (400, "invalid_card")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer sk_test_1"}, {"Authorization": "pk_test_1"}])
async def test_only_a_publishable_key_may_tokenise(browser: aiohttp.ClientSession, headers: dict[str, str]) -> None:
    async with browser.post("/v1/tokens", json={"card": CARD}, headers=headers) as response:
        assert response.status == 401
        assert response.headers["Access-Control-Allow-Origin"] == "*"  # a page has to be able to read the refusal


async def test_every_origin_may_ask(browser: aiohttp.ClientSession) -> None:
    headers = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    async with browser.options("/v1/tokens", headers=headers) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert "Authorization" in response.headers["Access-Control-Allow-Headers"]


async def test_no_card_reaches_a_file_a_log_or_an_answer(
    browser: aiohttp.ClientSession,
    gateway: aiohttp.ClientSession,
    simulator: Simulator,
    settings_of: Any,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = [await tokenise(browser), await tokenise(browser, number="4242424242424241")]
    for broken in (b'{"card": {"number": "4242424242424242", ', b'{"card": {"number": "4242424242424242", "x": 1}}'):
        headers = {**KEY, "Content-Type": "application/json"}
        async with browser.post("/v1/tokens", data=broken, headers=headers) as response:
            answers.append((response.status, await response.json()))
    async with browser.get("/v1/tokens/4242424242424242") as response:
        answers.append((response.status, await response.json()))
    files = [path.read_bytes() for path in settings_of("auditor").state_dir.iterdir()]
    assert files
    texts = [repr(answers).encode(), *files, "".join(capfd.readouterr()).encode(), caplog.text.encode()]
    assert [status for status, _ in answers] == [201, 400, 400, 400, 404]
    assert not any(b"42424242" in text for text in texts)
