"""Writes Avro bodies: for each schema a function of its own, made as source (topics.avro_source).

fastavro's writer validates a record against each branch of a union before it writes it; our only unions are nullable
fields. This writer is strict: a field too many, too few or of another type is an error, never a default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from topics.avro_source import Source
from topics.avro_varint import SMALL, SMALL_END, encode_int, encode_long
from topics.schemas import Schema


class Encoded(bytes):
    """A record's body that was written before: put in as it stands, where a record of its type is wanted."""


def body_writer(schema: Schema) -> Callable[[bytes, Mapping[str, Any]], bytes]:
    """(header, fields) -> header and body of one record of this schema, which `topics.schemas.parsed` made.

    The result raises ValueError when the fields do not fit, naming record and reason.
    """
    name = schema["name"].rpartition(".")[2]
    source = Source(_CONSTANTS)
    write = source.compile(_record(source, schema), name)

    def encode(header: bytes, fields: Mapping[str, Any]) -> bytes:
        try:
            return header + write(fields)  # type: ignore[no-any-return]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the fields do not fit {name}: {type(error).__name__} {error}") from error

    return encode


def _record(source: Source, schema: Schema) -> str:
    """Adds a function fields -> bytes, which joins what its fields make; returns its name."""
    function = source.functions[schema["name"]] = source.name("record")
    nullable = {field["name"]: None for field in schema["fields"] if isinstance(field["type"], list)}
    names = source.constant("names", frozenset(field["name"] for field in schema["fields"]))
    parts = []
    with source.function(f"def {function}(fields):"):
        with source.block(f"if len(fields) != {len(schema['fields'])}:"):
            source.line(f"fields = complete(fields, {names}, {source.constant('nullable', nullable)})")
        for field in schema["fields"]:
            value = source.name("value")
            source.line(f"{value} = fields[{field['name']!r}]")
            parts += _parts(source, field["type"], value)
        source.line(f"return join(({', '.join(parts)},))")
    return function


def _parts(source: Source, schema: Any, value: str) -> list[str]:
    """Expressions whose bytes, one after the other, encode the variable `value`; lines that they need are added."""
    if isinstance(schema, list):
        return [_nullable(source, schema, value)]
    if isinstance(schema, dict) and schema["type"] == "array":
        return [f"array({value}, {_item(source, schema['items'])})"]
    if isinstance(schema, dict) and schema["type"] not in ("record", "enum"):
        return _parts(source, schema["type"], value)
    match schema:
        case "string":
            source.line(f"{value} = {value}.encode()")
            return [_length(value), value]
        case "bytes":
            return [_length(value), value]
        case "boolean":
            return [f"(b'\\1' if {value} is True else b'\\0' if {value} is False else no_boolean({value}))"]
        case "int" | "long":
            return [f"(SMALL[{value}] if 0 <= {value} < {SMALL_END} else encode_{schema}({value}))"]
        case _:
            encode = f"{source.function_of(schema, _named)}({value})"
            is_enum = isinstance(schema, dict) and schema["type"] == "enum"
            return [encode if is_enum else f"({value} if type({value}) is Encoded else {encode})"]


def _length(value: str) -> str:
    return f"(SMALL[n] if (n := len({value})) < {SMALL_END} else encode_int(n))"


def _nullable(source: Source, schema: list[Any], value: str) -> str:
    null, branch = schema
    assert null == "null", "the only unions are nullable fields"
    encoded = source.name("encoded")
    with source.block(f"if {value} is None:"):
        source.line(f"{encoded} = b'\\0'")
    with source.block("else:"):
        source.line(f"{encoded} = b'\\2' + {' + '.join(_parts(source, branch, value))}")
    return encoded


def _item(source: Source, schema: Any) -> str:
    """The name of a function that encodes one item of an array."""
    if source.has_function(schema):
        return source.function_of(schema, _named)
    function = source.name("item")
    with source.function(f"def {function}(value):"):
        source.line(f"return join(({', '.join(_parts(source, schema, 'value'))},))")
    return function


def _named(source: Source, schema: Schema) -> str:
    """Adds the function of a record or enum; returns its name."""
    if schema["type"] == "record":
        return _record(source, schema)
    symbols = {symbol: encode_int(index) for index, symbol in enumerate(schema["symbols"])}
    name = source.functions[schema["name"]] = source.constant("symbol", symbols.__getitem__)
    return name


def _complete(fields: Mapping[str, Any], names: frozenset[str], nullable: Mapping[str, None]) -> Mapping[str, Any]:
    """A record whose nullable fields may be missing, and no other field present."""
    if unknown := fields.keys() - names:
        raise ValueError(f"there is no field {min(unknown)}")
    return {**nullable, **fields}


def _array(items: Any, encode_item: Callable[[Any], bytes]) -> bytes:
    """One block of all items, then the empty block that ends it."""
    if not isinstance(items, list | tuple):
        raise TypeError(f"an array is a list, not {type(items).__name__}")
    return encode_int(len(items)) + b"".join(map(encode_item, items)) + b"\0" if items else b"\0"


def _no_boolean(value: Any) -> bytes:
    raise TypeError(f"a boolean is True or False, not {type(value).__name__}")


_CONSTANTS = {
    "SMALL": SMALL,
    "Encoded": Encoded,
    "encode_int": encode_int,
    "encode_long": encode_long,
    "complete": _complete,
    "array": _array,
    "no_boolean": _no_boolean,
    "join": b"".join,
}
