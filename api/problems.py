"""Every refusal of the HTTP contract: one exception, one table of stable codes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aiohttp import web

from ops.runtime.problem import problem_response
from ops.runtime.request_ids import new_request_id

CODES: Mapping[str, int] = MappingProxyType(
    {
        "invalid_request": 400,
        "invalid_json": 400,
        "unknown_field": 400,
        "amount_invalid": 400,
        "currency_invalid": 400,
        "card_data_forbidden": 400,
        "idempotency_key_required": 400,
        "idempotency_key_invalid": 400,
        "unauthenticated": 401,
        "forbidden": 403,
        "merchant_inactive": 403,
        "not_found": 404,
        "method_not_allowed": 405,
        "not_acceptable": 406,
        "request_timeout": 408,
        "invalid_state": 409,
        "payment_in_settlement": 409,
        "settlement_date_open": 409,
        "body_too_large": 413,
        "uri_too_long": 414,
        "unsupported_media_type": 415,
        "idempotency_key_reused": 422,
        "amount_exceeds_refundable": 422,
        "rate_limited": 429,
        "overloaded": 429,
        "headers_too_large": 431,
        "internal_error": 500,
        "unavailable": 503,
    }
)
"""Status of each code. Codes are part of the contract: added, never changed."""

_RETRY_AFTER_S = {"unavailable": "1", "overloaded": "1", "rate_limited": "1"}
RETRIABLE = frozenset(_RETRY_AFTER_S)
"""Codes whose answers say when to come again."""


class Problem(Exception):  # noqa: N818 - RFC 9457's own word
    """Ends a request with a refusal. `detail` is for a person and holds nothing that the client sent."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        param: str | None = None,
        payment_status: str | None = None,
        headers: Mapping[str, str] | None = None,
        closes_connection: bool = False,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.status = CODES[code]
        self.detail = detail
        self.param = param
        self.payment_status = payment_status
        self.headers = dict(headers or {})
        self.closes_connection = closes_connection

    def response(self, request_id: str) -> web.Response:
        """The answer: `application/problem+json`, with Retry-After where the contract promises it."""
        members = {"param": self.param, "payment_status": self.payment_status}
        headers = dict(self.headers)
        if self.code in _RETRY_AFTER_S:
            headers.setdefault("Retry-After", _RETRY_AFTER_S[self.code])
        if self.code == "unauthenticated":
            headers.setdefault("WWW-Authenticate", "Bearer")
        answer = problem_response(
            self.status,
            self.code,
            self.detail,
            request_id,
            headers=headers,
            **{name: value for name, value in members.items() if value is not None},
        )
        if self.closes_connection:
            answer.force_close()
        return answer


def refuse_unparsed(status: int, code: str, detail: str) -> web.Response:
    """The answer to what never became a request: the server's own refusals, in the contract's form."""
    if code == "invalid_request":
        return problem_response(status, code, detail, new_request_id(), param="request")
    return problem_response(status, code, detail, new_request_id())


def not_found() -> Problem:
    """The same for what does not exist and for what is another merchant's."""
    return Problem("not_found", "there is no such object")


def unauthenticated() -> Problem:
    """The same whatever was wrong with the key."""
    return Problem("unauthenticated", "a valid API key is required: Authorization: Bearer <key>")


def unavailable(detail: str = "a dependency is not available; try again") -> Problem:
    return Problem("unavailable", detail)
