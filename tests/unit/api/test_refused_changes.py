"""Changes that the domain refuses, and errors of ours, as HTTP tells of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from streams.domain.settlement_days import day_of
from tests.unit.api.platform_in_memory import Platform


async def authorized(platform: Platform) -> str:
    """The id of a payment that the provider has authorised."""
    payment_id: str = (await platform.create()).json["payment_id"]
    await platform.confirm(payment_id)
    platform.authorize(payment_id)
    return payment_id


async def test_a_refund_of_more_than_what_is_left_is_422_and_changes_nothing(platform: Platform) -> None:
    payment_id = await authorized(platform)
    platform.settle(payment_id)
    path = f"/payments/{payment_id}/refunds"
    assert (await platform.call("POST", path, {"amount": 2000}, idempotency_key="r1")).status == 202
    before = (await platform.call("GET", f"/payments/{payment_id}")).json
    refused = await platform.call("POST", path, {"amount": 501}, idempotency_key="r2")
    assert (refused.status, refused.code) == (
        422,
        "amount_exceeds_refundable",
    )
    assert (await platform.call("GET", f"/payments/{payment_id}")).json == before
    assert (await platform.call("POST", path, {"amount": 500}, idempotency_key="r3")).status == 202


async def test_a_cancel_after_the_payments_day_has_closed_is_409(platform: Platform) -> None:
    payment_id = await authorized(platform)
    platform.log.last_closed_date = day_of(platform.clock.now_us())
    refused = await platform.call("POST", f"/payments/{payment_id}/cancel", idempotency_key="x1")
    assert (refused.status, refused.code) == (409, "payment_in_settlement")
    assert (await platform.call("GET", f"/payments/{payment_id}")).json["status"] == "AUTHORIZED"


async def test_a_day_that_is_not_over_is_not_closed(platform: Platform) -> None:
    body = {"settlement_date": day_of(platform.clock.now_us())}
    refused = await platform.operate("operator", "POST", "/settlement_batches", body)
    assert (refused.status, refused.code) == (409, "settlement_date_open")


async def test_an_error_of_ours_is_500_and_says_nothing_of_itself(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> Sequence[object]:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(platform.records, "list", broken)
    with capture_logs() as logs:
        failed = await platform.call("GET", "/payments")
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["request failed"]
    assert (failed.status, failed.code) == (500, "internal_error")
    assert b"secret" not in failed.content
    assert failed.json["request_id"] == failed.headers["Request-Id"]
