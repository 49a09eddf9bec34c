"""Avro's integers: zig-zag, seven bits a byte, lowest first, the high bit on all but the last."""

from __future__ import annotations

from typing import Final

INT_MAX = (1 << 31) - 1
LONG_MAX = (1 << 63) - 1
_LONG_BYTES_MAX = 10
_MASK = (1 << 14) - 1

_LAST = tuple(bytes((rest & 0x7F | 0x80, rest >> 7)) if rest > 0x7F else bytes((rest,)) for rest in range(_MASK + 1))
_MORE = tuple(bytes((rest & 0x7F | 0x80, rest >> 7 | 0x80)) for rest in range(_MASK + 1))
"""Fourteen bits as two bytes, at the end of an integer and before it: a table is five times as fast as a loop."""

SMALL_END: Final = 8192
SMALL: Final = tuple(_LAST[value << 1] for value in range(SMALL_END))
"""0 to SMALL_END - 1, encoded: lengths, counts, versions and small amounts."""


def encode_int(value: int) -> bytes:
    """Raises ValueError for what has no place in 32 bits, TypeError for what is no integer."""
    if not -INT_MAX - 1 <= value <= INT_MAX:
        raise ValueError(f"{value} does not fit an int")
    return encode_long(value)


def encode_long(value: int) -> bytes:
    """Raises ValueError for what has no place in 64 bits, TypeError for what is no integer."""
    if not -LONG_MAX - 1 <= value <= LONG_MAX:
        raise ValueError(f"{value} does not fit a long")
    rest = (value << 1) ^ (value >> 63)
    if rest < 1 << 28:
        return _MORE[rest & _MASK] + _LAST[rest >> 14] if rest > _MASK else _LAST[rest]
    if 1 << 42 <= rest < 1 << 56:  # a time of our days in microseconds
        return _MORE[rest & _MASK] + _MORE[rest >> 14 & _MASK] + _MORE[rest >> 28 & _MASK] + _LAST[rest >> 42]
    encoded = b""
    while rest > _MASK:
        encoded += _MORE[rest & _MASK]
        rest >>= 14
    return encoded + _LAST[rest]


def decode_long(data: bytes, at: int) -> tuple[int, int]:
    """The integer at `at` and the place after it. Raises IndexError at the end of `data`, ValueError beyond 64 bits."""
    first = data[at]
    if first < 0x80:
        return (first >> 1) ^ -(first & 1), at + 1
    second = data[at + 1]
    if second < 0x80:
        rest = first & 0x7F | second << 7
        return (rest >> 1) ^ -(rest & 1), at + 2
    third = data[at + 2]
    if third < 0x80:
        rest = first & 0x7F | (second & 0x7F) << 7 | third << 14
        return (rest >> 1) ^ -(rest & 1), at + 3
    word = int.from_bytes(data[at : at + 8], "little")
    if word & 0x8080808080808080 == 0x0080808080808080:  # eight bytes: a time of our days in microseconds
        word &= 0x7F7F7F7F7F7F7F7F
        word = word & 0x007F007F007F007F | (word & 0x7F007F007F007F00) >> 1
        word = word & 0x00003FFF00003FFF | (word & 0x3FFF00003FFF0000) >> 2
        word = word & 0x000000000FFFFFFF | (word & 0x0FFFFFFF00000000) >> 4
        return (word >> 1) ^ -(word & 1), at + 8
    return _decode_any(data, at)


def _decode_any(data: bytes, at: int) -> tuple[int, int]:
    rest = shift = 0
    for place in range(at, at + _LONG_BYTES_MAX):
        byte = data[place]
        rest |= (byte & 0x7F) << shift
        if byte < 0x80:
            if rest >> 64:
                break
            return (rest >> 1) ^ -(rest & 1), place + 1
        shift += 7
    raise ValueError("an integer of more than 64 bits")


def decode_length(data: bytes, at: int) -> tuple[int, int]:
    """As decode_long, for a string's or bytes' length, which is not negative and no longer than what is left."""
    length, after = decode_long(data, at)
    if not 0 <= length <= len(data) - after:
        raise ValueError(f"a length of {length} where {len(data) - after} bytes are left")
    return length, after
