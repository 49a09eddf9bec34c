"""What the demo's auditor reads of each payment, past the API: Cassandra's rows and the provider's ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from ops.demo.client import Client
from ops.demo.platform import Platform
from tables.records.errors import RecordsUnavailable
from tables.records.session import RecordsSession

CONCURRENT = 8
PATIENCE_S = 60.0  # with a Cassandra that has just been killed
PAUSE_S = 0.5
LEDGER_PAGE = 100

_PAYMENT = "SELECT status, version, revision, batch_id FROM payments WHERE payment_id = ?"
_TRANSACTIONS = (
    "SELECT transaction_id, transaction_type, transaction_status, transaction_amount FROM payments WHERE payment_id = ?"
)
_HISTORY = "SELECT event_id, type, version, transition FROM payment_history WHERE payment_id = ?"
_ITEM = "SELECT status, amount FROM settlement_items WHERE batch_id = ? AND payment_id = ?"


class Recorded(NamedTuple):
    """One payment in Cassandra."""

    status: str | None  # None: there is no row
    version: int | None
    revision: int | None
    transactions: Sequence[Any]  # transaction_id, transaction_type, transaction_status, transaction_amount
    history: Sequence[Any]  # event_id, type, version, transition; by revision
    item: Any  # status and amount in its settlement batch; None when it has none


class RecordsWitness:
    """Reads the record tables as the auditor."""

    def __init__(self, session: RecordsSession) -> None:
        self._session = session

    @classmethod
    async def connect(cls, platform: Platform) -> RecordsWitness:
        return cls(await RecordsSession.connect(platform.cassandra_auditor, platform.keyspace))

    async def close(self) -> None:
        await self._session.close()

    async def payment(self, payment_id: str) -> Recorded:
        """Everything of one payment. Raises RecordsUnavailable after PATIENCE_S."""
        found = await self._rows(_PAYMENT, payment_id)
        history = await self._rows(_HISTORY, payment_id)
        transactions = await self._rows(_TRANSACTIONS, payment_id)
        if not found:
            return Recorded(None, None, None, (), history, None)
        row = found[0]
        items = await self._rows(_ITEM, row.batch_id, payment_id) if row.batch_id else []
        rows = [t for t in transactions if t.transaction_id is not None]
        return Recorded(row.status, row.version, row.revision, rows, history, items[0] if items else None)

    async def _rows(self, cql: str, *values: str) -> list[Any]:
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            try:
                return await self._session.execute(cql, values)
            except RecordsUnavailable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(PAUSE_S)


async def recorded(witness: RecordsWitness, payment_ids: Sequence[str]) -> dict[str, Recorded]:
    """Cassandra's view of many payments."""
    places = asyncio.Semaphore(CONCURRENT)

    async def one(payment_id: str) -> Recorded:
        async with places:
            return await witness.payment(payment_id)

    return dict(zip(payment_ids, await asyncio.gather(*map(one, payment_ids)), strict=True))


async def ledgers(client: Client, platform: Platform, payment_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The provider's movements of many payments."""
    places = asyncio.Semaphore(CONCURRENT)

    async def one(payment_id: str) -> list[dict[str, Any]]:
        async with places:
            url = f"{platform.urls['provider']}/v1/ledger?payment_id={payment_id}&limit={LEDGER_PAGE}"
            answer = await client.call("GET", url, tls=platform.auditor, wanted={200})
            movements: list[dict[str, Any]] = answer.document["data"]
            return movements

    return dict(zip(payment_ids, await asyncio.gather(*map(one, payment_ids)), strict=True))


async def public_events(client: Client, platform: Platform, payment_ids: Sequence[str]) -> dict[str, list[str]]:
    """Types of each payment's events as GET /payments/{id}/events lists them."""
    places = asyncio.Semaphore(CONCURRENT)

    async def one(payment_id: str) -> list[str]:
        async with places:
            url = f"{platform.urls['api']}/payments/{payment_id}/events?limit=100"
            answer = await client.call("GET", url, tls=platform.public, key=platform.secret_key, wanted={200, 404})
            return [event["type"] for event in answer.document.get("data", ())]

    return dict(zip(payment_ids, await asyncio.gather(*map(one, payment_ids)), strict=True))
