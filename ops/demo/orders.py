"""What the demo buys, and what has to become of each order: the expectations that everything is checked against."""

from __future__ import annotations

import random
import secrets
import string
from dataclasses import dataclass, field
from typing import Any

CREATED, PROCESSING = "payment.created", "payment.processing"
APPROVED = (CREATED, PROCESSING, "payment.authorized", "payment.settled")
DECLINED = (CREATED, PROCESSING, "payment.declined")
AMOUNT_MIN, AMOUNT_MAX = 100, 50_000  # minor units: 1 to 500 USD


@dataclass(frozen=True, kw_only=True)
class Card:
    """A way to pay: a card number for the vault, or one of the provider's tokens for faults."""

    name: str
    number: str | None  # None: `name` is the token itself
    path: tuple[str, ...]  # event types from first to last

    @property
    def is_approved(self) -> bool:
        return self.path == APPROVED


VISA = Card(name="pm_card_visa", number="4242424242424242", path=APPROVED)
OTHERS = (
    Card(name="pm_card_mastercard", number="5555555555554444", path=APPROVED),
    Card(name="pm_card_declined", number="4000000000000002", path=DECLINED),
    Card(name="pm_provider_error_twice", number=None, path=APPROVED),
    Card(name="pm_card_insufficient_funds", number="4000000000009995", path=DECLINED),
    Card(name="pm_provider_reset_after_charge", number=None, path=APPROVED),
    Card(name="pm_card_expired", number="4000000000000069", path=DECLINED),
    Card(name="pm_provider_rate_limited_twice", number=None, path=APPROVED),
)
RUN_LETTERS = 12  # no digits: long runs of them may look like a card number, which the API refuses
MIXED_FROM = 20  # orders; fewer are all paid by VISA
OTHERS_SHARE = 0.35  # 7 of 20: each of OTHERS once


@dataclass(kw_only=True)
class Order:
    """One payment that the demo drives, and what it has seen of it so far."""

    number: int
    run: str
    card: Card
    amount: int
    currency: str = "USD"
    payment_id: str = ""
    token: str = ""
    client_secret: str = ""
    settlement_date: str | None = None
    batch_id: str | None = None
    status: str = ""
    version: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def create_key(self) -> str:
        return f"demo-{self.run}-{self.number}"

    @property
    def confirm_key(self) -> str:
        return f"{self.create_key}-confirm"

    @property
    def label(self) -> str:
        """How a person finds it again."""
        return f"order {self.number} ({self.card.name}, {self.payment_id or 'no payment'})"

    @property
    def final_status(self) -> str:
        return status_of(self.card.path[-1])

    def seen(self, payment: dict[str, Any]) -> None:
        """Take over what the API shows; answers may overtake each other, versions only rise."""
        version: int = payment["version"]
        if version < self.version:
            return
        self.version, self.status = version, payment["status"]
        self.batch_id = payment["batch_id"]
        self.settlement_date = payment["settlement_date"]


def status_of(event_type: str) -> str:
    """The status that a payment has after an event: PENDING after payment.created, else the event's own word."""
    word = event_type.rpartition(".")[2].upper()
    return "PENDING" if word == "CREATED" else word


def make_orders(count: int, seed: int) -> list[Order]:
    """`count` orders of a new run: the same cards and amounts for the same seed, under new idempotency keys."""
    choice = random.Random(seed)  # noqa: S311 - a mix of test cards
    run = "".join(secrets.choice(string.ascii_lowercase) for _ in range(RUN_LETTERS))
    others = round(count * OTHERS_SHARE) if count >= MIXED_FROM else 0
    cards = [*(OTHERS[i % len(OTHERS)] for i in range(others)), *([VISA] * (count - others))]
    choice.shuffle(cards)
    return [
        Order(number=i + 1, run=run, card=card, amount=choice.randint(AMOUNT_MIN, AMOUNT_MAX))
        for i, card in enumerate(cards)
    ]
