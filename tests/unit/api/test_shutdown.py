"""The process ends: whoever waits for an outcome is answered with what is known, not cut off."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.unit.api.platform_in_memory import Platform


async def test_prefer_wait_is_answered_202_at_once_when_the_server_stops(platform: Platform) -> None:
    payment_id = (await platform.create()).json["payment_id"]
    first = asyncio.create_task(platform.confirm(payment_id, headers={"Prefer": "wait=30"}))
    await platform.log.received(2)
    repeat = asyncio.create_task(platform.confirm(payment_id, headers={"Prefer": "wait=30"}))
    await platform.log.received(3)
    async with asyncio.timeout(4):
        await platform.stop()
        answers = await asyncio.gather(first, repeat)
    for answer in answers:
        assert (answer.status, answer.json["status"]) == (202, "PROCESSING")
    with pytest.raises(aiohttp.ClientError):
        await platform.create()


async def test_a_request_that_comes_while_the_server_stops_does_not_wait(platform: Platform) -> None:
    payment_id = (await platform.create()).json["payment_id"]
    platform.board.drain()
    async with asyncio.timeout(4):
        assert (await platform.confirm(payment_id, headers={"Prefer": "wait=30"})).status == 202
