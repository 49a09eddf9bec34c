"""What became of an idempotency key of a create: read from the payment whose id is derived from it."""

from __future__ import annotations

from aiohttp import web

from api.calls import Call
from api.documents import IdempotencyKeyDocument
from api.ports import PaymentReads
from api.problems import not_found
from api.routes import KeyAccess, Route
from ops.runtime.clock import to_rfc3339
from streams.domain import ids

FIRST_REVISION = 1


class IdempotencyKeys:
    """The handler of /idempotency_keys."""

    def __init__(self, reads: PaymentReads) -> None:
        self._reads = reads

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/idempotency_keys/{key}",
                handler=self.get,
                summary="What a create under this key made",
                access=KeyAccess("payments:read"),
                answers={200: IdempotencyKeyDocument},
                problems=frozenset({"not_found", "unavailable"}),
            )
        ]

    async def get(self, call: Call) -> web.Response:
        key = call.path("key")
        payment_id = ids.payment_id(call.principal.merchant_id, key)
        payment = await self._reads.at_revision(payment_id, FIRST_REVISION)
        if payment is None or payment.merchant_id != call.principal.merchant_id:
            raise not_found()
        document = IdempotencyKeyDocument(
            idempotency_key=key,
            operation="create",
            payment_id=payment_id,
            status_code=201,
            created_at=to_rfc3339(payment.created_at),
        )
        return call.answer(200, document)
