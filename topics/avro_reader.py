"""Reads Avro bodies: for each schema a function of its own, made as source (topics.avro_source).

For records that were written under the very schema they are read under; what differs is resolved by fastavro. Bytes
from elsewhere mean nothing until they are read to their end: whatever is wrong with them is one ValueError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from topics.avro_source import Source
from topics.avro_varint import decode_length, decode_long
from topics.schemas import Schema


def body_reader(schema: Schema) -> Callable[[bytes, int], dict[str, Any]]:
    """(data, start) -> the fields of the record whose body is all of `data` from `start` on.

    `schema` is one that `topics.schemas.parsed` made. The result raises ValueError, which says what is wrong.
    """
    source = Source(_CONSTANTS)
    function = source.name("body")
    with source.function(f"def {function}(data, at):"):
        with source.block("try:"):
            fields = _fields(source, schema)
        with source.block("except IndexError:"):
            source.line("cut_off()")
        with source.block("if at != len(data):"):
            source.line("wrong_end(at, len(data))")
        source.line(f"return {fields}")
    return source.compile(function, schema["name"])


def _record(source: Source, schema: Schema) -> str:
    """Adds a function (data, at) -> (fields, place after them); returns its name."""
    function = source.functions[schema["name"]] = source.name("record")
    with source.function(f"def {function}(data, at):"):
        source.line(f"return {_fields(source, schema)}, at")
    return function


def _fields(source: Source, schema: Schema) -> str:
    """Lines that read all fields; returns the expression of their mapping."""
    values = []
    for field in schema["fields"]:
        value = source.name("value")
        _read(source, field["type"], value)
        values.append(f"{field['name']!r}: {value}")
    return f"{{{', '.join(values)}}}"


def _read(source: Source, schema: Any, value: str) -> None:
    """Lines that set the variable `value` from the bytes at `at`, and `at` to the place after them."""
    if isinstance(schema, list):
        _read_nullable(source, schema, value)
        return
    if isinstance(schema, dict) and schema["type"] == "array":
        source.line(f"{value}, at = array(data, at, {_item(source, schema['items'])})")
        return
    if isinstance(schema, dict) and schema["type"] not in ("record", "enum"):
        _read(source, schema["type"], value)
        return
    match schema:
        case "string" | "bytes":
            source.line("n = data[at]")
            with source.block("if n & 0x81:"):  # more than 63 bytes, or a length that is none
                source.line("n, at = decode_length(data, at); end = at + n")
            with source.block("else:"):
                source.line("at += 1; end = at + (n >> 1)")
            source.line(f"{value} = data[at:end]{'.decode()' if schema == 'string' else ''}; at = end")
        case "int" | "long":
            source.line("n = data[at]")
            with source.block("if n < 0x80:"):
                source.line(f"{value} = (n >> 1) ^ -(n & 1); at += 1")
            with source.block("elif (more := data[at + 1]) < 0x80:"):
                source.line(f"n = n & 0x7F | more << 7; {value} = (n >> 1) ^ -(n & 1); at += 2")
            with source.block("else:"):
                source.line(f"{value}, at = decode_long(data, at)")
        case "boolean":
            source.line(f"{value} = BOOLEANS[data[at]]; at += 1")
        case _:
            source.line(f"{value}, at = {source.function_of(schema, _named)}(data, at)")


def _read_nullable(source: Source, schema: list[Any], value: str) -> None:
    null, branch = schema
    assert null == "null", "the only unions are nullable fields"
    source.line("n = data[at]; at += 1")
    with source.block("if n == 0:"):
        source.line(f"{value} = None")
    with source.block("elif n == 2:"):
        _read(source, branch, value)
    with source.block("else:"):
        source.line("no_branch(n)")


def _item(source: Source, schema: Any) -> str:
    """The name of a function that reads one item of an array."""
    if source.has_function(schema):
        return source.function_of(schema, _named)
    function = source.name("item")
    with source.function(f"def {function}(data, at):"):
        _read(source, schema, "value")
        source.line("return value, at")
    return function


def _named(source: Source, schema: Schema) -> str:
    """Adds the function of a record or enum; returns its name."""
    if schema["type"] == "record":
        return _record(source, schema)
    symbols = tuple(schema["symbols"])

    def read_symbol(data: bytes, at: int) -> tuple[str, int]:
        index, after = decode_long(data, at)
        if not 0 <= index < len(symbols):
            raise ValueError(f"there is no symbol {index}")
        return symbols[index], after

    name = source.functions[schema["name"]] = source.constant("symbol", read_symbol)
    return name


def _array(data: bytes, at: int, read_item: Callable[[bytes, int], tuple[Any, int]]) -> tuple[list[Any], int]:
    """Blocks of items; a block's count is negative when its size in bytes follows."""
    items: list[Any] = []
    while data[at]:
        count, at = decode_long(data, at)
        if count < 0:
            count = -count
            _, at = decode_long(data, at)
        if count > len(data) - at:  # an item has a byte at least
            raise ValueError(f"{count} items where {len(data) - at} bytes are left")
        for _ in range(count):
            item, at = read_item(data, at)
            items.append(item)
    return items, at + 1


def _cut_off() -> None:
    raise ValueError("the bytes end in the middle of the record") from None


def _wrong_end(end: int, length: int) -> None:
    if end > length:  # a slice that reaches beyond is only shorter
        raise ValueError("the bytes end in the middle of the record")
    raise ValueError(f"{length - end} bytes too many")


def _no_branch(index: int) -> None:
    raise ValueError(f"there is no branch {index} of a nullable field")


_CONSTANTS = {
    "decode_length": decode_length,
    "decode_long": decode_long,
    "array": _array,
    "cut_off": _cut_off,
    "wrong_end": _wrong_end,
    "no_branch": _no_branch,
    "BOOLEANS": (False, True),
}
