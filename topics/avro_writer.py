"""Writes Avro bodies: for each schema a function of its own, made as source (topics.avro_source).

fastavro's writer validates a record against each branch of a union before it writes it; our only unions are nullable
fields. These writers are strict: a field too many, too few or of another type is an error, never a default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import Any

import msgspec

from topics.avro_source import Source
from topics.avro_varint import SMALL, SMALL_END, encode_int, encode_long
from topics.schemas import Schema


def body_writer(schema: Schema) -> Callable[[bytes, Mapping[str, Any]], bytes]:
    """(header, fields) -> header and body of one record of this schema, which `topics.schemas.parsed` made.

    The result raises ValueError when the fields do not fit, naming record and reason.
    """
    return _writer(schema, _WriterSource(of_values=False))


def value_writer(schema: Schema) -> Callable[[bytes, msgspec.Struct], bytes]:
    """As `body_writer`, for a value: a frozen struct whose attributes are the record's fields, all the way down.

    What a value was encoded to is kept for whoever encodes the same object next: a decision puts one payment into its
    event and into its row, and one actor into all that follows from it.
    """
    return _writer(schema, _WriterSource(of_values=True))


class _WriterSource(Source):
    """Source of functions that take mappings, or values."""

    def __init__(self, *, of_values: bool) -> None:
        super().__init__(_CONSTANTS)
        self.of_values = of_values


_last_encoded: dict[tuple[str, ...], list[tuple[Any, bytes]]] = {}
"""By name and fields of a record, the last value and its bytes, for all writers: avro/ defines a name once. The pair is
swapped as one, so threads may share it."""


def _writer(schema: Schema, source: _WriterSource) -> Callable[[bytes, Any], bytes]:
    name = schema["name"].rpartition(".")[2]
    unfit = source.constant("unfit", partial(_unfit, name))
    function = source.name("write")
    with source.function(f"def {function}(header, fields):"):
        with source.block("try:"):
            if source.of_values:
                source.line(f"return header + {_record(source, schema)}(fields)")
            else:
                _mapping_body(source, schema, ["header"])
        with source.block("except (AttributeError, KeyError, TypeError, ValueError) as error:"):
            source.line(f"raise {unfit}(error) from error")
    return source.compile(function, name)


def _record(source: _WriterSource, schema: Schema) -> str:
    """Adds a function fields -> bytes, which joins what its fields make; returns its name."""
    function = source.functions[schema["name"]] = source.name("record")
    with source.function(f"def {function}(fields):"):
        if source.of_values:
            _value_body(source, schema)
        else:
            _mapping_body(source, schema, [])
    return function


def _mapping_body(source: _WriterSource, schema: Schema, parts: list[str]) -> None:
    """Lines that return `parts` and, after them, what the fields make."""
    nullable = {field["name"]: None for field in schema["fields"] if isinstance(field["type"], list)}
    names = source.constant("names", _names(schema))
    with source.block(f"if len(fields) != {len(schema['fields'])}:"):
        source.line(f"fields = complete(fields, {names}, {source.constant('nullable', nullable)})")
    source.line(f"return {_joined(source, schema, 'fields[{!r}]', parts)}")


def _value_body(source: _WriterSource, schema: Schema) -> None:
    names = _names(schema)
    last = source.constant("last", _last_encoded.setdefault((schema["name"], *sorted(names)), [(None, b"")]))
    known = source.constant("known", set())
    source.line(f"value, encoded = {last}[0]")
    with source.block("if value is fields:"):
        source.line("return encoded")
    with source.block(f"if type(fields) not in {known}:"):
        source.line(f"{known}.add(fitting(fields, {source.constant('names', names)}))")
    source.line(f"encoded = {_joined(source, schema, 'fields.{}', [])}")
    source.line(f"{last}[0] = (fields, encoded)")
    source.line("return encoded")


def _joined(source: _WriterSource, schema: Schema, field_of: str, parts: list[str]) -> str:
    """An expression for `parts` and the bytes of all fields; `field_of` makes a field's expression from its name."""
    parts = [*parts]
    for field in schema["fields"]:
        value = source.name("value")
        source.line(f"{value} = {field_of.format(field['name'])}")
        parts += _parts(source, field["type"], value)
    return f"join(({', '.join(parts)},))"


