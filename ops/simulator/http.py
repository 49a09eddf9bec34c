"""What the simulator's two HTTP services share: reading bodies, writing answers, and failing without showing input."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from ops.runtime.logs import exception_fields, logger

BODY_BYTES_MAX = 1024 * 1024  # a chunk of 500 items has about 60 KiB

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_JSON_TYPE = re.compile(r"application/json\s*(;|$)")


class RefusedError(Exception):
    """The request cannot be served. Its code is for machines, its message names fields and never values."""

    def __init__(self, status: int, code: str, message: str = "", *, retryable: bool = False) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message
        self.retryable = retryable


def json_response(status: int, body: Any, headers: dict[str, str] | None = None) -> web.Response:
    """An answer with `body` as JSON."""
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/json", headers=headers or {}
    )


def refusal_response(status: int, code: str, message: str, *, retryable: bool = False) -> web.Response:
    """An answer that says why not; 429 and 503 say when to come back."""
    headers = {"Retry-After": "1"} if status in (429, 503) else {}
    return json_response(status, {"code": code, "message": message, "retryable": retryable}, headers)


async def read_body(request: web.Request, kind: type[T]) -> T:
    """The body as `kind`. Raises RefusedError, 415 or 400, without repeating what was sent."""
    if not _JSON_TYPE.match(request.headers.get("Content-Type", "")):
        raise RefusedError(415, "unsupported_media_type", "the body has to be application/json")
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except msgspec.DecodeError:
        raise RefusedError(400, "invalid_request", f"the body is not a {kind.__name__}") from None


@web.middleware
async def answer_failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns every exception into an answer; logs ours by class and place only."""
    try:
        return await handler(request)
    except RefusedError as refused:
        return refusal_response(refused.status, refused.code, refused.message, retryable=refused.retryable)
    except web.HTTPException as error:
        codes = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
        return refusal_response(error.status, codes.get(error.status, "invalid_request"), "")
    except Exception as error:
        logger().error("request failed", **exception_fields(error))
        return refusal_response(500, "internal_error", "an error of the simulator")


def render_error(status: int, code: str, detail: str) -> web.Response:
    """The answer to what never became a request."""
    return refusal_response(status, code, detail)
