"""The real simulator on loopback ports of its own, and clients with certificates of the local authority."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from ops.local.ca import ensure_certificates, tls_files
from ops.local.layout import Home
from ops.runtime.clock import SystemClock
from ops.runtime.settings import Settings
from ops.runtime.tls import client_context
from ops.simulator.server import Simulator
from streams.provider.simulator import SimulatorProvider
from tests.tls_sessions import tls_session

SettingsOf = Callable[..., Settings]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    ensure_certificates(home, ("provider-simulator", "provider-gateway", "auditor", "payment-worker"))
    return home


@pytest.fixture
def settings_of(home: Home, tmp_path: Path) -> SettingsOf:
    """Settings of a service of this identity; ports 0 mean any free one."""

    def make(identity: str, provider_port: int = 0, vault_port: int = 0, admin_port: int = 0) -> Settings:
        ca, certificate, key = tls_files(home, identity)
        return Settings(
            service=identity,
            tls_ca=ca,
            tls_cert=certificate,
            tls_key=key,
            kafka_bootstrap="",
            cassandra_contact_points=[],
            cassandra_port=0,
            schema_registry_url="",
            state_dir=tmp_path / "state",
            secrets_dir=tmp_path,
            provider_url=f"https://127.0.0.1:{provider_port}",
            batch_processor_url="",
            admin_port=admin_port,
            provider_port=provider_port,
            vault_port=vault_port,
        )

    return make


@pytest.fixture
async def simulator(settings_of: SettingsOf) -> AsyncIterator[Simulator]:
    simulator = Simulator(settings_of("provider-simulator"), SystemClock())
    await simulator.start()
    yield simulator
    await simulator.stop()


@pytest.fixture
def url(simulator: Simulator) -> str:
    return f"https://127.0.0.1:{simulator.provider_port}"


@pytest.fixture
def tls_of(settings_of: SettingsOf) -> Callable[[str], ssl.SSLContext]:
    return lambda identity: client_context(settings_of(identity))


@pytest.fixture
async def gateway(tls_of: Callable[[str], ssl.SSLContext], url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A client with the gateway's certificate."""
    async with tls_session(url, tls_of("provider-gateway")) as session:
        yield session


@pytest.fixture
async def provider(tls_of: Callable[[str], ssl.SSLContext], url: str) -> AsyncIterator[SimulatorProvider]:
    """The port's adapter; its time-out is short so that silence costs tests little."""
    provider = SimulatorProvider(url, timeout_s=1.0, tls=tls_of("provider-gateway"))
    await provider.start()
    yield provider
    await provider.stop()
