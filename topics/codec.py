"""Records to bytes and back: Avro in the Confluent wire format (a zero byte, the schema's id, the Avro body).

The schema's id selects the decoder, which is made once per id; ids of our own schemas are known before the first record
(topics.schema_ids). A record written under another version of its schema is read as that version and projected to ours.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from typing import Any, NamedTuple

import msgspec
from fastavro import schemaless_reader
from fastavro.schema import to_parsing_canonical_form

from streams.exactly_once.errors import Poison
from topics import catalog
from topics.avro_bodies import body_reader, body_writer, value_reader
from topics.registry import RegistryUnavailable
from topics.schemas import NAMESPACE, Schema, load, parsed

MAGIC = 0
HEADER_BYTES = 5

FetchSchema = Callable[[int], str | None]
"""The text of the schema with an id, None when the registry has none; raises RegistryUnavailable."""


class Message(NamedTuple):
    """A record: its type's name and its fields (strings, ints, bytes, bools, None, dicts and lists; times are ints)."""

    name: str
    fields: Mapping[str, Any]


class ValueMessage(NamedTuple):
    """A record to be encoded: its type's name, and a frozen struct whose attributes are its fields."""

    name: str
    fields: msgspec.Struct


Fields = Mapping[str, Any] | msgspec.Struct


Kinds = Mapping[str, type[msgspec.Struct]]
"""Record names to the types of values that they are read as."""


class _Decoder(NamedTuple):
    name: str
    read: Callable[[bytes, int], Any]  # (data, start of the body) -> message or value


class Codec:
    """Encodes and decodes records of the catalogue's topics. Safe to share between threads."""

    def __init__(self, ids: Mapping[str, int], fetch: FetchSchema) -> None:
        """`ids`: subject name to schema id, at least of the topics that will be encoded.

        `fetch` is asked once for each other id that turns up in a record.
        """
        self._ids = dict(ids)
        self._fetch = fetch
        self._encoders: dict[tuple[str, str], Callable[[Fields], bytes]] = {}
        self._decoders: dict[str, Callable[[bytes | None], Message]] = {}  # by topic

    def encode(self, topic: str, record_name: str, fields: Fields) -> bytes:
        """The bytes of one record, given as a mapping or as a value (a frozen struct of the same names).

        Raises ValueError when the fields do not fit the schema (a name too many included), KeyError when the topic
        does not list the record, RegistryUnavailable when its id is not known.
        """
        return self.record_encoder(topic, record_name)(fields)

    def record_encoder(self, topic: str, record_name: str) -> Callable[[Fields], bytes]:
        """Fields to bytes, for one record type of one topic: the fast way. Errors as `encode`."""
        encode = self._encoders.get((topic, record_name))
        if encode is None:
            encode = self._encoders[topic, record_name] = self._new_encoder(topic, record_name)
        return encode

    def encoder(self, topic: str) -> Callable[[Message | ValueMessage], bytes]:
        """Messages to bytes, for an Output that carries several record types. Errors as `encode`."""
        encoders = {name: self.record_encoder(topic, name) for name in catalog.find(topic).records}

        def encode(message: Message | ValueMessage) -> bytes:
            return encoders[message.name](message.fields)

        return encode

    def decode(self, topic: str, data: bytes | None) -> Message:
        """The record in `data`, which came from `topic`.

        Raises Poison, with its cause, for what can never be read; RegistryUnavailable when only the registry knows and
        does not answer: the same bytes may be readable later.
        """
        return self.decoder(topic)(data)

    def decoder(self, topic: str) -> Callable[[bytes | None], Message]:
        """Bytes to messages, for one topic: the fast way. Errors as `decode`."""
        decode = self._decoders.get(topic)
        if decode is None:
            decode = self._decoders[topic] = self._new_decoder(_MessageReaders(topic))
        return decode

    def value_decoder(self, topic: str, kinds: Kinds) -> Callable[[bytes | None], Any]:
        """Bytes to values of these kinds, for one topic; None for its other records. Errors as `decode`.

        Raises TypeError for a kind that does not fit its record.
        """
        return self._new_decoder(_ValueReaders(topic, kinds))

    def _new_decoder(self, readers: _Readers) -> Callable[[bytes | None], Any]:
        decoders = self._known_decoders(readers)
        refused: dict[int, str] = {}  # ids that this topic does not list: schemas never change under an id

        def decode(data: bytes | None) -> Any:
            if data is None:
                raise Poison("a null value")
            if len(data) <= HEADER_BYTES or data[0] != MAGIC:
                raise Poison(f"not in the Confluent wire format: {_shown(data)}")
            schema_id = int.from_bytes(data[1:HEADER_BYTES], "big")
            found = decoders.get(schema_id)
            if found is None:
                if schema_id in refused:
                    raise Poison(refused[schema_id])
                found = decoders[schema_id] = self._learn(readers, schema_id, refused)
            try:
                return found.read(data, HEADER_BYTES)
            except Exception as error:  # whatever a reader of hostile bytes may raise, they mean nothing
                raise Poison(f"bad Avro bytes for {found.name}: {type(error).__name__} {error}") from error

        return decode

    def _new_encoder(self, topic: str, record_name: str) -> Callable[[Fields], bytes]:
        entry = catalog.find(topic)
        if record_name not in entry.records:
            raise KeyError(f"{topic} lists no record {record_name}")
        subject = f"{topic}-{record_name}"
        if subject not in self._ids:
            raise RegistryUnavailable(f"the schema id of {subject} is not known yet")
        header = bytes([MAGIC]) + self._ids[subject].to_bytes(4, "big")
        schema = parsed(load(entry.schema_folder, record_name))
        return partial(body_writer(schema), header)

    def _known_decoders(self, readers: _Readers) -> dict[int, _Decoder]:
        return {
            self._ids[subject]: _Decoder(name, readers.same(name))
            for name in readers.entry.records
            if (subject := f"{readers.entry.name}-{name}") in self._ids
        }

    def _learn(self, readers: _Readers, schema_id: int, refused: dict[int, str]) -> _Decoder:
        """The decoder of an id that was not known before."""
        text = self._fetch(schema_id)
        if text is None:
            raise Poison(f"schema id {schema_id} is unknown to the registry")
        try:
            writer = parsed(json.loads(text))
        except Exception as error:
            raise Poison(f"schema {schema_id} cannot be parsed: {error}") from error
        namespace, _, name = str(writer.get("name")).rpartition(".")
        if namespace != NAMESPACE or name not in readers.entry.records:
            topic = readers.entry.name
            refused[schema_id] = f"{topic} lists no record {writer.get('name')} (schema id {schema_id})"
            raise Poison(refused[schema_id])
        if to_parsing_canonical_form(writer) == to_parsing_canonical_form(readers.schema(name)):
            return _Decoder(name, readers.same(name))
        return _Decoder(name, readers.other(name, writer))


