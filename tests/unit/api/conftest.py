"""The API in memory, for tests of what HTTP clients see."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.api.platform_in_memory import Platform


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    async with Platform() as running:
        yield running
