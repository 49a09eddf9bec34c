"""What the `payments` agent says happened: exactly one event for every command, with the snapshot after it."""

from __future__ import annotations

from streams.domain.envelope import Event, ReplyTo
from streams.domain.payment import Payment


class PaymentEvent(Event, frozen=True, kw_only=True, gc=False):
    """An event that changed a payment. Consumers never need a read: `payment` is all of it, as it is now."""

    type: str = ""  # each event names its own
    payment: Payment
    command_id: str
    reply_to: ReplyTo | None = None
    traceparent: str | None = None


class PaymentCreated(PaymentEvent, frozen=True, kw_only=True, gc=False):
    """-> PENDING."""

    type: str = "payment.created"


class PaymentProcessing(PaymentEvent, frozen=True, kw_only=True, gc=False):
    """PENDING -> PROCESSING."""

    type: str = "payment.processing"


class PaymentAuthorized(PaymentEvent, frozen=True, kw_only=True, gc=False):
    """PROCESSING -> AUTHORIZED."""

    type: str = "payment.authorized"


class PaymentDeclined(PaymentEvent, frozen=True, kw_only=True, gc=False):
    """PROCESSING -> DECLINED."""

    type: str = "payment.declined"


class PaymentFailed(PaymentEvent, frozen=True, kw_only=True, gc=False):
    """PROCESSING or AUTHORIZED -> FAILED."""

    type: str = "payment.failed"


class PaymentCanceled(PaymentEvent, frozen=True, kw_only=True, gc=False):
    """PENDING or AUTHORIZED -> CANCELED."""

    type: str = "payment.canceled"


class PaymentExpired(PaymentEvent, frozen=True, kw_only=True, gc=False):
    """PENDING -> EXPIRED."""

    type: str = "payment.expired"


class PaymentSettled(PaymentEvent, frozen=True, kw_only=True, gc=False):
    """AUTHORIZED -> SETTLED."""

    type: str = "payment.settled"


class PaymentRefunded(PaymentEvent, frozen=True, kw_only=True, gc=False):
    """SETTLED -> SETTLED (a part) or REFUNDED (nothing left)."""

    type: str = "payment.refunded"


class PaymentUpdated(PaymentEvent, frozen=True, kw_only=True, gc=False):
    """The row changed, but no transition was made: an attempt, a reservation, a void under way. Sequence None."""

    type: str = "payment.updated"


class CommandEvent(Event, frozen=True, kw_only=True, gc=False):
    """An event that changed no payment: what became of the command. Sequence None; merchant_id "" when unknown."""

    payment_id: str
    merchant_id: str
    command_id: str
    command: str  # its record name
    reply_to: ReplyTo | None = None
    traceparent: str | None = None


class CommandRejected(CommandEvent, frozen=True, kw_only=True, gc=False):
    """The command was refused. `idempotency_kept`: its key will be answered with this refusal from now on."""

    type: str = "command.rejected"
    code: str
    payment_status: str | None = None
    idempotency_kept: bool = False


class CommandRepeated(CommandEvent, frozen=True, kw_only=True, gc=False):
    """The command, or the provider's answer, had been decided before: nothing done.

    The answer is rebuilt from the payment's history at `revision`; `code` is that of a kept refusal.
    """

    type: str = "command.repeated"
    code: str | None = None
    status_code: int
    revision: int
    payment_status: str | None = None


class CommandFailed(CommandEvent, frozen=True, kw_only=True, gc=False):
    """Deciding the command raised: a bug. Its dead letter was staged with this."""

    type: str = "command.failed"
    error_class: str


Outcome = PaymentEvent | CommandRejected | CommandRepeated