class _Readers(ABC):
    """What reads the bodies of one topic's records, by the record's name."""

    def __init__(self, topic: str) -> None:
        self.entry = catalog.find(topic)

    def schema(self, name: str) -> Schema:
        """Our version."""
        return parsed(load(self.entry.schema_folder, name))

    @abstractmethod
    def same(self, name: str) -> Callable[[bytes, int], Any]:
        """Reads what was written under our version."""

    @abstractmethod
    def other(self, name: str, writer: Schema) -> Callable[[bytes, int], Any]:
        """Reads what was written under another version."""


class _MessageReaders(_Readers):
    def same(self, name: str) -> Callable[[bytes, int], Any]:
        read = body_reader(self.schema(name))
        return lambda data, start: Message(name, read(data, start))

    def other(self, name: str, writer: Schema) -> Callable[[bytes, int], Any]:
        reader = self.schema(name)
        return lambda data, start: Message(name, _resolved(writer, reader, data, start))


class _ValueReaders(_Readers):
    def __init__(self, topic: str, kinds: Kinds) -> None:
        super().__init__(topic)
        self._kinds = kinds

    def same(self, name: str) -> Callable[[bytes, int], Any]:
        kind = self._kinds.get(name)
        return _nothing if kind is None else value_reader(self.schema(name), kind)

    def other(self, name: str, writer: Schema) -> Callable[[bytes, int], Any]:
        kind, reader = self._kinds.get(name), self.schema(name)
        if kind is None:
            return _nothing
        return lambda data, start: msgspec.convert(_resolved(writer, reader, data, start), kind, strict=False)


def _nothing(_data: bytes, _start: int) -> None:
    """The value of a record that its reader does not want to know."""


def _resolved(writer: Schema, reader: Schema, data: bytes, start: int) -> Mapping[str, Any]:
    """What was written under another version of the schema, as ours has it."""
    buffer = BytesIO(data)
    buffer.seek(start)
    fields = schemaless_reader(buffer, writer, reader)
    if (rest := len(data) - buffer.tell()) != 0:
        raise ValueError(f"{rest} bytes too many")
    assert isinstance(fields, dict)
    return fields


def _shown(data: bytes) -> str:
    return f"{len(data)} bytes beginning {data[:8].hex()}" if data else "no bytes"
