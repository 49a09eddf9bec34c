"""Checks every hop of every order against what the witnesses saw: the topics, Cassandra, the provider, the receiver.

Nothing here believes the API: each check compares one witness with what has to be there, and names what is missing,
doubled or out of order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from ops.demo.journal import Entry
from ops.demo.orders import Order, status_of
from ops.demo.receiver import Delivery, Receiver
from ops.demo.witnesses import Recorded
from tables.payments import CHANGELOG


class Finding(NamedTuple):
    """One row of the table: what was looked for, where, how much of it was found."""

    step: str
    place: str
    what: str
    expected: int
    found: int
    problems: list[str]


@dataclass(kw_only=True)
class Evidence:
    """All that the witnesses saw of a run."""

    orders: Sequence[Order]
    entries: Sequence[Entry]
    recorded: Mapping[str, Recorded]
    ledgers: Mapping[str, Sequence[Mapping[str, Any]]]
    public_events: Mapping[str, Sequence[str]]
    receiver: Receiver
    by_payment: dict[tuple[str, str], list[Entry]] = field(init=False)  # (topic, payment_id)

    def __post_init__(self) -> None:
        self.by_payment = {}
        for entry in self.entries:
            payment_id = _payment_id(entry)
            if payment_id:
                self.by_payment.setdefault((entry.topic, payment_id), []).append(entry)

    def of(self, topic: str, order: Order) -> list[Entry]:
        """Committed records of one order in one topic."""
        return self.by_payment.get((topic, order.payment_id), [])


def findings(evidence: Evidence) -> Iterator[Finding]:
    """Every check, in the order of the steps."""
    paid = [order for order in evidence.orders if order.payment_id]
    checks: Iterable[tuple[str, str, str, Callable[[Evidence, Order], tuple[int, int, list[str]]]]] = (
        ("1, 5", "payments.commands", "commands of a create and a confirm", _commands),
        ("2", "payments.events", "one event per transition, sequence 1..n", _events),
        ("2", CHANGELOG, "the payment's last row", _changelog),
        ("5, 6", "provider.requests", "one authorisation asked for", _requests),
        ("3", "Cassandra: payments", "the row, at the changelog's revision", _row),
        ("3", "Cassandra: payment_history", "one entry per transition", _history),
        ("4", "GET /payments/{id}/events", "one event per transition", _public),
        ("6, 8", "the provider's ledger", "authorisations and captures, each once", _ledger),
        ("7", "merchants.events", "one place in the feed per transition", _feed),
        ("7", "the receiver", "webhooks, signed, in order, each after its GET", _webhooks),
        ("8", "Cassandra: settlement_items", "settled, in one batch", _item),
    )
    yield _answers(evidence)
    for step, place, what, check in checks:
        expected, found, problems = 0, 0, []
        for order in paid:
            wanted, seen, complaints = check(evidence, order)
            expected, found = expected + wanted, found + seen
            problems += [f"{order.label}: {place}: {complaint}" for complaint in complaints]
        yield Finding(step, place, what, expected, found, problems)
    yield _batches(evidence, paid)


def _answers(evidence: Evidence) -> Finding:
    """What went wrong over HTTP, and the state in which GET shows each order at the end."""
    problems = [f"{order.label}: {failure}" for order in evidence.orders for failure in order.failures]
    for order in evidence.orders:
        if order.status != order.final_status or order.version != len(order.card.path):
            shown = f"{order.status or 'nothing'}, version {order.version}"
            problems.append(f"{order.label}: GET shows {shown}; {order.final_status}, {len(order.card.path)} expected")
    right = sum(order.status == order.final_status for order in evidence.orders)
    return Finding("1-8", "GET /payments/{id}", "the final state", len(evidence.orders), right, problems)


def _commands(evidence: Evidence, order: Order) -> tuple[int, int, list[str]]:
    """At least one each: a client that had to repeat itself sent more, and the decider saw to it."""
    names = {entry.name for entry in evidence.of("payments.commands", order)}
    missing = {"CreatePayment", "ConfirmPayment"} - names
    return 2, 2 - len(missing), [f"{name} is missing" for name in sorted(missing)]


def _events(evidence: Evidence, order: Order) -> tuple[int, int, list[str]]:
    entries = [entry for entry in evidence.of("payments.events", order) if entry.fields["sequence"] is not None]
    problems = _path_problems(order, [(e.fields["sequence"], e.fields["type"]) for e in entries])
    if len({entry.fields["id"] for entry in entries}) != len(entries):
        problems.append("an event id was used twice")
    if len({entry.partition for entry in entries}) > 1:
        problems.append("its events are in more than one partition")
    for entry in entries:
        payment = entry.fields["payment"]
        if payment["status"] != status_of(entry.fields["type"]) or payment["version"] != entry.fields["sequence"]:
            problems.append(f"the snapshot of {entry.fields['type']} is {payment['status']}, {payment['version']}")
    return len(order.card.path), len(entries), problems


def _changelog(evidence: Evidence, order: Order) -> tuple[int, int, list[str]]:
    rows = evidence.of(CHANGELOG, order)
    if not rows:
        return 1, 0, ["no row"]
    revisions = [row.fields["payment"]["revision"] for row in rows]
    problems = []
    if revisions != sorted(revisions) or set(revisions) != set(range(1, max(revisions) + 1)):
        problems.append(f"revisions are not 1, 2, ...: {revisions}")
    for before, after in pairwise(row.fields["payment"] for row in rows):  # doubts and refusals revise no payment
        if before["revision"] == after["revision"] and before != after:
            problems.append(f"two payments of revision {after['revision']}")
    last = rows[-1].fields["payment"]
    if last["status"] != order.final_status or last["version"] != len(order.card.path):
        problems.append(f"the last row is {last['status']}, version {last['version']}")
    return 1, 1, problems


def _requests(evidence: Evidence, order: Order) -> tuple[int, int, list[str]]:
    """Retries ask again under the same transaction."""
    requests = [entry for entry in evidence.of("provider.requests", order) if entry.name == "AuthorizeRequest"]
    transactions = {entry.fields["transaction_id"] for entry in requests}
    return 1, len(transactions), _differs("transactions", 1, len(transactions))


def _row(evidence: Evidence, order: Order) -> tuple[int, int, list[str]]:
    row = evidence.recorded[order.payment_id]
    if row.status is None:
        return 1, 0, ["no row"]
    problems = []
    if row.status != order.final_status or row.version != len(order.card.path):
        problems.append(f"it is {row.status}, version {row.version}")
    kept = evidence.of(CHANGELOG, order)
    if kept and row.revision != kept[-1].fields["payment"]["revision"]:
        problems.append(f"revision {row.revision}, the changelog has {kept[-1].fields['payment']['revision']}")
    types = sorted(t.transaction_type for t in row.transactions)
    wanted = ["AUTHORIZATION", "SETTLEMENT"] if order.card.is_approved else ["AUTHORIZATION"]
    if types != wanted:
        problems.append(f"its transactions are {', '.join(types)}")
    return 1, 1, problems


def _history(evidence: Evidence, order: Order) -> tuple[int, int, list[str]]:
    history = [entry for entry in evidence.recorded[order.payment_id].history if entry.transition]
    problems = _path_problems(order, [(entry.version, entry.type) for entry in history])
    known = {entry.fields["id"] for entry in evidence.of("payments.events", order)}
    problems += [f"{entry.event_id} is in no topic" for entry in history if entry.event_id not in known]
    return len(order.card.path), len(history), problems


def _public(evidence: Evidence, order: Order) -> tuple[int, int, list[str]]:
    types = evidence.public_events[order.payment_id]
    return len(order.card.path), len(types), _path_problems(order, list(enumerate(types, 1)))


def _ledger(evidence: Evidence, order: Order) -> tuple[int, int, list[str]]:
    movements = evidence.ledgers[order.payment_id]
    counts = Counter(movement["type"] for movement in movements)
    wanted = {"authorization": 1, "capture": 1} if order.card.is_approved else {}
    problems = [f"{name}s: {counts[name]}" for name in sorted(counts | wanted) if counts[name] != wanted.get(name, 0)]
    problems += [f"a {m['type']} of {m['amount']}" for m in movements if m["amount"] != order.amount]
    keys = {t.transaction_id for t in evidence.recorded[order.payment_id].transactions}
    problems += [
        f"authorised under a key of nobody: {m['idempotency_key']}"
        for m in movements
        if m["type"] == "authorization" and m["idempotency_key"] not in keys
    ]
    return sum(wanted.values()), len(movements), problems


def _feed(evidence: Evidence, order: Order) -> tuple[int, int, list[str]]:
    entries = evidence.of("merchants.events", order)
    problems = _path_problems(order, [(entry.fields["sequence"], entry.fields["type"]) for entry in entries])
    places = [entry.fields["feed_sequence"] for entry in entries]
    if places != sorted(set(places)):
        problems.append(f"its places in the feed do not rise: {places}")
    return len(order.card.path), len(entries), problems


def _webhooks(evidence: Evidence, order: Order) -> tuple[int, int, list[str]]:
    deliveries: list[Delivery] = evidence.receiver.of(order.payment_id)
    problems = _path_problems(order, [(delivery.sequence, delivery.type) for delivery in deliveries])
    sent = {e.fields["id"]: e.fields["sequence"] for e in evidence.of("payments.events", order)}
    problems += [f"{d.webhook_id} is the id of no event" for d in deliveries if sent.get(d.webhook_id) != d.sequence]
    return len(order.card.path), len(deliveries), problems


def _item(evidence: Evidence, order: Order) -> tuple[int, int, list[str]]:
    item = evidence.recorded[order.payment_id].item
    if not order.card.is_approved:
        return 0, int(item is not None), [] if item is None else ["a declined payment is in a batch"]
    if item is None:
        return 1, 0, ["in no batch"]
    right = (item.status, item.amount) == ("SETTLED", order.amount)
    return 1, int(right), [] if right else [f"it is {item.status}, {item.amount}"]


def _batches(evidence: Evidence, paid: Sequence[Order]) -> Finding:
    batches = sorted({order.batch_id for order in paid if order.batch_id})
    completed = Counter(e.fields["batch_id"] for e in evidence.entries if e.name == "BatchCompleted")
    problems = [f"{b}: BatchCompleted {completed[b]} times" for b in batches if completed[b] != 1]
    for batch in batches:
        types = [delivery.type for delivery in evidence.receiver.of(batch)]
        if types != ["settlement_batch.completed"]:
            problems.append(f"{batch}: webhooks {', '.join(types) or 'none'}")
    problems += [f"webhook {webhook_id}: bad signature" for webhook_id in evidence.receiver.bad_signatures]
    found = sum(completed[batch] == 1 and len(evidence.receiver.of(batch)) == 1 for batch in batches)
    return Finding("8, 7", "settlement.events", "batches completed, each told once", len(batches), found, problems)


def _path_problems(order: Order, seen: Sequence[tuple[int, str]]) -> list[str]:
    wanted = list(enumerate(order.card.path, 1))
    if list(seen) == wanted:
        return []
    shown = ", ".join(f"{sequence} {kind}" for sequence, kind in seen) or "nothing"
    return [f"{shown}; expected {', '.join(f'{sequence} {kind}' for sequence, kind in wanted)}"]


def _differs(what: str, expected: int, found: int) -> list[str]:
    return [] if expected == found else [f"{found} {what} instead of {expected}"]


def _payment_id(entry: Entry) -> str:
    fields = entry.fields
    if not fields:
        return ""
    payment = fields.get("payment")
    return str(fields.get("payment_id") or (payment["payment_id"] if payment else ""))
