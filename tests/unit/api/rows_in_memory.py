"""Tables of Cassandra in memory, one class for each that `tables.records` has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from streams.domain import ids
from tables.records.endpoints import Endpoint
from tables.records.merchants import ApiKey, Merchant, MerchantRecords
from tables.records.settlement import Batch, Chunk, Run, SettlementRecords
from tables.records.settlement_items import SettlementItem

if TYPE_CHECKING:
    from tests.unit.api.platform_in_memory import Records


class MerchantRows(MerchantRecords):
    """One thread writes, so every conditional write is alone."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def create(self, merchant: Merchant) -> bool:
        return self._records.merchants.setdefault(merchant.merchant_id, merchant) is merchant

    async def merchant(self, merchant_id: str) -> Merchant | None:
        return await self._records.merchant(merchant_id)

    async def page(self, *, limit: int, starting_after: str | None = None) -> list[Merchant]:
        found = sorted(self._records.merchants.values(), key=lambda merchant: merchant.merchant_id)
        return [merchant for merchant in found if merchant.merchant_id > (starting_after or "")][:limit]

    async def update_status(self, merchant: Merchant, status: str, *, now: int) -> Merchant | None:
        if self._records.merchants[merchant.merchant_id].version != merchant.version:
            return None
        changed = msgspec.structs.replace(merchant, status=status, version=merchant.version + 1, updated_at=now)
        self._records.merchants[merchant.merchant_id] = changed
        return changed

    async def create_key(self, key: ApiKey) -> bool:
        return self._records.api_keys.setdefault(key.key_hash, key) is key

    async def by_hash(self, key_hash: bytes) -> ApiKey | None:
        return await self._records.by_hash(key_hash)

    async def key(self, merchant_id: str, key_id: str) -> ApiKey | None:
        return next((key for key in await self.keys(merchant_id) if key.key_id == key_id), None)

    async def keys(self, merchant_id: str) -> Sequence[ApiKey]:
        return [key for key in self._records.api_keys.values() if key.merchant_id == merchant_id]

    async def end_key(self, key: ApiKey, *, expires_at: int | None, revoked_at: int | None) -> None:
        ended = msgspec.structs.replace(key, expires_at=expires_at, revoked_at=revoked_at)
        self._records.api_keys[key.key_hash] = ended


class DataKeyRows:
    def __init__(self, records: Records) -> None:
        self._records = records

    async def put(self, key_id: str, wrapped: bytes, created_at: int) -> None:
        self._records.data_keys[key_id] = wrapped

    async def get(self, key_id: str) -> bytes | None:
        return self._records.data_keys.get(key_id)


class EndpointRows:
    def __init__(self, records: Records) -> None:
        self._records = records

    async def create(self, endpoint: Endpoint) -> bool:
        return self._records.endpoints.setdefault(endpoint.endpoint_id, endpoint) is endpoint

    async def get(self, merchant_id: str, endpoint_id: str) -> Endpoint | None:
        found = self._records.endpoints.get(endpoint_id)
        return found if found is not None and found.merchant_id == merchant_id else None

    async def of_merchant(self, merchant_id: str) -> list[Endpoint]:
        return [e for e in self._records.endpoints.values() if e.merchant_id == merchant_id]

    async def update(self, endpoint: Endpoint, *, now: int) -> Endpoint | None:
        changed = msgspec.structs.replace(endpoint, version=endpoint.version + 1, updated_at=now)
        self._records.endpoints[endpoint.endpoint_id] = changed
        return changed

    async def delete(self, merchant_id: str, endpoint_id: str) -> bool:
        return self._records.endpoints.pop(endpoint_id, None) is not None


class BatchRows(SettlementRecords):
    """The tables of batches; how pages are cut from them is the real one's."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.items_of_batches: list[SettlementItem] = []
        self.runs: dict[str, Run] = {}

    async def run(self, settlement_date: str) -> Run | None:
        return self.runs.get(settlement_date)

    async def dates(self) -> list[str]:
        return sorted({batch.settlement_date for batch in self.batches}, reverse=True)

    async def batch(self, batch_id: str) -> Batch | None:
        return next((batch for batch in self.batches if batch.batch_id == batch_id), None)

    async def page_of_date(self, settlement_date: str, *, limit: int, starting_after: str = "") -> list[Batch]:
        assert limit > 0, "Cassandra refuses LIMIT 0"
        found = [b for b in self.batches if b.settlement_date == settlement_date and b.batch_id > starting_after]
        return sorted(found, key=lambda batch: batch.batch_id)[:limit]

    async def batches_of_merchant(self, merchant_id: str, settlement_date: str | None = None) -> list[Batch]:
        found = [b for b in self.batches if b.merchant_id == merchant_id]
        return [b for b in found if settlement_date in (None, b.settlement_date)]

    async def items(self, batch_id: str, *, limit: int, starting_after: str = "") -> list[SettlementItem]:
        found = [i for i in self.items_of_batches if i.batch_id == batch_id and i.payment_id > starting_after]
        return sorted(found, key=lambda item: item.payment_id)[:limit]

    async def items_between(self, batch_id: str, first: str, last: str) -> list[SettlementItem]:
        return [i for i in self.items_of_batches if i.batch_id == batch_id and first <= i.payment_id <= last]

    def settle(self, merchant_id: str, settlement_date: str, payments: int) -> Batch:
        """A day of a merchant, settled: its batch with so many payments of 10 each, and the day's run."""
        batch_id = ids.batch_id(merchant_id, "USD", settlement_date)
        settled = [_settled(batch_id, merchant_id, number) for number in range(payments)]
        first, last = min(item.payment_id for item in settled), max(item.payment_id for item in settled)
        amount = 10 * payments
        batch = Batch(
            batch_id=batch_id,
            merchant_id=merchant_id,
            settlement_date=settlement_date,
            currency="USD",
            status="COMPLETED",
            count=payments,
            amount=amount,
            settled_count=payments,
            failed_count=0,
            settled_amount=amount,
            failed_amount=0,
            chunks=(_chunk(payments, amount, first, last),),
        )
        self.batches.append(batch)
        self.items_of_batches += settled
        totals = {"USD": {"SETTLED": {"count": payments, "amount": amount}}}
        self.runs[settlement_date] = Run(
            settlement_date=settlement_date, status="COMPLETED", totals=totals, requested_at=None
        )
        return batch


def _settled(batch_id: str, merchant_id: str, number: int) -> SettlementItem:
    return SettlementItem(
        batch_id=batch_id,
        payment_id=ids.derived(ids.PAYMENT, batch_id, str(number)),
        merchant_id=merchant_id,
        currency="USD",
        amount=10,
        status="SETTLED",
        chunk=0,
        transaction_id=ids.derived(ids.TRANSACTION, batch_id, str(number)),
        authorization_id=None,
        authorization_reference=None,
        error=None,
        revision=5,
    )


def _chunk(count: int, amount: int, first: str, last: str) -> Chunk:
    return Chunk(chunk=0, count=count, amount=amount, first_payment_id=first, last_payment_id=last, status="COMPLETED")
