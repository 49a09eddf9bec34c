"""Structured logs: one JSON object per line on stdout, tied together by request, payment and trace ids.

Nothing personal and no secret may reach a log. Three things see to that: fields with a sensitive name are redacted,
anything that looks like one of our secrets or an e-mail address is redacted inside every text, and exceptions are
logged as class and stack, with their text only when their class is known to carry none of a client's input.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import msgspec
import structlog

from ops.runtime.clock import to_rfc3339
from ops.runtime.settings import Settings

REDACTED = "[redacted]"

SENSITIVE_FIELDS = frozenset(
    {"authorization", "body", "card", "client_secret", "cookie", "customer", "cvc", "cvv", "description", "email"}
    | {"headers", "key", "metadata", "name", "number", "password", "payment_method_token", "personal_data", "query"}
    | {"secret", "token", "url"}
)

_SECRET_TEXT = re.compile(
    r"\b(?:[spr]k_(?:test|live)_\w+|whsec_[\w+/=]+|pay_\w+_secret_\w+|Bearer\s+\S+|[\w.+-]+@[\w-]+\.[\w.-]+)"
    r"|(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.])"
)

_OUR_FIELDS = frozenset({"at", "caller", "level", "method", "request_id", "route", "service", "trace_id"})
"""Fields whose texts are made by us and can hold nothing else: not looked through."""

_SAFE_EXCEPTION_ROOTS = ("confluent_kafka", "cimpl", "cassandra", "ssl", "ops", "streams", "tables", "topics")
"""Modules whose exceptions speak of servers, files and our own state, never of what a client sent."""

_ids: ContextVar[Mapping[str, str | int | None]] = ContextVar("ids of log lines", default=MappingProxyType({}))

_QUIET_LOGGERS = {"aiohttp.access": logging.CRITICAL, "asyncio": logging.WARNING, "cassandra": logging.WARNING}
"""aiohttp's access log would print request lines; ours (`request`) is written by the server itself."""


def configure_logs(settings: Settings) -> None:
    """Sends structlog and the standard library's logging alike to stdout as JSON lines. Called once per process."""
    shared: list[Any] = [
        _names(settings.service, settings.instance),
        _add_ids,
        structlog.stdlib.add_log_level,
        _add_time,
        _describe_exception,
        _redact,
    ]
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(_json_line)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder(), *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(_json_line),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, quiet in _QUIET_LOGGERS.items():
        logging.getLogger(name).setLevel(max(quiet, level))


def _names(service: str, instance: int) -> structlog.typing.Processor:
    """Who speaks: no context variable, because threads of the libraries start with an empty context."""

    def name(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"], event["instance"] = service, instance
        return event

    return name


def _add_ids(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Those of the context that are not None; what the line itself names counts."""
    for name, value in _ids.get().items():
        if value is not None:
            event.setdefault(name, value)
    return event


def _add_time(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Now, unless what is told was before."""
    if "at" not in event:
        event["at"] = to_rfc3339(time.time_ns() // 1_000)
    return event


def _json_line(event: Mapping[str, Any], **_: Any) -> str:
    """Every request writes a line; msgspec takes a ninth of the standard library's time, but refuses some values."""
    try:
        return msgspec.json.encode(event, enc_hook=repr).decode()
    except (TypeError, UnicodeEncodeError):
        return json.dumps(event, default=repr)


def logger() -> structlog.typing.FilteringBoundLogger:
    """A logger; call it where you log, with the event in a few words and ids as fields: `logger().info("x", a=1)`."""
    bound: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return bound


def log_context(**ids: str | int | None) -> LogContext:
    """Binds ids (request_id, payment_id, trace_id, ...) to every line logged inside, in this task and its children."""
    return LogContext(ids)


class LogContext:
    """What `log_context` gives. A generator's context costs every request twice as much."""

    __slots__ = ("_bound", "_token")

    def __init__(self, ids: Mapping[str, str | int | None]) -> None:
        self._bound = ids

    def __enter__(self) -> None:
        self._token = _ids.set({**_ids.get(), **self._bound})

    def __exit__(self, *_: object) -> None:
        _ids.reset(self._token)


def exception_fields(error: BaseException) -> dict[str, Any]:
    """How an exception is logged: its class, its stack, and its text when its class is known to be harmless."""
    kind = type(error)
    fields: dict[str, Any] = {
        "error": f"{kind.__module__}.{kind.__qualname__}",
        "frames": [  # not "stack": structlog's own renderers take that field for a text
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        ],
    }
    if isinstance(error, OSError) or kind.__module__.partition(".")[0] in _SAFE_EXCEPTION_ROOTS:
        fields["error_text"] = str(error)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        fields["cause"] = f"{type(cause).__module__}.{type(cause).__qualname__}"
    return fields


def _describe_exception(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replaces exc_info by what may be said of the exception."""
    exc_info = event.pop("exc_info", None)
    if exc_info is True:
        error = sys.exc_info()[1]
    elif isinstance(exc_info, tuple):
        error = exc_info[1]
    else:
        error = exc_info
    if isinstance(error, BaseException):
        event.update(exception_fields(error))
    return event


def _redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hides sensitive fields and whatever looks like a secret, an address or a card number in the texts of others."""
    for name, value in event.items():
        if name in SENSITIVE_FIELDS:
            event[name] = REDACTED
        elif isinstance(value, str) and name not in _OUR_FIELDS:
            event[name] = _SECRET_TEXT.sub(REDACTED, value)
    return event
