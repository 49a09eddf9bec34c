"""W3C trace context: which trace a request belongs to, carried from HTTP through commands to every later step."""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

_PATTERN = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16


class Traceparent(NamedTuple):
    """One span of one trace. Texts of lower-case hex digits: 32, 16 and 2 of them."""

    trace_id: str
    span_id: str
    flags: str

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"

    def child(self) -> Traceparent:
        """A new span of the same trace."""
        return self._replace(span_id=secrets.token_hex(8))


def parse_traceparent(header: str | None) -> Traceparent | None:
    """The span that a `traceparent` header names; None for an absent or malformed one, which callers then replace."""
    match = _PATTERN.fullmatch(header) if header else None
    if match is None:
        return None
    found = Traceparent(*match.groups())
    return None if found.trace_id == _NO_TRACE or found.span_id == _NO_SPAN else found


def new_traceparent() -> Traceparent:
    """The first span of a new trace, sampled."""
    return Traceparent(secrets.token_hex(16), secrets.token_hex(8), "01")
