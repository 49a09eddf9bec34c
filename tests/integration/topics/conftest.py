"""Topics of a test's own on the real servers, removed afterwards."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka.admin import AdminClient

from tests.local_servers import Servers
from topics.catalog import Topic

NewTopic = Callable[..., Topic]


@pytest.fixture
def admin(servers: Servers) -> AdminClient:
    return AdminClient(servers.kafka_settings("stack-admin"))


@pytest.fixture
def own_topic(admin: AdminClient) -> Iterator[NewTopic]:
    """Entries with a name of their own that is not in the catalogue; what was made under it is deleted at the end."""
    name = f"t-topics-{uuid.uuid4().hex[:8]}"

    def entry(*, partitions: int = 3, retention_ms: int = 60_000) -> Topic:
        return Topic(
            name=name,
            purpose="of a test",
            key="any",
            records=(),
            writer="payment-worker",
            readers=(),
            partitions=partitions,
            retention_ms=retention_ms,
        )

    yield entry
    if name in admin.list_topics(timeout=10).topics:
        admin.delete_topics([name])[name].result()
