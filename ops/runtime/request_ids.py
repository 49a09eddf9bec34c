"""Request ids: made by the port that a request enters, carried by every log line, command and event that follows."""

from __future__ import annotations

import re

import uuid_utils

_SYNTAX = re.compile(r"req_[0-9a-f]{32}")


def new_request_id() -> str:
    """`req_` and 32 hex digits of a UUID version 7: unique, and in the order of time."""
    return f"req_{uuid_utils.uuid7().hex}"


def known_request_id(text: str | None) -> str | None:
    """`text` when it is an id of ours, as one service passes it to the next; else None."""
    return text if text and _SYNTAX.fullmatch(text) else None
