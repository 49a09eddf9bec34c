"""What the witnesses must agree on, as pure functions: a payment's events folded, and each other view against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class View(NamedTuple):
    """A payment as one witness has it. `transactions`: (id, type, status, amount in minor units), sorted."""

    status: str
    version: int
    revision: int
    amount: int
    amount_refunded: int
    currency: str
    transactions: tuple[tuple[str, str, str, int], ...]


class Movement(NamedTuple):
    """One movement of money that the provider made."""

    type: str  # authorization, capture, void, refund
    idempotency_key: str
    amount: int
    currency: str


class Difference(NamedTuple):
    """Where a witness disagrees with the events."""

    payment_id: str
    witness: str
    problem: str


EVENTS, TABLE, RECORDS, LEDGER = "payments.events", "payment-worker's table", "Cassandra", "the provider's ledger"


@dataclass(slots=True)
class Folded:
    """All events of one payment: its last snapshot, and the ids of its transitions by sequence."""

    view: View | None = None
    transitions: dict[int, set[str]] = field(default_factory=dict)


class Witnesses:
    """What was read so far of every payment. A payment that a witness does not know is absent from its mapping."""

    def __init__(self) -> None:
        self.folded: dict[str, Folded] = {}
        self.table: dict[str, View] = {}
        self.records: dict[str, View] = {}
        self.ledger: dict[str, list[Movement]] = {}

    def add_event(self, fields: Mapping[str, Any]) -> None:
        """One record of payments.events, in its partition's order; those without a snapshot tell nothing here."""
        payment = fields.get("payment")
        if payment is None:
            return
        folded = self.folded.setdefault(payment["payment_id"], Folded())
        if fields["sequence"] is not None:
            folded.transitions.setdefault(fields["sequence"], set()).add(fields["id"])
        if folded.view is None or folded.view.revision <= payment["revision"]:
            folded.view = view_of(payment)

    def payments(self) -> set[str]:
        """Every payment that any witness knows."""
        return {*self.folded, *self.table, *self.records, *self.ledger}


def view_of(payment: Mapping[str, Any]) -> View:
    """The view in a Payment record, as events and the table's changelog have it."""
    transactions = ((t["transaction_id"], t["type"], t["status"], t["amount"]) for t in payment["transactions"])
    plain = (payment[name] for name in View._fields[:-1])
    return View._make((*plain, tuple(sorted(transactions))))


def differences(witnesses: Witnesses, payment_ids: Iterable[str]) -> Iterator[Difference]:
    """Everything on which the witnesses of these payments do not agree."""
    for payment_id in payment_ids:
        folded = witnesses.folded.get(payment_id)
        if folded is None or folded.view is None:
            others = [name for name, known in _known(witnesses, payment_id) if known]
            yield Difference(payment_id, EVENTS, f"nothing of it; who knows it: {', '.join(others) or 'nobody'}")
            continue
        view = folded.view
        yield from (Difference(payment_id, EVENTS, problem) for problem in _history_problems(folded, view))
        for name, other in ((TABLE, witnesses.table.get(payment_id)), (RECORDS, witnesses.records.get(payment_id))):
            yield from (Difference(payment_id, name, problem) for problem in _view_problems(view, other))
        movements = witnesses.ledger.get(payment_id, [])
        yield from (Difference(payment_id, LEDGER, problem) for problem in _money_problems(view, movements))


def _known(witnesses: Witnesses, payment_id: str) -> Iterator[tuple[str, bool]]:
    yield TABLE, payment_id in witnesses.table
    yield RECORDS, payment_id in witnesses.records
    yield LEDGER, payment_id in witnesses.ledger


def _history_problems(folded: Folded, view: View) -> Iterator[str]:
    """Transitions are numbered 1 to the version; each number belongs to one event, however often it was published."""
    if set(folded.transitions) != set(range(1, view.version + 1)):
        yield f"transitions {sorted(folded.transitions)}, version {view.version}"
    doubled = [sequence for sequence, ids in folded.transitions.items() if len(ids) > 1]
    if doubled:
        yield f"several events are number {min(doubled)}"


def _view_problems(view: View, other: View | None) -> Iterator[str]:
    if other is None:
        yield "nothing of it"
        return
    for name, wanted, found in zip(View._fields, view, other, strict=True):
        if wanted != found:
            yield f"{name} is {found}, the events say {wanted}"


def _money_problems(view: View, movements: Iterable[Movement]) -> Iterator[str]:
    """The provider moved exactly what the payment says, each once, under keys of the payment's own transactions."""
    moved: Counter[str] = Counter()
    used: Counter[tuple[str, str]] = Counter()
    for movement in movements:
        moved[movement.type] += movement.amount
        used[movement.type, movement.idempotency_key] += 1
        if movement.currency != view.currency:
            yield f"{movement.type} in {movement.currency}, not {view.currency}"
    keys = {transaction_id for transaction_id, *_ in view.transactions}
    for (kind, key), times in sorted(used.items()):
        if kind in ("authorization", "refund") and key not in keys:
            yield f"{kind} under the key of no transaction: {key}"
        if times > 1:
            yield f"{times} {kind}s under the key {key}"
    if any(status == "PENDING" for _, _, status, _ in view.transactions):
        return  # under way: the provider may be ahead of us, and what it says next decides
    wanted = _settled_sums(view, moved)
    for kind in ("authorization", "void", "capture", "refund"):
        if moved[kind] != wanted[kind]:
            yield f"{kind}s of {moved[kind]}, the events say {wanted[kind]}"


def _settled_sums(view: View, moved: Counter[str]) -> dict[str, int]:
    """Sums by kind of movement for a payment of which nothing is under way."""
    match view.status:
        case "AUTHORIZED":
            return {"authorization": view.amount, "void": 0, "capture": 0, "refund": 0}
        case "SETTLED" | "REFUNDED":
            return {"authorization": view.amount, "void": 0, "capture": view.amount, "refund": view.amount_refunded}
        case _:  # nothing may be held: no authorisation, or one that was released
            held = moved["authorization"]
            return {"authorization": min(held, view.amount), "void": held, "capture": 0, "refund": 0}
