"""Small print of the contract that no other test reads."""

from __future__ import annotations

import re
import string
from urllib.parse import quote

import pytest

from api.bodies import parse_body
from api.models import CreateMerchant
from api.problems import Problem
from tests.unit.api.platform_in_memory import Platform


async def test_as_of_beyond_now_shows_the_payment_as_it_is(platform: Platform) -> None:
    created = await platform.create()
    path = created.headers["Location"]
    for later in ("2", "999999999", "77777777777", "7" * 200, "2999-01-01T00:00:00Z"):
        shown = await platform.call("GET", f"{path}?as_of={later}")
        assert (shown.status, shown.content) == (200, created.content), later
    assert (await platform.call("GET", f"{path}?as_of=2001-01-01T00:00:00Z")).status == 404


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/payments/nonsense?as_of=never", "as_of"),
        ("/payments/nonsense?as_of=-1", "as_of"),
        ("/payments/nonsense?as_of=", "as_of"),
        ("/payments/nonsense/events?limit=0", "limit"),
        ("/payments/nonsense/events?starting_after=", "starting_after"),
        ("/payments?starting_after=", "starting_after"),
        ("/payments?created_before=9999-12-31T23:59:59-23:59", "created_before"),
        ("/payments?created_after=0001-01-01T00:00:00%2B23:59", "created_after"),
        ("/settlement_batches?starting_after=", "starting_after"),
        ("/payments/nonsense?x=1", "x"),
        ("/idempotency_keys/none?x=1", "x"),
        ("/openapi.json?x=1", "x"),
        ("/docs?x=1", "x"),
    ],
)
async def test_fields_are_checked_before_anything_is_looked_for(platform: Platform, path: str, param: str) -> None:
    answer = await platform.call("GET", path)
    assert (answer.status, answer.code, answer.json["param"]) == (400, "invalid_request", param)


async def test_the_key_of_a_create_is_read_back_whatever_it_is_made_of(platform: Platform) -> None:
    for key in (string.printable[:95].strip(), "%2F", "../..", "a b", "?x=1#y", "k" * 255):
        payment_id = (await platform.create(key)).json["payment_id"]
        told = await platform.call("GET", f"/idempotency_keys/{quote(key, safe='')}")
        assert (told.status, told.json.get("idempotency_key"), told.json.get("payment_id")) == (200, key, payment_id)
        assert list(told.json) == ["idempotency_key", "operation", "payment_id", "status_code", "created_at"]
    assert (await platform.call("GET", "/idempotency_keys/k", key=platform.other_key)).status == 404


async def test_each_operation_on_each_payment_has_its_own_keys(platform: Platform) -> None:
    first, second = [(await platform.create()).json["payment_id"] for _ in range(2)]
    for payment_id in (first, second):
        confirmed = await platform.confirm(payment_id, "same")
        assert (confirmed.status, confirmed.headers.get("Idempotency-Replayed")) == (202, None)
    canceled = await platform.call("POST", f"/payments/{first}/cancel", idempotency_key="same")
    assert (canceled.status, canceled.code) == (409, "invalid_state")
    assert "Idempotency-Replayed" not in canceled.headers


async def test_a_refund_before_the_settlement_is_409_with_the_status(platform: Platform) -> None:
    payment_id = (await platform.create()).json["payment_id"]
    for body in (None, {}, {"amount": 1}):
        refused = await platform.call("POST", f"/payments/{payment_id}/refunds", body, idempotency_key=str(body))
        assert (refused.status, refused.code, refused.json["payment_status"]) == (409, "invalid_state", "PENDING")
    for amount in (0, None, "1", 1.0, 10**12):
        refused = await platform.call(
            "POST", f"/payments/{payment_id}/refunds", {"amount": amount}, idempotency_key="r"
        )
        assert (refused.status, refused.code) == (400, "amount_invalid"), amount


@pytest.mark.parametrize("path", ["confirm", "cancel", "refunds"])
async def test_what_changes_a_payment_needs_a_key(platform: Platform, path: str) -> None:
    payment_id = (await platform.create()).json["payment_id"]
    body = {"payment_method_token": "pm_x"} if path == "confirm" else {}
    answer = await platform.call("POST", f"/payments/{payment_id}/{path}", body)
    assert (answer.status, answer.code) == (400, "idempotency_key_required")


@pytest.mark.parametrize("currencies", [["usd"], [], "USD", [840], ["US"]])
def test_currencies_that_are_none_are_currency_invalid(currencies: object) -> None:
    body = repr({"name": "Shop", "settlement_currencies": currencies}).replace("'", '"').encode()
    with pytest.raises(Problem) as refused:
        parse_body(body, CreateMerchant)
    assert refused.value.code == "currency_invalid"
    assert str(refused.value.param).startswith("settlement_currencies")


async def test_a_token_that_no_vault_made_is_for_the_provider_to_decline(platform: Platform) -> None:
    payment_id = (await platform.create()).json["payment_id"]
    confirmed = await platform.confirm(payment_id, body={"payment_method_token": "pm_of-somebody_else"})
    assert (confirmed.status, confirmed.json["payment_method_token"]) == (202, "pm_of-somebody_else")


@pytest.mark.parametrize("secret", ["x", "x" * 2_000])
async def test_a_wrong_client_secret_is_403_however_long(platform: Platform, secret: str) -> None:
    payment_id = (await platform.create()).json["payment_id"]
    body = {"client_secret": secret}
    refused = await platform.confirm(payment_id, key=platform.publishable_key, body=body)
    assert (refused.status, refused.code) == (403, "forbidden")


async def test_every_answer_has_a_request_id_and_is_not_sniffed(platform: Platform) -> None:
    seen = set()
    for method, path, key in (
        ("GET", "/payments", ""),
        ("GET", "/payments", None),
        ("GET", "/nowhere", ""),
        ("DELETE", "/payments", ""),
        ("OPTIONS", "/payments/x", None),
        ("GET", "/openapi.json", None),
        ("GET", "/docs", None),
        ("HEAD", "/payments", ""),
    ):
        answer = await platform.call(method, path, key=key)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        seen.add(answer.headers["Request-Id"])
    assert len(seen) == 8


async def test_the_documentation_is_a_page_of_its_own_that_loads_nothing(platform: Platform) -> None:
    page = await platform.call("GET", "/docs", key=None, headers={"Accept": "text/html"})
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    text = page.content.decode()
    for route in platform.routes:
        assert f"{route.method} {route.path}" in text
    links = set(re.findall(r'(?:href|src)="([^"]*)"', text))
    assert {link for link in links if not link.startswith("#")} == {"/openapi.json"}
    assert {link[1:] for link in links if link.startswith("#")} <= set(re.findall(r'id="([^"]*)"', text))
    assert "<script" not in text
    assert (await platform.call("GET", "/docs", key=None, headers={"Accept": "image/png"})).code == "not_acceptable"
