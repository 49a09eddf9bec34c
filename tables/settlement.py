"""Tables of the `settlement` agent (step 8, Settle). Keys sort so that a prefix scan gives what is needed in order.

    entries   merchant 0 currency 0 date 0 payment   ->  Item: in payment order, a chunk is a range
    windows   date 0 merchant 0 currency             ->  Window: the windows of a day lie together
    batches   batch                                  ->  Batch
    days      "days"                                 ->  Days: the only row of a partition

Values are MessagePack: no reader but this agent. A row goes once it can no longer be needed, so state stays small.
"""

from __future__ import annotations

import msgspec

from streams.domain.batches import Batch, Days, Item, Window
from streams.exactly_once.table_spec import TableSpec

_SEPARATOR = b"\0"  # ids, codes and dates hold none

DAYS_KEY = b"days"

ENTRIES = TableSpec(name="entries", encode=msgspec.msgpack.encode, decode=msgspec.msgpack.Decoder(Item).decode)
WINDOWS = TableSpec(name="windows", encode=msgspec.msgpack.encode, decode=msgspec.msgpack.Decoder(Window).decode)
BATCHES = TableSpec(name="batches", encode=msgspec.msgpack.encode, decode=msgspec.msgpack.Decoder(Batch).decode)
DAYS = TableSpec(name="days", encode=msgspec.msgpack.encode, decode=msgspec.msgpack.Decoder(Days).decode)


def entry_prefix(merchant_id: str, currency: str, settlement_date: str) -> bytes:
    """With what the keys of all payments of a window begin."""
    return _joined(merchant_id, currency, settlement_date) + _SEPARATOR


def entry_key(merchant_id: str, currency: str, settlement_date: str, payment_id: str) -> bytes:
    """Key of a payment in its window."""
    return entry_prefix(merchant_id, currency, settlement_date) + payment_id.encode()


def window_prefix(settlement_date: str) -> bytes:
    """With what the keys of all windows of a day begin."""
    return settlement_date.encode() + _SEPARATOR


def window_key(merchant_id: str, currency: str, settlement_date: str) -> bytes:
    """Key of a window: days in order, then merchants."""
    return _joined(settlement_date, merchant_id, currency)


def _joined(*parts: str) -> bytes:
    return _SEPARATOR.join(part.encode() for part in parts)
