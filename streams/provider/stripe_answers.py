"""What Stripe's answers let us know. Pure; the tables are in the tests.

Two of its rules differ from the platform's own provider API: no 5xx is known not to be processed (503 included), and
what an answer under an idempotency key says is what was so when the key was first used; what is so now is the state of
the PaymentIntent itself.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from streams.domain.money import exponents
from streams.domain.payment import ProviderError
from streams.provider.classification import retry_after_ms, unavailable
from streams.provider.http import HttpAnswer
from streams.provider.port import Answer, ItemResult, NotFound, NotProcessed, QueryAnswer, Refused, Succeeded, Unknown

T = TypeVar("T")


class StripeError(msgspec.Struct, kw_only=True):
    """The `error` of an answer, or a PaymentIntent's `last_payment_error`. Its message is not kept: it quotes input."""

    type: str = ""
    code: str | None = None
    decline_code: str | None = None
    param: str | None = None
    payment_intent: Intent | None = None


class Intent(msgspec.Struct, kw_only=True):
    """A PaymentIntent, as far as we look at it. Amounts in Stripe's minor units."""

    id: str
    status: str
    amount: int = 0
    amount_received: int = 0
    latest_charge: str | None = None
    last_payment_error: StripeError | None = None


class RefundObject(msgspec.Struct, kw_only=True):
    """A Refund."""

    id: str
    status: str | None = None
    metadata: dict[str, str] = {}


class IntentPage(msgspec.Struct, kw_only=True):
    """PaymentIntents that a search has found."""

    data: list[Intent]

    @property
    def intent_id(self) -> str | None:
        """The payment's intent: should there be two, the one that was confirmed."""
        known = sorted(self.data, key=lambda intent: intent.status in UNCONFIRMED)
        return known[0].id if known else None


class RefundPage(msgspec.Struct, kw_only=True):
    """A page of a list of refunds."""

    data: list[RefundObject]
    has_more: bool = False


class _Failure(msgspec.Struct, kw_only=True):
    error: StripeError


UNCONFIRMED = frozenset({"requires_payment_method", "requires_confirmation"})

DECLINES: dict[str, str] = {
    "insufficient_funds": "insufficient_funds",
    "expired_card": "expired_card",
    "invalid_expiry_month": "expired_card",
    "invalid_expiry_year": "expired_card",
    **dict.fromkeys(
        ("fraudulent", "lost_card", "stolen_card", "pickup_card", "merchant_blacklist", "security_violation"),
        "fraudulent",
    ),
    **dict.fromkeys(
        ("incorrect_number", "invalid_number", "incorrect_cvc", "invalid_cvc", "invalid_account", "card_not_supported"),
        "invalid_card",
    ),
}
"""Stripe's decline codes, or where it gives none its error codes, in the contract's. All others: generic_decline."""

MESSAGES: dict[str, str] = {
    "generic_decline": "The card was declined.",
    "insufficient_funds": "The card has insufficient funds.",
    "expired_card": "The card has expired.",
    "fraudulent": "The issuer suspects fraud.",
    "invalid_card": "The card is not valid.",
}

ZERO_DECIMAL = frozenset(
    {"BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"}
)
THREE_DECIMAL = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
"""All other currencies have two decimals at Stripe: ISK and UGX too, which in ISO 4217 have none any more."""


def stripe_amount(amount: int, currency: str) -> int | None:
    """An amount in the currency's own minor units as Stripe wants it, or None when it cannot be said exactly."""
    decimals = 0 if currency in ZERO_DECIMAL else 3 if currency in THREE_DECIMAL else 2
    shift = decimals - exponents()[currency]
    stated = amount * 10**shift if shift >= 0 else None if amount % 10**-shift else amount // 10**-shift
    if decimals == 3 and stated is not None and stated % 10:
        return None  # the card networks take no thousandth
    return stated


def declined(error: StripeError) -> ProviderError:
    """The error of a card that was declined."""
    code = DECLINES.get(error.decline_code or "") or DECLINES.get(error.code or "") or "generic_decline"
    return decline(code)


def decline(decline_code: str) -> ProviderError:
    """The error of a card that was declined for this reason of the contract."""
    return ProviderError(
        code="card_declined", decline_code=decline_code, retryable=False, message=MESSAGES[decline_code]
    )


def refusal(code: str, message: str, *, retryable: bool = False) -> Refused:
    """Decided against, not for the card's sake."""
    return Refused(error=ProviderError(code=code, retryable=retryable, message=message))


NOT_ITS_AMOUNT = refusal("provider_unavailable", "The provider does not take this amount or currency.")
VOIDED = "The authorisation was voided."


def error_of(answer: HttpAnswer) -> StripeError:
    """The error that an answer carries; an empty one when it carries none that makes sense."""
    try:
        return msgspec.json.decode(answer.body, type=_Failure).error
    except msgspec.DecodeError:
        return StripeError()


def not_done(answer: HttpAnswer | NotProcessed | Unknown) -> NotProcessed | Unknown:
    """What is known of a POST that did not succeed, before anything is made of its error."""
    if not isinstance(answer, HttpAnswer):
        return answer
    error = error_of(answer)
    said = f"the provider answered {answer.status}"
    match answer.status:
        case 429:  # refused before execution: its limiters stand in front of the idempotency layer
            wait_ms = retry_after_ms(answer.headers.get("Retry-After"))
            return NotProcessed(
                error=unavailable("the provider limits our rate"), retry_after_ms=wait_ms, cause="limited"
            )
        case 400 if error.type == "idempotency_error":  # the key belongs to something else: what was done under it?
            return Unknown(error=unavailable("the provider knows the key for another request"))
        case 400 | 401 | 402 | 403 | 404:
            return NotProcessed(error=unavailable(said), cause="rejected")
        case _:  # 409: it is being worked on; 5xx: indeterminate
            return Unknown(error=unavailable(said))


