"""The simulator as a process: what it answered is in its ledger after kill -9, once; SIGTERM ends it in time."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import pytest

from ops.runtime.settings import Settings, settings_environment
from tests.tls_sessions import tls_session

PROGRAM = """
import sys
from ops.runtime.settings import load_settings
from ops.simulator.server import run
sys.exit(run(load_settings()))
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports


class Process:
    """The simulator on the same ports and state directory, however often it is started."""

    def __init__(self, settings: Settings, tls: ssl.SSLContext) -> None:
        self._settings = settings
        self._tls = tls
        self.url = f"https://127.0.0.1:{settings.provider_port}"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        environment = {**os.environ, **settings_environment(self._settings)}
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, env=environment, stdout=asyncio.subprocess.PIPE
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            async for line in self.process.stdout:
                if b"service ready" in line:
                    return
        raise AssertionError("the simulator ended before it was ready")

    async def end(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        async with asyncio.timeout(15):
            return await self.process.wait()

    def client(self) -> AbstractAsyncContextManager[aiohttp.ClientSession]:
        return tls_session(self.url, self._tls)


@pytest.fixture
async def process(settings_of: Callable[..., Settings], tls_of: Callable[[str], ssl.SSLContext]) -> Any:
    provider, vault, admin = free_ports(3)
    process = Process(settings_of("provider-simulator", provider, vault, admin), tls_of("provider-gateway"))
    await process.start()
    yield process
    if process.process is not None and process.process.returncode is None:
        await process.end(signal.SIGKILL)


async def authorize(client: aiohttp.ClientSession, number: int, token: str = "pm_card_visa") -> int | None:
    body = {"payment_id": f"pay_{number}", "amount": 100, "currency": "USD", "payment_method_token": token}
    try:
        async with client.post(
            "/v1/authorizations", json=body, headers={"Idempotency-Key": f"txn_{number}"}
        ) as response:
            return response.status
    except aiohttp.ClientError:
        return None


async def authorizations(client: aiohttp.ClientSession) -> list[str]:
    found: list[str] = []
    query = {"limit": "100"}
    while True:
        async with client.get("/v1/ledger", params=query) as response:
            page = await response.json()
        found += [movement["idempotency_key"] for movement in page["data"]]
        if not page["has_more"]:
            return found
        query["after"] = page["data"][-1]["operation_id"]


async def test_nothing_answered_is_lost_or_doubled_by_kill_9(process: Process) -> None:
    answered: set[int] = set()
    total = 60

    async def send(client: aiohttp.ClientSession, places: asyncio.Semaphore, number: int) -> None:
        async with places:
            if await authorize(client, number) == 200:
                answered.add(number)
                if len(answered) == total // 3:
                    await process.end(signal.SIGKILL)

    async with process.client() as client:
        places = asyncio.Semaphore(8)
        await asyncio.gather(*(send(client, places, number) for number in range(total)))
    assert total // 3 <= len(answered) < total, "the kill came too late to show anything"

    await process.start()
    async with process.client() as client:
        kept = await authorizations(client)
        assert {f"txn_{number}" for number in answered} <= set(kept)
        for number in range(total):
            assert await authorize(client, number) == 200
        assert sorted(await authorizations(client)) == sorted(f"txn_{number}" for number in range(total))


async def test_sigterm_ends_it_within_the_drain_time_even_while_a_client_waits(process: Process) -> None:
    async with process.client() as client:
        waiting = asyncio.create_task(authorize(client, 1, "pm_provider_timeout"))
        while await authorizations(client) != ["txn_1"]:
            assert not waiting.done()
        assert await process.end(signal.SIGTERM) == 0
        assert await waiting is None
