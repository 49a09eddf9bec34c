"""Values are encoded by their attributes, to the very bytes that their fields are encoded to."""

from __future__ import annotations

import json
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from io import BytesIO

import msgspec
import pytest
from fastavro import schemaless_writer
from fastavro.utils import generate_many

import streams.domain
from streams.domain.envelope import Actor, Value
from streams.exactly_once.errors import Poison
from topics.avro_bodies import body_writer, value_reader
from topics.catalog import all_topics
from topics.codec import Codec
from topics.schemas import Subject, load, parsed, subjects

for module in pkgutil.walk_packages(streams.domain.__path__, "streams.domain."):
    import_module(module.name)


def _below(kind: type[Value]) -> Iterator[type[Value]]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)


VALUES = {kind.__name__: kind for kind in _below(Value) if kind.__module__.startswith("streams.domain.")}
SUBJECTS = [subject for subject in subjects(all_topics()) if subject.record in VALUES]
NAMES = {"type": "record", "name": "Names", "fields": [{"name": "first", "type": "string"}]}


class Names(msgspec.Struct, frozen=True):
    first: str


class Changeable(msgspec.Struct):
    first: str


class Longer(msgspec.Struct, frozen=True):
    first: str
    last: str


class Numbered(msgspec.Struct, frozen=True):
    first: int


class Perhaps(msgspec.Struct, frozen=True):
    first: str | None


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_a_value_has_the_bytes_of_its_fields(subject: Subject) -> None:
    schema = parsed(subject.schema)
    write = body_writer(schema)
    for fields in generate_many(schema, 10):
        value = msgspec.convert(fields, VALUES[subject.record], strict=False)
        for _ in range(2):  # the second time what was kept
            assert write(b"head", value) == write(b"head", fields)


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_a_value_is_read_as_its_fields_are_converted(subject: Subject) -> None:
    schema, kind = parsed(subject.schema), VALUES[subject.record]
    read, write = value_reader(schema, kind), body_writer(schema)
    for fields in generate_many(schema, 10):
        assert read(write(b"head", fields), 4) == msgspec.convert(fields, kind, strict=False)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Longer, "differ in last"),
        (Changeable, "no frozen struct"),
        (Numbered, "a string is read as str, not as <class 'int'>"),
        (Perhaps, "a string is read as str, not as str | None"),
    ],
)
def test_a_kind_that_does_not_fit_the_schema_is_refused_before_anything_is_read(
    kind: type[msgspec.Struct], reason: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(reason)):
        value_reader(parsed(NAMES), kind)


def test_the_domain_is_covered() -> None:
    assert len(SUBJECTS) > 35


def test_what_is_kept_of_one_value_is_not_given_for_an_equal_one_that_differs_in_bytes() -> None:
    write = body_writer(parsed(NAMES))
    names = [Names(first) for first in ("a", "b", "a", "c")]
    assert [write(b"", value) for value in (*names, *names)] == [b"\2" + value.first.encode() for value in names] * 2


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Changeable("a"), "no frozen struct"),
        (Longer("a", "b"), "differ in last"),
        (Actor(identity="a", role="b"), "differ in"),
        (Names(5), "a string is a str, not int"),  # type: ignore[arg-type]
    ],
)
def test_a_value_that_does_not_fit_is_refused(value: msgspec.Struct, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        body_writer(parsed(NAMES))(b"", value)


def test_the_codec_takes_both() -> None:
    ids = {subject.name: number for number, subject in enumerate(subjects(all_topics()), 100)}
    codec = Codec(ids, lambda _: None)
    subject = next(subject for subject in SUBJECTS if subject.record == "CreatePayment")
    (fields,) = generate_many(parsed(subject.schema), 1)
    value = msgspec.convert(fields, VALUES["CreatePayment"], strict=False)
    data = codec.encode(subject.topic, "CreatePayment", value)
    assert data == codec.encode(subject.topic, "CreatePayment", fields)
    assert codec.decode(subject.topic, data).fields == fields


def test_the_codec_reads_values_of_the_kinds_it_is_told_and_passes_over_the_others() -> None:
    ids = {subject.name: number for number, subject in enumerate(subjects(all_topics()), 100)}
    codec = Codec(ids, lambda _: None)
    decode = codec.value_decoder("payments.commands", {"CancelPayment": VALUES["CancelPayment"]})
    for name in ("CancelPayment", "ConfirmPayment"):
        subject = next(subject for subject in SUBJECTS if subject.name == f"payments.commands-{name}")
        (fields,) = generate_many(parsed(subject.schema), 1)
        data = codec.encode(subject.topic, name, fields)
        expected = msgspec.convert(fields, VALUES[name], strict=False) if name == "CancelPayment" else None
        assert decode(data) == expected


def test_a_value_of_another_version_is_completed_and_one_that_its_kind_cannot_be_is_poison() -> None:
    older = json.loads(json.dumps(load("payments.commands", "CancelPayment")))
    older["fields"] = [field for field in older["fields"] if field["name"] != "traceparent"]
    (fields,) = generate_many(parsed(older), 1)
    buffer = BytesIO()
    schemaless_writer(buffer, parsed(older), fields)
    data = b"\x00\x00\x00\x03\x84" + buffer.getvalue()
    codec = Codec({}, lambda _: json.dumps(older))
    cancel = VALUES["CancelPayment"]
    assert codec.value_decoder("payments.commands", {"CancelPayment": cancel})(data) == msgspec.convert(fields, cancel)
    with pytest.raises(Poison, match="bad Avro bytes for CancelPayment: ValidationError"):
        codec.value_decoder("payments.commands", {"CancelPayment": Longer})(data)
