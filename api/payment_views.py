"""Reads of payments over HTTP: as they are recorded, as they were, their transitions, and lists."""

from __future__ import annotations

import re

from aiohttp import web

from api.calls import Call
from api.client_secrets import ClientSecrets
from api.documents import ActorDocument, ListDocument, PaymentDocument, PaymentEventDocument
from api.lists import ListQuery, instant_of
from api.outcomes import PaymentAnswers
from api.ports import PaymentReads
from api.problems import Problem, not_found
from api.routes import KeyAccess, Route
from ops.runtime.clock import to_rfc3339
from streams.domain.payment import Payment, PaymentStatus

_STATUSES = frozenset(status.value for status in PaymentStatus if status is not PaymentStatus.UNKNOWN)
VERSION_MAX = 999_999_999
_PAYMENT_ID = re.compile(r"pay_[a-z2-7]{26}")


def payment_id_of(call: Call) -> str:
    """The id in the path. Raises Problem not_found for what cannot be one, before it costs a read or a command."""
    payment_id = call.path("payment_id")
    if _PAYMENT_ID.fullmatch(payment_id) is None:
        raise not_found()
    return payment_id


def _version_of(text: str | None) -> int | None:
    """The version that digits name; one beyond what a payment can have means the present."""
    if text is None or not (text.isascii() and text.isdigit()):
        return None
    return int(text) if len(text) <= 9 else VERSION_MAX


class PaymentViews:
    """The GET handlers of /payments, and whose payment it is."""

    def __init__(self, reads: PaymentReads, answers: PaymentAnswers, client_secrets: ClientSecrets) -> None:
        self._reads = reads
        self._answers = answers
        self._client_secrets = client_secrets

    def routes(self) -> list[Route]:
        """The public routes that show payments."""
        read = KeyAccess("payments:read")
        return [
            Route(
                method="GET",
                path="/payments",
                handler=self.list_page,
                summary="List payments, newest first",
                access=read,
                query={
                    "status": "only payments in this state",
                    "created_after": "exclusive bound, RFC 3339",
                    "created_before": "exclusive bound, RFC 3339",
                    "limit": "1 to 100, default 10",
                    "starting_after": "the last payment_id of the page before",
                },
                answers={200: ListDocument},
                problems=frozenset({"unavailable"}),
            ),
            Route(
                method="GET",
                path="/payments/{payment_id}",
                handler=self.get,
                summary="A payment with its transactions",
                access=KeyAccess("payments:read", publishable=True),
                query={"as_of": "a time (RFC 3339) or a version: the payment as it was (not with a publishable key)"},
                query_of_secret_keys=frozenset({"as_of"}),
                answers={200: PaymentDocument},
                problems=frozenset({"not_found", "unavailable"}),
                cors=True,
            ),
            Route(
                method="GET",
                path="/payments/{payment_id}/events",
                handler=self.events,
                summary="Every transition of a payment, oldest first",
                access=read,
                query={"limit": "1 to 100, default 10", "starting_after": "the last id of the page before"},
                answers={200: ListDocument},
                problems=frozenset({"not_found", "unavailable"}),
            ),
        ]

    async def get(self, call: Call) -> web.Response:
        """The payment as it is recorded, or as it was."""
        payment = await self.owned(call, call.query.get("as_of"))
        if call.principal.kind == "publishable":
            self.require_client_secret(payment.payment_id, call.request.headers.get("Client-Secret"))
        return call.answer(200, await self._answers.document(call, payment, with_secret=True))

    async def list_page(self, call: Call) -> web.Response:
        """A page of the merchant's payments."""
        page = ListQuery.of(call.query)
        status = call.query.get("status")
        if status is not None and status not in _STATUSES:
            raise Problem("invalid_request", "not a status of payments", param="status")
        after = instant_of(call.query, "created_after")
        before = instant_of(call.query, "created_before")
        merchant_id = call.principal.merchant_id
        last = await self._reads.get(page.starting_after) if page.starting_after is not None else None
        if page.starting_after is not None and (last is None or last.merchant_id != merchant_id):
            raise Problem("invalid_request", "there is no such payment", param="starting_after")
        found = await self._reads.list(
            merchant_id,
            limit=page.limit + 1,
            status=status,
            created_after=after if after is not None else 0,
            created_before=before,
            starting_after=last,
        )
        data = [await self._answers.document(call, payment, with_secret=False) for payment in found[: page.limit]]
        return call.answer(200, ListDocument(data=data, has_more=len(found) > page.limit))

    async def events(self, call: Call) -> web.Response:
        """The payment's transitions."""
        page = ListQuery.of(call.query)
        call.payment_id = payment_id_of(call)
        await self.owned(call, None)
        documents = [
            PaymentEventDocument(
                id=entry.event_id,
                type=entry.type,
                version=entry.version,
                status=entry.status,
                occurred_at=to_rfc3339(entry.occurred_at),
                actor=ActorDocument(identity=entry.actor_identity, role=entry.actor_role),
                request_id=entry.request_id,
            )
            for entry in await self._reads.history(call.payment_id)
            if entry.transition
        ]
        return call.answer(200, page.cut(documents, lambda document: document.id))

    async def owned(self, call: Call, as_of: str | None) -> Payment:
        """The merchant's payment, now or as it was. Raises Problem: not_found, invalid_request."""
        version = _version_of(as_of)
        instant = None if as_of is None or version is not None else instant_of({"as_of": as_of}, "as_of")
        payment_id = payment_id_of(call)
        if version is not None:
            payment = await self._reads.at_version(payment_id, version)
        elif instant is not None:
            payment = await self._reads.at_time(payment_id, instant)
        else:
            payment = await self._reads.get(payment_id)
        if payment is None or payment.merchant_id != call.principal.merchant_id:
            raise not_found()
        return payment

    def require_client_secret(self, payment_id: str, secret: str | None) -> None:
        if secret is None or not self._client_secrets.is_of(payment_id, secret):
            raise Problem("forbidden", "the payment's client_secret is required")
