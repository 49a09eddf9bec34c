"""What operators do on the internal port: merchants, their keys, and days that were settled."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from tests.unit.api.platform_in_memory import MERCHANT, PAYMENT, Answer, Platform


async def done(platform: Platform, method: str, path: str, body: object = None, status: int = 200) -> Any:
    """What an operator's request is answered with, which must have this status."""
    answer: Answer = await platform.operate("operator", method, path, body)
    assert answer.status == status, answer.content
    return answer.json if answer.content else None


async def test_a_merchant_is_registered_listed_shown_and_suspended(platform: Platform) -> None:
    shop = await done(platform, "POST", "/merchants", {"name": "Shop", "settlement_currencies": ["EUR"]}, 201)
    assert await done(platform, "GET", f"/merchants/{shop['merchant_id']}") == shop
    assert shop in (await done(platform, "GET", "/merchants?limit=100"))["data"]
    suspended = await done(platform, "PATCH", f"/merchants/{shop['merchant_id']}", {"status": "SUSPENDED"})
    assert suspended == {**shop, "status": "SUSPENDED"}
    assert await done(platform, "GET", f"/merchants/{shop['merchant_id']}") == suspended


async def test_a_suspended_merchants_key_reads_and_does_no_more(platform: Platform) -> None:
    await done(platform, "PATCH", f"/merchants/{MERCHANT}", {"status": "SUSPENDED"})
    platform.seconds += 5.0  # what is cached of a merchant is older then
    refused = await platform.call("POST", "/payments", PAYMENT)
    assert (refused.status, refused.code) == (403, "merchant_inactive")
    assert (await platform.call("GET", "/payments")).status == 200


async def test_a_key_is_made_listed_rolled_and_revoked(platform: Platform) -> None:
    keys = f"/merchants/{MERCHANT}/api_keys"
    made = await done(platform, "POST", keys, {"kind": "restricted", "scopes": ["payments:read"]}, 201)
    assert (await platform.call("GET", "/payments", key=made["key"])).status == 200
    listed = {key["key_id"]: key for key in (await done(platform, "GET", f"{keys}?limit=100"))["data"]}
    assert listed[made["key_id"]]["scopes"] == ["payments:read"]
    assert made["key"] not in str(listed), "a key is shown once"
    rolled = await done(platform, "POST", f"{keys}/{made['key_id']}/roll", {"grace_seconds": 60}, 201)
    for key in (made["key"], rolled["key"]):
        assert (await platform.call("GET", "/payments", key=key)).status == 200
    await done(platform, "DELETE", f"{keys}/{rolled['key_id']}", status=204)
    platform.seconds += 5.0
    refused = await platform.call("GET", "/payments", key=rolled["key"])
    assert (refused.status, refused.code) == (401, "unauthenticated")
    await done(platform, "DELETE", f"{keys}/{rolled['key_id']}", status=404)


async def test_currencies_and_scopes_come_back_in_the_order_given(platform: Platform) -> None:
    merchant = await done(platform, "POST", "/merchants", {"name": "S", "settlement_currencies": ["USD", "EUR"]}, 201)
    assert merchant["settlement_currencies"] == ["USD", "EUR"]
    scopes = ["payments:write", "payments:read"]
    keys = f"/merchants/{MERCHANT}/api_keys"
    made = await done(platform, "POST", keys, {"kind": "restricted", "scopes": scopes}, 201)
    assert made["scopes"] == scopes


async def test_a_time_outside_the_calendar_ends_no_key(platform: Platform) -> None:
    keys = f"/merchants/{MERCHANT}/api_keys"
    body = {"kind": "secret", "expires_at": "9999-12-31T23:59:59-23:59"}
    refused = await platform.operate("operator", "POST", keys, body)
    assert (refused.status, refused.json["param"]) == (400, "expires_at")
    assert (await platform.operate("operator", "GET", keys)).status == 200


@pytest.mark.parametrize("path", ["/merchants", "/settlement_batches", "/audit_log"])
async def test_nothing_is_no_place_to_start_a_page(platform: Platform, path: str) -> None:
    refused = await platform.operate("operator", "GET", f"{path}?starting_after=")
    assert (refused.status, refused.json["param"]) == (400, "starting_after")


@pytest.fixture
def settled(platform: Platform) -> str:
    """The id of a batch of three payments, 10 each."""
    return platform.batches.settle(MERCHANT, "2026-11-20", 3).batch_id


async def test_a_settled_day_is_shown_with_its_batch_and_its_payments(platform: Platform, settled: str) -> None:
    run = await done(platform, "GET", "/settlement_runs/2026-11-20")
    assert (run["settlement_date"], run["status"]) == ("2026-11-20", "COMPLETED")
    batch = await done(platform, "GET", f"/settlement_batches/{settled}")
    assert (batch["batch_id"], batch["count"], batch["amount"]) == (settled, 3, 30)
    payments = (await done(platform, "GET", f"/settlement_batches/{settled}/payments"))["data"]
    assert [payment["amount"] for payment in payments] == [10, 10, 10]
    table = await platform.operate("operator", "GET", f"/settlement_batches/{settled}/payments.csv")
    rows = list(csv.DictReader(io.StringIO(table.content.decode())))
    assert [row["payment_id"] for row in rows] == [payment["payment_id"] for payment in payments]
