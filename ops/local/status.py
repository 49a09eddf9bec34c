"""The status document: what `payments status --json` prints, and what tests and other programs connect by."""

from __future__ import annotations

from typing import Any

import msgspec
import psutil

from ops.local import cassandra, kafka
from ops.local.errors import StackError
from ops.local.layout import IDENTITIES, Home, Ports, StackConfig
from ops.local.state import ProcessState, StackState, UnitState, read_state, supervisor_is_alive

KEYSPACE = "payments"
MIB = 1 << 20


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    instance: int
    pid: int | None
    state: str
    restarts: int
    rss_mb: int
    threads: int
    cpu_s: float  # used since its start
    log: str


class StatusDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Field names and nesting are public: see the design page of the local stack."""

    ready: bool
    home: str
    nodes: int
    urls: dict[str, str]
    tls: dict[str, Any]
    kafka: dict[str, str]
    cassandra: dict[str, Any]
    merchants: list[dict[str, str]]
    services: list[ServiceStatus]


def status_document(home: Home) -> StatusDocument:
    """Raises StackError when nothing was ever started in this home."""
    config = home.read_config()
    if config is None:
        raise StackError(f"No stack was started in {home.root}.", "`payments up` starts one.")
    state = read_state(home)
    alive = supervisor_is_alive(home)
    ports = Ports(config.port_base)
    return StatusDocument(
        ready=alive and state is not None and state.is_ready,
        home=str(home.root),
        nodes=config.nodes,
        urls=urls(ports),
        tls=_tls(home),
        kafka={"bootstrap": kafka.bootstrap(config, ports), "security": "SSL"},
        cassandra=_cassandra(config, ports),
        merchants=_merchants(home),
        services=_services(state, alive=alive),
    )


def urls(ports: Ports) -> dict[str, str]:
    api = f"https://127.0.0.1:{ports.api()}"
    return {
        "api": api,
        "api_loopback": f"http://127.0.0.1:{ports.api_loopback()}",
        "internal": f"https://127.0.0.1:{ports.internal()}",
        "provider": f"https://127.0.0.1:{ports.provider}",
        "vault": f"https://127.0.0.1:{ports.vault}",
        "schema_registry": f"https://127.0.0.1:{ports.schema_registry}",
        "dashboard": f"{api}/dashboard",
    }


def shown_urls(document: StatusDocument) -> dict[str, str]:
    """What a person can go to now. The document's readers are promised the dashboard's place, which has no page yet."""
    return {name: url for name, url in document.urls.items() if name != "dashboard"}


def _tls(home: Home) -> dict[str, Any]:
    clients = {name: {"cert": str(home.cert(name)), "key": str(home.key(name))} for name in IDENTITIES}
    return {"ca": str(home.ca), "clients": clients}


def _cassandra(config: StackConfig, ports: Ports) -> dict[str, Any]:
    return {"contact_points": cassandra.contact_points(config), "port": ports.cassandra, "keyspace": KEYSPACE}


def _merchants(home: Home) -> list[dict[str, str]]:
    if not home.merchants_file.exists():
        return []
    return msgspec.json.decode(home.merchants_file.read_bytes(), type=list[dict[str, str]])


def _services(state: StackState | None, *, alive: bool) -> list[ServiceStatus]:
    return [_service(unit, alive=alive) for unit in (state.processes if state else [])]


def _service(unit: UnitState, *, alive: bool) -> ServiceStatus:
    rss, threads, cpu = _size(unit.pid) if alive and unit.pid else (0, 0, 0.0)
    return ServiceStatus(
        name=unit.name,
        instance=unit.instance,
        pid=unit.pid if alive else None,
        state=unit.state if alive else ProcessState.STOPPED,
        restarts=unit.restarts,
        rss_mb=rss // MIB,
        threads=threads,
        cpu_s=cpu,
        log=str(unit.log),
    )


def _size(pid: int) -> tuple[int, int, float]:
    """(resident bytes, threads, CPU seconds) of a process."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return process.memory_info().rss, process.num_threads(), times.user + times.system
    except psutil.NoSuchProcess:
        return 0, 0, 0.0  # it ended a moment ago; the supervisor will say so
