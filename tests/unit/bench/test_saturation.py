"""The climb to saturation, against a server that refuses from a certain request on."""

from __future__ import annotations

import ssl
from collections.abc import Container
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ops.bench import rest
from ops.bench.saturation import Saturation, measure_saturation

STEP_S = 0.2  # 10, 12 and 16 requests in the first steps


async def measure(refused: Container[int]) -> Saturation:
    """Against a server that answers 429 to the requests with these numbers."""
    requests = 0

    async def create(_request: web.Request) -> web.Response:
        nonlocal requests
        requests += 1
        return web.Response(status=429 if requests - 1 in refused else 201)

    app = web.Application()
    app.router.add_post("/payments", create)
    async with TestServer(app) as server:
        platform = SimpleNamespace(
            urls={"api": str(server.make_url("")).rstrip("/")},
            secret_key="of the bench",
            public=ssl.create_default_context(),
        )
        return await measure_saturation(cast("Any", platform), (), STEP_S, STEP_S)


@pytest.fixture(autouse=True)
def _rests_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "LOOK_S", 0.0)


async def test_the_last_rate_before_a_refusal_is_saturation_and_half_of_it_is_measured() -> None:
    found = await measure({*range(30, 38), *range(38 + 30, 38 + 38), *range(76 + 30, 76 + 38)})
    assert [step.rate_wanted for step in found.steps] == [50.0, 62.5, 78.125]
    assert found.steps[-1].statuses == {"201": 8, "429": 8}
    assert found.climbs == [62.5, 62.5, 62.5]
    assert found.saturation_rate == 62.5
    assert found.at_half is not None
    assert (found.at_half.rate_wanted, found.at_half.statuses) == (31.25, {"201": 6})
    assert found.at_half.client_cpu_ms > 0


async def test_it_climbs_until_twice_in_a_row_that_has_not_brought_it_higher() -> None:
    low, high = range(10, 22), range(30, 38)  # refused: the second step's requests, some of the third's
    climbs = (low, low, high, low, low)
    ends = [sum(climb.stop for climb in climbs[:number]) for number in range(len(climbs))]
    found = await measure({end + number for end, climb in zip(ends, climbs, strict=True) for number in climb})
    assert found.climbs == [50.0, 50.0, 62.5, 50.0, 50.0]
    assert [step.rate_wanted for step in found.steps] == [50.0, 62.5, 78.125]


async def test_a_platform_that_refuses_at_once_has_no_saturation() -> None:
    found = await measure(range(1_000))
    assert (found.saturation_rate, found.climbs, found.at_half) == (None, [None, None, None], None)
    assert [step.rate_wanted for step in found.steps] == [50.0]
