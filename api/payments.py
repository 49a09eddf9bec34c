"""Operations on payments over HTTP: steps 1 (Accept), 4 (Reply) and 5 (Confirm) of the life of a payment."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from msgspec import UNSET

from api.calls import Call
from api.client_secrets import ClientSecrets
from api.command_desk import UNDECIDED, CommandDesk
from api.documents import AcceptedPaymentDocument, PaymentDocument
from api.models import CancelPayment, ConfirmPayment, CreatePayment, RefundPayment
from api.outcomes import PaymentAnswers
from api.payment_views import PaymentViews, payment_id_of
from api.personal_data import sealed_personal_data
from api.ports import CommandLog, PaymentReads
from api.problems import Problem, unavailable
from api.replies import CommandReply, ReplyBoard, Waiting
from api.routes import IdempotencyKey, KeyAccess, Route
from ops.runtime.clock import Clock
from ops.runtime.encryption import DataKeys, EncryptionError
from ops.runtime.secrets import SecretKeys
from ops.runtime.settings import Settings
from streams.domain import commands, ids, money
from streams.domain.payment import Payment, PaymentStatus
from tables.records.errors import RecordsUnavailable

RETRY_SOON = {"Retry-After": "1"}
_OPEN = frozenset({PaymentStatus.PENDING, PaymentStatus.PROCESSING})


class Payments:
    """The handlers of /payments that change something."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        desk: CommandDesk,
        board: ReplyBoard,
        reads: PaymentReads,
        views: PaymentViews,
        answers: PaymentAnswers,
        data_keys: DataKeys,
        client_secrets: ClientSecrets,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._desk = desk
        self._board = board
        self._reads = reads
        self._views = views
        self._answers = answers
        self._data_keys = data_keys
        self._client_secrets = client_secrets

    def routes(self) -> list[Route]:
        """The public routes of payments."""
        write = KeyAccess("payments:write")
        changing = frozenset({"not_found", "idempotency_key_reused", "invalid_state", "unavailable", "overloaded"})
        return [
            Route(
                method="POST",
                path="/payments",
                handler=self.create,
                summary="Create a payment",
                access=KeyAccess("payments:write", active_merchant=True),
                body=CreatePayment,
                check=_check_currency,
                idempotency_key=IdempotencyKey.RECOMMENDED,
                answers={201: PaymentDocument, 202: AcceptedPaymentDocument},
                problems=frozenset({"idempotency_key_reused", "merchant_inactive", "unavailable", "overloaded"}),
            ),
            Route(
                method="POST",
                path="/payments/{payment_id}/confirm",
                handler=self.confirm,
                summary="Confirm a payment with a card's token",
                access=KeyAccess("payments:write", publishable=True, active_merchant=True),
                body=ConfirmPayment,
                headers={"Prefer": "wait=N: up to N seconds (30 at most) for the provider's answer; 202 without it"},
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
        key = call.idempotency_key
        call.payment_id = ids.unkeyed(ids.PAYMENT) if key is None else ids.payment_id(merchant_id, key)
        try:
            personal_data = await sealed_personal_data(self._data_keys, call.payment_id, request)
        except (EncryptionError, RecordsUnavailable):
            raise unavailable("personal data cannot be encrypted at the moment") from None
        now = self._clock.now_us()
        command = commands.CreatePayment(
            **self._desk.envelope(call, now),
            payment_id=call.payment_id,
            merchant_id=merchant_id,
            amount=request.amount,
            currency=request.currency,
            personal_data=personal_data,
            client_secret_key_id=self._client_secrets.current_key_id,
            expires_at=now + self._settings.pending_expiry_s * 1_000_000,
            idempotency=None if key is None else self._desk.idempotency(call, key, "create"),
        )
        with self._board.waiting(call.request_id) as waiting:
            reply = await self._desk.decide(call, command, waiting)
        if reply is None:
            location = {"Location": f"/payments/{call.payment_id}", **RETRY_SOON}
            return call.answer(202, AcceptedPaymentDocument(payment_id=call.payment_id), location)
        return await self._answers.of_reply(call, reply, 201)

    async def confirm(self, call: Call) -> web.Response:
        """Step 5, Confirm; with `Prefer: wait` also the outcome of step 6, Authorise."""
        request: ConfirmPayment = call.body
        call.payment_id = payment_id_of(call)
        await self._check_client_secret(call, request.client_secret)
        command = commands.ConfirmPayment(
            **self._desk.envelope(call, self._clock.now_us()),
            **self._desk.keyed(call, "confirm"),
            payment_method_token=request.payment_method_token,
        )
        wait_s = call.wait_seconds()
        with self._board.waiting(call.request_id) as waiting:
            reply = await self._desk.decide(call, command, waiting)
            if reply is None:
                raise unavailable(UNDECIDED)
            if wait_s is None:
                return await self._answers.of_reply(call, reply, 202)
            return await self._outcome(call, reply, waiting, wait_s)

    async def cancel(self, call: Call) -> web.Response:
        """Ends a PENDING payment at once, an AUTHORIZED one by a void."""
        call.payment_id = payment_id_of(call)
        command = commands.CancelPayment(
            **self._desk.envelope(call, self._clock.now_us()), **self._desk.keyed(call, "cancel")
        )
        return await self._changed(call, command)

    async def refund(self, call: Call) -> web.Response:
        """Gives money of a SETTLED payment back."""
        request: RefundPayment = call.body
        call.payment_id = payment_id_of(call)
        command = commands.RefundPayment(
            **self._desk.envelope(call, self._clock.now_us()),
            **self._desk.keyed(call, "refund"),
            amount=None if request.amount is UNSET else request.amount,
        )
        return await self._changed(call, command)

    async def _changed(self, call: Call, command: commands.CancelPayment | commands.RefundPayment) -> web.Response:
        with self._board.waiting(call.request_id) as waiting:
            reply = await self._desk.decide(call, command, waiting)
        if reply is None:
            raise unavailable(UNDECIDED)
        return await self._answers.of_reply(call, reply, 202)

    async def _outcome(self, call: Call, reply: CommandReply, waiting: Waiting, wait_s: int) -> web.Response:
        """`Prefer: wait`: the payment once it is decided, or as it is when the time is up."""
        payment = await self._answers.payment_of(reply)
        headers = {"Preference-Applied": f"wait={wait_s}"}
        if reply.outcome == "repeated":
            headers["Idempotency-Replayed"] = "true"
            payment = await self._watched(call, payment, wait_s)
        waiting.is_patient = True
        while payment.status in _OPEN:
            left = 0.0 if self._board.is_draining else call.seconds_left(wait_s)
            later = await waiting.next(left)
            if later is None:
                payment = await self._latest(payment)
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
            payment = await self._latest(payment)
            left = call.seconds_left(wait_s)
            if payment.status not in _OPEN or left <= 0.0 or self._board.is_draining:
                return payment
            await nothing.next(min(pause_s, left))
            pause_s = min(2 * pause_s, 1.0)

    async def _latest(self, payment: Payment) -> Payment:
        """As it is recorded now; during an outage what is known already, for the confirmation was accepted."""
        try:
            return await self._reads.get(payment.payment_id) or payment
        except RecordsUnavailable:
            return payment

    async def _check_client_secret(self, call: Call, secret: str | Any) -> None:
        """A browser proves that it may confirm; a wrong secret for a payment that is not the merchant's is a 404."""
        if call.principal.kind != "publishable" and secret is UNSET:
            return
        payment_id = payment_id_of(call)
        if isinstance(secret, str) and self._client_secrets.is_of(payment_id, secret):
            return
        payment = await self._views.owned(call, None)
        self._views.require_client_secret(payment.payment_id, secret if isinstance(secret, str) else None)


def _check_currency(call: Call) -> None:
    """Raises Problem unless the currency is one, and one of the merchant's."""
    currency, accepted = call.body.currency, call.principal.settlement_currencies
    if not money.is_currency(currency) or (accepted is not None and currency not in accepted):
        raise Problem("currency_invalid", "not a currency of this merchant", param="currency")


def payment_routes(
    settings: Settings,
    clock: Clock,
    log: CommandLog,
    board: ReplyBoard,
    reads: PaymentReads,
    data_keys: DataKeys,
    client_secrets: ClientSecrets,
    fingerprint_keys: SecretKeys,
) -> list[Route]:
    """Every public route of payments, over what the process holds."""
    answers = PaymentAnswers(reads, data_keys, client_secrets)
    views = PaymentViews(reads, answers, client_secrets)
    desk = CommandDesk(settings, log, board, fingerprint_keys)
    payments = Payments(settings, clock, desk, board, reads, views, answers, data_keys, client_secrets)
    return [*payments.routes(), *views.routes()]
