"""The codec: every record survives the round trip, every kind of garbage is poison with its cause, versions meet."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from fastavro import schemaless_writer
from fastavro.utils import generate_many

from streams.exactly_once.errors import Poison
from topics.avro_bodies import body_reader, body_writer
from topics.catalog import all_topics
from topics.codec import Codec, Message
from topics.registry import RegistryUnavailable
from topics.schemas import Subject, load, parsed, subjects

SUBJECTS = subjects(all_topics())
IDS = {subject.name: number for number, subject in enumerate(SUBJECTS, 100)}
REPLY_TO = {"partition": 1, "correlation_id": "c-1"}
COMMAND = {
    "id": "cmd_1",
    "type": "payment.cancel",
    "occurred_at": 1_795_372_800_000_001,
    "actor": {"identity": "key_1", "role": "merchant"},
    "request_id": "req_1",
    "traceparent": None,
    "reply_to": REPLY_TO,
    "payment_id": "pay_1",
    "merchant_id": "mer_1",
    "idempotency_key": "k",
    "idempotency": {"key_hash": b"\x00\xff", "fingerprints": [{"key_id": "f1", "mac": b"m"}]},
}


def no_registry(_: int) -> str | None:
    raise AssertionError("the registry was asked for an id that was known")


def codec_with(fetch: Callable[[int], str | None]) -> Codec:
    return Codec(IDS, fetch)


@pytest.fixture
def codec() -> Codec:
    return codec_with(no_registry)


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_any_record_comes_back_as_it_was_sent(codec: Codec, subject: Subject) -> None:
    random.seed(subject.name)
    for fields in generate_many(parsed(subject.schema), 10):
        data = codec.encode(subject.topic, subject.record, fields)
        assert codec.decode(subject.topic, data) == Message(subject.record, fields)
        reference = BytesIO()
        schemaless_writer(reference, parsed(subject.schema), fields)
        assert data[5:] == reference.getvalue()


def test_a_record_begins_with_a_zero_and_its_schemas_id(codec: Codec) -> None:
    data = codec.encode("payments.commands", "CancelPayment", COMMAND)
    assert data[:5] == b"\x00" + IDS["payments.commands-CancelPayment"].to_bytes(4, "big")


def test_times_are_plain_integers_of_microseconds(codec: Codec) -> None:
    message = codec.decode("payments.commands", codec.encode("payments.commands", "CancelPayment", COMMAND))
    assert message.fields["occurred_at"] == 1_795_372_800_000_001


def test_nullable_fields_may_be_left_out(codec: Codec) -> None:
    fields = {name: value for name, value in COMMAND.items() if name not in {"traceparent", "reply_to"}}
    message = codec.decode("payments.commands", codec.encode("payments.commands", "CancelPayment", fields))
    assert message.fields == COMMAND | {"reply_to": None}


@pytest.mark.parametrize("bits", range(64))
def test_a_number_survives_at_every_size_as_fastavro_writes_it(bits: int) -> None:
    schema = parsed({"type": "record", "name": "Number", "fields": [{"name": "value", "type": "long"}]})
    for value in {(1 << bits) - 1, min(1 << bits, (1 << 63) - 1), -(1 << bits), random.Random(bits).getrandbits(bits)}:
        reference = BytesIO()
        schemaless_writer(reference, schema, {"value": value})
        assert body_writer(schema)(b"", {"value": value}) == reference.getvalue()
        assert body_reader(schema)(reference.getvalue(), 0) == {"value": value}


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        ("long", b"\xff" * 9 + b"\x02", "more than 64 bits"),
        ("long", b"\xff" * 10 + b"\x01", "more than 64 bits"),
        ("long", b"\x80", "end in the middle"),
        ("string", b"\x03abc", "a length of -2"),
        ("string", b"\x80\x80\x01abc", "end in the middle of the record: 8192 of 3"),
        ("bytes", b"\x08abc", "end in the middle"),
        ("boolean", b"\x02", "a boolean is 0 or 1, not 2"),
        ("boolean", b"", "end in the middle"),
        (["null", "string"], b"\x04", "no branch 2"),
        ({"type": "array", "items": "string"}, b"\x06\x02a", "3 items where 2 bytes"),
        ({"type": "array", "items": "string"}, b"\x02\x02a", "end in the middle"),
        ({"type": "enum", "name": "Coin", "symbols": ["HEADS", "TAILS"]}, b"\x04", "no symbol 2"),
        ("string", b"\x02ab", "1 bytes too many"),
    ],
)
def test_bytes_that_end_early_late_or_mean_nothing_are_refused(kind: Any, body: bytes, reason: str) -> None:
    schema = parsed({"type": "record", "name": "Hostile", "fields": [{"name": "value", "type": kind}]})
    with pytest.raises(ValueError, match=reason):
        body_reader(schema)(body, 0)


def test_blocks_of_items_with_their_size_are_read() -> None:
    schema = parsed(
        {"type": "record", "name": "List", "fields": [{"name": "value", "type": {"type": "array", "items": "string"}}]}
    )
    assert body_reader(schema)(b"\x03\x08\x02a\x02b\x02\x02c\x00", 0) == {"value": ["a", "b", "c"]}


def test_a_long_text_survives(codec: Codec) -> None:
    data = codec.encode("payments.commands", "CancelPayment", COMMAND | {"request_id": "é" * 5_000})
    assert codec.decode("payments.commands", data).fields["request_id"] == "é" * 5_000


def test_a_symbol_or_flag_that_is_none_is_refused(codec: Codec) -> None:
    fields = next(iter(generate_many(parsed(load("provider.outcomes", "VoidOutcome")), 1)))
    for broken in (fields | {"succeeded": 1}, fields | {"succeeded": None}):
        with pytest.raises(ValueError, match="a boolean is True or False"):
            codec.encode("provider.outcomes", "VoidOutcome", broken)
    row = next(iter(generate_many(parsed(load("payments.events", "PaymentCreated")), 1)))
    with pytest.raises(ValueError, match="'LOST'"):
        codec.encode("payments.events", "PaymentCreated", row | {"payment": row["payment"] | {"status": "LOST"}})


def test_an_output_encodes_every_record_of_its_topic(codec: Codec) -> None:
    encode = codec.encoder("payments.commands")
    message = Message("CancelPayment", COMMAND)
    assert codec.decode("payments.commands", encode(message)) == message
    with pytest.raises(KeyError):
        encode(Message("PaymentCreated", COMMAND))


@pytest.mark.parametrize(
    "broken",
    [
        COMMAND | {"reply_too": REPLY_TO},
        {name: value for name, value in COMMAND.items() if name != "payment_id"},
        COMMAND | {"payment_id": None},
        COMMAND | {"payment_id": 17},
        COMMAND | {"occurred_at": "2026-11-22"},
        COMMAND | {"occurred_at": 1 << 63},
        COMMAND | {"occurred_at": 1.5},
        COMMAND | {"reply_to": "pay_1"},
        COMMAND | {"reply_to": REPLY_TO | {"partition": 1 << 31}},
        COMMAND | {"idempotency": {"key_hash": "text", "fingerprints": []}},
        COMMAND | {"idempotency": {"key_hash": b"", "fingerprints": {}}},
        {name: value for name, value in COMMAND.items() if name != "traceparent"} | {"trace": None},
    ],
    ids=lambda fields: next(n for n in [*fields, *COMMAND] if fields.get(n, "") != COMMAND.get(n, "")),
)
def test_fields_that_do_not_fit_the_schema_are_refused(codec: Codec, broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the fields do not fit CancelPayment"):
        codec.encode("payments.commands", "CancelPayment", broken)


GOOD = Codec(IDS, no_registry).encode("payments.commands", "CancelPayment", COMMAND)
REPLY = dict.fromkeys(("id", "command_id", "correlation_id", "payment_id", "outcome", "event"), "x")
KNOWN_ELSEWHERE = Codec(IDS, no_registry).encode("payments.replies", "CommandReply", REPLY)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (None, "a null value"),
        (b"", "not in the Confluent wire format: no bytes"),
        (b"\x00\x00\x00\x00\x01", "not in the Confluent wire format: 5 bytes"),
        (b'{"id": "evt_1"}', "not in the Confluent wire format: 15 bytes beginning 7b22"),
        (b"\x01" + GOOD[1:], "not in the Confluent wire format"),
        (b"\x00\x7f\xff\xff\xff" + GOOD[5:], "schema id 2147483647 is unknown to the registry"),
        (KNOWN_ELSEWHERE, "payments.commands lists no record payments.CommandReply"),
        (GOOD[:-1], "bad Avro bytes for CancelPayment: ValueError the bytes end in the middle"),
        (GOOD[:5] + b"\xff" * 40, "bad Avro bytes for CancelPayment"),
        (GOOD[:5] + b"\x04\xc3\x28" + GOOD[5:], "bad Avro bytes for CancelPayment: UnicodeDecodeError"),
        (GOOD + b"\x00", "bad Avro bytes for CancelPayment: ValueError 1 bytes too many"),
    ],
)
def test_garbage_is_poison_and_says_why(data: bytes | None, cause: str) -> None:
    texts = {IDS[subject.name]: subject.text for subject in SUBJECTS}
    with pytest.raises(Poison, match=cause):
        codec_with(texts.get).decode("payments.commands", data)


def test_random_changes_of_a_record_are_read_or_poison_and_nothing_else() -> None:
    rng = random.Random(3)
    codec = codec_with(lambda _: None)
    outcomes = set()
    for _ in range(3_000):
        data = bytearray(GOOD)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            outcomes.add(codec.decode("payments.commands", bytes(data)).name)
        except Poison:
            outcomes.add("poison")
    assert outcomes >= {"CancelPayment", "poison"}


def test_an_id_is_asked_for_once_and_a_foreign_record_is_refused_without_asking_again() -> None:
    asked: list[int] = []

    def fetch(schema_id: int) -> str | None:
        asked.append(schema_id)
        name = "CancelPayment" if schema_id == 900 else "Mallory"
        return json.dumps(load("payments.commands", "CancelPayment") | {"name": name})

    codec = codec_with(fetch)
    for _ in range(3):
        data = b"\x00" + (900).to_bytes(4, "big") + GOOD[5:]
        assert codec.decode("payments.commands", data) == Message("CancelPayment", COMMAND)
        with pytest.raises(Poison, match=r"payments\.commands lists no record payments\.Mallory"):
            codec.decode("payments.commands", b"\x00" + (901).to_bytes(4, "big") + GOOD[5:])
    assert asked == [900, 901]


def test_a_registry_that_is_away_makes_nothing_poison() -> None:
    def fetch(_: int) -> str | None:
        raise RegistryUnavailable("away")

    codec = codec_with(fetch)
    with pytest.raises(RegistryUnavailable):
        codec.decode("payments.commands", b"\x00\x00\x00\x03\x84" + GOOD[5:])
    assert codec.decode("payments.commands", GOOD).name == "CancelPayment"


def test_a_newer_version_is_read_as_ours() -> None:
    """A newer writer added a nullable field and a symbol: the field is dropped, the symbol becomes the default."""
    newer = json.loads(json.dumps(load("payments.events", "PaymentCreated")))
    newer["fields"].append({"name": "risk_score", "type": ["null", "int"], "default": None})
    payment = next(field for field in newer["fields"] if field["name"] == "payment")["type"]
    status = next(field for field in payment["fields"] if field["name"] == "status")["type"]
    status["symbols"].append("DISPUTED")
    fields = next(iter(generate_many(parsed(newer), 1)))
    fields["payment"]["status"] = "DISPUTED"
    buffer = BytesIO()
    schemaless_writer(buffer, parsed(newer), fields)

    codec = codec_with(lambda _: json.dumps(newer))
    message = codec.decode("payments.events", b"\x00\x00\x00\x03\x84" + buffer.getvalue())

    expected = {name: value for name, value in fields.items() if name != "risk_score"}
    assert message == Message("PaymentCreated", expected | {"payment": fields["payment"] | {"status": "UNKNOWN"}})


def test_an_older_version_is_completed_with_defaults() -> None:
    older = json.loads(json.dumps(load("payments.commands", "CancelPayment")))
    older["fields"] = [field for field in older["fields"] if field["name"] != "traceparent"]
    buffer = BytesIO()
    schemaless_writer(buffer, parsed(older), COMMAND)
    codec = codec_with(lambda _: json.dumps(older))
    assert codec.decode("payments.commands", b"\x00\x00\x00\x03\x84" + buffer.getvalue()).fields == COMMAND


def test_what_was_never_registered_cannot_be_written() -> None:
    with pytest.raises(RegistryUnavailable, match=r"payments\.commands-CancelPayment"):
        Codec({}, no_registry).encode("payments.commands", "CancelPayment", COMMAND)
