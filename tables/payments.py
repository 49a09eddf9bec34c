"""Tables of the `payments` agent (step 2, Decide): payments by id, and the last closed settlement day."""

from __future__ import annotations

from typing import Any

import msgspec

from streams.domain.envelope import Value
from streams.domain.events import PaymentEvent
from streams.domain.payment import Payment, PaymentRow
from streams.exactly_once.table_spec import TableSpec
from topics.avro_writer import Encoded, body_writer
from topics.codec import Codec
from topics.schemas import load, parsed

CHANGELOG = "payment-worker-payments-changelog"
"""Analysts read it too, so its values are Avro in the wire format, like every topic's."""

LAST_CLOSED = b"last_closed"
"""The only key of DAYS: each partition has one last closed day."""


class ClosedDay(Value, frozen=True, kw_only=True, gc=False):
    """Settlement days up to `date` (YYYY-MM-DD), included, have closed for the payments of this partition."""

    date: str


DAYS = TableSpec(name="days", encode=msgspec.msgpack.encode, decode=msgspec.msgpack.Decoder(ClosedDay).decode)


def payments_table(codec: Codec) -> TableSpec:
    """payment_id -> PaymentRow; a put names the revision that it replaces."""

    def encode(row: PaymentRow) -> bytes:
        return codec.encode(CHANGELOG, "PaymentRow", fields_with_payment(row))

    def decode(data: bytes) -> PaymentRow:
        return msgspec.convert(codec.decode(CHANGELOG, data).fields, PaymentRow, strict=False)

    return TableSpec(name="payments", encode=encode, decode=decode, version=_revision)


def fields_with_payment(value: PaymentRow | PaymentEvent) -> dict[str, Any]:
    """The fields of a row or an event for the codec, the payment encoded. A decision puts one payment into both."""
    fields: dict[str, Any] = msgspec.to_builtins(
        {**msgspec.structs.asdict(value), "payment": None}, builtin_types=(bytes,)
    )
    fields["payment"] = _snapshots.encoded(value.payment)
    return fields


class _Snapshots:
    """Payments as they stand in events and rows; the last one is kept, for whoever writes it next."""

    def __init__(self) -> None:
        self._write = body_writer(parsed(load("types", "Payment")))
        self._last: tuple[Payment | None, Encoded] = (None, Encoded())

    def encoded(self, payment: Payment) -> Encoded:
        """Payments are immutable: the same object has the same bytes."""
        last, encoded = self._last
        if last is not payment:
            encoded = Encoded(self._write(b"", msgspec.to_builtins(payment, builtin_types=(bytes,))))
            self._last = (payment, encoded)
        return encoded


_snapshots = _Snapshots()


def _revision(row: PaymentRow) -> int:
    return row.payment.revision
