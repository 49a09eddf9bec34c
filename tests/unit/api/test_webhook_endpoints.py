"""Webhook endpoints over HTTP: secrets shown once, destinations checked, each merchant its own."""

from __future__ import annotations

import pytest

from ops.runtime.encryption import Sealed
from streams.webhooks.signing import SECRET_PREFIX
from tests.unit.api.platform_in_memory import Platform

ENDPOINT = {"url": "http://127.0.0.1:9/hook", "event_types": ["payment.*"], "description": "shop"}


async def test_an_endpoint_is_made_shown_changed_and_removed(platform: Platform) -> None:
    created = await platform.call("POST", "/webhook_endpoints", ENDPOINT)
    assert created.status == 201
    secret = created.json["secret"]
    assert secret.startswith(SECRET_PREFIX)
    path = created.headers["Location"]
    shown = {key: value for key, value in created.json.items() if key != "secret"}
    assert (await platform.call("GET", path)).json == shown
    assert (await platform.call("GET", "/webhook_endpoints")).json["data"] == [shown]
    patched = await platform.call("PATCH", path, {"status": "DISABLED", "event_types": ["*"]})
    assert patched.json == {**shown, "status": "DISABLED", "event_types": ["*"]}
    rotated = await platform.call("POST", f"{path}/rotate_secret")
    assert rotated.status == 200
    assert rotated.json["secret"] != secret
    assert (await platform.call("DELETE", path)).status == 204
    assert (await platform.call("GET", path)).status == 404
    assert [act.act for act in platform.records.acts] == [
        f"webhook_endpoint.{what}" for what in ("created", "updated", "secret_rotated", "deleted")
    ]
    assert secret not in repr(platform.records.acts)


async def test_the_secret_is_stored_encrypted_for_its_endpoint_and_the_old_one_signs_for_a_day_after_rotation(
    platform: Platform,
) -> None:
    created = (await platform.call("POST", "/webhook_endpoints", ENDPOINT)).json
    endpoint_id = created["endpoint_id"]
    rotated = (await platform.call("POST", f"/webhook_endpoints/{endpoint_id}/rotate_secret")).json
    stored = platform.records.endpoints[endpoint_id].secrets
    opened = [
        (
            await platform.data_keys.decrypt(
                endpoint_id, Sealed(key_id=each.key_id, nonce=each.nonce, ciphertext=each.ciphertext)
            )
        ).decode()
        for each in stored
    ]
    assert opened == [rotated["secret"], created["secret"]]
    assert stored[0].expires_at is None
    assert stored[1].expires_at == stored[0].created_at + 24 * 3_600 * 1_000_000


async def test_a_rotation_takes_no_fields_and_does_not_ignore_those_that_are_sent(platform: Platform) -> None:
    path = (await platform.call("POST", "/webhook_endpoints", ENDPOINT)).headers["Location"]
    refused = await platform.call("POST", f"{path}/rotate_secret", {"grace_seconds": 0})
    assert (refused.status, refused.code, refused.json["param"]) == (400, "unknown_field", "grace_seconds")
    assert [act.act for act in platform.records.acts] == ["webhook_endpoint.created"]
    assert (await platform.call("POST", f"{path}/rotate_secret", {})).status == 200


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"url": "http://example.com/hook"}, "url"),
        ({"url": "https://127.0.0.1/hook"}, "url"),
        ({"url": "https://10.0.0.1/hook"}, "url"),
        ({"url": "https://[::ffff:10.0.0.1]/hook"}, "url"),
        ({"url": "https://user:pass@example.com/hook"}, "url"),
        ({"url": "ftp://example.com/hook"}, "url"),
        ({"url": "https://exämple.com/hook"}, "url"),
        ({"event_types": []}, "event_types"),
        ({"event_types": ["payment.unknown"]}, "event_types"),
    ],
)
async def test_a_destination_or_type_that_cannot_be_is_400(
    platform: Platform, change: dict[str, object], param: str
) -> None:
    answer = await platform.call("POST", "/webhook_endpoints", {**ENDPOINT, **change})
    assert (answer.status, answer.code, answer.json["param"]) == (400, "invalid_request", param)


async def test_another_merchants_endpoint_is_404(platform: Platform) -> None:
    path = (await platform.call("POST", "/webhook_endpoints", ENDPOINT)).headers["Location"]
    for method, body in (("GET", None), ("PATCH", {"status": "DISABLED"}), ("DELETE", None)):
        assert (await platform.call(method, path, body, key=platform.other_key)).status == 404
