"""A stateful stand-in for the part of Stripe's API that the adapter uses, on a loopback port of its own.

As the public documentation has it: form-encoded bodies, idempotency keys whose answers are kept once a request began to
execute (failures too) and forgotten a day later, intents that are a state machine, a search that lags behind, lists
that do not. `ledger` is what really happened to money.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from aiohttp import web

SECRET = "sk_test_51Fake"  # shaped like one

DECLINES = {
    "pm_card_visa_chargeDeclined": ("card_declined", "generic_decline"),
    "pm_card_visa_chargeDeclinedInsufficientFunds": ("card_declined", "insufficient_funds"),
    "pm_card_visa_chargeDeclinedFraudulent": ("card_declined", "fraudulent"),
    "pm_card_visa_chargeDeclinedStolenCard": ("card_declined", "stolen_card"),
    "pm_card_chargeDeclinedExpiredCard": ("expired_card", None),
    "pm_card_chargeDeclinedIncorrectCvc": ("incorrect_cvc", None),
    "pm_card_chargeDeclinedProcessingError": ("processing_error", None),
    "pm_card_authenticationRequired": ("authentication_required", "authentication_required"),
}
APPROVED = {"pm_card_visa", "pm_card_mastercard", "pm_card_refundFail"}


class Kept(NamedTuple):
    """What an idempotency key keeps."""

    request: tuple[str, str]
    status: int
    body: dict[str, Any]


class FailedError(Exception):
    """An answer that is an error. `began`: the endpoint had begun to execute, so its key keeps it."""

    def __init__(self, status: int, type_: str, *, began: bool = True, **fields: Any) -> None:
        super().__init__(status)
        self.status, self.began = status, began
        self.body = {"error": {"type": type_, "message": "quotes what was sent: pm_card_secret", **fields}}


class StripeFake:
    """Intents, refunds, keys and faults. `faults`: action -> what happens to its next calls, in order:

    "limit" (429), "lock" (429, another request has the object), "unavailable" (503), "error" (500 before anything was
    done), "error_after" (500 after it was), "silence", "silence_after", "reset_after", "ok".
    """

    def __init__(self) -> None:
        self.intents: dict[str, dict[str, Any]] = {}
        self.refunds: list[dict[str, Any]] = []
        self.keys: dict[str, Kept] = {}
        self.executing: set[str] = set()
        self.indexed: set[str] = set()
        self.faults: dict[str, deque[str]] = {}
        self.ledger: list[tuple[str, str, int]] = []  # movement, intent, amount
        self.calls: list[tuple[str, str | None]] = []  # action, idempotency key
        self.at_once = self.at_once_max = 0
        self.gate: asyncio.Event | None = None  # captures wait for it
        self.arrivals: asyncio.Queue[str] = asyncio.Queue()  # captures that wait
        self.search_fails = False
        self.url = ""

    def fail(self, action: str, *faults: str) -> None:
        """Have the next calls of an action fail."""
        self.faults.setdefault(action, deque()).extend(faults)

    def index(self) -> None:
        """Let the search catch up."""
        self.indexed = set(self.intents)

    def a_day_passes(self) -> None:
        """Idempotency keys are forgotten, and the search has caught up."""
        self.keys.clear()
        self.index()

    def moved(self, movement: str) -> list[int]:
        """The amounts of all movements of one kind."""
        return [amount for kind, _, amount in self.ledger if kind == movement]

    def count(self, action: str) -> int:
        """How many calls of an action have arrived."""
        return sum(name == action for name, _ in self.calls)

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application()
        app.router.add_post("/v1/payment_intents", self._post("create", self._create))
        app.router.add_get("/v1/payment_intents", self._get("check", lambda _: {"data": [], "has_more": False}))
        app.router.add_get("/v1/payment_intents/search", self._get("search", self._search))
        app.router.add_get("/v1/payment_intents/{id}", self._get("retrieve", self._retrieve))
        for action, act in {"confirm": self._confirm, "capture": self._capture, "cancel": self._cancel}.items():
            app.router.add_post("/v1/payment_intents/{id}/" + action, self._post(action, act))
        app.router.add_post("/v1/refunds", self._post("refund", self._refund))
        app.router.add_get("/v1/refunds", self._get("list_refunds", self._list_refunds))
        return app

    def _get(
        self, action: str, read: Callable[[web.Request], dict[str, Any]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.calls.append((action, None))
            try:
                self._authenticate(request)
                fault = self._next_fault(action)
                if fault == "silence":
                    await self._silence()
                self._fault_before(fault)
                return web.json_response(read(request))
            except FailedError as failed:
                return web.json_response(failed.body, status=failed.status)

        return handle

    def _post(
        self, action: str, act: Callable[[dict[str, str], str], dict[str, Any]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            key = request.headers.get("Idempotency-Key")
            self.calls.append((action, key))
            assert request.content_type == "application/x-www-form-urlencoded"
            assert key, "every POST of the adapter has a key"
            text = await request.text()
            try:
                self._authenticate(request)
                return await self._keyed(request, action, key, text, act)
            except FailedError as failed:
                headers = {"Retry-After": "2"} if failed.status == 429 else {}
                return web.json_response(failed.body, status=failed.status, headers=headers)

        return handle

    async def _keyed(
        self,
        request: web.Request,
        action: str,
        key: str,
        text: str,
        act: Callable[[dict[str, str], str], dict[str, Any]],
    ) -> web.StreamResponse:
        fault = self._next_fault(action)
        if fault in ("limit", "lock"):  # the limiters stand before the idempotency layer
            code = "rate_limit" if fault == "limit" else "lock_timeout"
            raise FailedError(429, "rate_limit_error" if fault == "limit" else "invalid_request_error", code=code)
        sent = (request.path, text)
        kept = self.keys.get(key)
        if kept is not None:
            if kept.request != sent:
                raise FailedError(400, "idempotency_error")
            headers = {"Idempotent-Replayed": "true"}
            return web.json_response(kept.body, status=kept.status, headers=headers)
        if key in self.executing:
            raise FailedError(409, "invalid_request_error", code="idempotency_key_in_use")
        self.executing.add(key)
        try:
            await self._wait(action)
            status, body = self._execute(request, text, act, fault, key, sent)
        finally:
            self.executing.discard(key)
        if fault == "reset_after":
            assert request.transport is not None
            request.transport.abort()
        if fault in ("silence", "silence_after", "reset_after"):
            await self._silence()
        return web.json_response(body, status=status)

    def _execute(
        self,
        request: web.Request,
        text: str,
        act: Callable[[dict[str, str], str], dict[str, Any]],
        fault: str,
        key: str,
        sent: tuple[str, str],
    ) -> tuple[int, dict[str, Any]]:
        form = {name: values[0] for name, values in parse_qs(text).items()}
        if fault == "silence":
            return 200, {}
        try:
            self._fault_before(fault)
            status, body = 200, act(form, request.match_info.get("id", ""))
            if fault == "error_after":
                status, body = 500, {"error": {"type": "api_error"}}
        except FailedError as failed:
            if not failed.began:
                raise
            status, body = failed.status, failed.body
        body = json.loads(json.dumps(body))  # as it was then
        self.keys[key] = Kept(sent, status, body)
        return status, body

    async def _wait(self, action: str) -> None:
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        try:
            if self.gate is not None and action == "capture":
                self.arrivals.put_nowait(action)
                await self.gate.wait()
        finally:
            self.at_once -= 1

    def _next_fault(self, action: str) -> str:
        faults = self.faults.get(action)
        return faults.popleft() if faults else "ok"

    @staticmethod
    def _fault_before(fault: str) -> None:
        if fault == "error":
            raise FailedError(500, "api_error")
        if fault == "unavailable":
            raise FailedError(503, "api_error", began=False)

    @staticmethod
    async def _silence() -> None:
        await asyncio.get_running_loop().create_future()

    @staticmethod
    def _authenticate(request: web.Request) -> None:
        assert request.headers["Stripe-Version"]
        if request.headers.get("Authorization") != f"Bearer {SECRET}":
            raise FailedError(401, "invalid_request_error", began=False)

    def _create(self, form: dict[str, str], _: str) -> dict[str, Any]:
        assert form["capture_method"] == "manual"
        assert form["currency"] == form["currency"].lower()
        amount = int(form["amount"])
        if form["currency"] == "usd" and amount < 50:
            raise FailedError(400, "invalid_request_error", began=False, code="amount_too_small", param="amount")
        intent = {
            "id": f"pi_{len(self.intents) + 1}",
            "object": "payment_intent",
            "status": "requires_payment_method",
            "amount": amount,
            "amount_received": 0,
            "currency": form["currency"],
            "latest_charge": None,
            "last_payment_error": None,
            "metadata": _metadata(form),
        }
        self.intents[str(intent["id"])] = intent
        return intent

    def _confirm(self, form: dict[str, str], intent_id: str) -> dict[str, Any]:
        intent = self._in(intent_id, "requires_payment_method", "requires_confirmation")
        token = form["payment_method"]
        if token not in APPROVED and token not in DECLINES:
            raise FailedError(
                400, "invalid_request_error", began=False, code="resource_missing", param="payment_method"
            )
        if token in DECLINES:
            code, decline_code = DECLINES[token]
            reason: dict[str, Any] = {"code": code, **({"decline_code": decline_code} if decline_code else {})}
            intent["last_payment_error"] = {"type": "card_error", **reason}
            raise FailedError(402, "card_error", **reason, payment_intent=dict(intent))
        intent.update(status="requires_capture", latest_charge=f"ch_{intent_id}", payment_method=token)
        self.ledger.append(("hold", intent_id, intent["amount"]))
        return intent

    def _capture(self, form: dict[str, str], intent_id: str) -> dict[str, Any]:
        intent = self._in(intent_id, "requires_capture")
        amount = int(form["amount_to_capture"])
        if amount > intent["amount"]:
            raise FailedError(400, "invalid_request_error", code="amount_too_large", param="amount_to_capture")
        intent.update(status="succeeded", amount_received=amount)
        self.ledger.append(("capture", intent_id, amount))
        return intent

    def _cancel(self, _: dict[str, str], intent_id: str) -> dict[str, Any]:
        intent = self._in(intent_id, "requires_payment_method", "requires_confirmation", "requires_capture")
        if intent["status"] == "requires_capture":
            self.ledger.append(("release", intent_id, intent["amount"]))
        intent["status"] = "canceled"
        return intent

    def _refund(self, form: dict[str, str], _: str) -> dict[str, Any]:
        intent = self._in(form["payment_intent"], "succeeded")
        amount = int(form["amount"])
        given = sum(moved for kind, of, moved in self.ledger if (kind, of) == ("refund", intent["id"]))
        left = intent["amount_received"] - given
        if amount > left:
            code = "charge_already_refunded" if not left else "amount_too_large"
            raise FailedError(400, "invalid_request_error", code=code, param="amount")
        failed = intent["payment_method"] == "pm_card_refundFail"
        refund = {
            "id": f"re_{len(self.refunds) + 1}",
            "status": "failed" if failed else "succeeded",
            "payment_intent": intent["id"],
            "metadata": _metadata(form),
        }
        self.refunds.insert(0, refund)
        if not failed:
            self.ledger.append(("refund", intent["id"], amount))
        return refund

    def _search(self, request: web.Request) -> dict[str, Any]:
        if self.search_fails:
            raise FailedError(400, "invalid_request_error")
        query = request.query["query"]
        assert query.startswith("metadata['payment_id']:'")
        payment_id = query.split("'")[3]
        found = [each for each in self.intents.values() if each["metadata"]["payment_id"] == payment_id]
        return {"object": "search_result", "data": [each for each in found if each["id"] in self.indexed]}

    def _retrieve(self, request: web.Request) -> dict[str, Any]:
        return self._in(request.match_info["id"])

    def _list_refunds(self, request: web.Request) -> dict[str, Any]:
        of_intent = [each for each in self.refunds if each["payment_intent"] == request.query["payment_intent"]]
        ids = [each["id"] for each in of_intent]
        start = ids.index(request.query["starting_after"]) + 1 if "starting_after" in request.query else 0
        page = of_intent[start : start + 2]  # smaller than was asked for, as a list may be
        return {"object": "list", "data": page, "has_more": start + 2 < len(of_intent)}

    def _in(self, intent_id: str, *statuses: str) -> dict[str, Any]:
        intent = self.intents.get(intent_id)
        if intent is None:
            raise FailedError(404, "invalid_request_error", began=False, code="resource_missing", param="intent")
        if statuses and intent["status"] not in statuses:
            code = "payment_intent_unexpected_state"
            raise FailedError(400, "invalid_request_error", code=code, payment_intent=dict(intent))
        return intent


def _metadata(form: dict[str, str]) -> dict[str, str]:
    return {name[9:-1]: value for name, value in form.items() if name.startswith("metadata[")}
