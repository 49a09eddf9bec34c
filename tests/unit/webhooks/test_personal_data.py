"""What can never be read is shown as absent; what only cannot be read now is an error."""

from __future__ import annotations

from typing import Any

import pytest

from ops.runtime.clock import SystemClock
from ops.runtime.encryption import DataKeys, UnknownMasterKey
from ops.runtime.secrets import SecretKey, SecretKeys
from streams.domain.payment import Payment, PaymentStatus, PersonalData
from streams.webhooks.documents import NO_PERSONAL_FIELDS
from streams.webhooks.personal_data import opened_personal_data


class Store:
    """Wrapped data keys in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}

    async def put(self, key_id: str, wrapped: bytes, created_at: int) -> None:
        self.rows[key_id] = wrapped

    async def get(self, key_id: str) -> bytes | None:
        return self.rows.get(key_id)


def keys(store: Store, master_id: str = "m1") -> DataKeys:
    return DataKeys(SecretKeys([SecretKey(master_id, b"k" * 32)]), store, SystemClock())


async def payment_of(store: Store, **changes: Any) -> Payment:
    sealed = await keys(store).encrypt("pay_1", b'{"description": "hello"}')
    data = PersonalData(**{"key_id": sealed.key_id, "nonce": sealed.nonce, "ciphertext": sealed.ciphertext, **changes})
    return Payment(
        payment_id="pay_1",
        merchant_id="mer_1",
        status=PaymentStatus.PENDING,
        amount=1,
        currency="USD",
        personal_data=data,
        client_secret_key_id="k1",
        version=1,
        revision=1,
        created_at=1,
        updated_at=1,
        expires_at=2,
    )


async def test_what_was_sealed_for_the_payment_is_opened() -> None:
    store = Store()
    assert (await opened_personal_data(keys(store), await payment_of(store))).description == "hello"


@pytest.mark.parametrize("changes", [{"key_id": "dk_of_nobody"}, {"ciphertext": b"c" * 40}, {"nonce": b"n"}])
async def test_what_nobody_sealed_is_no_personal_data(changes: dict[str, Any]) -> None:
    store = Store()
    assert await opened_personal_data(keys(store), await payment_of(store, **changes)) == NO_PERSONAL_FIELDS


async def test_a_master_key_that_is_not_here_is_an_error() -> None:
    store = Store()
    with pytest.raises(UnknownMasterKey):
        await opened_personal_data(keys(store, "m2"), await payment_of(store))
