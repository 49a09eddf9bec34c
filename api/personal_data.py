"""Personal data of a payment: sealed before the command leaves the process, opened only to answer a merchant."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from api.models import CreatePayment, SealPersonalData
from ops.runtime.encryption import DataKeys, Sealed
from streams.domain.payment import Payment, PersonalData
from streams.webhooks.documents import NO_PERSONAL_FIELDS, PersonalFields

_decode = msgspec.json.Decoder(PersonalFields).decode


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


async def opened_personal_data(keys: DataKeys, payment: Payment) -> PersonalFields:
    """What was sealed, or nothing when the payment has none (an internal producer may send none).

    Raises EncryptionError, or the records' error when the data key cannot be read.
    """
    personal = payment.personal_data
    if personal is None:
        return NO_PERSONAL_FIELDS
    sealed = Sealed(key_id=personal.key_id, nonce=personal.nonce, ciphertext=personal.ciphertext)
    return _decode(await keys.decrypt(payment.payment_id, sealed))
