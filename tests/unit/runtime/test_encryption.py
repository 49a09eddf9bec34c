"""Envelope encryption: what opens, what does not, and when keys change."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from ops.runtime import encryption
from ops.runtime.encryption import CannotDecrypt, DataKeyExpired, DataKeys, UnknownMasterKey
from ops.runtime.secrets import SecretKey, SecretKeys

HOUR_US = 3_600 * 1_000_000


class Clock:
    now = 0

    def now_us(self) -> int:
        return self.now


class Store:
    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self.away = False

    async def put(self, key_id: str, wrapped: bytes, created_at: int) -> None:
        if self.away:
            raise ConnectionError("away")
        self.rows[key_id] = wrapped

    async def get(self, key_id: str) -> bytes | None:
        return self.rows.get(key_id)


def master(*ids: str) -> SecretKeys:
    return SecretKeys([SecretKey(key_id, key_id.encode().ljust(32, b"0")) for key_id in ids])


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_what_one_process_seals_another_opens_for_the_same_payment_only(store: Store, clock: Clock) -> None:
    sealed = await DataKeys(master("m1"), store, clock).encrypt("pay_1", b"Ann")
    other = DataKeys(master("m1"), store, clock)
    assert await other.decrypt("pay_1", sealed) == b"Ann"
    assert b"Ann" not in sealed.ciphertext
    for moved in (
        other.decrypt("pay_2", sealed),
        other.decrypt("pay_1", replace(sealed, nonce=bytes(12))),
        other.decrypt("pay_1", replace(sealed, ciphertext=sealed.ciphertext[:-1] + b"\0")),
    ):
        with pytest.raises(CannotDecrypt):
            await moved


async def test_data_keys_survive_the_rotation_of_the_master_key_while_the_old_one_is_there(
    store: Store, clock: Clock
) -> None:
    sealed = await DataKeys(master("m1"), store, clock).encrypt("pay_1", b"Ann")
    assert await DataKeys(master("m2", "m1"), store, clock).decrypt("pay_1", sealed) == b"Ann"
    with pytest.raises(UnknownMasterKey):
        await DataKeys(master("m2"), store, clock).decrypt("pay_1", sealed)


async def test_a_wrapped_key_under_another_id_does_not_unwrap(store: Store, clock: Clock) -> None:
    sealed = await DataKeys(master("m1"), store, clock).encrypt("pay_1", b"Ann")
    store.rows["dk_other"] = store.rows[sealed.key_id]
    with pytest.raises(CannotDecrypt):
        await DataKeys(master("m1"), store, clock).decrypt("pay_1", replace(sealed, key_id="dk_other"))


async def test_a_key_is_renewed_within_a_day_and_long_before_it_has_too_many_messages(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encryption, "MESSAGES_MAX", 3)
    keys = DataKeys(master("m1"), store, clock)

    async def key_id() -> str:
        sealed = await keys.encrypt("pay_1", b"x")
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "renew data key"))
        return sealed.key_id

    first = await key_id()
    clock.now += 13 * HOUR_US
    assert await key_id() == first  # renewed behind this one
    second = await key_id()
    assert second != first
    assert {await key_id(), await key_id()} == {second}
    assert await key_id() == second  # the fourth, which renews
    assert await key_id() != second


async def test_while_no_key_can_be_stored_the_old_one_serves_until_it_is_a_day_old(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encryption, "RENEW_RETRY_S", 0.0)
    keys = DataKeys(master("m1"), store, clock)
    await keys.prepare()
    store.away = True
    clock.now += 23 * HOUR_US
    assert await keys.decrypt("pay_1", await keys.encrypt("pay_1", b"Ann")) == b"Ann"
    clock.now += HOUR_US
    with pytest.raises(DataKeyExpired):
        await keys.encrypt("pay_1", b"Ann")
