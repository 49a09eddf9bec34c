"""Request bodies: read within limits, refused when they hold card data, parsed strictly, converted to a model.

The order is the contract's: 413 and 408, 415, card data, JSON, fields.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, NoReturn, TypeVar

import msgspec
from aiohttp import web

from api.card_data import holds_card_number, names_card_field, tree_holds_card_data
from api.problems import Problem

BODY_BYTES_MAX = 64 * 1024
BODY_TIMEOUT_S = 30.0
NESTING_MAX = 32
_NUMBER_DIGITS_MAX = 25  # beyond every number that a field may hold; longer ones are not worth parsing
_TOO_LARGE_NUMBER = 10**_NUMBER_DIGITS_MAX

T = TypeVar("T")

_AT_PATH = re.compile(r" - at (?:`key` in )?`(\$[^`]*)`$")
_FIELD_NAME = re.compile(r"`([^`]{0,64})")
_FIELD_CODES = {
    "amount": "amount_invalid",
    "currency": "currency_invalid",
    "settlement_currencies": "currency_invalid",
}


async def read_body(request: web.Request) -> bytes:
    """The body's bytes. Raises Problem: body_too_large, request_timeout, invalid_request when it ends early."""
    length = request.content_length
    if length is not None and length > BODY_BYTES_MAX:
        raise _too_large()
    if not request.can_read_body:
        return b""
    if request.content.is_eof():  # it came with the head, as small ones do: nothing to wait for
        whole = request.content.read_nowait()
        if len(whole) > BODY_BYTES_MAX:
            raise _too_large()
        return whole
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    raise _too_large()
    except TimeoutError:
        detail = f"the body of a request has {BODY_TIMEOUT_S:.0f} s"
        raise Problem("request_timeout", detail, closes_connection=True) from None
    except (web.RequestPayloadError, ConnectionError):
        detail = "the body did not arrive whole"
        raise Problem("invalid_request", detail, param="body", closes_connection=True) from None
    return bytes(body)


def check_media_type(request: web.Request, body: bytes) -> None:
    """Raises Problem unsupported_media_type unless the body is JSON in UTF-8, not compressed, or there is none."""
    encodings = request.headers.getall("Content-Encoding", [])
    if any(encoding.strip().lower() not in ("identity", "") for encoding in encodings):
        raise Problem("unsupported_media_type", "a body is sent as it is, without Content-Encoding")
    if not body:
        return
    if request.content_type != "application/json":
        raise Problem("unsupported_media_type", "a body is application/json")
    try:
        charset = request.charset or "utf-8"
    except ValueError:
        charset = "unknown"
    if charset.lower() not in ("utf-8", "utf8"):
        raise Problem("unsupported_media_type", "a body is in UTF-8")


def parse_body(body: bytes, model: type[T]) -> T:
    """The body as `model`. Raises Problem: card_data_forbidden, invalid_json, unknown_field, or a field's own code."""
    text = body.decode("utf-8", errors="replace")
    if holds_card_number(text) or names_card_field(text):
        raise card_data_forbidden()
    if "\\" in text:
        # Escapes may spell a card number; they are only visible after parsing, which may fail.
        tree = _parse(body)
        if tree_holds_card_data(tree):
            raise card_data_forbidden()
    else:
        _parse(body)
    try:
        return msgspec.json.decode(body, type=model, strict=True)
    except msgspec.ValidationError as error:
        _refuse_field(str(error))
    except msgspec.DecodeError:
        raise _invalid_json("the body is not valid JSON") from None


def card_data_forbidden() -> Problem:
    return Problem("card_data_forbidden", "card data is never sent here: tokenise the card with the vault")


def _parse(body: bytes) -> Any:
    """The document, checked for what msgspec lets pass: repeated member names and deep nesting."""
    try:
        tree = _STRICT.decode(body.decode("utf-8"))
    except Problem:
        raise
    except (ValueError, RecursionError):
        raise _invalid_json("the body is not valid JSON in UTF-8") from None
    if _is_deeper(tree, NESTING_MAX):
        raise _invalid_json(f"the body is nested more than {NESTING_MAX} levels deep")
    return tree


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _invalid_json("an object of the body has two members of one name")
    return members


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _parse_int(digits: str) -> int:
    return int(digits) if len(digits) <= _NUMBER_DIGITS_MAX else _TOO_LARGE_NUMBER


_STRICT = json.JSONDecoder(
    object_pairs_hook=_unique_members, parse_constant=_refuse_constant, parse_int=_parse_int
)  # made once: json.loads makes one for each document


def _is_deeper(tree: Any, levels: int) -> bool:
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    if isinstance(tree, dict | list) and levels == 0:
        return True
    return any(_is_deeper(child, levels - 1) for child in children)


def _refuse_field(message: str) -> NoReturn:
    """Turns msgspec's complaint into the contract's: the path of the field, and nothing of its value."""
    found = _AT_PATH.search(message)
    path = found.group(1).removeprefix("$").removeprefix(".").replace("[...]", "") if found else ""
    complaint = message[: found.start()] if found else message
    if complaint.startswith(("Object contains unknown field", "Object missing required field")):
        name = _FIELD_NAME.search(complaint)
        path = f"{path}.{name.group(1)}" if path and name else name.group(1) if name else path
        if complaint.startswith("Object contains"):
            raise Problem("unknown_field", "a field that is not documented", param=path) from None
    detail = "is missing" if complaint.startswith("Object missing") else _without_values(complaint)
    code = _FIELD_CODES.get(path.partition("[")[0], "invalid_request")
    raise Problem(code, detail, param=path or "body") from None


def _without_values(complaint: str) -> str:
    """msgspec quotes the client's value only in single quotes."""
    return complaint.partition(" '")[0]


def _too_large() -> Problem:
    detail = f"a body has at most {BODY_BYTES_MAX} bytes"
    return Problem("body_too_large", detail, closes_connection=True)


def _invalid_json(detail: str) -> Problem:
    return Problem("invalid_json", detail)