def created(answer: HttpAnswer | NotProcessed | Unknown) -> Intent | NotProcessed | Refused:
    """What a POST of a PaymentIntent led to. Without an intent no money can move: that much is always known."""
    match answer:
        case HttpAnswer(status=200):
            intent = intent_of(answer)
            return intent if isinstance(intent, Intent) else NotProcessed(error=intent.error)
        case HttpAnswer(status=400):
            error = error_of(answer)
            if error.param in ("amount", "currency") or error.code in ("amount_too_small", "amount_too_large"):
                return NOT_ITS_AMOUNT
    known = not_done(answer)
    if isinstance(known, Unknown):
        return NotProcessed(error=known.error)
    return known


def confirmed(answer: HttpAnswer | NotProcessed | Unknown) -> Answer:
    """What a POST of a confirmation lets us know."""
    if isinstance(answer, HttpAnswer):
        error = error_of(answer)
        match answer.status:
            case 200:
                return _sent(authorization_state(intent_of(answer)))
            case 402 if error.type == "card_error":
                reference = error.payment_intent.id if error.payment_intent else None
                return Refused(provider_reference=reference, error=declined(error))
            case 400 | 404 if error.param == "payment_method":  # a token that it does not know, or cannot use
                return Refused(error=decline("invalid_card"))
            case 400 if error.code == "payment_intent_unexpected_state" and error.payment_intent:
                return _sent(authorization_state(error.payment_intent))
    return not_done(answer)


def _sent(state: QueryAnswer) -> Answer:
    """A state that says "not yet" right after a send says that we do not know."""
    return Unknown(error=unavailable("the provider is still at it")) if isinstance(state, NotFound) else state


def authorization_state(intent: Intent | Unknown) -> QueryAnswer:
    """What the state of a PaymentIntent says of its authorisation."""
    if isinstance(intent, Unknown):
        return intent
    match intent.status:
        case "requires_capture" | "succeeded":
            return Succeeded(provider_reference=intent.id)
        case "canceled":
            return refusal("provider_unavailable", VOIDED)
        case "requires_payment_method" if intent.last_payment_error is not None:
            return Refused(provider_reference=intent.id, error=declined(intent.last_payment_error))
        case "requires_payment_method" | "requires_confirmation":
            return NotFound()
        case "requires_action":  # the customer cannot act: nobody but us knows this intent
            return Refused(provider_reference=intent.id, error=decline("generic_decline"))
        case _:  # processing, or a state of a later release
            return Unknown(error=unavailable("the provider is still at it"))


def void_state(intent: Intent | Unknown) -> QueryAnswer:
    """What the state of a PaymentIntent says of the void of its authorisation."""
    if isinstance(intent, Unknown):
        return intent
    match intent.status:
        case "canceled":
            return Succeeded(provider_reference=intent.id)
        case "succeeded":
            return refusal("void_refused", "The authorisation was captured.")
        case _:
            return NotFound()


def capture_state(intent: Intent, payment_id: str, stated: int) -> ItemResult | None:
    """What the state of a PaymentIntent says of the capture of `stated`; None while it is still to be done."""
    match intent.status:
        case "succeeded" if intent.amount_received == stated:
            return ItemResult(payment_id=payment_id, provider_reference=intent.latest_charge or intent.id)
        case "succeeded":
            return item_failed(payment_id, "The provider captured another amount.")
        case "canceled":
            return item_failed(payment_id, "No authorization holds this amount.")
        case _:
            return None


def item_failed(payment_id: str, message: str, *, retryable: bool = False) -> ItemResult:
    """An item that was not captured."""
    error = ProviderError(code="settlement_failed", retryable=retryable, message=message)
    return ItemResult(payment_id=payment_id, error=error)


def refunded(answer: HttpAnswer | NotProcessed | Unknown) -> Answer:
    """What a POST of a refund lets us know."""
    if isinstance(answer, HttpAnswer):
        if answer.status == 200:
            made = read(answer, RefundObject)
            return made if isinstance(made, Unknown) else refund_state(made)
        error = error_of(answer)
        if answer.status in (400, 402, 404) and error.type in ("invalid_request_error", "card_error"):
            return refusal("refund_refused", "The provider refused the refund.")
    return not_done(answer)


def refund_state(refund: RefundObject) -> Succeeded | Refused:
    """What the state of a refund says; one that is pending is on its way."""
    if refund.status in ("failed", "canceled"):
        return refusal("refund_refused", "The provider could not give the money back.")
    return Succeeded(provider_reference=refund.id)


def intent_of(answer: HttpAnswer | NotProcessed | Unknown) -> Intent | Unknown:
    """The PaymentIntent that an answer holds."""
    return read(answer, Intent)


def read(answer: HttpAnswer | NotProcessed | Unknown, kind: type[T]) -> T | Unknown:
    """The object that an answer holds; Unknown when it holds none."""
    if not isinstance(answer, HttpAnswer):
        return Unknown(error=answer.error)
    if answer.status != 200:
        return Unknown(error=unavailable(f"the provider answered {answer.status}"))
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except msgspec.DecodeError:
        return Unknown(error=unavailable("the provider's answer makes no sense"))
