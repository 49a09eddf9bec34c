"""Between the codec's messages and the domain's values: both are named as the Avro record, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from streams.domain.envelope import Value
from streams.exactly_once.errors import Poison
from topics.codec import Message, ValueMessage

V = TypeVar("V", bound=Value)


def message_of(value: Value) -> ValueMessage:
    """A domain value as a message to be sent: its record's name, and the value."""
    return ValueMessage(type(value).__name__, value)


def value_of(message: Message, kinds: Mapping[str, type[V]]) -> V | None:
    """The domain value of a message; None for a record of a newer release, which this one does not know.

    Raises Poison for fields that make no value.
    """
    kind = kinds.get(message.name)
    if kind is None:
        return None
    try:
        return msgspec.convert(message.fields, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Poison(f"{message.name}: {error}") from error
