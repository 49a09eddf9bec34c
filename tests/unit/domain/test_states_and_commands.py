"""Every state x every command: what each command does in each state, as one table."""

from __future__ import annotations

import pytest

from streams.domain.commands import PaymentCommand
from streams.domain.decision import Decision
from streams.domain.events import CommandRejected, PaymentEvent
from streams.domain.payment import PaymentRow, PaymentStatus, TransactionType
from streams.domain.transitions import TRANSITIONS, evolve
from tests.unit.domain.payments_in_states import (
    PATHS,
    REFUSED,
    attempt_failed,
    authorized,
    cancel,
    confirm,
    create,
    decided_after,
    declined,
    expiry_due,
    refund,
    refunded,
    request_due,
    row_in,
    settled,
    voided,
)

COMMANDS: dict[str, PaymentCommand] = {
    "create": create(key="another"),
    "confirm": confirm(key="confirm 2"),
    "cancel": cancel(key="cancel 2"),
    "refund": refund(1500, key="refund 2"),
    "authorized": authorized(),
    "declined": declined(),
    "voided": voided(),
    "not voided": voided(succeeded=False),
    "refunded": refunded(),
    "not refunded": refunded(succeeded=False),
    "settled": settled(),
    "not settled": settled(error=REFUSED),
    "attempt failed": attempt_failed(),
    "expiry due": expiry_due(),
    "request due": request_due(),
}

# Words: the status after a transition; "updated": changed without a transition; a rejection's code;
# "-": recorded as CommandRepeated, nothing changed; "asks": a timer asks the provider again; ".": nothing at all.
TABLE = """
              NONE       PENDING       PROCESSING    IN_DOUBT      AUTHORIZED    VOIDING       SETTLED       REFUNDING     REFUNDED      DECLINED      FAILED        RELEASING     CANCELED      EXPIRED
create        PENDING    invalid_state invalid_state invalid_state invalid_state invalid_state invalid_state invalid_state invalid_state invalid_state invalid_state invalid_state invalid_state invalid_state
confirm       not_found  PROCESSING    invalid_state invalid_state invalid_state invalid_state invalid_state invalid_state invalid_state invalid_state invalid_state invalid_state invalid_state invalid_state
cancel        not_found  CANCELED      invalid_state invalid_state updated       invalid_state invalid_state invalid_state invalid_state invalid_state invalid_state invalid_state invalid_state invalid_state
refund        not_found  invalid_state invalid_state invalid_state invalid_state invalid_state updated       updated       invalid_state invalid_state invalid_state invalid_state invalid_state invalid_state
authorized    not_found  -             AUTHORIZED    -             -             -             -             -             -             -             -             -             -             -
declined      not_found  -             DECLINED      -             -             -             -             -             -             -             -             -             -             -
voided        not_found  -             -             FAILED        -             CANCELED      -             -             -             -             -             updated       -             -
not_voided    not_found  -             -             updated       -             updated       -             -             -             -             -             updated       -             -
refunded      not_found  -             -             -             -             -             -             SETTLED       -             -             -             -             -             -
not_refunded  not_found  -             -             -             -             -             -             updated       -             -             -             -             -             -
settled       not_found  -             -             -             SETTLED       -             -             -             -             -             -             -             -             -
not_settled   not_found  -             -             -             FAILED        -             -             -             -             -             -             -             -             -
attempt_failed not_found -             updated       -             -             -             -             -             -             -             -             -             -             -
expiry_due    .          EXPIRED       .             .             .             .             .             .             .             .             .             .             .             .
request_due   .          .             asks          .             .             .             .             .             .             .             .             .             .             .
"""  # noqa: E501


def _cells() -> list[tuple[str, str, str]]:
    header, *lines = [line.split() for line in TABLE.strip().splitlines()]
    return [
        (state, words[0].replace("_", " "), word)
        for words in lines
        for state, word in zip(header, words[1:], strict=True)
    ]


def _word(decision: Decision, before: PaymentStatus | None) -> str:
    event = decision.event
    if event is None:
        return "asks" if decision.requests else "."
    if isinstance(event, CommandRejected):
        return event.code
    if isinstance(event, PaymentEvent):
        return "updated" if event.sequence is None else event.payment.status.value
    return "-"


def test_the_table_is_complete() -> None:
    cells = _cells()
    assert {state for state, _, _ in cells} == {"NONE", *PATHS}
    assert {command for _, command, _ in cells} == set(COMMANDS)
    assert len(cells) == (1 + len(PATHS)) * len(COMMANDS)


@pytest.mark.parametrize(("state", "command", "expected"), _cells())
def test_what_each_command_does_in_each_state(state: str, command: str, expected: str) -> None:
    row = row_in(state)
    before = None if row is None else row.payment
    decision = decided_after(row, COMMANDS[command])

    assert _word(decision, None if before is None else before.status) == expected
    if isinstance(decision.event, PaymentEvent):
        assert decision.row is not None
        assert evolve(before, decision.event) == decision.row.payment  # a legal step, versions rising by one
    else:
        assert decision.row is None or decision.row.payment == before
        assert not decision.entries
    if expected in ("-", ".") or (expected != "updated" and expected.islower() and expected != "asks"):
        assert not decision.requests
        assert not decision.timers


def test_every_transition_is_made_by_some_command() -> None:
    seen: set[tuple[PaymentStatus | None, PaymentStatus]] = set()
    for path in PATHS.values():
        row: PaymentRow | None = None
        for command in path:
            decision = decided_after(row, command)
            assert decision.row is not None
            if decision.event is not None and decision.event.sequence is not None:
                before = None if row is None else row.payment.status
                seen.add((before, decision.row.payment.status))
            row = decision.row
    for state, command in (("VOIDING", voided()), ("REFUNDING", refunded()), ("IN_DOUBT", voided())):
        last = row_in(state)
        assert last is not None
        after = decided_after(last, command).row
        assert after is not None
        seen.add((last.payment.status, after.payment.status))
    assert seen == set(TRANSITIONS)


@pytest.mark.parametrize("state", sorted(PATHS))
def test_an_answer_of_another_operation_changes_nothing(state: str) -> None:
    """A void's outcome that names the AUTHORIZATION, and so on: never taken for its transaction's own answer."""
    row = row_in(state)
    assert row is not None
    for operation in row.operations:
        kind = row.payment.transaction(operation.transaction_id)
        assert kind is not None
        strays: dict[TransactionType, PaymentCommand] = {
            TransactionType.AUTHORIZATION: authorized(transaction_id=operation.transaction_id),
            TransactionType.VOID: voided(transaction_id=operation.transaction_id),
            TransactionType.REFUND: refunded(transaction_id=operation.transaction_id),
        }
        for of, stray in strays.items():
            if of is not kind.type:
                assert decided_after(row, stray).row is None
