"""From the domain's values to the codec's messages: both are named as the Avro record, field by field."""

from __future__ import annotations

from streams.domain.envelope import Value
from topics.codec import ValueMessage


def message_of(value: Value) -> ValueMessage:
    """A domain value as a message to be sent: its record's name, and the value."""
    return ValueMessage(type(value).__name__, value)
