"""Personal data of a payment, opened for its merchant: for webhooks and for the API's answers.

What an internal producer claims to be encrypted may not be. Nobody can ever read it, and the payment is not worse for
it: it is shown without personal data, and the log says so. An answer or a webhook must not fail for that.
"""

from __future__ import annotations

import msgspec

from ops.runtime.encryption import CannotDecrypt, Sealed, UnknownDataKey
from ops.runtime.logs import logger
from streams.domain.payment import Payment
from streams.webhooks.directory import Opener
from streams.webhooks.documents import NO_PERSONAL_FIELDS, PersonalFields

_decode = msgspec.json.Decoder(PersonalFields).decode


async def opened_personal_data(keys: Opener, payment: Payment) -> PersonalFields:
    """What was sealed; nothing when there is nothing, or nothing that anybody could read.

    Raises EncryptionError for a master key that is not here, or the records' error when the data key cannot be read.
    """
    personal = payment.personal_data
    if personal is None:
        return NO_PERSONAL_FIELDS
    sealed = Sealed(key_id=personal.key_id, nonce=personal.nonce, ciphertext=personal.ciphertext)
    try:
        return _decode(await keys.decrypt(payment.payment_id, sealed))
    except (UnknownDataKey, CannotDecrypt) as error:
        logger().error("personal data was never readable", payment_id=payment.payment_id, reason=str(error))
        return NO_PERSONAL_FIELDS
