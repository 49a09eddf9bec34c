"""From a schema to what reads and writes the bodies of its records (topics.avro): made once, used for every record.

Records are read as mappings, or as values of a kind: immutable structs named, field by field, as the record. Schemas
are what `topics.schemas.parsed` made of a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import partial
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from topics import avro
from topics.schemas import Schema

_PLAIN: dict[str, tuple[avro.Type, type]] = {
    "string": (avro.Text(), str),
    "bytes": (avro.Bytes(), bytes),
    "boolean": (avro.Boolean(), bool),
    "int": (avro.Integer("int"), int),
    "long": (avro.Integer("long"), int),
}

_records: dict[str, avro.Record] = {}
"""Records by their text, for all schemas that hold them: so a value is written once for all of them."""


def body_reader(schema: Schema) -> Callable[[bytes, int], dict[str, Any]]:
    """(data, start) -> the fields of the record whose body is all of `data` from `start` on.

    The result raises ValueError, which says what is wrong.
    """
    return partial(avro.read_body, _of_mappings(schema))


def body_writer(schema: Schema) -> Callable[[bytes, Any], bytes]:
    """(header, fields) -> header and body of one record; fields are a mapping or a value.

    The result raises ValueError when the fields do not fit, naming record and reason.
    """
    return partial(avro.write_body, _of_mappings(schema))


def value_reader(schema: Schema, kind: type[msgspec.Struct]) -> Callable[[bytes, int], Any]:
    """As body_reader, but what is read is a value of `kind`.

    Raises TypeError when the schema and the kind do not go together, in any field, however deep.
    """
    record = _Tree(schema, of_values=True).type_of(schema, kind)
    assert isinstance(record, avro.Record)
    return partial(avro.read_body, record)


def _of_mappings(schema: Schema) -> avro.Record:
    record = _Tree(schema, of_values=False).type_of(schema, None)
    assert isinstance(record, avro.Record)
    return record


class _Tree:
    """The types of one schema, while they are made. A named type is written out once and only named after that."""

    def __init__(self, schema: Schema, *, of_values: bool) -> None:
        self._of_values = of_values
        self._schemas = dict(_named_types(schema))
        self._named: dict[tuple[str, Any], avro.Type] = {}  # by name and Python type

    def type_of(self, schema: Any, hint: Any) -> avro.Type:
        """The type of a schema; `hint` is the Python type that values have there."""
        if isinstance(schema, list):
            null, branch = schema
            assert null == "null", "the only unions are nullable fields"
            return avro.Nullable(self.type_of(branch, self._without_none(hint)))
        if isinstance(schema, str):
            return self._plain(schema, hint) if schema in _PLAIN else self._of_name(schema, hint)
        match schema["type"]:
            case "record" | "enum":
                return self._of_name(schema["name"], hint)
            case "array":
                item = get_args(hint)[0] if self._of_values else None
                return avro.Array(self.type_of(schema["items"], item), get_origin(hint) is tuple)
            case plain:
                return self.type_of(plain, hint)

    def _plain(self, name: str, hint: Any) -> avro.Type:
        made, kind = _PLAIN[name]
        if self._of_values and hint is not kind:
            raise TypeError(f"a {name} is read as {kind.__name__}, not as {hint}")
        return made

    def _of_name(self, name: str, hint: Any) -> avro.Type:
        made = self._named.get((name, hint))
        if made is None:
            schema = self._schemas[name]
            made = self._enumeration(schema, hint) if schema["type"] == "enum" else self._record(schema, hint)
        return made

    def _enumeration(self, schema: Schema, hint: Any) -> avro.Type:
        symbols: list[str] = schema["symbols"]
        members: list[object] = [*symbols]
        if isinstance(hint, type) and issubclass(hint, Enum):
            members = [hint(symbol) for symbol in symbols]
        made = self._named[schema["name"], hint] = avro.Enumeration(symbols, members)
        return made

    def _record(self, schema: Schema, hint: Any) -> avro.Record:
        name = schema["name"]
        record, hints = self._new_record(schema, hint)
        self._named[name, hint] = record  # before its fields, which may name it
        if not record.names:
            for field in schema["fields"]:
                record.names.append(field["name"])
                record.types.append(self.type_of(field["type"], hints.get(field["name"])))
        return record

    def _new_record(self, schema: Schema, hint: Any) -> tuple[avro.Record, dict[str, Any]]:
        """A record without its fields, or one with them that another schema has, and its fields' Python types."""
        short = schema["name"].rpartition(".")[2]
        if not self._of_values:
            return _records.setdefault(_text(self._schemas, schema), avro.Record(short)), {}
        avro.check_kind(hint, [field["name"] for field in schema["fields"]])
        return avro.ValueRecord(short, hint), get_type_hints(hint)

    def _without_none(self, hint: Any) -> Any:
        """The other part of `X | None`."""
        if not self._of_values:
            return None
        branches = [branch for branch in get_args(hint) if branch is not NoneType]
        if get_origin(hint) is not UnionType or len(branches) != 1:
            raise TypeError(f"a nullable field is read as X | None, not as {hint}")
        return branches[0]


def _named_types(schema: Any) -> Iterator[tuple[str, Schema]]:
    """Each named type that is written out in a schema, with its name."""
    if isinstance(schema, list):
        for branch in schema:
            yield from _named_types(branch)
    elif isinstance(schema, dict):
        if schema["type"] in ("record", "enum"):
            yield schema["name"], schema
        for field in schema.get("fields", ()):
            yield from _named_types(field["type"])
        yield from _named_types(schema.get("items"))


def _text(schemas: Mapping[str, Schema], schema: Schema) -> str:
    """A record's schema with each name that it mentions written out: the same for the same bytes."""

    def written_out(node: Any, done: frozenset[str]) -> Any:
        if isinstance(node, list):
            return [written_out(branch, done) for branch in node]
        if isinstance(node, str):
            return written_out(schemas[node], done | {node}) if node in schemas and node not in done else node
        if node["type"] == "record":
            done |= {node["name"]}
            fields = [{"name": field["name"], "type": written_out(field["type"], done)} for field in node["fields"]]
            return {"name": node["name"], "fields": fields}
        if node["type"] == "array":
            return {"items": written_out(node["items"], done)}
        return node

    return json.dumps(written_out(schema, frozenset()))
