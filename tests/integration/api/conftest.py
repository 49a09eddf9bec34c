"""Clients of the running platform."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.api.http_client import Client
from tests.local_servers import Servers


@pytest.fixture
async def merchant(stack: Servers) -> AsyncIterator[Client]:
    """The first demo merchant, on the public port, over TLS."""
    async with Client(stack, stack.urls["api"], key=stack.merchants[0]["secret_key"]) as client:
        yield client


@pytest.fixture
async def operator(stack: Servers) -> AsyncIterator[Client]:
    async with Client(stack, stack.urls["internal"], identity="operator") as client:
        yield client