def _names(schema: Schema) -> frozenset[str]:
    return frozenset(field["name"] for field in schema["fields"])


def _parts(source: _WriterSource, schema: Any, value: str) -> list[str]:
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
            return [f"{source.function_of(schema, _named)}({value})"]


def _length(value: str) -> str:
    return f"(SMALL[n] if (n := len({value})) < {SMALL_END} else encode_int(n))"


def _nullable(source: _WriterSource, schema: list[Any], value: str) -> str:
    null, branch = schema
    assert null == "null", "the only unions are nullable fields"
    encoded = source.name("encoded")
    with source.block(f"if {value} is None:"):
        source.line(f"{encoded} = b'\\0'")
    with source.block("else:"):
        source.line(f"{encoded} = b'\\2' + {' + '.join(_parts(source, branch, value))}")
    return encoded


def _item(source: _WriterSource, schema: Any) -> str:
    """The name of a function that encodes one item of an array."""
    if source.has_function(schema):
        return source.function_of(schema, _named)
    function = source.name("item")
    with source.function(f"def {function}(value):"):
        source.line(f"return join(({', '.join(_parts(source, schema, 'value'))},))")
    return function


def _named(source: _WriterSource, schema: Schema) -> str:
    """Adds the function of a record or enum; returns its name."""
    if schema["type"] == "record":
        return _record(source, schema)
    symbols = _Symbols({symbol: encode_int(index) for index, symbol in enumerate(schema["symbols"])})
    name = source.functions[schema["name"]] = source.constant("symbol", symbols.__getitem__)
    return name


class _Symbols(dict[Any, bytes]):
    """An enum's symbols; members of a Python enum are learnt by their values."""

    def __missing__(self, key: Any) -> bytes:
        if not isinstance(key, Enum):
            raise KeyError(key)
        encoded = self[key] = self[key.value]
        return encoded


def _complete(fields: Mapping[str, Any], names: frozenset[str], nullable: Mapping[str, None]) -> Mapping[str, Any]:
    """A record whose nullable fields may be missing, and no other field present."""
    if unknown := fields.keys() - names:
        raise ValueError(f"there is no field {min(unknown)}")
    return {**nullable, **fields}


def _fitting(value: Any, names: frozenset[str]) -> type[Any]:
    """The type of a value that can be encoded by its attributes, and whose bytes may be kept."""
    kind = type(value)
    if not isinstance(value, msgspec.Struct) or not kind.__struct_config__.frozen:
        raise TypeError(f"{kind.__name__} is no frozen struct")
    if differing := names ^ set(kind.__struct_fields__):
        raise ValueError(f"{kind.__name__} and the record differ in {min(differing)}")
    return kind


def _array(items: Any, encode_item: Callable[[Any], bytes]) -> bytes:
    """One block of all items, then the empty block that ends it."""
    if not isinstance(items, list | tuple):
        raise TypeError(f"an array is a list, not {type(items).__name__}")
    return encode_int(len(items)) + b"".join(map(encode_item, items)) + b"\0" if items else b"\0"


def _unfit(name: str, error: Exception) -> ValueError:
    return ValueError(f"the fields do not fit {name}: {type(error).__name__} {error}")


def _no_boolean(value: Any) -> bytes:
    raise TypeError(f"a boolean is True or False, not {type(value).__name__}")


_CONSTANTS = {
    "SMALL": SMALL,
    "encode_int": encode_int,
    "encode_long": encode_long,
    "complete": _complete,
    "fitting": _fitting,
    "array": _array,
    "no_boolean": _no_boolean,
    "join": b"".join,
}
