"""The provider-simulator process: the provider on its mutual-TLS port, the vault on its own origin, one ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from ops.runtime import service
from ops.runtime.admin import admin_server
from ops.runtime.clock import Clock, SystemClock
from ops.runtime.http_server import HttpServer
from ops.runtime.service import Component, Service
from ops.runtime.settings import Settings
from ops.runtime.tls import server_context
from ops.simulator.http import render_error
from ops.simulator.provider import Provider
from ops.simulator.store import Store
from ops.simulator.vault import Vault

DRAIN_S = 1.0  # requests that a magic token leaves unanswered for ever are cut off after it


def run(settings: Settings) -> int:
    """Runs the simulator until SIGTERM; returns the process's exit status."""
    return service.run(settings, build)


async def build(running: Service) -> Sequence[Component]:
    """The simulator's components, in the order in which they start."""
    settings = running.settings
    simulator = Simulator(settings, SystemClock())
    running.readiness.add("ledger", simulator.check)
    return [simulator, admin_server(settings, running.registry, running.readiness)]


class Simulator:
    """Provider and vault over one durable store, `ledger.sqlite` in the state directory."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._store = Store(settings.state_dir / "ledger.sqlite")
        provider = Provider(self._store, clock).application()
        self._provider = HttpServer(provider, render_error, DRAIN_S, cancel_on_disconnect=True)
        self._provider.add_port(settings.listen_host, settings.provider_port, server_context(settings, "required"))
        self._vault = HttpServer(Vault(self._store, clock).application(), render_error, DRAIN_S)
        self._vault.add_port(settings.listen_host, settings.vault_port, server_context(settings, "none"))

    @property
    def provider_port(self) -> int:
        """The bound port (settings may say 0: any free one)."""
        return self._provider.ports[0]

    @property
    def vault_port(self) -> int:
        """The bound port."""
        return self._vault.ports[0]

    async def start(self) -> None:
        """Opens the ledger and both ports. Raises sqlite3.Error or OSError."""
        self._store.open()
        await self._provider.start()
        await self._vault.start()

    async def stop(self) -> None:
        """Closes both ports, then the ledger."""
        await self._provider.stop()
        await self._vault.stop()
        self._store.close()

    async def check(self) -> None:
        """Raises when the ledger cannot be written."""
        await self._store.transact(_begin)


def _begin(connection: sqlite3.Connection) -> None:
    connection.execute("SELECT 1 FROM ledger LIMIT 1")
