"""The fake of Stripe on a loopback port, and the adapter that talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from streams.provider.stripe import StripeProvider
from tests.unit.provider.stripe_fake import StripeFake
from tests.unit.provider.stripe_operations import provider_at


@pytest.fixture
async def stripe() -> AsyncIterator[StripeFake]:
    fake = StripeFake()
    runner = web.AppRunner(fake.application(), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = "http://{}:{}".format(*runner.addresses[0])
    yield fake
    await runner.cleanup()


@pytest.fixture
async def provider(stripe: StripeFake) -> AsyncIterator[StripeProvider]:
    provider = provider_at(stripe.url)
    await provider.start()
    yield provider
    await provider.stop()
