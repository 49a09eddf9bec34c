"""From a command's reply to the client's answer: acceptance, refusal, or the repetition of either.

The same rules for every operation: a repeated acceptance is rebuilt from the payment's history at the revision that it
had, so it is byte for byte the first answer; a refusal is its code; an outcome that nobody could decide is a 500.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from api.calls import Call
from api.client_secrets import ClientSecrets
from api.documents import payment_answer
from api.ports import PaymentReads
from api.problems import CODES, Problem, not_found, unavailable
from api.replies import CommandReply
from ops.runtime.encryption import DataKeys, EncryptionError
from streams.domain.payment import Payment
from streams.webhooks.personal_data import opened_personal_data

REPLAYED: Mapping[str, str] = {"Idempotency-Replayed": "true"}

_DETAILS: Mapping[str, str] = {
    "idempotency_key_reused": "the idempotency key was used with another request",
    "invalid_state": "the payment is in a state that does not allow this",
    "payment_in_settlement": "the payment's settlement day has closed",
    "amount_exceeds_refundable": "the amount is more than what is left to refund",
    "amount_invalid": "not a valid amount",
    "currency_invalid": "not a currency of this merchant",
    "rate_limited": "too many idempotency keys for one payment",
}


class PaymentAnswers:
    """Payments as documents for a caller, and the answers to commands."""

    def __init__(self, reads: PaymentReads, data_keys: DataKeys, client_secrets: ClientSecrets) -> None:
        self._reads = reads
        self._data_keys = data_keys
        self._client_secrets = client_secrets

    async def document(self, call: Call, payment: Payment, *, with_secret: bool) -> dict[str, Any]:
        """The payment as this caller may see it. `with_secret`: an answer that shows secret keys the client secret."""
        kind = call.principal.kind
        try:
            personal = await opened_personal_data(self._data_keys, payment)
        except EncryptionError:
            raise unavailable("personal data cannot be read now") from None
        secret = None
        if with_secret and kind == "secret":
            secret = self._client_secrets.of(payment.payment_id, payment.client_secret_key_id)
        return payment_answer(payment, personal, for_browser=kind == "publishable", client_secret=secret)

    async def of_reply(self, call: Call, reply: CommandReply, accepted_status: int) -> web.Response:
        """The answer to a command. Raises Problem for a refusal, new or repeated."""
        payment = await self.payment_of(reply)
        created = accepted_status == 201
        headers = {"Location": f"/payments/{payment.payment_id}"} if created else {}
        status = accepted_status
        if reply.outcome == "repeated":
            headers |= REPLAYED
            status = reply.status_code or accepted_status
        elif accepted_status == 202 and reply.event == "PaymentCanceled":
            status = 200
        return call.answer(status, await self.document(call, payment, with_secret=created), headers)

    async def payment_of(self, reply: CommandReply) -> Payment:
        """The payment as the reply leaves it, or left it when the command came first. Raises Problem for a refusal."""
        match reply.outcome:
            case "accepted":
                if reply.payment is not None:
                    return reply.payment
            case "rejected":
                raise refusal(reply)
            case "repeated":
                if reply.code is not None:
                    raise refusal(reply)
                assert reply.revision is not None
                payment = await self._reads.at_revision(reply.payment_id, reply.revision)
                assert payment is not None, "a revision that was answered is in the history"
                return payment
        raise Problem("internal_error", "the command could not be handled; it was logged and kept")


def refusal(reply: CommandReply) -> Problem:
    """The refusal that a reply carries. A kept one says so in its headers when it is repeated."""
    code = reply.code if reply.code is not None and reply.code in CODES else "internal_error"
    if code == "not_found":
        return not_found()
    return Problem(
        code,
        _DETAILS.get(code, code.replace("_", " ")),
        payment_status=reply.payment_status if code == "invalid_state" else None,
        headers=REPLAYED if reply.outcome == "repeated" else None,
    )
