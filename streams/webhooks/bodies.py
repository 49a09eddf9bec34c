"""The bytes of a webhook's body: the event's document with personal data in the clear, which only exists here."""

from __future__ import annotations

from typing import Any

import msgspec

from ops.runtime.clock import to_rfc3339
from ops.runtime.encryption import Sealed
from streams.domain.delivery import FeedEvent
from streams.domain.payment import Payment
from streams.webhooks.directory import EndpointDirectory, Opener
from streams.webhooks.documents import (
    NO_PERSONAL_FIELDS,
    PersonalFields,
    batch_document,
    event_document,
    payment_document,
)
from tables.records.endpoints import Endpoint

_decode_personal = msgspec.json.Decoder(PersonalFields).decode


class Bodies:
    """Makes bodies; the same event gives the same bytes."""

    def __init__(self, directory: EndpointDirectory, opener: Opener) -> None:
        self._directory = directory
        self._opener = opener

    async def body(self, event: FeedEvent) -> bytes:
        """JSON, UTF-8. Raises EncryptionError, or RecordsUnavailable when a key or endpoint cannot be read."""
        return msgspec.json.encode(event_document(event, await self._about(event)))

    async def _about(self, event: FeedEvent) -> dict[str, Any]:
        if event.payment is not None:
            return payment_document(event.payment, await self._personal(event.payment))
        if event.batch is not None:
            return batch_document(event.merchant_id, event.batch)
        assert event.endpoint_id is not None, "an event about nothing"
        endpoint = await self._directory.find(event.merchant_id, event.endpoint_id)
        return _endpoint_document(event.endpoint_id, endpoint)

    async def _personal(self, payment: Payment) -> PersonalFields:
        data = payment.personal_data
        if data is None:
            return NO_PERSONAL_FIELDS
        sealed = Sealed(key_id=data.key_id, nonce=data.nonce, ciphertext=data.ciphertext)
        return _decode_personal(await self._opener.decrypt(payment.payment_id, sealed))


def _endpoint_document(endpoint_id: str, endpoint: Endpoint | None) -> dict[str, Any]:
    if endpoint is None:  # deleted since
        return {"endpoint_id": endpoint_id, "object": "webhook_endpoint"}
    return {
        "endpoint_id": endpoint_id,
        "object": "webhook_endpoint",
        "url": endpoint.url,
        "event_types": endpoint.event_types,
        "description": endpoint.description,
        "status": endpoint.status,
        "created_at": to_rfc3339(endpoint.created_at),
    }
