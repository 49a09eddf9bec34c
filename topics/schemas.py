"""The record schemas of the repository: files below avro/, complete with the shared types that they name.

A record's file is avro/<folder>/<Record>.avsc; shared types are in avro/types/ and named in full. What is registered is
one self-contained schema per subject `<topic>-<Record>`, so a reader in any language needs that one and no references.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from fastavro.schema import parse_schema

from topics.catalog import Topic

DIRECTORY = Path(__file__).resolve().parents[1] / "avro"
NAMESPACE = "payments"

Schema = dict[str, Any]


class SchemaError(ValueError):
    """A schema file is missing, malformed or names a type that is not there; the message says which."""


class Subject(NamedTuple):
    """One record type of one topic and its schema as it is registered."""

    name: str
    topic: str
    record: str
    schema: Schema

    @property
    def text(self) -> str:
        """The schema as one line of JSON."""
        return json.dumps(self.schema, separators=(",", ":"), ensure_ascii=False)


def subjects(topics: tuple[Topic, ...]) -> tuple[Subject, ...]:
    """Every subject of these topics, in their order. Raises SchemaError."""
    return tuple(
        Subject(f"{topic.name}-{record}", topic.name, record, load(topic.schema_folder, record))
        for topic in topics
        for record in topic.records
    )


@cache
def load(folder: str, record: str) -> Schema:
    """A record's schema with every shared type written out where it is first named. Treat it as immutable."""
    schema = _read(DIRECTORY / folder / f"{record}.avsc")
    if schema.get("name") != record or schema.get("namespace") != NAMESPACE:
        raise SchemaError(f"avro/{folder}/{record}.avsc does not hold the record {NAMESPACE}.{record}")
    complete = _write_out(schema, set())
    assert isinstance(complete, dict)
    return complete


def parsed(schema: Schema) -> Schema:
    """The schema ready for fastavro, logical types dropped: times stay integers (microseconds since the epoch)."""
    result = parse_schema(_without_logical_types(schema))
    assert isinstance(result, dict)
    return result


def shared_types() -> Mapping[str, Schema]:
    """The named types of avro/types/ by full name."""
    return {f"{NAMESPACE}.{path.stem}": _read(path) for path in sorted((DIRECTORY / "types").glob("*.avsc"))}


_shared_types = cache(shared_types)


def _read(path: Path) -> Schema:
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SchemaError(f"there is no schema avro/{path.parent.name}/{path.name}") from None
    except ValueError as error:
        raise SchemaError(f"avro/{path.parent.name}/{path.name} is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise SchemaError(f"avro/{path.parent.name}/{path.name} is not a named type")
    return schema


def _write_out(node: Any, done: set[str]) -> Any:
    """`node` with the first mention of each shared type replaced by its definition (Avro forbids defining it twice)."""
    if isinstance(node, list):
        return [_write_out(branch, done) for branch in node]
    if isinstance(node, dict):
        if node["type"] == "record":
            return {**node, "fields": [{**f, "type": _write_out(f["type"], done)} for f in node["fields"]]}
        if node["type"] == "array":
            return {**node, "items": _write_out(node["items"], done)}
        return node
    if "." not in node or node in done:
        return node
    if node not in _shared_types():
        raise SchemaError(f"there is no shared type {node} in avro/types/")
    done.add(node)
    return _write_out(_shared_types()[node], done)


def _without_logical_types(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_logical_types(branch) for branch in node]
    if isinstance(node, dict):
        return {key: _without_logical_types(value) for key, value in node.items() if key not in {"logicalType", "doc"}}
    return node
