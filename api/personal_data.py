"""Personal data of a payment, sealed before the command leaves the process."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from api.models import CreatePayment, SealPersonalData
from ops.runtime.encryption import DataKeys
from streams.domain.payment import PersonalData
from streams.webhooks.documents import PersonalFields


async def sealed_personal_data(
    keys: DataKeys, payment_id: str, request: CreatePayment | SealPersonalData
) -> PersonalData:
    """Customer, description and metadata as one message that opens for this payment only.

    Raises EncryptionError while there is no usable data key.
    """
    customer = {name: value for name, value in msgspec.structs.asdict(request.customer).items() if value is not UNSET}
    plain = PersonalFields(customer=customer, description=request.description, metadata=request.metadata)
    sealed = await keys.encrypt(payment_id, msgspec.json.encode(plain))
    return PersonalData(key_id=sealed.key_id, nonce=sealed.nonce, ciphertext=sealed.ciphertext)
