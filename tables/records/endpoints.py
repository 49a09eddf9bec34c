"""Webhook endpoints: control plane, written by lightweight transactions only. Secrets are stored encrypted."""

from __future__ import annotations

from typing import Any

import msgspec

from tables.records import cql
from tables.records.session import RecordsSession

_COLUMNS = (
    "merchant_id, endpoint_id, url, event_types, description, status, secrets, disabled_reason, failing_since,"
    " version, created_at, updated_at"
)
_CREATE = cql.create("webhook_endpoints", _COLUMNS)
_SELECT_ALL = cql.select(_COLUMNS, "webhook_endpoints", "WHERE merchant_id = ?")
_SELECT_ONE = f"{_SELECT_ALL} AND endpoint_id = ?"
_UPDATE = (
    "UPDATE webhook_endpoints SET url = ?, event_types = ?, description = ?, status = ?, secrets = ?,"
    " disabled_reason = ?, failing_since = ?, version = ?, updated_at = ? WHERE merchant_id = ? AND endpoint_id = ?"
    " IF version = ?"
)
_DISABLE = (
    "UPDATE webhook_endpoints SET status = 'DISABLED', disabled_reason = ?, failing_since = ?, version = ?,"
    " updated_at = ? WHERE merchant_id = ? AND endpoint_id = ? IF version = ?"
)
_DELETE = "DELETE FROM webhook_endpoints WHERE merchant_id = ? AND endpoint_id = ? IF EXISTS"


class EndpointSecret(msgspec.Struct, frozen=True, kw_only=True):
    """A signing secret, encrypted with the endpoint's id as associated data. `expires_at` None: the present one."""

    key_id: str
    nonce: bytes
    ciphertext: bytes
    created_at: int
    expires_at: int | None = None


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a merchant's webhooks go. `secrets`: newest first; `version` guards against two changes at once."""

    merchant_id: str
    endpoint_id: str
    url: str
    event_types: list[str]
    description: str
    status: str  # ENABLED, DISABLED
    secrets: list[EndpointSecret]
    disabled_reason: str | None = None
    failing_since: int | None = None
    version: int = 1
    created_at: int  # microseconds
    updated_at: int


class EndpointRecords:
    """Reads and writes of webhook_endpoints."""

    def __init__(self, session: RecordsSession) -> None:
        self._session = session

    async def create(self, endpoint: Endpoint) -> bool:
        """Add an endpoint; False when there is one with this id."""
        values = [getattr(endpoint, name) for name in cql.names(_COLUMNS)]
        values[6] = _secret_tuples(endpoint.secrets)
        return await self._session.apply(_CREATE, values)

    async def get(self, merchant_id: str, endpoint_id: str) -> Endpoint | None:
        """The merchant's endpoint with this id, or None."""
        rows = await self._session.execute(_SELECT_ONE, (merchant_id, endpoint_id))
        return _endpoint_of_row(rows[0]) if rows else None

    async def of_merchant(self, merchant_id: str) -> list[Endpoint]:
        """All endpoints of a merchant, by id."""
        return [_endpoint_of_row(row) for row in await self._session.execute(_SELECT_ALL, (merchant_id,))]

    async def update(self, endpoint: Endpoint, *, now: int) -> Endpoint | None:
        """Store a changed copy of what was read; None when it has changed, or gone, since: read it again."""
        changed = msgspec.structs.replace(endpoint, version=endpoint.version + 1, updated_at=now)
        values = (
            changed.url,
            changed.event_types,
            changed.description,
            changed.status,
            _secret_tuples(changed.secrets),
            changed.disabled_reason,
            changed.failing_since,
            changed.version,
            now,
            changed.merchant_id,
            changed.endpoint_id,
            endpoint.version,
        )
        return changed if await self._session.apply(_UPDATE, values) else None

    async def disable(
        self, merchant_id: str, endpoint_id: str, *, reason: str, failing_since: int | None, at: int
    ) -> None:
        """Disable an endpoint for its failures, unless its owner has changed it after `at` (microseconds)."""
        while True:
            endpoint = await self.get(merchant_id, endpoint_id)
            if endpoint is None or endpoint.updated_at >= at or endpoint.status == "DISABLED":
                return
            values = (reason, failing_since, endpoint.version + 1, at, merchant_id, endpoint_id, endpoint.version)
            if await self._session.apply(_DISABLE, values):
                return

    async def delete(self, merchant_id: str, endpoint_id: str) -> bool:
        """Remove an endpoint; False when there was none."""
        return await self._session.apply(_DELETE, (merchant_id, endpoint_id))


def _secret_tuples(secrets: list[EndpointSecret]) -> list[tuple[Any, ...]]:
    return [(s.key_id, s.nonce, s.ciphertext, s.created_at, s.expires_at) for s in secrets]


def _endpoint_of_row(row: Any) -> Endpoint:
    fields = row._asdict()
    fields["secrets"] = [EndpointSecret(**secret._asdict()) for secret in row.secrets or ()]
    fields["event_types"] = list(row.event_types or ())
    fields["description"] = row.description or ""
    return Endpoint(**fields)
