"""The provider port over Stripe's PaymentIntents API (ADR 0014 says why it is asked as it is).

An authorisation is two calls: creating an intent moves no money and may be repeated by anyone who wants to know its
id; confirming it does, under the transaction's id as idempotency key. What became of it is the state of the intent,
read from the intent; and a canceled intent refuses every confirmation for ever, seen before or not.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import assert_never

from prometheus_client import CollectorRegistry

from streams.provider import stripe_answers as answers
from streams.provider.classification import unavailable
from streams.provider.http import HttpAnswer, HttpCalls
from streams.provider.port import (
    Answer,
    Authorize,
    ItemResult,
    NotFound,
    NotProcessed,
    Operation,
    QueryAnswer,
    Refund,
    Refused,
    Settle,
    SettlementItem,
    Succeeded,
    Unknown,
    Void,
)
from streams.provider.stripe_answers import Intent

API_VERSION = "2025-03-31.basil"  # pinned: what an answer means must not change under us
CAPTURES_AT_ONCE = 8  # of all chunks: with half a second each 16/s, below the API's 25/s for one kind of call
REFUNDS_PER_PAGE = 100  # the most that a list gives

NO_INTENT = unavailable("the provider does not show the authorisation yet")


class StripeProvider:
    """Provider over HTTPS. A component of its service: `start` before the first call, `stop` after the last."""

    def __init__(
        self,
        url: str,
        *,
        secret: str,
        timeout_s: float,
        tls: ssl.SSLContext,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._http = HttpCalls(url, timeout_s=timeout_s, tls=tls, registry=registry)
        self._headers = {"Authorization": f"Bearer {secret}", "Stripe-Version": API_VERSION}
        self._captures = asyncio.Semaphore(CAPTURES_AT_ONCE)

    async def start(self) -> None:
        """Open the pool; it connects when needed."""
        await self._http.start()

    async def stop(self) -> None:
        """Close all connections."""
        await self._http.stop()

    async def check(self) -> None:
        """For readiness: raises ConnectionError unless Stripe answers and knows our key."""
        answered = await self._get("/v1/payment_intents", "check", {"limit": "1"})
        if not isinstance(answered, HttpAnswer):
            raise ConnectionError(answered.error.message)
        if answered.status in (401, 403):
            raise ConnectionError("the provider does not accept our key")

    async def send(self, operation: Operation) -> Answer:
        """As Provider.send."""
        match operation:
            case Authorize():
                return await self._authorize(operation)
            case Void():
                return await self._void(operation)
            case Refund():
                return await self._refund(operation)
            case Settle():
                return await self._settle(operation)
            case _:
                assert_never(operation)

    async def query(self, operation: Operation) -> QueryAnswer:
        """As Provider.query; always what is so now, never an answer that was kept under an idempotency key."""
        if isinstance(operation, Settle):
            return NotFound()  # an intent can be captured once, so sending is asking: each item answers for itself
        found = await self._find(operation)
        if not isinstance(found, str):
            return Unknown(error=found.error, retry_after_ms=found.retry_after_ms)
        match operation:
            case Authorize():
                return answers.authorization_state(await self._intent(found))
            case Void():
                return answers.void_state(await self._intent(found))
            case Refund():
                return await self._find_refund(found, operation.key)
            case _:
                assert_never(operation)

    async def _authorize(self, operation: Authorize) -> Answer:
        intent = await self._create(operation.key, operation.payment_id, operation.amount, operation.currency)
        if not isinstance(intent, Intent):
            return intent
        form = {"payment_method": operation.payment_method_token, "error_on_requires_action": "true"}
        path = f"/v1/payment_intents/{intent.id}/confirm"
        return answers.confirmed(await self._post(path, "confirm", form, key=operation.key))

    async def _void(self, operation: Void) -> Answer:
        found = await self._find(operation)
        if not isinstance(found, str):
            return found
        acted = await self._act(found, "cancel", {}, key=operation.key, done_in=("canceled", "succeeded"))
        if not isinstance(acted, Intent):
            return acted
        state = answers.void_state(acted)
        return Unknown(error=unavailable("the provider has not voided yet")) if isinstance(state, NotFound) else state

    async def _refund(self, operation: Refund) -> Answer:
        found = await self._find(operation)
        if not isinstance(found, str):
            return found
        stated = answers.stripe_amount(operation.amount, operation.currency)
        if stated is None:
            return answers.refusal("refund_refused", "The provider does not take this amount.")
        form = {
            "payment_intent": found,
            "amount": str(stated),
            "metadata[payment_id]": operation.payment_id,
            "metadata[transaction_id]": operation.key,
        }
        return answers.refunded(await self._post("/v1/refunds", "refund", form, key=operation.key))

    async def _settle(self, operation: Settle) -> Answer:
        """Captures, a few at a time. An item without a result leaves the chunk open; those with one keep theirs."""
        halted = asyncio.Event()  # the provider limits us or is away: the rest can wait for the next round

        async def capture(item: SettlementItem) -> ItemResult | NotProcessed | Unknown | None:
            async with self._captures:
                if halted.is_set():
                    return None
                result = await self._capture(item)
                if not isinstance(result, ItemResult):
                    halted.set()
                return result

        results = await asyncio.gather(*(capture(item) for item in operation.items))
        unknown = [result for result in results if isinstance(result, Unknown)]
        if unknown:
            return unknown[0]
        not_processed = [result for result in results if isinstance(result, NotProcessed)]
        if not_processed:
            return max(not_processed, key=lambda result: result.retry_after_ms or 0)
        assert None not in results, "a chunk was halted by nothing"
        return Succeeded(items=tuple(result for result in results if isinstance(result, ItemResult)))

    async def _capture(self, item: SettlementItem) -> ItemResult | NotProcessed | Unknown:
        stated = answers.stripe_amount(item.amount, item.currency)
        if stated is None:
            return answers.item_failed(item.payment_id, "The provider does not take this amount.")
        found = item.reference or await self._search(item.payment_id)
        if not isinstance(found, str):
            return NotProcessed(error=NO_INTENT if found is None else found.error)
        form = {"amount_to_capture": str(stated)}
        acted = await self._act(found, "capture", form, key=item.key, done_in=("succeeded", "canceled"))
        if isinstance(acted, Refused):
            return answers.item_failed(item.payment_id, "The provider could not capture; try again.", retryable=True)
        if not isinstance(acted, Intent):
            return acted
        result = answers.capture_state(acted, item.payment_id, stated)
        return result or Unknown(error=unavailable("the provider has not captured yet"))

    async def _act(
        self, intent_id: str, action: str, form: Mapping[str, str], *, key: str, done_in: tuple[str, ...]
    ) -> Intent | NotProcessed | Unknown | Refused:
        """Cancel or capture an intent; returns it as it is then, or Refused when it stays as it was for good.

        The intent's own state keeps both to once, and so allows what no other operation may: where the answer under
        the key is an old failure that was kept, a second key.
        """
        for attempt_key in (key, f"{key}:again"):
            answered = await self._post(f"/v1/payment_intents/{intent_id}/{action}", action, form, key=attempt_key)
            if isinstance(answered, HttpAnswer) and answered.status == 200:
                return answers.intent_of(answered)
            known = answers.not_done(answered)
            if not isinstance(answered, HttpAnswer) or answered.status in (401, 403, 409, 429):
                return known
            refused = isinstance(known, NotProcessed)
            verdict = Refused(provider_reference=intent_id, error=known.error) if refused else known
            if answered.status == 404:
                return verdict
            intent = await self._intent(intent_id)
            if isinstance(intent, Unknown) or intent.status in done_in:
                return intent
            if answered.headers.get("Idempotent-Replayed") != "true":
                break
        return verdict

    async def _find(self, operation: Authorize | Void | Refund) -> str | NotProcessed:
        """The id of the payment's intent; NotProcessed while it cannot be told.

        Searching sees everything but the last minutes (in an outage of Stripe's, the last hour); creating again under
        the same key gives the same intent for a day. Between them there is no gap.
        """
        if not isinstance(operation, Authorize) and operation.reference is not None:
            return operation.reference
        found = await self._search(operation.payment_id)
        if isinstance(found, str):
            return found
        if isinstance(found, Unknown):
            return NotProcessed(error=found.error)
        match operation:
            case Authorize(key=key, payment_id=payment_id, amount=amount, currency=currency):
                intent = await self._create(key, payment_id, amount, currency)
            case Void(authorization_key=key, payment_id=payment_id, amount=int(amount), currency=str(currency)):
                intent = await self._create(key, payment_id, amount, currency)
            case _:
                return NotProcessed(error=NO_INTENT)
        if isinstance(intent, Refused):
            return NotProcessed(error=intent.error, cause="rejected")
        return intent.id if isinstance(intent, Intent) else intent

    async def _create(
        self, authorization_key: str, payment_id: str, amount: int, currency: str
    ) -> Intent | NotProcessed | Refused:
        """The intent of an authorisation, new or as it was created; the same arguments on every road to here."""
        stated = answers.stripe_amount(amount, currency)
        if stated is None:
            return answers.NOT_ITS_AMOUNT
        form = {
            "amount": str(stated),
            "currency": currency.lower(),
            "capture_method": "manual",
            "confirmation_method": "manual",  # only our secret key can confirm it
            "payment_method_types[0]": "card",
            "metadata[payment_id]": payment_id,
            "metadata[transaction_id]": authorization_key,
        }
        key = f"{authorization_key}:create"
        return answers.created(await self._post("/v1/payment_intents", "create", form, key=key))

    async def _search(self, payment_id: str) -> str | Unknown | None:
        """The id of the payment's intent, None while the search shows none: which proves nothing."""
        query = {"query": f"metadata['payment_id']:'{payment_id}'", "limit": "10"}
        page = answers.read(await self._get("/v1/payment_intents/search", "search", query), answers.IntentPage)
        return page if isinstance(page, Unknown) else page.intent_id

    async def _intent(self, intent_id: str) -> Intent | Unknown:
        return answers.intent_of(await self._get(f"/v1/payment_intents/{intent_id}", "retrieve", {}))

    async def _find_refund(self, intent_id: str, key: str) -> QueryAnswer:
        """The refund that was made under this key: lists, unlike searches, show what was just written."""
        after: dict[str, str] = {}
        while True:
            query = {"payment_intent": intent_id, "limit": str(REFUNDS_PER_PAGE), **after}
            page = answers.read(await self._get("/v1/refunds", "list_refunds", query), answers.RefundPage)
            if isinstance(page, Unknown):
                return page
            for refund in page.data:
                if refund.metadata.get("transaction_id") == key:
                    return answers.refund_state(refund)
            if not page.has_more or not page.data:
                return NotFound()
            after = {"starting_after": page.data[-1].id}

    async def _get(self, path: str, operation: str, query: Mapping[str, str]) -> HttpAnswer | NotProcessed | Unknown:
        return await self._http.call("GET", path, operation=operation, params=query, headers=self._headers)

    async def _post(
        self, path: str, operation: str, form: Mapping[str, str], *, key: str
    ) -> HttpAnswer | NotProcessed | Unknown:
        headers = {**self._headers, "Idempotency-Key": key}
        return await self._http.call("POST", path, operation=operation, data=dict(form), headers=headers)
