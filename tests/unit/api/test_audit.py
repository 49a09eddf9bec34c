"""The audit log over HTTP: refused access is in it, in bounded volume; operators page through it."""

from __future__ import annotations

import asyncio

import pytest

from api.audit import audit_id_of, time_in
from api.documents import AuditEntryDocument
from api.refusals import ACT
from tests.unit.api.platform_in_memory import MERCHANT, PAYMENT, Platform


async def refusals(platform: Platform, wanted: int) -> list[dict[str, object]]:
    """What the audit log says of refused access once it holds `wanted` entries."""
    async with asyncio.timeout(5):
        while True:
            entries = (await platform.operate("auditor", "GET", "/audit_log?limit=100")).json["data"]
            found = [entry for entry in entries if entry["act"] == ACT]
            if len(found) >= wanted:
                return found


async def test_a_refused_key_is_audited_with_who_tried_what(platform: Platform) -> None:
    reader = platform.add_key("restricted", ["payments:read"])
    refused = await platform.call("POST", "/payments", PAYMENT, key=reader)
    (entry,) = await refusals(platform, 1)
    assert list(entry) == list(AuditEntryDocument.__struct_fields__)
    assert entry | {"audit_id": "", "at": ""} == {
        "audit_id": "",
        "actor": {
            "identity": next(k.key_id for k in platform.records.api_keys.values() if k.scopes),
            "role": "restricted_key",
        },
        "act": "access.refused",
        "subject": "POST /payments",
        "request_id": refused.json["request_id"],
        "at": "",
        "before": None,
        "after": {"code": "forbidden"},
    }
    assert platform.records.acts[-1].merchant_id == MERCHANT


async def test_a_client_that_is_refused_again_and_again_fills_no_log(platform: Platform) -> None:
    reader = platform.add_key("restricted", ["payments:read"])
    for _ in range(30):
        assert (await platform.call("POST", "/payments", PAYMENT, key=reader)).status == 403
    await platform.call("GET", "/webhook_endpoints", key=reader)
    assert {entry["subject"] for entry in await refusals(platform, 2)} == {"POST /payments", "GET /webhook_endpoints"}
    assert len(platform.records.acts) == 2


async def test_refusals_of_strangers_and_other_refusals_are_not_audited(platform: Platform) -> None:
    await platform.call("GET", "/payments", key="nonsense")
    await platform.call("GET", "/nowhere")
    await platform.call("GET", "/payments", key=platform.publishable_key)
    (entry,) = await refusals(platform, 1)
    assert entry["subject"] == "GET /payments"


async def test_a_refusal_waits_for_the_end_of_an_outage_and_its_answer_does_not(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.refusals.RETRY_S", 0.01)
    await platform.call("GET", "/payments/" + "x")  # the key is known from now on
    platform.add_merchant(MERCHANT, status="SUSPENDED")
    platform.seconds += 4
    await platform.call("GET", "/payments")
    platform.records.away = True
    assert (await platform.create()).code == "merchant_inactive"
    assert platform.records.acts == []
    platform.records.away = False
    (entry,) = await refusals(platform, 1)
    assert entry["after"] == {"code": "merchant_inactive"}


async def test_the_log_pages_newest_first_and_only_for_those_who_may_read(platform: Platform) -> None:
    for path in ("/payments", "/webhook_endpoints", "/idempotency_keys/x"):
        await platform.call("GET", path, key=platform.publishable_key)
    everything = await refusals(platform, 3)
    seen: list[dict[str, object]] = []
    query = "limit=1"
    while True:
        page = (await platform.operate("operator", "GET", f"/audit_log?{query}")).json
        assert (page["object"], len(page["data"])) == ("list", 1)
        seen += page["data"]
        if not page["has_more"]:
            break
        query = f"limit=1&starting_after={seen[-1]['audit_id']}"
    assert seen == everything
    assert [entry["at"] for entry in seen] == sorted((str(entry["at"]) for entry in seen), reverse=True)
    for bad in (
        "limit=0",
        "starting_after=aud_x",
        f"starting_after=aud_{'a' * 26}",
        f"starting_after=aud_{'7' * 26}",
        "x=1",
    ):
        answer = await platform.operate("operator", "GET", f"/audit_log?{bad}")
        assert (answer.status, answer.code) == (400, "invalid_request"), bad
    for identity in ("settlement-operator", "payment-worker", "internal-producer"):
        assert (await platform.operate(identity, "GET", "/audit_log")).status == 403
        assert (await platform.operate(identity, "GET", "/openapi.json")).status == 403
    roles = {e["actor"]["identity"]: e["actor"]["role"] for e in await refusals(platform, 9)}  # type: ignore[index]
    assert roles["settlement-operator"] == "settlement-operator"
    assert roles["payment-worker"] == "service"


def test_the_id_of_an_act_tells_its_time() -> None:
    at = 1_795_000_000_123_456
    assert time_in(audit_id_of(at, "req_x", "merchant.created")) == at
    assert audit_id_of(at, "req_x", "a") != audit_id_of(at, "req_x", "b")
    for text in ("", "aud_", "aud_" + "!" * 26, "pay_" + "a" * 26, "aud_" + "A" * 26):
        assert time_in(text) is None
