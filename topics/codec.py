"""Records to bytes and back: Avro in the Confluent wire format (a zero byte, the schema's id, the Avro body).

The schema's id selects the decoder, which is made once per id; ids of our own schemas are known before the first record
(topics.schema_ids). A record written under another version of its schema is read as that version and projected to ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from io import BytesIO
from typing import Any, NamedTuple

import msgspec
from fastavro import schemaless_reader
from fastavro.schema import to_parsing_canonical_form

from streams.exactly_once.errors import Poison
from topics import catalog
from topics.avro_reader import body_reader
from topics.avro_writer import body_writer, value_writer
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


class _Decoder(NamedTuple):
    name: str
    read: Callable[[bytes, int], Mapping[str, Any]]  # (data, start of the body) -> fields


class Codec:
    """Encodes and decodes records of the catalogue's topics. Safe to share between threads."""

    def __init__(self, ids: Mapping[str, int], fetch: FetchSchema) -> None:
        """`ids`: subject name to schema id, at least of the topics that will be encoded.

        `fetch` is asked once for each other id that turns up in a record.
        """
        self._ids = dict(ids)
        self._fetch = fetch
        self._encoders: dict[tuple[str, str], Callable[[Fields], bytes]] = {}
        self._decoders: dict[str, Callable[[bytes | None], Message]] = {}

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
            decode = self._decoders[topic] = self._new_decoder(topic)
        return decode

    def _new_decoder(self, topic: str) -> Callable[[bytes | None], Message]:
        decoders = self._known_decoders(topic)
        refused: dict[int, str] = {}  # ids that this topic does not list: schemas never change under an id

        def decode(data: bytes | None) -> Message:
            if data is None:
                raise Poison("a null value")
            if len(data) <= HEADER_BYTES or data[0] != MAGIC:
                raise Poison(f"not in the Confluent wire format: {_shown(data)}")
            schema_id = int.from_bytes(data[1:HEADER_BYTES], "big")
            found = decoders.get(schema_id)
            if found is None:
                if schema_id in refused:
                    raise Poison(refused[schema_id])
                found = self._learn(topic, schema_id, refused)
                decoders[schema_id] = found
            return Message(found.name, _read(found, data))

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
        write = body_writer(schema)
        write_value = lru_cache(maxsize=1)(partial(value_writer, schema))  # made when the first value comes

        def encode(fields: Fields) -> bytes:
            return write_value()(header, fields) if isinstance(fields, msgspec.Struct) else write(header, fields)

        return encode

    def _known_decoders(self, topic: str) -> dict[int, _Decoder]:
        entry = catalog.find(topic)
        return {
            self._ids[subject]: _Decoder(name, body_reader(parsed(load(entry.schema_folder, name))))
            for name in entry.records
            if (subject := f"{topic}-{name}") in self._ids
        }

    def _learn(self, topic: str, schema_id: int, refused: dict[int, str]) -> _Decoder:
        """The decoder of an id that was not known before."""
        text = self._fetch(schema_id)
        if text is None:
            raise Poison(f"schema id {schema_id} is unknown to the registry")
        try:
            writer = parsed(json.loads(text))
        except Exception as error:
            raise Poison(f"schema {schema_id} cannot be parsed: {error}") from error
        namespace, _, name = str(writer.get("name")).rpartition(".")
        entry = catalog.find(topic)
        if namespace != NAMESPACE or name not in entry.records:
            refused[schema_id] = f"{topic} lists no record {writer.get('name')} (schema id {schema_id})"
            raise Poison(refused[schema_id])
        reader = parsed(load(entry.schema_folder, name))
        if to_parsing_canonical_form(writer) == to_parsing_canonical_form(reader):
            return _Decoder(name, body_reader(reader))
        return _Decoder(name, partial(_resolved, writer, reader))


def _read(decoder: _Decoder, data: bytes) -> Mapping[str, Any]:
    try:
        return decoder.read(data, HEADER_BYTES)
    except Exception as error:  # whatever a reader of hostile bytes may raise, they mean nothing
        raise Poison(f"bad Avro bytes for {decoder.name}: {type(error).__name__} {error}") from error


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
