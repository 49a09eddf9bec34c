"""Reconciliation finds each way in which a witness can disagree, and nothing where all agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ops.reconcile.compare import EVENTS, LEDGER, RECORDS, TABLE, Movement, Witnesses, differences, view_of

PAYMENT, AUTH, CAPTURE, REFUND, VOID = "pay_1", "txn_auth", "txn_settle", "txn_refund", "txn_void"
AMOUNT = 1000


def transaction(transaction_id: str, kind: str, status: str = "SUCCEEDED", amount: int = AMOUNT) -> dict[str, Any]:
    return {"transaction_id": transaction_id, "type": kind, "status": status, "amount": amount}


def movement(kind: str, key: str, amount: int = AMOUNT, currency: str = "USD") -> Movement:
    return Movement(kind, key, amount, currency)


AUTHORIZATION = transaction(AUTH, "AUTHORIZATION")
HELD = movement("authorization", AUTH)
STATES: dict[str, tuple[str, int, int, list[dict[str, Any]], list[Movement]]] = {
    # name: status, version, refunded, transactions, movements
    "pending": ("PENDING", 1, 0, [], []),
    "asking": ("PROCESSING", 2, 0, [transaction(AUTH, "AUTHORIZATION", "PENDING")], [HELD]),
    "authorized": ("AUTHORIZED", 3, 0, [AUTHORIZATION], [HELD]),
    "declined": ("DECLINED", 3, 0, [transaction(AUTH, "AUTHORIZATION", "FAILED")], []),
    "given up and released": (
        "FAILED", 3, 0, [transaction(AUTH, "AUTHORIZATION", "FAILED")], [HELD, movement("void", "any")],
    ),
    "canceled": ("CANCELED", 4, 0, [AUTHORIZATION, transaction(VOID, "VOID")], [HELD, movement("void", VOID)]),
    "settled": (
        "SETTLED", 4, 0, [AUTHORIZATION, transaction(CAPTURE, "SETTLEMENT")], [HELD, movement("capture", "sb_1:0")],
    ),
    "partly refunded": (
        "SETTLED", 5, 300,
        [AUTHORIZATION, transaction(CAPTURE, "SETTLEMENT"), transaction(REFUND, "REFUND", amount=300)],
        [HELD, movement("capture", "sb_1:0"), movement("refund", REFUND, 300)],
    ),
}  # fmt: skip


def witnesses_of(state: str) -> Witnesses:
    """All witnesses of one payment in this state, in agreement."""
    status, version, refunded, transactions, movements = STATES[state]
    payment = {
        "payment_id": PAYMENT,
        "status": status,
        "version": version,
        "revision": version + 2,
        "amount": AMOUNT,
        "amount_refunded": refunded,
        "currency": "USD",
        "transactions": transactions,
    }
    witnesses = Witnesses()
    for sequence in range(1, version + 1):
        older = {**payment, "status": "?", "revision": sequence}
        witnesses.add_event({"id": f"evt_{sequence}", "sequence": sequence, "payment": older})
    witnesses.add_event({"id": "evt_updated", "sequence": None, "payment": payment})
    witnesses.add_event({"id": "evt_rejected", "sequence": None})
    witnesses.table[PAYMENT] = witnesses.records[PAYMENT] = view_of(payment)
    if movements:
        witnesses.ledger[PAYMENT] = list(movements)
    return witnesses


def found(witnesses: Witnesses) -> list[tuple[str, str]]:
    return [(d.witness, d.problem) for d in differences(witnesses, witnesses.payments())]


@pytest.mark.parametrize("state", STATES)
def test_agreement_is_no_difference(state: str) -> None:
    assert found(witnesses_of(state)) == []


def test_an_event_published_twice_is_one_event() -> None:
    witnesses = witnesses_of("pending")
    witnesses.add_event({"id": "evt_1", "sequence": 1, "payment": {**as_payment(witnesses), "revision": 1}})
    assert found(witnesses) == []


def as_payment(witnesses: Witnesses) -> dict[str, Any]:
    return {"payment_id": PAYMENT, **witnesses.table[PAYMENT]._asdict(), "transactions": []}


def change(place: str, **fields: Any) -> Callable[[Witnesses], None]:
    def apply(witnesses: Witnesses) -> None:
        views = getattr(witnesses, place)
        views[PAYMENT] = views[PAYMENT]._replace(**fields)

    return apply


@pytest.mark.parametrize(
    ("state", "spoil", "witness", "problem"),
    [
        ("settled", change("table", revision=5), TABLE, "revision is 5, the events say 6"),
        ("settled", change("records", status="AUTHORIZED"), RECORDS, "status is AUTHORIZED, the events say SETTLED"),
        ("settled", change("records", transactions=()), RECORDS, "transactions is ()"),
        ("partly refunded", change("records", amount_refunded=0), RECORDS, "amount_refunded is 0"),
        ("pending", lambda w: w.records.clear(), RECORDS, "nothing of it"),
        ("pending", lambda w: w.table.clear(), TABLE, "nothing of it"),
        (
            "pending",
            lambda w: w.folded.clear(),
            EVENTS,
            "nothing of it; who knows it: payment-worker's table, Cassandra",
        ),
        ("settled", lambda w: w.folded[PAYMENT].transitions.pop(3), EVENTS, "transitions [1, 2, 4], version 4"),
        ("settled", lambda w: w.folded[PAYMENT].transitions[2].add("evt_x"), EVENTS, "several events are number 2"),
        ("authorized", lambda w: w.ledger.clear(), LEDGER, "authorizations of 0, the events say 1000"),
        ("authorized", lambda w: w.ledger[PAYMENT].append(HELD), LEDGER, f"2 authorizations under the key {AUTH}"),
        (
            "authorized",
            lambda w: w.ledger[PAYMENT].append(movement("authorization", "txn_x")),
            LEDGER,
            "authorization under the key of no transaction: txn_x",
        ),
        ("authorized", lambda w: w.ledger[PAYMENT].append(movement("capture", "k")), LEDGER, "captures of 1000"),
        ("settled", lambda w: w.ledger[PAYMENT].pop(), LEDGER, "captures of 0, the events say 1000"),
        ("canceled", lambda w: w.ledger[PAYMENT].pop(), LEDGER, "voids of 0, the events say 1000"),
        ("declined", lambda w: w.ledger.update({PAYMENT: [HELD]}), LEDGER, "voids of 0, the events say 1000"),
        ("partly refunded", lambda w: w.ledger[PAYMENT].pop(), LEDGER, "refunds of 0, the events say 300"),
        ("asking", lambda w: w.ledger[PAYMENT].append(HELD), LEDGER, f"2 authorizations under the key {AUTH}"),
        (
            "authorized",
            lambda w: w.ledger.update({PAYMENT: [HELD._replace(currency="EUR")]}),
            LEDGER,
            "authorization in EUR, not USD",
        ),
    ],
)
def test_a_witness_that_disagrees_is_named(
    state: str, spoil: Callable[[Witnesses], Any], witness: str, problem: str
) -> None:
    witnesses = witnesses_of(state)
    spoil(witnesses)
    told = found(witnesses)
    assert any(place == witness and text.startswith(problem) for place, text in told), told
    assert {place for place, _ in told} == {witness}
