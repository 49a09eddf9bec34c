"""The simulated provider over its real port: who may call, what idempotency keys promise, what magic tokens do."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from ops.simulator.behaviours import BEHAVIOURS, Behaviour
from tests.tls_sessions import tls_session

TlsOf = Callable[[str], ssl.SSLContext]


def authorization(token: str = "pm_card_visa", payment_id: str = "pay_1", amount: int = 2500) -> dict[str, Any]:
    return {"payment_id": payment_id, "amount": amount, "currency": "USD", "payment_method_token": token}


async def post(
    client: aiohttp.ClientSession, operation: str, key: str, body: dict[str, Any]
) -> tuple[int, dict[str, Any]]:
    async with client.post(f"/v1/{operation}", json=body, headers={"Idempotency-Key": key}) as response:
        return response.status, await response.json()


async def operation(client: aiohttp.ClientSession, key: str) -> tuple[int, dict[str, Any]]:
    async with client.get("/v1/operations", params={"idempotency_key": key}) as response:
        return response.status, await response.json()


async def ledger(client: aiohttp.ClientSession, **query: str) -> list[dict[str, Any]]:
    async with client.get("/v1/ledger", params={"limit": "100", **query}) as response:
        assert response.status == 200
        page: dict[str, Any] = await response.json()
        assert page["object"] == "list"
        return list(page["data"])


async def kinds(client: aiohttp.ClientSession) -> list[str]:
    return [movement["type"] for movement in await ledger(client)]


async def test_only_gateway_and_auditor_may_call_and_the_auditor_only_reads(tls_of: TlsOf, url: str) -> None:
    async def status(identity: str, method: str, path: str) -> int:
        async with tls_session(url, tls_of(identity)) as client:
            body = None if method == "GET" else authorization()
            async with client.request(method, path, json=body, headers={"Idempotency-Key": "txn_1"}) as response:
                return response.status

    assert await status("auditor", "GET", "/v1/ledger") == 200
    assert await status("auditor", "POST", "/v1/authorizations") == 403
    assert await status("payment-worker", "GET", "/v1/ledger") == 403
    assert await status("payment-worker", "POST", "/v1/authorizations") == 403
    assert await status("provider-gateway", "POST", "/v1/authorizations") == 200


async def test_a_client_without_a_certificate_gets_no_answer(url: str, settings_of: Any) -> None:
    context = ssl.create_default_context(cafile=settings_of("auditor").tls_ca)
    with pytest.raises(aiohttp.ClientError):
        async with tls_session(url, context) as client, client.get("/v1/ledger"):
            pass


async def test_a_repeated_key_moves_money_once_and_counts_its_sends(gateway: aiohttp.ClientSession) -> None:
    answers = await asyncio.gather(*(post(gateway, "authorizations", "txn_1", authorization()) for _ in range(20)))

    assert {status for status, _ in answers} == {200}
    assert len({answer["operation_id"] for _, answer in answers}) == 1
    status, found = await operation(gateway, "txn_1")
    assert (status, found["status"], found["requests"]) == (200, "succeeded", 20)
    [movement] = await ledger(gateway, payment_id="pay_1")
    assert movement["created_at"].endswith("Z")
    assert {name: movement[name] for name in ("type", "idempotency_key", "amount", "currency", "batch_id")} == {
        "type": "authorization",
        "idempotency_key": "txn_1",
        "amount": 2500,
        "currency": "USD",
        "batch_id": None,
    }


async def test_a_key_with_another_body_is_refused(gateway: aiohttp.ClientSession) -> None:
    await post(gateway, "authorizations", "txn_1", authorization())
    status, answer = await post(gateway, "authorizations", "txn_1", authorization(amount=2600))
    assert (status, answer["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize(
    ("token", "decline_code"),
    [
        ("pm_card_declined", "generic_decline"),
        ("pm_card_insufficient_funds", "insufficient_funds"),
        ("pm_card_expired", "expired_card"),
        ("pm_card_fraudulent", "fraudulent"),
        ("pm_card_invalid", "invalid_card"),
        ("pm_nobody_knows", "generic_decline"),
    ],
)
async def test_a_declining_card_moves_nothing(gateway: aiohttp.ClientSession, token: str, decline_code: str) -> None:
    status, answer = await post(gateway, "authorizations", "txn_1", authorization(token))
    assert status == 402
    assert (answer["error"]["code"], answer["error"]["decline_code"]) == ("card_declined", decline_code)
    assert answer["error"]["retryable"] is False
    assert await ledger(gateway) == []


@pytest.mark.parametrize(
    ("token", "refusal"), [("pm_provider_error_twice", 500), ("pm_provider_rate_limited_twice", 429)]
)
async def test_twice_means_twice_for_each_key(gateway: aiohttp.ClientSession, token: str, refusal: int) -> None:
    for key in ("txn_1", "txn_2"):
        statuses = [(await post(gateway, "authorizations", key, authorization(token)))[0] for _ in range(3)]
        assert statuses == [refusal, refusal, 200]
    assert (await operation(gateway, "txn_1"))[1]["requests"] == 3


async def test_what_was_refused_unprocessed_is_not_found(gateway: aiohttp.ClientSession) -> None:
    await post(gateway, "authorizations", "txn_1", authorization("pm_provider_error_twice"))
    assert (await operation(gateway, "txn_1"))[0] == 404
    assert await ledger(gateway) == []


async def test_down_means_down_for_authorisations_but_a_void_goes_through(gateway: aiohttp.ClientSession) -> None:
    assert (await post(gateway, "authorizations", "txn_1", authorization("pm_provider_down")))[0] == 503
    status, answer = await post(gateway, "voids", "txn_2", {"payment_id": "pay_1", "authorization_id": "txn_1"})
    assert (status, answer["status"]) == (200, "succeeded")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> str:
    """The slow token, less slow than its 3 s."""
    assert BEHAVIOURS["pm_provider_slow"].decide_after_s == 3.0
    monkeypatch.setitem(BEHAVIOURS, "pm_provider_slow", Behaviour(decide_after_s=0.5))
    return "pm_provider_slow"


async def test_slow_is_in_progress_until_it_is_done(gateway: aiohttp.ClientSession, slow: str) -> None:
    sending = asyncio.create_task(post(gateway, "authorizations", "txn_1", authorization(slow)))
    while (await operation(gateway, "txn_1"))[1].get("status") != "in_progress":
        assert not sending.done()
    assert (await post(gateway, "authorizations", "txn_1", authorization(slow)))[0] == 409
    assert (await sending)[0] == 200
    assert (await operation(gateway, "txn_1"))[1]["status"] == "succeeded"


async def test_a_void_releases_the_hold_and_nothing_can_be_captured_then(gateway: aiohttp.ClientSession) -> None:
    await post(gateway, "authorizations", "txn_1", authorization())
    void = {"payment_id": "pay_1", "authorization_id": "txn_1"}
    assert (await post(gateway, "voids", "txn_2", void))[0] == 200
    assert (await post(gateway, "voids", "txn_2", void))[0] == 200
    assert (await post(gateway, "voids", "txn_3", void))[0] == 200  # there is no hold any more
    item = {"payment_id": "pay_1", "amount": 2500, "currency": "USD"}
    chunk = {"batch_id": "sb_1", "chunk": 0, "items": [item]}
    _, settled = await post(gateway, "settlements", "sb_1:0", chunk)
    assert settled["items"][0]["status"] == "failed"
    assert await kinds(gateway) == ["authorization", "void"]


async def test_a_void_of_a_key_never_seen_refuses_it_for_ever(gateway: aiohttp.ClientSession) -> None:
    await post(gateway, "voids", "txn_2", {"payment_id": "pay_1", "authorization_id": "txn_1"})
    status, answer = await post(gateway, "authorizations", "txn_1", authorization())
    assert (status, answer["error"]["code"]) == (402, "authorization_voided")
    assert (await operation(gateway, "txn_1"))[1]["status"] == "failed"
    assert await ledger(gateway) == []


async def test_a_void_beats_a_slow_authorisation(gateway: aiohttp.ClientSession, slow: str) -> None:
    sending = asyncio.create_task(post(gateway, "authorizations", "txn_1", authorization(slow)))
    while (await operation(gateway, "txn_1"))[1].get("status") != "in_progress":
        assert not sending.done()
    await post(gateway, "voids", "txn_2", {"payment_id": "pay_1", "authorization_id": "txn_1"})
    assert (await sending)[0] == 402
    assert await ledger(gateway) == []


async def test_a_chunk_is_captured_once_with_a_result_for_each_item(gateway: aiohttp.ClientSession) -> None:
    tokens = {"pay_1": "pm_card_visa", "pay_2": "pm_settlement_fails", "pay_3": "pm_settlement_fails_once"}
    for payment_id, token in tokens.items():
        await post(gateway, "authorizations", f"txn_{payment_id}", authorization(token, payment_id))
    items = [{"payment_id": payment_id, "amount": 2500, "currency": "USD"} for payment_id in (*tokens, "pay_unknown")]

    def results(answer: dict[str, Any]) -> dict[str, tuple[str, bool | None]]:
        return {i["payment_id"]: (i["status"], i["error"] and i["error"]["retryable"]) for i in answer["items"]}

    first = await post(gateway, "settlements", "sb_1:0", {"batch_id": "sb_1", "chunk": 0, "items": items})
    again = await post(gateway, "settlements", "sb_1:0", {"batch_id": "sb_1", "chunk": 0, "items": items})
    assert first[0] == 200
    assert results(first[1]) == {
        "pay_1": ("succeeded", None),
        "pay_2": ("failed", True),
        "pay_3": ("failed", True),
        "pay_unknown": ("failed", False),
    }
    assert again[1]["items"] == first[1]["items"]
    assert (await operation(gateway, "sb_1:0"))[1]["items"] == first[1]["items"]

    tomorrow = {"batch_id": "sb_2", "chunk": 0, "items": items[1:3]}
    _, second = await post(gateway, "settlements", "sb_2:0", tomorrow)
    assert results(second) == {"pay_2": ("failed", True), "pay_3": ("succeeded", None)}
    captures = {m["payment_id"]: m["batch_id"] for m in await ledger(gateway) if m["type"] == "capture"}
    assert captures == {"pay_1": "sb_1", "pay_3": "sb_2"}


async def test_a_refund_gives_back_no_more_than_was_captured(gateway: aiohttp.ClientSession) -> None:
    await post(gateway, "authorizations", "txn_1", authorization())
    refund = {"payment_id": "pay_1", "amount": 2000, "currency": "USD"}
    assert (await post(gateway, "refunds", "txn_2", refund))[0] == 402
    item = {"payment_id": "pay_1", "amount": 2500, "currency": "USD"}
    await post(gateway, "settlements", "sb_1:0", {"batch_id": "sb_1", "chunk": 0, "items": [item]})
    assert (await post(gateway, "refunds", "txn_3", refund))[0] == 200
    assert (await post(gateway, "refunds", "txn_3", refund))[0] == 200
    status, answer = await post(gateway, "refunds", "txn_4", refund)
    assert (status, answer["error"]["code"]) == (402, "refund_refused")
    assert await kinds(gateway) == ["authorization", "capture", "refund"]


async def test_voids_and_refunds_are_refused_where_the_token_says_so(gateway: aiohttp.ClientSession) -> None:
    await post(gateway, "authorizations", "txn_1", authorization("pm_void_refused"))
    status, answer = await post(gateway, "voids", "txn_2", {"payment_id": "pay_1", "authorization_id": "txn_1"})
    assert (status, answer["error"]["code"]) == (402, "void_refused")
    await post(gateway, "authorizations", "txn_3", authorization("pm_refund_refused", "pay_2"))
    item = {"payment_id": "pay_2", "amount": 2500, "currency": "USD"}
    await post(gateway, "settlements", "sb_1:0", {"batch_id": "sb_1", "chunk": 0, "items": [item]})
    status, answer = await post(gateway, "refunds", "txn_4", {"payment_id": "pay_2", "amount": 1, "currency": "USD"})
    assert (status, answer["error"]["code"]) == (402, "refund_refused")


async def test_the_ledger_is_read_in_pages_without_gap_or_repeat(gateway: aiohttp.ClientSession) -> None:
    for number in range(5):
        await post(gateway, "authorizations", f"txn_{number}", authorization(payment_id=f"pay_{number}"))
    seen: list[str] = []
    query: dict[str, str] = {"limit": "2"}
    while True:
        async with gateway.get("/v1/ledger", params=query) as response:
            page = await response.json()
        seen += [movement["payment_id"] for movement in page["data"]]
        if not page["has_more"]:
            break
        query["after"] = page["data"][-1]["operation_id"]
    assert seen == [f"pay_{number}" for number in range(5)]


@pytest.mark.parametrize("query", ["after=op_unknown", "limit=0", "limit=101", "limit=x", "page=2"])
async def test_bad_queries_of_the_ledger_are_refused(gateway: aiohttp.ClientSession, query: str) -> None:
    async with gateway.get(f"/v1/ledger?{query}") as response:
        assert response.status == 400


@pytest.mark.parametrize(
    ("key", "body"),
    [
        (None, authorization()),
        ("", authorization()),
        ("txn_1", {**authorization(), "card": "x"}),
        ("txn_1", {**authorization(), "amount": "12"}),
        ("txn_1", authorization(amount=0)),
        ("txn_1", [1]),
    ],
)
async def test_bad_requests_are_refused_and_leave_nothing(
    gateway: aiohttp.ClientSession, key: str | None, body: Any
) -> None:
    headers = {} if key is None else {"Idempotency-Key": key}
    async with gateway.post("/v1/authorizations", json=body, headers=headers) as response:
        assert response.status == 400
    assert (await operation(gateway, "txn_1"))[0] == 404
