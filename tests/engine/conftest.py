"""The engine's tests use the session's broker as its super user: topics here are the tests' own."""

from __future__ import annotations

import pytest

from ops.chaos.engine.cluster import Cluster
from tests.local_servers import Servers


@pytest.fixture(scope="session")
def kafka_super_user(servers: Servers) -> Cluster:
    """The broker of the session's servers, which must not be killed."""
    tls = {name: str(path) for name, path in servers.tls("stack-admin")._asdict().items()}
    return Cluster(servers.bootstrap, tls)
