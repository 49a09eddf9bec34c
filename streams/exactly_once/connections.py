"""What librdkafka tells of a producer's connections: whether one broke while a request may have been on its way.

librdkafka sends EndTxn again, on the same epoch, when its connection breaks. The first copy may still be on the
network, and brokers that take it later end whatever transaction the epoch has open by then, half of it (its issue
5423; brokers close this hole for clients that speak KIP-890's second part, which librdkafka does not). A stale
TxnOffsetCommit could set offsets back the same way. Only the log tells of such a break: without `debug=broker` a
second one within 30 s may be kept quiet.
"""

from __future__ import annotations

import logging

import structlog

log = structlog.get_logger(__name__)

TELL = {"log_level": 7, "debug": "broker"}
"""librdkafka's configuration under which its log holds what `ConnectionLog` reads: four lines a transaction."""

_NOTHING_SENT = (
    "in state INIT)",
    "in state DOWN)",
    "in state TRY_CONNECT",
    "in state CONNECT",
    "in state SSL_HANDSHAKE",
    "in state APIVERSION_QUERY",
    "in state AUTH",
)
"""States of a connection in which none of our requests has been sent on it. Any other, or none named: it may have."""


class ConnectionLog:
    """Given to librdkafka as its `logger`, which it calls from `poll` and `flush`."""

    __slots__ = ("broken",)

    def __init__(self) -> None:
        self.broken = 0  # connections that were in use

    def log(self, level: int, form: str, facility: str, client: str, text: str) -> None:
        """One line, with Python's log level."""
        if facility == "FAIL" and level == logging.DEBUG and not any(state in text for state in _NOTHING_SENT):
            self.broken += 1
        if level >= logging.WARNING:
            log.warning("librdkafka", facility=facility, client=client, text=text)
