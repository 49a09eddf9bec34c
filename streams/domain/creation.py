"""Steps 1 and 2: a payment comes to be, and expires if nobody confirms it."""

from __future__ import annotations

from streams.domain.commands import CreatePayment, ExpiryDue
from streams.domain.decision import CancelTimer, Context, Decision, SetTimer, advanced, decided
from streams.domain.envelope import PAYMENT_WORKER
from streams.domain.money import is_amount, is_currency
from streams.domain.payment import Payment, PaymentRow, PaymentStatus
from streams.domain.rejections import Rejection

EXPIRY = "expiry"
"""Name of the timer that ends a payment which stays PENDING."""

NO_EXPIRY = CancelTimer(name=EXPIRY)


def objection(command: CreatePayment, context: Context) -> Rejection | None:
    """Why this command could not create any payment, or None. The API asked all this; an internal producer may not."""
    if not is_amount(command.amount):
        return Rejection.AMOUNT_INVALID
    if not is_currency(command.currency):
        return Rejection.CURRENCY_INVALID
    if context.creates_for is not None and command.merchant_id not in context.creates_for:
        return Rejection.FORBIDDEN
    return None


def create(command: CreatePayment, context: Context) -> Decision:
    """-> PENDING, and the timer of its expiry."""
    payment = Payment(
        payment_id=command.payment_id,
        merchant_id=command.merchant_id,
        status=PaymentStatus.PENDING,
        amount=command.amount,
        currency=command.currency,
        personal_data=command.personal_data,
        client_secret_key_id=command.client_secret_key_id,
        version=1,
        revision=1,
        created_at=context.now_us,
        updated_at=context.now_us,
        expires_at=command.expires_at,
    )
    due = ExpiryDue(
        id=f"{command.payment_id}:{EXPIRY}",
        occurred_at=context.now_us,
        actor=PAYMENT_WORKER,
        request_id=command.request_id,
        traceparent=command.traceparent,
        payment_id=command.payment_id,
    )
    expiry = SetTimer(name=EXPIRY, due_us=command.expires_at, command=due)
    return decided(None, payment, command, reply_to=command.reply_to, timers=(expiry,))


def expire(row: PaymentRow, due: ExpiryDue, context: Context) -> Decision:
    """PENDING -> EXPIRED; a payment that was confirmed or canceled meanwhile stays as it is."""
    if row.payment.status is not PaymentStatus.PENDING:
        return Decision(event=None)
    return decided(row, advanced(row.payment, PaymentStatus.EXPIRED, context), due, reply_to=None)
