"""Table of the `feed` agent (step 7, Notify): how far each merchant's feed is, and what is in it already.

    b"m" merchant                 ->  the merchant's last feed_sequence
    b"s" merchant 0 subject       ->  the last sequence of the subject (a payment's version) that entered the feed

One small row per payment, however many events it has. Values are unsigned 64-bit integers, big-endian.
"""

from __future__ import annotations

import struct

from streams.exactly_once.table_spec import TableSpec

_NUMBER = struct.Struct(">Q")
_SEPARATOR = b"\0"  # ids hold none


def _decode(data: bytes) -> int:
    return int(_NUMBER.unpack(data)[0])


FEED = TableSpec(name="feed", encode=_NUMBER.pack, decode=_decode)


def position_key(merchant_id: str) -> bytes:
    """Key of a merchant's last feed_sequence."""
    return b"m" + merchant_id.encode()


def subject_key(merchant_id: str, subject_id: str) -> bytes:
    """Key of the last sequence of a subject in its merchant's feed."""
    return b"s" + merchant_id.encode() + _SEPARATOR + subject_id.encode()
