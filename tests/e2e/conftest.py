"""The platform as its users reach it: over HTTP, with the keys and certificates of the status document."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.http_calls import Shop
from tests.e2e.receiver import Receiver
from tests.local_servers import Servers


@pytest.fixture
def shop(stack: Servers) -> Shop:
    """The first demo merchant's side."""
    return Shop(stack)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A web server of the merchant, for webhooks."""
    with Receiver() as running:
        yield running
