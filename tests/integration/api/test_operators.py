"""The internal port: who comes in, what each identity may, and that merchants and keys work within seconds."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from tests.integration.api.http_client import PAYMENT, Client
from tests.local_servers import Servers


async def test_a_new_merchant_works_at_once_and_a_revoked_key_or_suspension_within_five_seconds(
    operator: Client, stack: Servers
) -> None:
    created = await operator.call("POST", "/merchants", {"name": "New Shop", "settlement_currencies": ["EUR", "USD"]})
    assert created.status == 201
    path = f"/merchants/{created.json['merchant_id']}"
    key = (await operator.call("POST", f"{path}/api_keys", {"kind": "secret"})).json
    async with Client(stack, stack.urls["api"], key=key["key"]) as shop:
        assert (await shop.call("POST", "/payments", PAYMENT)).status in (201, 202)
        assert (await shop.call("POST", "/payments", {**PAYMENT, "currency": "JPY"})).json["code"] == "currency_invalid"
        suspended = await operator.call("PATCH", path, {"status": "SUSPENDED"})
        assert suspended.json["status"] == "SUSPENDED"
        await _within_five_seconds(shop, "POST", 403)
        assert (await shop.call("GET", "/payments")).status == 200
        assert (await operator.call("DELETE", f"{path}/api_keys/{key['key_id']}")).status == 204
        await _within_five_seconds(shop, "GET", 401)
    assert (await operator.call("GET", f"{path}/api_keys")).json["data"] == []
    assert (await operator.call("DELETE", f"{path}/api_keys/{key['key_id']}")).status == 404


async def test_a_rolled_key_is_replaced_by_one_of_the_same_kind(operator: Client, stack: Servers) -> None:
    path = f"/merchants/{(await operator.call('POST', '/merchants', {'name': 'Rolling'})).json['merchant_id']}"
    expires_at = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    body = {"kind": "restricted", "scopes": ["payments:read"], "expires_at": expires_at}
    old = (await operator.call("POST", f"{path}/api_keys", body)).json
    new = await operator.call("POST", f"{path}/api_keys/{old['key_id']}/roll", {"grace_seconds": 60})
    assert new.status == 201
    assert (new.json["kind"], new.json["scopes"]) == ("restricted", ["payments:read"])
    async with Client(stack, stack.urls["api"]) as shop:
        for key in (old["key"], new.json["key"]):
            assert (await shop.call("GET", "/payments", key=key)).status == 200
    for bad in ({"kind": "secret", "scopes": ["payments:read"]}, {"kind": "restricted"}, {"kind": "root"}):
        assert (await operator.call("POST", f"{path}/api_keys", bad)).status == 400


async def test_what_operators_do_is_in_the_audit_log_newest_first(operator: Client, stack: Servers) -> None:
    merchant = (await operator.call("POST", "/merchants", {"name": "Audited"})).json
    path = f"/merchants/{merchant['merchant_id']}"
    suspended = await operator.call("PATCH", path, {"status": "SUSPENDED"})
    key = (await operator.call("POST", f"{path}/api_keys", {"kind": "publishable"})).json
    rolled = (await operator.call("POST", f"{path}/api_keys/{key['key_id']}/roll")).json
    await operator.call("DELETE", f"{path}/api_keys/{rolled['key_id']}")
    entries = await _audited(operator, 6)
    assert [(entry["act"], entry["subject"]) for entry in entries] == [
        ("api_key.revoked", rolled["key_id"]),
        ("api_key.rolled", key["key_id"]),
        ("api_key.created", rolled["key_id"]),
        ("api_key.created", key["key_id"]),
        ("merchant.updated", merchant["merchant_id"]),
        ("merchant.created", merchant["merchant_id"]),
    ]
    update = entries[4]
    assert (update["before"], update["after"]) == (merchant, suspended.json)
    assert (update["actor"], update["request_id"]) == (
        {"identity": "operator", "role": "operator"},
        suspended.headers["Request-Id"],
    )
    assert list(update) == ["audit_id", "actor", "act", "subject", "request_id", "at", "before", "after"]
    assert key["key"] not in str(entries)
    unknown = await operator.call("GET", f"/audit_log?starting_after={update['audit_id'][:-2]}aa")
    assert unknown.json["code"] == "invalid_request"


async def test_a_refused_key_and_a_refused_identity_are_in_the_audit_log(operator: Client, stack: Servers) -> None:
    async with Client(stack, stack.urls["api"], key=stack.merchants[1]["publishable_key"]) as browser:
        refused = (await browser.call("GET", "/settlement_batches")).json
    async with Client(stack, stack.urls["internal"], identity="auditor") as auditor:
        forbidden = (await auditor.call("DELETE", "/merchants/x/api_keys/y")).json
    wanted = {refused["request_id"], forbidden["request_id"]}
    async with asyncio.timeout(5):
        while True:
            found = {entry["request_id"]: entry for entry in await _audited(operator, 20)}
            if wanted <= set(found):
                break
    assert found[refused["request_id"]]["actor"]["role"] == "publishable_key"
    assert found[forbidden["request_id"]]["subject"] == "DELETE /merchants/{merchant_id}/api_keys/{key_id}"


@pytest.mark.parametrize(
    ("identity", "method", "path", "status"),
    [
        ("auditor", "GET", "/merchants", 200),
        ("auditor", "POST", "/merchants", 403),
        ("auditor", "POST", "/settlement_batches", 403),
        ("auditor", "GET", "/readyz", 200),
        ("auditor", "GET", "/audit_log", 200),
        ("auditor", "GET", "/docs", 200),
        ("settlement-operator", "GET", "/audit_log", 403),
        ("payment-worker", "GET", "/openapi.json", 403),
        ("settlement-operator", "GET", "/healthz", 200),
        ("settlement-operator", "GET", "/metrics", 403),
        ("settlement-operator", "GET", "/merchants", 403),
        ("settlement-operator", "GET", "/settlement_runs/2001-01-01", 404),
        ("payment-worker", "GET", "/healthz", 403),
        ("internal-producer", "GET", "/merchants", 403),
        ("operator", "GET", "/nowhere", 404),
        ("operator", "DELETE", "/merchants", 405),
    ],
)
async def test_each_identity_does_what_it_may(
    stack: Servers, identity: str, method: str, path: str, status: int
) -> None:
    async with Client(stack, stack.urls["internal"], identity=identity) as client:
        assert (await client.call(method, path)).status == status


async def test_without_a_certificate_there_is_no_handshake_on_the_internal_port(stack: Servers) -> None:
    async with Client(stack, stack.urls["internal"]) as nobody:
        with pytest.raises(aiohttp.ClientError):
            await nobody.call("GET", "/healthz")


async def test_readiness_names_each_dependency(operator: Client) -> None:
    ready = await operator.call("GET", "/readyz")
    assert (ready.status, ready.json) == (
        200,
        {"ready": True, "dependencies": {"kafka": "ok", "replies": "ok", "cassandra": "ok"}},
    )


async def _audited(operator: Client, count: int) -> list[dict[str, Any]]:
    """The newest entries, read two at a time."""
    entries: list[dict[str, Any]] = []
    query = "limit=2"
    while len(entries) < count:
        page = (await operator.call("GET", f"/audit_log?{query}")).json
        entries += page["data"]
        if not page["has_more"]:
            break
        query = f"limit=2&starting_after={entries[-1]['audit_id']}"
    return entries[:count]


async def _within_five_seconds(shop: Client, method: str, status: int) -> None:
    body = PAYMENT if method == "POST" else None
    ends = asyncio.get_running_loop().time() + 5
    while asyncio.get_running_loop().time() < ends:
        if (await shop.call(method, "/payments", body)).status == status:
            return
    pytest.fail(f"not {status} within five seconds")
