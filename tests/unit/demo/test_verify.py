"""The demo's verification has teeth: whatever one witness misses, sees twice or sees out of order is named."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ops.demo.journal import Entry
from ops.demo.orders import VISA, Order, status_of
from ops.demo.receiver import Delivery, Receiver
from ops.demo.verify import Evidence, findings
from ops.demo.witnesses import Recorded
from tables.payments import CHANGELOG

PAY, TXN, BATCH = "pay_a", "txn_a", "sb_a"
STEPS = list(enumerate(VISA.path, 1))


class Seen:
    """What the witnesses of one sound payment saw; tests spoil it."""

    def __init__(self) -> None:
        self.order = Order(number=1, run="r", card=VISA, amount=500, payment_id=PAY, batch_id=BATCH)
        self.order.status, self.order.version = "SETTLED", 4
        self.entries = [entry("payments.commands", name) for name in ("CreatePayment", "ConfirmPayment")]
        self.entries.append(entry("provider.requests", "AuthorizeRequest", transaction_id=TXN))
        self.entries.append(Entry("settlement.events", 0, 0, 0.0, "", "BatchCompleted", {"batch_id": BATCH}))
        for n, kind in STEPS:
            snapshot = {"payment_id": PAY, "status": status_of(kind), "version": n, "revision": n}
            self.entries.append(entry("payments.events", kind, id=f"evt_{n}", sequence=n, type=kind, payment=snapshot))
            self.entries.append(entry("merchants.events", "FeedEvent", sequence=n, type=kind, feed_sequence=10 + n))
            self.entries.append(entry(CHANGELOG, "PaymentRow", payment=snapshot))
        self.history = [SimpleNamespace(event_id=f"evt_{n}", type=k, version=n, transition=True) for n, k in STEPS]
        self.transactions = [
            SimpleNamespace(transaction_id=TXN, transaction_type="AUTHORIZATION"),
            SimpleNamespace(transaction_id="txn_b", transaction_type="SETTLEMENT"),
        ]
        self.item: Any = SimpleNamespace(status="SETTLED", amount=500)
        self.ledger = [{"type": t, "amount": 500, "idempotency_key": TXN} for t in ("authorization", "capture")]
        self.public = list(VISA.path)
        self.deliveries = [Delivery(f"evt_{n}", kind, n, PAY, {}, 0.0) for n, kind in STEPS]
        self.batch_deliveries = [Delivery("evt_b", "settlement_batch.completed", 1, BATCH, {}, 0.0)]

    def problems(self) -> list[str]:
        receiver = Receiver(lambda _: None)
        for delivery in (*self.deliveries, *self.batch_deliveries):
            receiver.take(delivery)
        recorded = Recorded("SETTLED", 4, 4, self.transactions, self.history, self.item)
        evidence = Evidence(
            orders=[self.order],
            entries=self.entries,
            recorded={PAY: recorded},
            ledgers={PAY: self.ledger},
            public_events={PAY: self.public},
            receiver=receiver,
        )
        return [problem for finding in findings(evidence) for problem in finding.problems]

    def drop(self, topic: str) -> None:
        """The last record of a topic was never committed."""
        self.entries.remove([e for e in self.entries if e.topic == topic][-1])

    def double(self, topic: str) -> None:
        self.entries.append([e for e in self.entries if e.topic == topic][-1])


def entry(topic: str, name: str, **fields: Any) -> Entry:
    return Entry(topic, 0, 0, 0.0, PAY, name, {"payment_id": PAY, **fields})


def test_a_sound_payment_has_no_problems() -> None:
    assert Seen().problems() == []


@pytest.mark.parametrize(
    ("spoil", "place"),
    [
        (lambda seen: seen.drop("payments.commands"), "payments.commands"),
        (lambda seen: seen.drop("payments.events"), "payments.events"),
        (lambda seen: seen.double("payments.events"), "payments.events"),
        (lambda seen: seen.drop(CHANGELOG), CHANGELOG),
        (lambda seen: seen.drop("provider.requests"), "provider.requests"),
        (lambda seen: seen.drop("merchants.events"), "merchants.events"),
        (lambda seen: seen.double("merchants.events"), "merchants.events"),
        (lambda seen: seen.drop("settlement.events"), "BatchCompleted 0 times"),
        (lambda seen: seen.double("settlement.events"), "BatchCompleted 2 times"),
        (lambda seen: seen.history.pop(), "payment_history"),
        (lambda seen: seen.history.reverse(), "payment_history"),
        (lambda seen: seen.transactions.pop(), "Cassandra: payments"),
        (lambda seen: seen.public.pop(), "/events"),
        (lambda seen: seen.ledger.pop(), "captures: 0"),
        (lambda seen: seen.ledger.append(seen.ledger[0]), "authorizations: 2"),
        (lambda seen: seen.ledger[0].update(idempotency_key="txn_x"), "a key of nobody"),
        (lambda seen: seen.deliveries.pop(0), "the receiver"),
        (lambda seen: seen.deliveries.reverse(), "the receiver"),
        (lambda seen: seen.batch_deliveries.clear(), "webhooks none"),
        (lambda seen: setattr(seen, "item", None), "in no batch"),
        (lambda seen: setattr(seen.order, "status", "AUTHORIZED"), "GET shows AUTHORIZED"),
        (lambda seen: seen.order.failures.append("503 for ever"), "503 for ever"),
    ],
)
def test_what_is_missing_doubled_or_out_of_order_is_named(spoil: Callable[[Seen], None], place: str) -> None:
    seen = Seen()
    spoil(seen)
    problems = seen.problems()
    assert any(place in problem for problem in problems), problems
