"""Payments over HTTP: steps 1 (Accept), 4 (Reply) and 5 (Confirm) of the life of a payment, and its reads."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from aiohttp import web
from msgspec import UNSET

from api.calls import Call
from api.client_secrets import ClientSecrets
from api.documents import AcceptedPaymentDocument, ActorDocument, ListDocument, PaymentDocument, PaymentEventDocument
from api.lists import ListQuery, instant_of
from api.models import CancelPayment, ConfirmPayment, CreatePayment, RefundPayment
from api.outcomes import PaymentAnswers
from api.personal_data import sealed_personal_data
from api.ports import CommandLog, PaymentReads
from api.problems import Problem, not_found, unavailable
from api.replies import CommandReply, ReplyBoard, Waiting
from api.routes import IdempotencyKey, KeyAccess, Route
from ops.runtime.clock import Clock, to_rfc3339
from ops.runtime.encryption import DataKeys, EncryptionError
from ops.runtime.secrets import SecretKeys
from ops.runtime.settings import Settings
from streams.domain import commands, ids, money
from streams.domain.envelope import ReplyTo
from streams.domain.fingerprint import FingerprintKey, idempotency
from streams.domain.payment import Payment, PaymentStatus
from tables.records.errors import RecordsUnavailable

RETRY_SOON = {"Retry-After": "1"}
_UNDECIDED = "outcome not yet known; repeat with the same Idempotency-Key"
_STATUSES = frozenset(status.value for status in PaymentStatus if status is not PaymentStatus.UNKNOWN)
_PAYMENT_ID = re.compile(r"pay_[a-z2-7]{26}")
_OPEN = frozenset({PaymentStatus.PENDING, PaymentStatus.PROCESSING})


class Payments:
    """The handlers of /payments."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        log: CommandLog,
        board: ReplyBoard,
        reads: PaymentReads,
        data_keys: DataKeys,
        client_secrets: ClientSecrets,
        fingerprint_keys: SecretKeys,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._log = log
        self._board = board
        self._reads = reads
        self._data_keys = data_keys
        self._client_secrets = client_secrets
        self._fingerprint_keys = [FingerprintKey(key_id=key.id, secret=key.key) for key in fingerprint_keys.all]
        self._answers = PaymentAnswers(reads, data_keys, client_secrets)

    def routes(self) -> list[Route]:
        """The public routes of payments."""
        write = KeyAccess("payments:write")
        read = KeyAccess("payments:read")
        changing = frozenset({"not_found", "idempotency_key_reused", "invalid_state", "unavailable", "rate_limited"})
        return [
            Route(
                method="POST",
                path="/payments",
                handler=self.create,
                summary="Create a payment",
                access=KeyAccess("payments:write", active_merchant=True),
                body=CreatePayment,
                idempotency_key=IdempotencyKey.RECOMMENDED,
                answers={201: PaymentDocument, 202: AcceptedPaymentDocument},
                problems=frozenset({"idempotency_key_reused", "merchant_inactive", "unavailable", "overloaded"}),
            ),
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
                query={"as_of": "a time (RFC 3339) or a version: the payment as it was"},
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
            Route(
                method="POST",
                path="/payments/{payment_id}/confirm",
                handler=self.confirm,
                summary="Confirm a payment with a card's token",
                access=KeyAccess("payments:write", publishable=True, active_merchant=True),
                body=ConfirmPayment,
                idempotency_key=IdempotencyKey.REQUIRED,
                answers={202: PaymentDocument, 200: PaymentDocument},
                problems=changing | {"merchant_inactive"},
                cors=True,
            ),
            Route(
                method="POST",
                path="/payments/{payment_id}/cancel",
                handler=self.cancel,
                summary="Cancel a payment, or void its authorisation",
                access=write,
                body=CancelPayment,
                body_optional=True,
                idempotency_key=IdempotencyKey.REQUIRED,
                answers={200: PaymentDocument, 202: PaymentDocument},
                problems=changing | {"payment_in_settlement"},
            ),
            Route(
                method="POST",
                path="/payments/{payment_id}/refunds",
                handler=self.refund,
                summary="Refund some or all of a settled payment",
                access=write,
                body=RefundPayment,
                body_optional=True,
                idempotency_key=IdempotencyKey.REQUIRED,
                answers={202: PaymentDocument},
                problems=changing | {"amount_exceeds_refundable"},
            ),
        ]

    async def create(self, call: Call) -> web.Response:
        """Step 1, Accept, and step 4, Reply, when it comes in time; else 202: the command is durable, to be decided."""
        request: CreatePayment = call.body
        merchant_id = call.principal.merchant_id
        self._check_currency(call, request.currency)
        key = call.idempotency_key
        call.payment_id = ids.unkeyed(ids.PAYMENT) if key is None else ids.payment_id(merchant_id, key)
        try:
            personal_data = await sealed_personal_data(self._data_keys, call.payment_id, request)
        except (EncryptionError, RecordsUnavailable):
            raise unavailable("personal data cannot be encrypted at the moment") from None
        now = self._clock.now_us()
        command = commands.CreatePayment(
            **self._envelope(call, now),
            payment_id=call.payment_id,
            merchant_id=merchant_id,
            amount=request.amount,
            currency=request.currency,
            personal_data=personal_data,
            client_secret_key_id=self._client_secrets.current_key_id,
            expires_at=now + self._settings.pending_expiry_s * 1_000_000,
            idempotency=None if key is None else self._idempotency(call, key, "create"),
        )
        with self._board.waiting(call.request_id) as waiting:
            reply = await self._decide(call, command, waiting)
        if reply is None:
            location = {"Location": f"/payments/{call.payment_id}", **RETRY_SOON}
            return call.answer(202, AcceptedPaymentDocument(payment_id=call.payment_id), location)
        return await self._answers.of_reply(call, reply, 201)

    async def confirm(self, call: Call) -> web.Response:
        """Step 5, Confirm; with `Prefer: wait` also the outcome of step 6, Authorise."""
        request: ConfirmPayment = call.body
        call.payment_id = _payment_id(call)
        await self._check_client_secret(call, request.client_secret)
        command = commands.ConfirmPayment(
            **self._envelope(call, self._clock.now_us()),
            **self._keyed(call, "confirm"),
            payment_method_token=request.payment_method_token,
        )
        wait_s = call.wait_seconds()
        with self._board.waiting(call.request_id) as waiting:
            reply = await self._decide(call, command, waiting)
            if reply is None:
                raise unavailable(_UNDECIDED)
            if wait_s is None:
                return await self._answers.of_reply(call, reply, 202)
            return await self._outcome(call, reply, waiting, wait_s)

    async def cancel(self, call: Call) -> web.Response:
        """Ends a PENDING payment at once, an AUTHORIZED one by a void."""
        call.payment_id = _payment_id(call)
        command = commands.CancelPayment(**self._envelope(call, self._clock.now_us()), **self._keyed(call, "cancel"))
        return await self._changed(call, command)

    async def refund(self, call: Call) -> web.Response:
        """Gives money of a SETTLED payment back."""
        request: RefundPayment = call.body
        call.payment_id = _payment_id(call)
        command = commands.RefundPayment(
            **self._envelope(call, self._clock.now_us()),
            **self._keyed(call, "refund"),
            amount=None if request.amount is UNSET else request.amount,
        )
        return await self._changed(call, command)

    async def get(self, call: Call) -> web.Response:
        """The payment as it is recorded, or as it was."""
        as_of = call.query.get("as_of")
        if as_of is not None and call.principal.kind == "publishable":
            raise Problem("forbidden", "not with a publishable key")
        payment = await self._owned(call, as_of)
        if call.principal.kind == "publishable":
            self._require_client_secret(payment.payment_id, call.request.headers.get("Client-Secret"))
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
        call.payment_id = _payment_id(call)
        page = ListQuery.of(call.query)
        await self._owned(call, None)
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

    async def _changed(self, call: Call, command: commands.CancelPayment | commands.RefundPayment) -> web.Response:
        with self._board.waiting(call.request_id) as waiting:
            reply = await self._decide(call, command, waiting)
        if reply is None:
            raise unavailable(_UNDECIDED)
        return await self._answers.of_reply(call, reply, 202)

    async def _decide(
        self, call: Call, command: commands.MerchantCommand | commands.CreatePayment, waiting: Waiting
    ) -> CommandReply | None:
        """Makes the command durable and waits for its reply; None when none comes in time. Raises Problem."""
        if not self._board.is_listening:
            raise unavailable("no answer could be heard yet")
        timeout_s = self._settings.reply_timeout_s
        fields = msgspec.to_builtins(command, builtin_types=(bytes,))
        await self._log.publish(type(command).__name__, command.payment_id, fields, call.seconds_left(timeout_s))
        return await waiting.next(call.seconds_left(timeout_s))

    async def _outcome(self, call: Call, reply: CommandReply, waiting: Waiting, wait_s: int) -> web.Response:
        """`Prefer: wait`: the payment once it is decided, or as it is when the time is up."""
        payment = await self._answers.payment_of(reply)
        headers = {"Preference-Applied": f"wait={wait_s}"}
        if reply.outcome == "repeated":
            headers["Idempotency-Replayed"] = "true"
            payment = await self._watched(call, payment, wait_s)
        while payment.status in _OPEN:
            later = await waiting.next(call.seconds_left(wait_s))
            if later is None:
                payment = await self._reads.get(payment.payment_id) or payment
                break
            if later.payment is not None:
                payment = later.payment
        status = 202 if payment.status in _OPEN else 200
        return call.answer(status, await self._answers.document(call, payment, with_secret=False), headers)

    async def _watched(self, call: Call, payment: Payment, wait_s: int) -> Payment:
        """A repeat waits beside the first request, which alone gets the replies: it looks at the records instead."""
        pause_s = 0.1
        nothing = Waiting()
        while True:
            payment = await self._reads.get(payment.payment_id) or payment
            left = call.seconds_left(wait_s)
            if payment.status not in _OPEN or left <= 0.0:
                return payment
            await nothing.next(min(pause_s, left))
            pause_s = min(2 * pause_s, 1.0)

    async def _owned(self, call: Call, as_of: str | None) -> Payment:
        """The merchant's payment, now or as it was. Raises Problem: not_found, invalid_request."""
        payment_id = _payment_id(call)
        if as_of is None:
            payment = await self._reads.get(payment_id)
        elif as_of.isascii() and as_of.isdigit() and len(as_of) <= 9:
            payment = await self._reads.at_version(payment_id, int(as_of))
        else:
            instant = instant_of(call.query, "as_of")
            assert instant is not None
            payment = await self._reads.at_time(payment_id, instant)
        if payment is None or payment.merchant_id != call.principal.merchant_id:
            raise not_found()
        return payment

    async def _check_client_secret(self, call: Call, secret: str | Any) -> None:
        """A browser proves that it may confirm; a wrong secret for a payment that is not the merchant's is a 404."""
        if call.principal.kind != "publishable" and secret is UNSET:
            return
        payment_id = _payment_id(call)
        if isinstance(secret, str) and self._client_secrets.is_of(payment_id, secret):
            return
        payment = await self._owned(call, None)
        self._require_client_secret(payment.payment_id, secret if isinstance(secret, str) else None)

    def _require_client_secret(self, payment_id: str, secret: str | None) -> None:
        if secret is None or not self._client_secrets.is_of(payment_id, secret):
            raise Problem("forbidden", "the payment's client_secret is required")

    def _check_currency(self, call: Call, currency: str) -> None:
        accepted = call.principal.settlement_currencies
        if not money.is_currency(currency) or (accepted is not None and currency not in accepted):
            raise Problem("currency_invalid", "not a currency of this merchant", param="currency")

    def _envelope(self, call: Call, now: int) -> dict[str, Any]:
        """The fields with which every command begins. Its id is the request's: each request is a command of its own."""
        return {
            "id": ids.derived(ids.COMMAND, call.request_id),
            "occurred_at": now,
            "actor": call.actor,
            "request_id": call.request_id,
            "traceparent": str(call.traceparent),
            "reply_to": ReplyTo(partition=self._settings.instance, correlation_id=call.request_id),
        }

    def _keyed(self, call: Call, operation: str) -> dict[str, Any]:
        key = call.idempotency_key
        assert key is not None
        return {
            "payment_id": _payment_id(call),
            "merchant_id": call.principal.merchant_id,
            "idempotency_key": key,
            "idempotency": self._idempotency(call, key, operation),
        }

    def _idempotency(self, call: Call, key: str, operation: str) -> commands.Idempotency:
        """The key and what the request was. The client secret is no part of that: a backend may repeat a browser."""
        fields = msgspec.to_builtins(call.body)
        fields.pop("client_secret", None)
        plain = {"operation": operation, **fields}
        return idempotency(call.principal.merchant_id, key, plain, self._fingerprint_keys)


def _payment_id(call: Call) -> str:
    """The id in the path. Raises Problem not_found for what cannot be one, before it costs a read or a command."""
    payment_id = call.path("payment_id")
    if _PAYMENT_ID.fullmatch(payment_id) is None:
        raise not_found()
    return payment_id
