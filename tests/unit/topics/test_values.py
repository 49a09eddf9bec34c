"""Values are encoded by their attributes, to the very bytes that their fields are encoded to."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module

import msgspec
import pytest
from fastavro.utils import generate_many

import streams.domain
from streams.domain.envelope import Actor, Value
from topics.avro_writer import body_writer, value_writer
from topics.catalog import all_topics
from topics.codec import Codec
from topics.schemas import Subject, parsed, subjects

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


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_a_value_has_the_bytes_of_its_fields(subject: Subject) -> None:
    schema = parsed(subject.schema)
    write, write_value = body_writer(schema), value_writer(schema)
    for fields in generate_many(schema, 10):
        value = msgspec.convert(fields, VALUES[subject.record], strict=False)
        for _ in range(2):  # the second time what was kept
            assert write_value(b"head", value) == write(b"head", fields)


def test_the_domain_is_covered() -> None:
    assert len(SUBJECTS) > 35


def test_what_is_kept_of_one_value_is_not_given_for_an_equal_one_that_differs_in_bytes() -> None:
    write = value_writer(parsed(NAMES))
    names = [Names(first) for first in ("a", "b", "a", "c")]
    assert [write(b"", value) for value in (*names, *names)] == [b"\2" + value.first.encode() for value in names] * 2


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Changeable("a"), "no frozen struct"),
        (Longer("a", "b"), "differ in last"),
        (Actor(identity="a", role="b"), "differ in"),
        (Names(5), "has no attribute 'encode'"),  # type: ignore[arg-type]
    ],
)
def test_a_value_that_does_not_fit_is_refused(value: msgspec.Struct, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        value_writer(parsed(NAMES))(b"", value)


def test_the_codec_takes_both() -> None:
    ids = {subject.name: number for number, subject in enumerate(subjects(all_topics()), 100)}
    codec = Codec(ids, lambda _: None)
    subject = next(subject for subject in SUBJECTS if subject.record == "CreatePayment")
    (fields,) = generate_many(parsed(subject.schema), 1)
    value = msgspec.convert(fields, VALUES["CreatePayment"], strict=False)
    data = codec.encode(subject.topic, "CreatePayment", value)
    assert data == codec.encode(subject.topic, "CreatePayment", fields)
    assert codec.decode(subject.topic, data).fields == fields
