"""The state machine, written down a second time: a transition added or removed by mistake fails here."""

from __future__ import annotations

import msgspec
import pytest

from streams.domain.commands import CancelPayment, ConfirmPayment, RefundPayment
from streams.domain.events import PaymentEvent
from streams.domain.payment import PaymentStatus, Transaction, TransactionStatus
from streams.domain.transitions import ACCEPTED_IN, TRANSITIONS, evolve
from tests.unit.domain.payments_in_states import after, authorized, confirm, create, decided_after


def test_the_transitions_are_those_of_the_architecture() -> None:
    written = {
        (None if before is None else before.value, to.value, event.__name__)
        for (before, to), event in TRANSITIONS.items()
    }
    assert written == {
        (None, "PENDING", "PaymentCreated"),
        ("PENDING", "PROCESSING", "PaymentProcessing"),
        ("PENDING", "CANCELED", "PaymentCanceled"),
        ("PENDING", "EXPIRED", "PaymentExpired"),
        ("PROCESSING", "AUTHORIZED", "PaymentAuthorized"),
        ("PROCESSING", "DECLINED", "PaymentDeclined"),
        ("PROCESSING", "FAILED", "PaymentFailed"),
        ("AUTHORIZED", "CANCELED", "PaymentCanceled"),
        ("AUTHORIZED", "SETTLED", "PaymentSettled"),
        ("AUTHORIZED", "FAILED", "PaymentFailed"),
        ("SETTLED", "SETTLED", "PaymentRefunded"),
        ("SETTLED", "REFUNDED", "PaymentRefunded"),
    }


def test_commands_are_accepted_where_the_contract_says() -> None:
    assert {
        ConfirmPayment: {PaymentStatus.PENDING},
        CancelPayment: {PaymentStatus.PENDING, PaymentStatus.AUTHORIZED},
        RefundPayment: {PaymentStatus.SETTLED},
    } == ACCEPTED_IN


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"version": 4}, "version 4 after 2"),
        ({"revision": 4}, "revision 4 after 2"),
        ({"status": PaymentStatus.SETTLED}, "cannot tell of"),
        ({"transactions": ()}, "a transaction was removed"),
    ],
)
def test_a_skipped_step_does_not_evolve(change: dict[str, object], complaint: str) -> None:
    row = after(create(), confirm())
    event = decided_after(row, authorized()).event
    assert isinstance(event, PaymentEvent)
    wrong = msgspec.structs.replace(event, payment=msgspec.structs.replace(event.payment, **change))
    with pytest.raises(AssertionError, match=complaint):
        evolve(row.payment, wrong)


def test_a_transaction_is_answered_once() -> None:
    row = after(create(), confirm())
    event = decided_after(row, authorized()).event
    assert isinstance(event, PaymentEvent)
    answered: Transaction = msgspec.structs.replace(row.payment.transactions[0], status=TransactionStatus.FAILED)
    before = msgspec.structs.replace(row.payment, transactions=(answered,))
    with pytest.raises(AssertionError, match="a transaction made the step"):
        evolve(before, event)
