"""Merchants and their API keys: control plane, written by lightweight transactions only.

A key is created in its merchant's list before it can authenticate, and stops authenticating before it leaves the
list's active ones: no key works that its merchant cannot see.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tables.records import cql
from tables.records.session import RecordsSession, Row

_MERCHANT_COLUMNS = "merchant_id, name, status, settlement_currencies, version, created_at, updated_at"
_CREATE_MERCHANT = cql.create("merchants", _MERCHANT_COLUMNS)
_SELECT_MERCHANT = cql.select(_MERCHANT_COLUMNS, "merchants", "WHERE merchant_id = ?")
_SELECT_MERCHANTS = cql.select(_MERCHANT_COLUMNS, "merchants", "LIMIT ?")
_SELECT_MERCHANTS_AFTER = cql.select(_MERCHANT_COLUMNS, "merchants", "WHERE token(merchant_id) > token(?) LIMIT ?")
_UPDATE_MERCHANT = "UPDATE merchants SET status = ?, version = ?, updated_at = ? WHERE merchant_id = ? IF version = ?"

_KEY_COLUMNS = "key_hash, key_id, merchant_id, kind, scopes, created_at, expires_at, revoked_at"
_CREATE_KEY_BY_MERCHANT = cql.create("api_keys_by_merchant", _KEY_COLUMNS)
_CREATE_KEY_BY_HASH = cql.create("api_keys_by_hash", _KEY_COLUMNS)
_SELECT_KEY = cql.select(_KEY_COLUMNS, "api_keys_by_hash", "WHERE key_hash = ?")
_SELECT_KEYS = cql.select(_KEY_COLUMNS, "api_keys_by_merchant", "WHERE merchant_id = ?")
_SELECT_MERCHANT_KEY = f"{_SELECT_KEYS} AND key_id = ?"
_END_KEY_BY_HASH = "UPDATE api_keys_by_hash SET expires_at = ?, revoked_at = ? WHERE key_hash = ? IF EXISTS"
_END_KEY_BY_MERCHANT = (
    "UPDATE api_keys_by_merchant SET expires_at = ?, revoked_at = ? WHERE merchant_id = ? AND key_id = ? IF EXISTS"
)


class Merchant(msgspec.Struct, frozen=True, kw_only=True):
    """A merchant. `settlement_currencies` None: all. `version` guards against two changes at once."""

    merchant_id: str
    name: str
    status: str  # ACTIVE, SUSPENDED, CLOSED
    settlement_currencies: list[str] | None
    version: int = 1
    created_at: int  # microseconds
    updated_at: int


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key without the key itself. It authenticates while not revoked and not expired."""

    key_hash: bytes  # keyed hash, the same whenever the same key is presented
    key_id: str
    merchant_id: str
    kind: str  # secret, publishable, restricted
    scopes: list[str]
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None

    def valid_at(self, now: int) -> bool:
        """Whether the key authenticates at `now` (microseconds)."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class MerchantRecords:
    """Reads and writes of merchants, api_keys_by_hash and api_keys_by_merchant."""

    def __init__(self, session: RecordsSession) -> None:
        self._session = session

    async def create(self, merchant: Merchant) -> bool:
        """Add a merchant; False when there is one with this id."""
        values = [getattr(merchant, name) for name in cql.names(_MERCHANT_COLUMNS)]
        return await self._session.apply(_CREATE_MERCHANT, values)

    async def merchant(self, merchant_id: str) -> Merchant | None:
        """The merchant, or None."""
        rows = await self._session.execute(_SELECT_MERCHANT, (merchant_id,))
        return Merchant(**rows[0]._asdict()) if rows else None

    async def page(self, *, limit: int, starting_after: str | None = None) -> list[Merchant]:
        """Up to `limit` merchants behind the id `starting_after`, in an order that is fixed and means nothing."""
        if starting_after is None:
            rows = await self._session.execute(_SELECT_MERCHANTS, (limit,))
        else:
            rows = await self._session.execute(_SELECT_MERCHANTS_AFTER, (starting_after, limit))
        return [Merchant(**row._asdict()) for row in rows]

    async def update_status(self, merchant: Merchant, status: str, *, now: int) -> Merchant | None:
        """The merchant with its new status; None when it has changed since it was read: read it again."""
        changed = msgspec.structs.replace(merchant, status=status, version=merchant.version + 1, updated_at=now)
        values = (status, changed.version, now, merchant.merchant_id, merchant.version)
        return changed if await self._session.apply(_UPDATE_MERCHANT, values) else None

    async def create_key(self, key: ApiKey) -> bool:
        """Add a key; False when there is one with this id or hash. Repeating an interrupted call completes it."""
        values = [getattr(key, name) for name in cql.names(_KEY_COLUMNS)]
        listed = await self._session.apply(_CREATE_KEY_BY_MERCHANT, values)
        if not listed and await self.key(key.merchant_id, key.key_id) != key:
            return False
        return await self._session.apply(_CREATE_KEY_BY_HASH, values) or await self.by_hash(key.key_hash) == key

    async def by_hash(self, key_hash: bytes) -> ApiKey | None:
        """The key with this keyed hash, valid or not, or None."""
        rows = await self._session.execute(_SELECT_KEY, (key_hash,))
        return _key_of_row(rows[0]) if rows else None

    async def key(self, merchant_id: str, key_id: str) -> ApiKey | None:
        """The merchant's key with this id, or None."""
        rows = await self._session.execute(_SELECT_MERCHANT_KEY, (merchant_id, key_id))
        return _key_of_row(rows[0]) if rows else None

    async def keys(self, merchant_id: str) -> Sequence[ApiKey]:
        """All keys of a merchant, ended ones too."""
        rows = await self._session.execute(_SELECT_KEYS, (merchant_id,))
        return [_key_of_row(row) for row in rows]

    async def end_key(self, key: ApiKey, *, expires_at: int | None, revoked_at: int | None) -> None:
        """Revoke the key, or let it expire (a roll with grace). It stops authenticating before this returns."""
        await self._session.apply(_END_KEY_BY_HASH, (expires_at, revoked_at, key.key_hash))
        await self._session.apply(_END_KEY_BY_MERCHANT, (expires_at, revoked_at, key.merchant_id, key.key_id))


def _key_of_row(row: Row) -> ApiKey:
    fields = row._asdict()
    fields["scopes"] = row.scopes or []  # Cassandra keeps an empty list as none
    return ApiKey(**fields)
