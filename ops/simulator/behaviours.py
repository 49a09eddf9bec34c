"""What each payment-method token makes the simulated provider do: the magic tokens of the HTTP contract, as data.

A token that is not listed here, and that the vault did not issue, declines.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How the provider treats a payment made with one kind of token. The defaults approve everything at once."""

    decline_code: str | None = None  # authorisations are declined with it
    decide_after_s: float = 0.0  # the operation is in progress for so long
    refusals: int = 0  # so many first sends of one idempotency key are answered with `refusal_status`, unprocessed
    refusal_status: int = 500
    always_unavailable: bool = False  # 503 to every authorisation
    charges: bool = True  # False: an authorisation is lost before it is processed
    answers: bool = True  # False: an authorisation's connection stays open without an answer
    resets: bool = False  # an authorisation's connection is reset instead of answered
    settlement_failures: int = 0  # so many first captures of one payment are refused, retryably
    voids_refused: bool = False
    refunds_refused: bool = False


ALWAYS = 1_000_000_000  # more settlement attempts than any payment will ever see

BEHAVIOURS: dict[str, Behaviour] = {
    "pm_card_visa": Behaviour(),
    "pm_card_mastercard": Behaviour(),
    "pm_card_declined": Behaviour(decline_code="generic_decline"),
    "pm_card_insufficient_funds": Behaviour(decline_code="insufficient_funds"),
    "pm_card_expired": Behaviour(decline_code="expired_card"),
    "pm_card_fraudulent": Behaviour(decline_code="fraudulent"),
    "pm_card_invalid": Behaviour(decline_code="invalid_card"),
    "pm_provider_timeout": Behaviour(answers=False),
    "pm_provider_timeout_uncharged": Behaviour(answers=False, charges=False),
    "pm_provider_error_twice": Behaviour(refusals=2, refusal_status=500),
    "pm_provider_rate_limited_twice": Behaviour(refusals=2, refusal_status=429),
    "pm_provider_reset_after_charge": Behaviour(resets=True),
    "pm_provider_slow": Behaviour(decide_after_s=3.0),
    "pm_provider_down": Behaviour(always_unavailable=True),
    "pm_settlement_fails": Behaviour(settlement_failures=ALWAYS),
    "pm_settlement_fails_once": Behaviour(settlement_failures=1),
    "pm_void_refused": Behaviour(voids_refused=True),
    "pm_refund_refused": Behaviour(refunds_refused=True),
}

UNKNOWN_TOKEN = Behaviour(decline_code="generic_decline")

TEST_CARDS: dict[str, str] = {
    "4242424242424242": "pm_card_visa",
    "5555555555554444": "pm_card_mastercard",
    "4000000000000002": "pm_card_declined",
    "4000000000009995": "pm_card_insufficient_funds",
    "4000000000000069": "pm_card_expired",
    "4100000000000019": "pm_card_fraudulent",
    "4000000000000127": "pm_card_invalid",
}
"""Card numbers, published for testing, and the token that a card with this number behaves like."""

OTHER_CARDS = "pm_card_visa"
"""What a well-formed number that is not in TEST_CARDS behaves like."""

DECLINE_MESSAGES: dict[str, str] = {
    "generic_decline": "The card was declined.",
    "insufficient_funds": "The card has insufficient funds.",
    "expired_card": "The card has expired.",
    "fraudulent": "The issuer suspects fraud.",
    "invalid_card": "The card is not valid.",
}
