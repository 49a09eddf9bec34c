"""Merchants, keys, endpoints, data keys and the audit log in real Cassandra: two changes at once never lose one."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec
import pytest

from streams.domain import ids
from tables.records.audit import AuditedAct
from tables.records.data_keys import DataKeyTaken
from tables.records.endpoints import Endpoint, EndpointSecret
from tables.records.merchants import ApiKey, Merchant
from tables.records.store import RecordStore

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]

NOW = 1_795_372_800_000_000


def _merchant(merchant_id: str, currencies: list[str] | None = None) -> Merchant:
    return Merchant(
        merchant_id=merchant_id,
        name="Demo Shop",
        status="ACTIVE",
        settlement_currencies=currencies,
        created_at=NOW,
        updated_at=NOW,
    )


@pytest.mark.parametrize("currencies", [None, ["EUR", "USD"]])
async def test_a_merchant_is_created_once(store: RecordStore, merchant_id: str, currencies: list[str] | None) -> None:
    merchant = _merchant(merchant_id, currencies)
    assert await store.merchants.merchant(merchant_id) is None
    created = await asyncio.gather(*(store.merchants.create(merchant) for _ in range(4)))
    assert sorted(created) == [False, False, False, True]
    assert await store.merchants.merchant(merchant_id) == merchant


async def test_of_two_changes_at_once_one_is_told_to_read_again(store: RecordStore, merchant_id: str) -> None:
    merchant = _merchant(merchant_id)
    await store.merchants.create(merchant)
    changes = await asyncio.gather(
        store.merchants.update_status(merchant, "SUSPENDED", now=NOW + 1),
        store.merchants.update_status(merchant, "CLOSED", now=NOW + 1),
    )
    (done,) = [change for change in changes if change is not None]
    assert await store.merchants.merchant(merchant_id) == done
    assert await store.merchants.update_status(merchant, "ACTIVE", now=NOW + 2) is None, "read before that change"
    assert await store.merchants.update_status(done, "ACTIVE", now=NOW + 2) is not None


async def test_merchants_page_without_gaps(store: RecordStore) -> None:
    mine = [ids.unkeyed(ids.MERCHANT) for _ in range(7)]
    for merchant_id in mine:
        await store.merchants.create(_merchant(merchant_id))
    paged: list[str] = []
    while page := await store.merchants.page(limit=3, starting_after=paged[-1] if paged else None):
        paged.extend(merchant.merchant_id for merchant in page)
    assert len(paged) == len(set(paged))
    assert set(mine) <= set(paged)


def _key(merchant_id: str) -> ApiKey:
    return ApiKey(
        key_hash=os.urandom(32),
        key_id=ids.unkeyed(ids.API_KEY),
        merchant_id=merchant_id,
        kind="restricted",
        scopes=["payments:read"],
        created_at=NOW,
    )


async def test_a_key_is_found_by_its_hash_until_it_ends(store: RecordStore, merchant_id: str) -> None:
    key = _key(merchant_id)
    assert await store.merchants.create_key(key) is True
    assert await store.merchants.create_key(key) is True, "a repeated call finds its own work done"
    assert await store.merchants.create_key(msgspec.structs.replace(key, kind="secret")) is False
    found = await store.merchants.by_hash(key.key_hash)
    assert found == key
    assert found.valid_at(NOW)
    await store.merchants.end_key(key, expires_at=None, revoked_at=NOW + 1)
    ended = await store.merchants.by_hash(key.key_hash)
    assert ended is not None
    assert not ended.valid_at(NOW + 2)
    assert await store.merchants.keys(merchant_id) == [ended]
    assert await store.merchants.by_hash(b"other") is None


async def test_a_key_whose_creation_was_cut_off_does_not_authenticate_and_can_be_completed(
    store: RecordStore, merchant_id: str
) -> None:
    key = msgspec.structs.replace(_key(merchant_id), scopes=[], kind="secret")
    await store.merchants.create_key(key)
    await store.session.execute_ddl(f"DELETE FROM api_keys_by_hash WHERE key_hash = 0x{key.key_hash.hex()} IF EXISTS")
    assert await store.merchants.by_hash(key.key_hash) is None
    assert await store.merchants.create_key(key) is True
    assert await store.merchants.by_hash(key.key_hash) == key


async def test_a_rolled_key_works_until_its_grace_is_over(store: RecordStore, merchant_id: str) -> None:
    key = _key(merchant_id)
    await store.merchants.create_key(key)
    await store.merchants.end_key(key, expires_at=NOW + 10, revoked_at=None)
    rolled = await store.merchants.by_hash(key.key_hash)
    assert rolled is not None
    assert (rolled.valid_at(NOW + 9), rolled.valid_at(NOW + 10)) == (True, False)


def _endpoint(merchant_id: str) -> Endpoint:
    secret = EndpointSecret(key_id="dk_1", nonce=b"\x00" * 12, ciphertext=b"\xff\x00", created_at=NOW)
    return Endpoint(
        merchant_id=merchant_id,
        endpoint_id=ids.unkeyed(ids.ENDPOINT),
        url="https://example.com/hook",
        event_types=["payment.*"],
        description="",
        status="ENABLED",
        secrets=[secret, msgspec.structs.replace(secret, expires_at=NOW + 86_400_000_000)],
        created_at=NOW,
        updated_at=NOW,
    )


async def test_an_endpoint_keeps_its_secrets_and_every_change(store: RecordStore, merchant_id: str) -> None:
    endpoint = _endpoint(merchant_id)
    assert await store.endpoints.create(endpoint) is True
    assert await store.endpoints.get(merchant_id, endpoint.endpoint_id) == endpoint
    changes = [msgspec.structs.replace(endpoint, description=text) for text in ("one", "two")]
    done = await asyncio.gather(*(store.endpoints.update(change, now=NOW + 1) for change in changes))
    assert sorted(change is None for change in done) == [False, True]
    assert await store.endpoints.of_merchant(merchant_id) == [change for change in done if change is not None]
    assert await store.endpoints.delete(merchant_id, endpoint.endpoint_id) is True
    assert await store.endpoints.delete(merchant_id, endpoint.endpoint_id) is False
    assert await store.endpoints.of_merchant(merchant_id) == []
    assert await store.endpoints.update(endpoint, now=NOW + 2) is None, "a change does not bring it back"
    assert await store.endpoints.of_merchant(merchant_id) == []


async def test_a_failing_endpoint_is_disabled_once_and_not_against_its_owner(
    store: RecordStore, merchant_id: str
) -> None:
    endpoint = _endpoint(merchant_id)
    await store.endpoints.create(endpoint)
    disable: dict[str, Any] = {"reason": "gone", "failing_since": NOW, "at": NOW + 10}
    await store.endpoints.disable(merchant_id, endpoint.endpoint_id, **disable)
    disabled = await store.endpoints.get(merchant_id, endpoint.endpoint_id)
    assert disabled is not None
    assert (disabled.status, disabled.disabled_reason, disabled.secrets) == ("DISABLED", "gone", endpoint.secrets)
    enabled = msgspec.structs.replace(disabled, status="ENABLED", disabled_reason=None)
    assert await store.endpoints.update(enabled, now=NOW + 20) is not None
    await store.endpoints.disable(merchant_id, endpoint.endpoint_id, **disable)  # the event comes again
    again = await store.endpoints.get(merchant_id, endpoint.endpoint_id)
    assert again is not None
    assert again.status == "ENABLED"


async def test_a_data_key_is_never_replaced(store: RecordStore) -> None:
    key_id = ids.unkeyed("dk_")
    await store.data_keys.put(key_id, b"wrapped", NOW)
    await store.data_keys.put(key_id, b"wrapped", NOW)
    with pytest.raises(DataKeyTaken):
        await store.data_keys.put(key_id, b"other", NOW)
    assert await store.data_keys.get(key_id) == b"wrapped"
    assert await store.data_keys.get("dk_none") is None


async def test_the_audit_log_is_newest_first_over_months(store: RecordStore) -> None:
    day = 86_400_000_000
    acts = [
        AuditedAct(
            at=NOW - number * 12 * day,
            audit_id=ids.unkeyed("evt_"),
            actor_identity="operator",
            actor_role="operator",
            act="merchant.created",
            subject="mer_1",
            request_id="req_1",
            after='{"name": "Demo"}',
        )
        for number in range(8)
    ]
    for act in (*acts, acts[0]):
        await store.audit.add(act)
    paged: list[AuditedAct] = []
    while page := await store.audit.newest(limit=3, before=paged[-1] if paged else None):
        paged.extend(page)
    assert paged == acts
