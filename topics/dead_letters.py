"""Dead letters as operators see them: where each queue's letters lie, what they hold, why they are there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from topics import catalog
from topics.codec import Codec
from topics.committed import CommittedReader, CommittedRecord

_PLACE = re.compile(r"([\w.-]+)/([0-9]{1,9})/([0-9]{1,18})", re.ASCII)


class Place(NamedTuple):
    """Where a letter lies. As text: `payments.commands.dlq/0/12`."""

    queue: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.queue}/{self.partition}/{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """The place that `str` wrote. Raises ValueError."""
        found = _PLACE.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no place of a letter: <queue>/<partition>/<offset>")
        return cls(found[1], int(found[2]), int(found[3]))


class Letter(NamedTuple):
    """A record that a reader could not handle. `key`, `value` and `headers` are as they came from the source topic."""

    place: Place
    at_ms: int  # when it was given up
    source_topic: str
    source_partition: int
    source_offset: int  # -1: a timer of the reader's, which no topic holds
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    error_class: str
    error_text: str


def queues() -> tuple[str, ...]:
    """Every dead-letter topic, in the catalogue's order."""
    return tuple(topic.name for topic in catalog.all_topics() if topic.records == ("DeadLetter",))


def newest_letters(reader: CommittedReader, codec: Codec, queue: str, limit: int) -> list[Letter]:
    """At most `limit` letters of a queue, the oldest of them first. Raises Poison for what is no letter."""
    begin, end = reader.beginnings([queue]), reader.ends([queue])
    found: list[Letter] = []
    for place, last in end.items():
        # Markers of transactions take offsets, too: as many as there are letters, if each was committed by itself.
        first = max(begin[place], last - 2 * limit)
        found += (letter_of(record, codec) for record in reader.read({place: first}, {place: last}))
    return sorted(found, key=lambda letter: (letter.at_ms, letter.place))[-limit:]


def find_letter(reader: CommittedReader, codec: Codec, place: Place) -> Letter | None:
    """The letter at a place; None when there is none (any more). Raises UnknownTopic, KafkaException."""
    catalog.source_of(place.queue)
    partition = (place.queue, place.partition)
    begin, end = reader.beginnings([place.queue]), reader.ends([place.queue])
    if partition not in end or not begin[partition] <= place.offset < end[partition]:
        return None
    found: Iterator[CommittedRecord] = reader.read({partition: place.offset}, {partition: place.offset + 1})
    return next((letter_of(record, codec) for record in found), None)


def letter_of(record: CommittedRecord, codec: Codec) -> Letter:
    """The letter in a record of a dead-letter topic. Raises Poison."""
    fields = codec.decode(record.topic, record.value).fields
    return Letter(
        place=Place(record.topic, record.partition, record.offset),
        at_ms=record.at_ms,
        source_topic=fields["source_topic"],
        source_partition=fields["source_partition"],
        source_offset=fields["source_offset"],
        key=fields["key"],
        value=fields["value"],
        headers=tuple((header["key"], header["value"]) for header in fields["headers"]),
        error_class=fields["error_class"],
        error_text=fields["error_text"],
    )
