"""What is counted and logged of requests, many at once."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from api.request_log import WRITE_AFTER_S
from tests.unit.api.platform_in_memory import Platform

COUNTED = "payments_http_requests_total"
TIMED = "payments_http_request_seconds_count"


async def test_a_request_is_counted_and_logged_with_its_ids(platform: Platform) -> None:
    with capture_logs() as logs:
        created = await platform.create()
        platform.request_log.write()
    [line] = [entry for entry in logs if entry["event"] == "request"]
    assert line["request_id"] == created.headers["Request-Id"]
    assert line["payment_id"] == created.json["payment_id"]
    assert (line["method"], line["route"], line["status"]) == ("POST", "/payments", 201)
    labels = {"method": "POST", "route": "/payments"}
    assert platform.registry.get_sample_value(COUNTED, {**labels, "status": "201"}) == 1
    assert platform.registry.get_sample_value(TIMED, labels) == 1


async def test_it_is_written_by_itself_and_what_is_left_when_the_process_ends(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = asyncio.Event()
    write = platform.request_log.write

    def heard() -> None:
        write()
        written.set()

    monkeypatch.setattr(platform.request_log, "write", heard)
    with capture_logs() as logs:
        await platform.create()
        assert not logs
        async with asyncio.timeout(25 * WRITE_AFTER_S):
            await written.wait()
        assert len(logs) == 1
        await platform.create()
        await platform.request_log.stop()
    assert [entry["event"] for entry in logs] == ["request", "request"]
    assert logs[0]["at"] < logs[1]["at"]


async def test_what_a_client_made_up_is_not_told(platform: Platform) -> None:
    with capture_logs() as logs:
        await platform.call("DELETE", "/coffee/black")
        platform.request_log.write()
    told = [(entry["method"], entry["route"]) for entry in logs if entry["event"] == "request"]
    assert told == [("other", "unknown")]
