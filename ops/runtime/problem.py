"""Refusals as `application/problem+json` (RFC 9457), the one form in which every port of ours says no."""

from __future__ import annotations

import msgspec
from aiohttp import web

CONTENT_TYPE = "application/problem+json"
REQUEST_ID_HEADER = "Request-Id"
_INITIALS = {"json", "uri"}


def problem_response(
    status: int, code: str, detail: str, request_id: str, *, headers: dict[str, str] | None = None, **members: str
) -> web.Response:
    """The answer; `members` are the additional documented ones (`param`, `payment_status`)."""
    body = {
        "type": f"https://payments.local/problems/{code}",
        "title": _title(code),
        "status": status,
        "code": code,
        "detail": detail,
        **members,
        "request_id": request_id,
    }
    return web.Response(
        status=status,
        body=msgspec.json.encode(body),
        content_type=CONTENT_TYPE,
        headers={REQUEST_ID_HEADER: request_id, "Cache-Control": "no-store", **(headers or {})},
    )


def _title(code: str) -> str:
    """`invalid_json` -> `Invalid JSON`."""
    words = " ".join(word.upper() if word in _INITIALS else word for word in code.split("_"))
    return words[0].upper() + words[1:]
