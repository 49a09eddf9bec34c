"""Merchants, on the internal port."""

from __future__ import annotations

from aiohttp import web
from msgspec import UNSET

from api.audit import Auditor
from api.calls import Call
from api.documents import ListDocument, MerchantDocument
from api.lists import ListQuery
from api.models import CreateMerchant, UpdateMerchant
from api.problems import Problem, not_found, unavailable
from api.routes import OPERATORS, READERS, Route
from ops.runtime.clock import Clock, to_rfc3339
from streams.domain import ids, money
from tables.records.merchants import Merchant, MerchantRecords

UPDATE_ATTEMPTS = 5  # of a change that meets another one; operators are few


class Merchants:
    """The handlers of /merchants."""

    def __init__(self, records: MerchantRecords, auditor: Auditor, clock: Clock) -> None:
        self._records = records
        self._auditor = auditor
        self._clock = clock

    def routes(self) -> list[Route]:
        """The internal routes of merchants."""
        missing = frozenset({"not_found", "unavailable"})
        return [
            Route(
                method="POST",
                path="/merchants",
                handler=self.create,
                summary="Register a merchant",
                access=OPERATORS,
                body=CreateMerchant,
                answers={201: MerchantDocument},
                problems=frozenset({"currency_invalid", "unavailable"}),
            ),
            Route(
                method="GET",
                path="/merchants",
                handler=self.list_page,
                summary="List merchants",
                access=READERS,
                query={"limit": "1 to 100, default 10", "starting_after": "the last merchant_id of the page before"},
                answers={200: ListDocument},
                problems=frozenset({"unavailable"}),
            ),
            Route(
                method="GET",
                path="/merchants/{merchant_id}",
                handler=self.get,
                summary="A merchant",
                access=READERS,
                answers={200: MerchantDocument},
                problems=missing,
            ),
            Route(
                method="PATCH",
                path="/merchants/{merchant_id}",
                handler=self.update,
                summary="Activate, suspend or close a merchant",
                access=OPERATORS,
                body=UpdateMerchant,
                answers={200: MerchantDocument},
                problems=missing,
            ),
        ]

    async def create(self, call: Call) -> web.Response:
        """Registers a merchant, active at once."""
        request: CreateMerchant = call.body
        currencies = None if request.settlement_currencies is UNSET else request.settlement_currencies
        if currencies is not None and not all(map(money.is_currency, currencies)):
            raise Problem("currency_invalid", "not an ISO 4217 currency", param="settlement_currencies")
        now = self._clock.now_us()
        merchant = Merchant(
            merchant_id=ids.unkeyed(ids.MERCHANT),
            name=request.name,
            status="ACTIVE",
            settlement_currencies=currencies if currencies is None else list(dict.fromkeys(currencies)),
            created_at=now,
            updated_at=now,
        )
        created = await self._records.create(merchant)
        assert created, "a fresh id is free"
        document = merchant_document(merchant)
        merchant_id = merchant.merchant_id
        await self._auditor.record(call, "merchant.created", merchant_id, merchant_id=merchant_id, after=document)
        return call.answer(201, document, {"Location": f"/merchants/{merchant_id}"})

    async def list_page(self, call: Call) -> web.Response:
        page = ListQuery.of(call.query)
        if page.starting_after is not None and await self._records.merchant(page.starting_after) is None:
            raise Problem("invalid_request", "there is no such merchant", param="starting_after")
        found = await self._records.page(limit=page.limit + 1, starting_after=page.starting_after)
        data = [merchant_document(merchant) for merchant in found[: page.limit]]
        return call.answer(200, ListDocument(data=data, has_more=len(found) > page.limit))

    async def get(self, call: Call) -> web.Response:
        return call.answer(200, merchant_document(await self._found(call.path("merchant_id"))))

    async def update(self, call: Call) -> web.Response:
        """Sets the status; the same again changes nothing."""
        request: UpdateMerchant = call.body
        for _ in range(UPDATE_ATTEMPTS):
            merchant = await self._found(call.path("merchant_id"))
            if merchant.status == request.status:
                return call.answer(200, merchant_document(merchant))
            changed = await self._records.update_status(merchant, request.status, now=self._clock.now_us())
            if changed is not None:
                before, after = merchant_document(merchant), merchant_document(changed)
                merchant_id = merchant.merchant_id
                await self._auditor.record(
                    call, "merchant.updated", merchant_id, merchant_id=merchant_id, before=before, after=after
                )
                return call.answer(200, after)
        raise unavailable("the merchant is being changed by others")

    async def _found(self, merchant_id: str) -> Merchant:
        merchant = await self._records.merchant(merchant_id)
        if merchant is None:
            raise not_found()
        return merchant


def merchant_document(merchant: Merchant) -> MerchantDocument:
    return MerchantDocument(
        merchant_id=merchant.merchant_id,
        name=merchant.name,
        status=merchant.status,
        settlement_currencies=(
            sorted(money.exponents()) if merchant.settlement_currencies is None else merchant.settlement_currencies
        ),
        created_at=to_rfc3339(merchant.created_at),
    )
