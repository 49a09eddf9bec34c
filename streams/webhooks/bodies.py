"""The bytes of a webhook's body: the event's document with personal data in the clear, which only exists here."""

from __future__ import annotations

from typing import Any

import msgspec

from ops.runtime.clock import to_rfc3339
from streams.domain.delivery import FeedEvent
from streams.webhooks.directory import EndpointDirectory, Opener
from streams.webhooks.documents import (
    batch_document,
    event_document,
    payment_document,
)
from streams.webhooks.personal_data import opened_personal_data
from tables.records.endpoints import Endpoint


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
            return payment_document(event.payment, await opened_personal_data(self._opener, event.payment))
        if event.batch is not None:
            return batch_document(event.merchant_id, event.batch)
        assert event.endpoint_id is not None, "an event about nothing"
        endpoint = await self._directory.find(event.merchant_id, event.endpoint_id)
        return _endpoint_document(event.endpoint_id, endpoint)


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
