"""Tables of the `payments` agent (step 2, Decide): payments by id, and the last closed settlement day."""

from __future__ import annotations

import msgspec

from streams.domain.envelope import Value
from streams.domain.payment import PaymentRow
from streams.exactly_once.table_spec import TableSpec
from topics.codec import Codec

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
        return codec.encode(CHANGELOG, "PaymentRow", row)

    decode = codec.value_decoder(CHANGELOG, {"PaymentRow": PaymentRow})
    return TableSpec(name="payments", encode=encode, decode=decode, version=_revision)


def _revision(row: PaymentRow) -> int:
    return row.payment.revision
