"""Rate limits per key and per address: what is let through, what is refused, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from api.limits import BUCKETS_MAX, KEY_REFUSED_COST, TokenBuckets, address_name
from tests.unit.api.platform_in_memory import Answer, Platform, api_settings


def refused(answer: Answer) -> bool:
    return (answer.status, answer.json.get("code")) == (429, "rate_limited")


class Seconds:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_lets_its_size_through_at_once_and_its_rate_for_ever() -> None:
    seconds = Seconds()
    buckets = TokenBuckets(10.0, 5.0, seconds)
    assert [buckets.take("a") for _ in range(5)] == [0.0] * 5
    assert buckets.take("a") == pytest.approx(0.1)
    assert buckets.take("b") == 0.0  # another name, another bucket
    for _ in range(100):
        seconds.now += 0.1
        assert buckets.take("a") == 0.0
        assert buckets.take("a") > 0.0
    seconds.now += 3_600
    assert [buckets.take("a") == 0.0 for _ in range(6)] == [True] * 5 + [False]


def test_what_a_bucket_refuses_costs_nothing_and_waiting_as_told_is_enough() -> None:
    seconds = Seconds()
    buckets = TokenBuckets(2.0, 1.0, seconds)
    buckets.take("a")
    waits = [buckets.take("a") for _ in range(50)]
    assert waits == [pytest.approx(0.5)] * 50
    seconds.now += waits[-1]
    assert buckets.take("a") == 0.0


def test_buckets_take_bounded_memory() -> None:
    buckets = TokenBuckets(1.0, 1.0, Seconds())
    for number in range(BUCKETS_MAX + 50):
        buckets.take(str(number))
    assert len(buckets) == BUCKETS_MAX
    assert buckets.take(str(BUCKETS_MAX + 49)) > 0.0  # the newest are kept


def test_one_subscriber_is_one_address() -> None:
    assert address_name(("10.0.0.1", 1)) == address_name(("::ffff:10.0.0.1", 2, 0, 0)) == "10.0.0.1"
    assert address_name(("2001:db8:0:1::1", 1, 0, 0)) == address_name(("2001:db8:0:1:ffff::2", 1, 0, 0))
    assert address_name(("2001:db8:0:1::1", 1, 0, 0)) != address_name(("2001:db8:0:2::1", 1, 0, 0))


def test_the_local_stack_keeps_the_contracts_promise() -> None:
    settings = api_settings()
    assert min(settings.key_requests_per_s, settings.address_requests_per_s) >= 500
    assert settings.key_requests_in_flight >= 200


async def test_a_key_that_asks_too_often_is_429_with_whole_seconds_and_others_are_not() -> None:
    async with Platform(key_requests_per_s=0.25, key_requests_burst=3) as platform:
        answers = [await platform.call("GET", "/payments") for _ in range(4)]
        assert [answer.status for answer in answers] == [200, 200, 200, 429]
        assert refused(answers[-1])
        wait = answers[-1].headers["Retry-After"]
        assert 3 <= int(wait) <= 4
        assert refused(await platform.call("GET", "/nowhere"))  # before it is told what exists
        assert (await platform.call("GET", "/payments", key=platform.other_key)).status == 200
        assert (await platform.call("GET", "/payments", key=None)).status == 401
        platform.seconds += int(wait)
        assert (await platform.call("GET", "/payments")).status == 200


async def test_a_key_has_so_many_requests_in_flight_and_no_more() -> None:
    async with Platform(key_requests_in_flight=2) as platform:
        payment_id = (await platform.create()).json["payment_id"]
        waiting = [
            asyncio.create_task(platform.confirm(payment_id, "c1", headers={"Prefer": "wait=20"})) for _ in range(2)
        ]
        await platform.log.received(3)
        third = await platform.call("GET", "/payments")
        assert refused(third)
        assert third.headers["Retry-After"] == "1"
        assert (await platform.call("GET", "/payments", key=platform.other_key)).status == 200
        platform.board.drain()
        assert {answer.status for answer in await asyncio.gather(*waiting)} == {202}
        assert (await platform.call("GET", "/payments")).status == 200


async def test_an_address_that_asks_too_often_is_429_before_its_key_is_read() -> None:
    async with Platform(address_requests_per_s=0.5, address_requests_burst=2) as platform:
        assert (await platform.call("GET", "/openapi.json", key=None)).status == 200
        assert (await platform.call("GET", "/payments")).status == 200
        reads = platform.records.reads
        for key in ("", platform.other_key, None):
            assert refused(await platform.call("GET", "/payments", key=key))
        assert platform.records.reads == reads
        platform.seconds += 2
        assert (await platform.call("GET", "/payments")).status == 200


async def test_guessing_keys_costs_an_address_several_requests_each() -> None:
    async with Platform(address_requests_per_s=0.5, address_requests_burst=2 * KEY_REFUSED_COST) as platform:
        answers = [await platform.call("GET", "/payments", key="sk_test_x") for _ in range(3)]
        assert [answer.status for answer in answers] == [401, 401, 429]
