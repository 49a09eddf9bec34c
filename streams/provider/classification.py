"""What an HTTP answer of the provider, or its absence, lets us know. Pure; the table is in the tests.

Only 429 and 503 say that nothing was processed (and a connection that never came to be); a time-out, a reset or any
other 5xx leaves the outcome unknown.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from streams.domain.payment import ProviderError
from streams.provider.port import Answer, ItemResult, NotFound, NotProcessed, QueryAnswer, Refused, Succeeded, Unknown

RETRY_AFTER_S_MAX = 3_600  # a longer wish is honoured by asking again every hour


class _Error(msgspec.Struct, kw_only=True):
    code: str
    decline_code: str | None = None
    retryable: bool = False
    message: str = ""


class _Item(msgspec.Struct, kw_only=True):
    payment_id: str
    status: Literal["succeeded", "failed"]
    operation_id: str | None = None
    error: _Error | None = None


class _Operation(msgspec.Struct, kw_only=True):
    operation_id: str
    status: Literal["in_progress", "succeeded", "failed"]
    error: _Error | None = None
    items: list[_Item] = []


_decode_operation = msgspec.json.Decoder(_Operation).decode

_OUR_CODES = frozenset({"card_declined", "settlement_failed", "void_refused", "refund_refused"})


def unavailable(message: str) -> ProviderError:
    """The error of an attempt that brought no decision."""
    return ProviderError(code="provider_unavailable", retryable=True, message=message)


def answer_of(status: int, body: bytes, retry_after: str | None) -> Answer:
    """What the answer to a call that moves money lets us know."""
    match status:
        case 200 | 201 | 402:
            return _decided(body)
        case 429 | 503:
            reason = "the provider limits our rate" if status == 429 else "the provider is down"
            cause: Literal["limited", "unavailable"] = "limited" if status == 429 else "unavailable"
            return NotProcessed(error=unavailable(reason), retry_after_ms=retry_after_ms(retry_after), cause=cause)
        case 408 | 409 | 422:
            # Still at it, or the key belongs to something else: what was done under it is what the query will tell.
            return Unknown(error=unavailable(f"the provider answered {status}"))
        case _ if 400 <= status < 500:
            # It refused to look at the request (certificate, syntax): our fault or a misconfiguration, not the card's.
            return NotProcessed(error=unavailable(f"the provider refused the request with {status}"), cause="rejected")
        case _:
            return Unknown(error=unavailable(f"the provider answered {status}"))


def query_answer_of(status: int, body: bytes, retry_after: str | None = None) -> QueryAnswer:
    """What the answer to a status query lets us know."""
    match status:
        case 200:
            decided = _decided(body)
            assert not isinstance(decided, NotProcessed)
            return decided
        case 404:
            return NotFound()
        case _:
            error = unavailable(f"the provider answered a query with {status}")
            return Unknown(error=error, retry_after_ms=retry_after_ms(retry_after))


def _decided(body: bytes) -> Succeeded | Refused | Unknown:
    try:
        operation = _decode_operation(body)
    except msgspec.DecodeError:
        return Unknown(error=unavailable("the provider's answer makes no sense"))
    match operation.status:
        case "succeeded":
            items = tuple(
                ItemResult(payment_id=item.payment_id, provider_reference=item.operation_id, error=_item_error(item))
                for item in operation.items
            )
            return Succeeded(provider_reference=operation.operation_id, items=items)
        case "failed":
            return Refused(provider_reference=operation.operation_id, error=_error(operation.error))
        case "in_progress":
            return Unknown(error=unavailable("the provider is still at it"))


def _item_error(item: _Item) -> ProviderError | None:
    return _error(item.error) if item.status == "failed" else None


def _error(error: _Error | None) -> ProviderError:
    if error is None or error.code not in _OUR_CODES:  # such as the refusal of a key that a void has closed
        message = error.message if error else "The provider gave no reason."
        return ProviderError(code="provider_unavailable", retryable=False, message=message)
    return ProviderError(
        code=error.code, decline_code=error.decline_code, retryable=error.retryable, message=error.message
    )


def retry_after_ms(header: str | None) -> int | None:
    """Whole seconds, as the provider sends them; anything else is no wish."""
    if header is None or not header.isascii() or not header.isdigit():
        return None
    return min(int(header[:9]), RETRY_AFTER_S_MAX) * 1000
