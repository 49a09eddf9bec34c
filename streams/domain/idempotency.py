"""The outcomes that a payment keeps for its idempotency keys: at most 64, in its own row, atomic with the effect."""

from __future__ import annotations

from collections.abc import Sequence

from streams.domain.commands import CancelPayment, ConfirmPayment, CreatePayment, Idempotency, RefundPayment
from streams.domain.fingerprint import is_same
from streams.domain.payment import KeptOutcome

KEPT_MAX = 64
"""A browser may try keys too; this bounds the row. Acceptances are never evicted, refusals make room for them."""

OPERATIONS = {CreatePayment: "create", ConfirmPayment: "confirm", CancelPayment: "cancel", RefundPayment: "refund"}

KeyedCommand = CreatePayment | ConfirmPayment | CancelPayment | RefundPayment


def identity(command: KeyedCommand) -> Idempotency:
    """The key under which the command's outcome is kept; a create without one is known by its own id."""
    if command.idempotency is None:
        return Idempotency(key_hash=command.id.encode(), fingerprints=())
    return command.idempotency


def find(kept: Sequence[KeptOutcome], command: KeyedCommand) -> KeptOutcome | None:
    """The outcome that was kept for this operation and key, whatever the request was."""
    operation, key_hash = OPERATIONS[type(command)], identity(command).key_hash
    for outcome in kept:
        if outcome.key_hash == key_hash and outcome.operation == operation:
            return outcome
    return None


def is_repeat(outcome: KeptOutcome, command: KeyedCommand) -> bool:
    """True when the command is the same request as the one that `outcome` answered."""
    return outcome.fingerprint is None or is_same(outcome.fingerprint, identity(command).fingerprints)


def outcome_of(
    command: KeyedCommand, *, status_code: int, payment_status: str, revision: int, code: str | None = None
) -> KeptOutcome:
    """What to keep of an answer; the fingerprint under the newest key stands for the request."""
    idempotency = identity(command)
    return KeptOutcome(
        operation=OPERATIONS[type(command)],
        key_hash=idempotency.key_hash,
        fingerprint=idempotency.fingerprints[0] if idempotency.fingerprints else None,
        status_code=status_code,
        code=code,
        payment_status=payment_status,
        revision=revision,
    )


def keep(kept: tuple[KeptOutcome, ...], outcome: KeptOutcome) -> tuple[KeptOutcome, ...] | None:
    """`kept` with one more, or None without room: an acceptance evicts the oldest refusal, a refusal nothing."""
    if len(kept) < KEPT_MAX:
        return (*kept, outcome)
    if outcome.code is not None:
        return None
    for index, old in enumerate(kept):
        if old.code is not None:
            return (*kept[:index], *kept[index + 1 :], outcome)
    return None
