"""Batches as operators list them: of one day, or all of them, in pages."""

from __future__ import annotations

import pytest

from tables.records.settlement import Batch
from tests.unit.api.platform_in_memory import MERCHANT, Platform


def batch(batch_id: str, settlement_date: str) -> Batch:
    return Batch(
        batch_id=batch_id,
        merchant_id=MERCHANT,
        settlement_date=settlement_date,
        currency="USD",
        status="COMPLETED",
        count=1,
        amount=10,
        settled_count=1,
        failed_count=0,
        settled_amount=10,
        failed_amount=0,
    )


@pytest.fixture
def batches(platform: Platform) -> list[str]:
    """Ids as they are listed; two days, and a day between them without batches."""
    platform.batches.batches = [batch("sb_a", "2026-11-20"), batch("sb_c", "2026-11-22"), batch("sb_b", "2026-11-22")]
    platform.batches.batches += [batch("sb_d", "2026-11-20")]
    return ["sb_b", "sb_c", "sb_a", "sb_d"]


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
async def test_without_a_date_operators_page_through_every_days_batches_newest_first(
    platform: Platform, batches: list[str], limit: int
) -> None:
    listed: list[str] = []
    path = f"/settlement_batches?limit={limit}"
    while True:
        page = await platform.operate("auditor", "GET", path + (f"&starting_after={listed[-1]}" if listed else ""))
        assert page.status == 200, page.content
        listed += [found["batch_id"] for found in page.json["data"]]
        assert len(listed) == len(batches) or len(page.json["data"]) == limit
        if not page.json["has_more"]:
            break
    assert listed == batches


async def test_of_one_day_only_its_batches_are_listed(platform: Platform, batches: list[str]) -> None:
    path = "/settlement_batches?settlement_date=2026-11-20"
    listed = (await platform.operate("auditor", "GET", path)).json
    assert [found["batch_id"] for found in listed["data"]] == batches[2:]
    behind = (await platform.operate("auditor", "GET", f"{path}&starting_after=sb_a")).json
    assert [found["batch_id"] for found in behind["data"]] == ["sb_d"]
    empty = (await platform.operate("auditor", "GET", "/settlement_batches?settlement_date=2026-11-21")).json
    assert (empty["data"], empty["has_more"]) == ([], False)


async def test_a_list_shows_a_batch_as_it_is_shown_alone(platform: Platform) -> None:
    settled = platform.batches.settle(MERCHANT, "2026-11-23", 3)
    assert settled.chunks
    alone = (await platform.operate("auditor", "GET", f"/settlement_batches/{settled.batch_id}")).json
    for listed in (
        await platform.operate("auditor", "GET", "/settlement_batches"),
        await platform.call("GET", "/settlement_batches"),
    ):
        assert listed.json["data"] == [alone]


@pytest.mark.parametrize("query", ["starting_after=sb_x", "settlement_date=2026-11-20&starting_after=sb_b"])
async def test_a_batch_that_is_not_in_the_list_is_no_place_to_start(
    platform: Platform, batches: list[str], query: str
) -> None:
    refused = await platform.operate("auditor", "GET", f"/settlement_batches?{query}")
    assert (refused.status, refused.code, refused.json["param"]) == (400, "invalid_request", "starting_after")
