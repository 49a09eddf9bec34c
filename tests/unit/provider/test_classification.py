"""What is known after each kind of answer: the table that decides whether money may be sent for again."""

from __future__ import annotations

import json

import pytest

from streams.provider.classification import answer_of, query_answer_of
from streams.provider.port import ItemResult, NotFound, NotProcessed, Refused, Succeeded, Unknown


def operation(status: str, **fields: object) -> bytes:
    return json.dumps({"operation_id": "op_1", "status": status, "a_field_of_a_later_release": 1, **fields}).encode()


DECLINED = {"code": "card_declined", "decline_code": "fraudulent", "retryable": False, "message": "no"}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, operation("succeeded"), Succeeded),
        (201, operation("succeeded"), Succeeded),
        (402, operation("failed", error=DECLINED), Refused),
        (200, operation("in_progress"), Unknown),
        (200, b"<html>", Unknown),  # a proxy's page: the provider may have done it behind that
        (200, b"", Unknown),
        (302, b"", Unknown),
        (408, b"", Unknown),
        (409, b"", Unknown),
        (422, b"", Unknown),
        (500, b"", Unknown),
        (502, b"", Unknown),
        (504, b"", Unknown),
        (429, b"", NotProcessed),
        (503, b"", NotProcessed),
        (400, b"", NotProcessed),
        (401, b"", NotProcessed),
        (403, b"", NotProcessed),
        (404, b"", NotProcessed),
    ],
)
def test_an_answer_says_what_is_known(status: int, body: bytes, kind: type) -> None:
    assert type(answer_of(status, body, None)) is kind


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, operation("succeeded"), Succeeded),
        (200, operation("failed", error=DECLINED), Refused),
        (200, operation("in_progress"), Unknown),
        (200, b"nonsense", Unknown),
        (404, b"", NotFound),
        (403, b"", Unknown),  # not allowed to ask is not the same as not found
        (429, b"", Unknown),
        (500, b"", Unknown),
        (503, b"", Unknown),
    ],
)
def test_only_not_found_allows_another_send(status: int, body: bytes, kind: type) -> None:
    assert type(query_answer_of(status, body)) is kind


def test_a_query_is_not_repeated_before_the_provider_wants_it() -> None:
    answer = query_answer_of(429, b"", "3")
    assert isinstance(answer, Unknown)
    assert answer.retry_after_ms == 3_000


def test_a_refusal_keeps_the_issuers_reason() -> None:
    answer = answer_of(402, operation("failed", error=DECLINED), None)
    assert isinstance(answer, Refused)
    assert (answer.error.code, answer.error.decline_code, answer.error.retryable) == (
        "card_declined",
        "fraudulent",
        False,
    )


def test_a_reason_that_is_not_in_our_contract_does_not_reach_merchants() -> None:
    answer = answer_of(402, operation("failed", error={"code": "authorization_voided", "message": "closed"}), None)
    assert isinstance(answer, Refused)
    assert answer.error.code == "provider_unavailable"


def test_each_item_of_a_chunk_has_its_result() -> None:
    refused = {"code": "settlement_failed", "retryable": True, "message": "later"}
    items = [
        {"payment_id": "pay_1", "status": "succeeded", "operation_id": "op_2", "error": None},
        {"payment_id": "pay_2", "status": "failed", "operation_id": None, "error": refused},
    ]
    answer = answer_of(200, operation("succeeded", items=items), None)
    assert isinstance(answer, Succeeded)
    captured, failed = answer.items
    assert captured == ItemResult(payment_id="pay_1", provider_reference="op_2")
    assert failed.error is not None
    assert failed.error.retryable


@pytest.mark.parametrize(
    ("header", "wait_ms"),
    [("2", 2_000), (None, None), ("", None), ("soon", None), ("-1", None), ("1.5", None), ("999999999", 3_600_000)],
)
def test_retry_after_is_honoured_up_to_an_hour(header: str | None, wait_ms: int | None) -> None:
    answer = answer_of(429, b"", header)
    assert isinstance(answer, NotProcessed)
    assert answer.retry_after_ms == wait_ms
