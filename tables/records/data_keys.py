"""Wrapped data keys: rows that are written once. The store behind `ops.runtime.encryption`."""

from __future__ import annotations

from tables.records import cql
from tables.records.session import RecordsSession

_INSERT = cql.create("data_keys", "key_id, wrapped, created_at")
_SELECT = cql.select("wrapped", "data_keys", "WHERE key_id = ?")


class DataKeyTaken(Exception):  # noqa: N818 - says what is the case
    """Another data key has this id: a key is never replaced, or what it encrypted would be lost."""


class DataKeyRecords:
    """Reads and writes of data_keys."""

    def __init__(self, session: RecordsSession) -> None:
        self._session = session

    async def put(self, key_id: str, wrapped: bytes, created_at: int) -> None:
        """Store a new key; storing the same again is no error. Raises DataKeyTaken for another under its id."""
        if not await self._session.apply(_INSERT, (key_id, wrapped, created_at)) and await self.get(key_id) != wrapped:
            raise DataKeyTaken(f"another data key has the id {key_id}")

    async def get(self, key_id: str) -> bytes | None:
        """The wrapped key, or None when there is none of this id."""
        rows = await self._session.execute(_SELECT, (key_id,))
        return bytes(rows[0].wrapped) if rows else None
