"""What a log line holds, and what it never holds."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from ops.runtime.logs import configure_logs, exception_fields, log_context, logger
from tests.unit.api.platform_in_memory import api_settings


@pytest.fixture(autouse=True)
def _configured() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logs(api_settings())
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_line_is_json_with_the_ids_of_its_request(capsys: pytest.CaptureFixture[str]) -> None:
    with log_context(request_id="req_1", payment_id="pay_1", trace_id=None):
        logger().info("accepted", amount=5)
    logger().info("after")
    inside, after = lines(capsys)
    assert inside["request_id"] == "req_1"
    assert (inside["event"], inside["payment_id"], inside["amount"]) == ("accepted", "pay_1", 5)
    assert (inside["service"], inside["level"]) == ("payment-api", "info")
    assert "request_id" not in after


@pytest.mark.parametrize("value", ["\udcff", {("a", 1): 2}, float("nan"), object, {1, "two"}, 1 << 70, b"\xff"])
def test_no_value_keeps_a_line_from_being_written(value: object, capsys: pytest.CaptureFixture[str]) -> None:
    logger().info("odd", value=value)
    [line] = lines(capsys)
    assert (line["event"], "value" in line) == ("odd", True)


@pytest.mark.parametrize(
    "text",
    [
        "ann@example.com",
        "sk_test_aaaaaaaaaaaaaaaaaaaaaaaaaa_bbbb",
        "whsec_c2VjcmV0",
        "pay_aaaaaaaaaaaaaaaaaaaaaaaaaa_secret_k1_bbbb",
        "Bearer abc",
        "4242 4242 4242 4242",
    ],
)
def test_personal_data_and_secrets_are_redacted_wherever_they_stand(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logger().info(f"told {text}", note=f"x {text} y", customer=text, metadata={"k": text})
    logging.getLogger("library").warning("said %s", text)
    assert text not in json.dumps(lines(capsys))


def test_an_exception_is_logged_with_its_place_but_without_a_text_that_may_hold_input(
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        raise ValueError("Ann Smith")
    except ValueError as error:
        logger().error("failed", **exception_fields(error))
        logging.getLogger("library").exception("failed there")
    for line in lines(capsys):
        assert line["error"] == "builtins.ValueError"
        assert "test_logs.py" in line["frames"][-1]
        assert "Ann Smith" not in json.dumps(line)


def test_an_outage_is_logged_with_its_text() -> None:
    assert exception_fields(ConnectionRefusedError(111, "Connection refused"))["error_text"]
