"""Writes Avro bodies for the schemas of this repository: records, nullable fields, arrays, enums and the plain types.

fastavro's writer validates a record against each branch of a union before it writes it; our only unions are nullable
fields, so a writer made once per schema needs 5 to 12 us where fastavro takes 17 to 25 (a payment's records, one core
of the reference machine). It is also strict: a field too many, too few or of another type is an error, never a default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from topics.schemas import Schema

Write = Callable[[list[bytes], Any], None]
"""Appends the parts of a value's encoding."""

INT_MAX = (1 << 31) - 1
LONG_MAX = (1 << 63) - 1
TABLE_SIZE = 4096  # of encodings kept ready: lengths, counts, versions and small amounts


def body_writer(schema: Schema) -> Callable[[bytes, Mapping[str, Any]], bytes]:
    """(header, fields) -> header and body of one record of this schema, which `topics.schemas.parsed` made.

    The result raises ValueError when the fields do not fit, naming record and reason.
    """
    name = schema["name"].rpartition(".")[2]
    write = _writer(schema, {})

    def encode(header: bytes, fields: Mapping[str, Any]) -> bytes:
        parts = [header]
        try:
            write(parts, fields)
            return b"".join(parts)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the fields do not fit {name}: {type(error).__name__} {error}") from error

    return encode


def _writer(schema: Any, named: dict[str, Write]) -> Write:
    """The writer of a type; `named` collects records and enums, which later mentions name only."""
    if isinstance(schema, str):
        return _PLAIN.get(schema) or named[schema]
    if isinstance(schema, list):
        null, branch = schema
        assert null == "null", "the only unions are nullable fields"
        return _nullable(_writer(branch, named))
    match schema["type"]:
        case "record":
            return _record(schema, named)
        case "enum":
            named[schema["name"]] = _enum(schema)
            return named[schema["name"]]
        case "array":
            return _array(_writer(schema["items"], named))
        case inner:
            return _writer(inner, named)


def _record(schema: Schema, named: dict[str, Write]) -> Write:
    members = [(field["name"], _writer(field["type"], named)) for field in schema["fields"]]
    nullable = {field["name"]: None for field in schema["fields"] if isinstance(field["type"], list)}
    names = {name for name, _ in members}

    def write(parts: list[bytes], fields: Mapping[str, Any]) -> None:
        if len(fields) != len(members):
            if unknown := fields.keys() - names:
                raise ValueError(f"there is no field {min(unknown)}")
            fields = {**nullable, **fields}
        for name, write_field in members:
            write_field(parts, fields[name])

    named[schema["name"]] = write
    return write


def _enum(schema: Schema) -> Write:
    encoded = {symbol: _varint(index) for index, symbol in enumerate(schema["symbols"])}

    def write(parts: list[bytes], symbol: str) -> None:
        parts.append(encoded[symbol])

    return write


def _nullable(write_value: Write) -> Write:
    def write(parts: list[bytes], value: Any) -> None:
        if value is None:
            parts.append(b"\x00")
        else:
            parts.append(b"\x02")
            write_value(parts, value)

    return write


def _array(write_item: Write) -> Write:
    """One block of all items, then the empty block that ends it."""

    def write(parts: list[bytes], items: Any) -> None:
        if not isinstance(items, list | tuple):
            raise TypeError(f"an array is a list, not {type(items).__name__}")
        if items:
            parts.append(_length(items))
            for item in items:
                write_item(parts, item)
        parts.append(b"\x00")

    return write


def _write_string(parts: list[bytes], value: str) -> None:
    data = value.encode()
    parts.append(_length(data))
    parts.append(data)


def _write_bytes(parts: list[bytes], value: bytes) -> None:
    parts.append(_length(value))
    parts.append(value)


def _write_boolean(parts: list[bytes], value: bool) -> None:
    if value is True:
        parts.append(b"\x01")
    elif value is False:
        parts.append(b"\x00")
    else:
        raise TypeError(f"a boolean is True or False, not {type(value).__name__}")


def _write_int(parts: list[bytes], value: int) -> None:
    if 0 <= value < TABLE_SIZE:
        parts.append(_TABLE[value])
    elif -INT_MAX - 1 <= value <= INT_MAX:
        parts.append(_varint(value))
    else:
        raise ValueError(f"{value} does not fit an int")


def _write_long(parts: list[bytes], value: int) -> None:
    if 0 <= value < TABLE_SIZE:
        parts.append(_TABLE[value])
    elif -LONG_MAX - 1 <= value <= LONG_MAX:
        parts.append(_varint(value))
    else:
        raise ValueError(f"{value} does not fit a long")


def _length(value: Any) -> bytes:
    length = len(value)
    return _TABLE[length] if length < TABLE_SIZE else _varint(length)


def _varint(value: int) -> bytes:
    """Zig-zag, seven bits a byte, lowest first, the high bit on all but the last."""
    rest = (value << 1) ^ (value >> 63)
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


_TABLE = tuple(_varint(value) for value in range(TABLE_SIZE))

_PLAIN: dict[str, Write] = {
    "string": _write_string,
    "bytes": _write_bytes,
    "boolean": _write_boolean,
    "int": _write_int,
    "long": _write_long,
}
