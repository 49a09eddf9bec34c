"""Operations of a few payments as the gateway sends them, and an adapter that does not wait long for silence."""

from __future__ import annotations

import ssl

from streams.provider.port import Authorize, Settle, SettlementItem, Succeeded, Void
from streams.provider.stripe import StripeProvider
from tests.unit.provider.stripe_fake import SECRET

TIMEOUT_S = 1.0  # what silence costs; a loopback answer on busy cores must never take as long


def provider_at(url: str, secret: str = SECRET) -> StripeProvider:
    return StripeProvider(url, secret=secret, timeout_s=TIMEOUT_S, tls=ssl.create_default_context())


def authorize(token: str = "pm_card_visa", number: int = 1, amount: int = 2500, currency: str = "USD") -> Authorize:
    return Authorize(
        key=f"txn_{number}",
        payment_id=f"pay_{number}",
        amount=amount,
        currency=currency,
        payment_method_token=token,
    )


def void(reference: str | None = None) -> Void:
    return Void(
        key="txn_v",
        payment_id="pay_1",
        authorization_key="txn_1",
        amount=2500,
        currency="USD",
        reference=reference,
    )


def chunk(count: int, references: bool = True) -> Settle:
    items = tuple(
        SettlementItem(
            key=f"txn_s{number}",
            payment_id=f"pay_{number}",
            amount=2500,
            currency="USD",
            reference=f"pi_{number}" if references else None,
        )
        for number in range(1, count + 1)
    )
    return Settle(key="sb_1:0", batch_id="sb_1", chunk=0, items=items)


async def authorized(provider: StripeProvider, count: int) -> None:
    for number in range(1, count + 1):
        assert await provider.send(authorize(number=number)) == Succeeded(provider_reference=f"pi_{number}")
