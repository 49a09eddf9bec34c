"""Every schema follows the rules that keep it readable for ever: envelope first, no payload unions, defaults, docs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from topics.catalog import all_topics, find
from topics.schemas import DIRECTORY, SchemaError, Subject, load, shared_types, subjects

COMMAND = ["id", "type", "occurred_at", "actor", "request_id", "traceparent", "reply_to"]
EVENT = ["id", "type", "sequence", "occurred_at", "actor", "request_id"]
FILES = sorted(DIRECTORY.glob("*/*.avsc"))
ENVELOPES = {
    "payments.commands": COMMAND,
    "payments.intake": COMMAND,
    "provider.outcomes": COMMAND,
    "settlement.closings": COMMAND,
    "provider.requests": COMMAND,
    "settlement.entries": COMMAND,
    "settlement.requests": COMMAND,
    "webhooks.commands": COMMAND,
    "payments.events": EVENT,
    "settlement.events": EVENT,
    "webhooks.outcomes": EVENT,
    "audit.log": EVENT,
}


def name_of(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


def nodes(schema: Any) -> Iterator[Any]:
    """Every type inside a schema, itself included."""
    yield schema
    if isinstance(schema, list):
        for branch in schema:
            yield from nodes(branch)
    elif isinstance(schema, dict):
        for field in schema.get("fields", ()):
            yield from nodes(field["type"])
        if "items" in schema:
            yield from nodes(schema["items"])


@pytest.mark.parametrize("subject", subjects(all_topics()), ids=lambda subject: subject.name)
def test_a_record_begins_with_its_envelope(subject: Subject) -> None:
    fields = [field["name"] for field in subject.schema["fields"]]
    envelope = ENVELOPES.get(subject.topic, [])
    assert fields[: len(envelope)] == envelope


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_union_is_only_ever_a_nullable_field_with_default_null(file: Path) -> None:
    schema = json.loads(file.read_text())
    for node in nodes(schema):
        if isinstance(node, list):
            assert len(node) == 2
            assert node[0] == "null"
    for field in schema.get("fields", ()):
        assert ("default" in field) == isinstance(field["type"], list)
        assert field.get("default") is None


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_file_defines_one_documented_type_named_after_it(file: Path) -> None:
    schema = json.loads(file.read_text())
    assert (schema["namespace"], schema["name"]) == ("payments", file.stem)
    assert schema["doc"]
    assert all(field["doc"] for field in schema.get("fields", ()))
    inner = [node for node in nodes(schema) if node is not schema and isinstance(node, dict)]
    assert all(node["type"] not in {"record", "enum"} for node in inner), "named types belong in avro/types"


def test_an_enum_has_a_default_for_symbols_that_its_reader_does_not_know() -> None:
    enums = [schema for schema in shared_types().values() if schema["type"] == "enum"]
    assert len(enums) >= 4
    assert all(schema["default"] == schema["symbols"][0] == "UNKNOWN" for schema in enums)


def test_times_are_marked_as_microseconds_for_every_reader() -> None:
    times = [
        field
        for file in FILES
        for field in json.loads(file.read_text()).get("fields", ())
        if field["name"].endswith("_at")
    ]
    assert len(times) > 40
    marked = {"type": "long", "logicalType": "timestamp-micros"}
    assert all(field["type"] in (marked, ["null", marked]) for field in times)


def test_every_file_belongs_to_a_topic_and_every_shared_type_to_a_record() -> None:
    used = {(topic.schema_folder, record) for topic in all_topics() for record in topic.records}
    assert used == {(file.parent.name, file.stem) for file in FILES if file.parent.name != "types"}
    named = {node for subject in subjects(all_topics()) for node in [*map(_full_name, nodes(subject.schema))]}
    assert set(shared_types()) <= named


def _full_name(node: Any) -> str:
    return f"{node.get('namespace')}.{node.get('name')}" if isinstance(node, dict) else ""


def test_the_same_record_on_two_topics_is_one_schema() -> None:
    assert find("payments.intake").schema_folder == "payments.commands"
    by_record: dict[str, set[str]] = {}
    for subject in subjects(all_topics()):
        by_record.setdefault(subject.record, set()).add(subject.text)
    assert all(len(texts) == 1 for texts in by_record.values())


def test_a_missing_schema_is_named() -> None:
    with pytest.raises(SchemaError, match=r"no schema avro/payments.events/PaymentLost.avsc"):
        load("payments.events", "PaymentLost")
