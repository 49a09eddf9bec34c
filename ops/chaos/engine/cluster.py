"""The Kafka that a run uses: that of a stack that is there, or a broker of its own, which may be killed.

Brokers of its own are a stack's Kafka without the rest, in a temporary home, kept alive by a stack's supervisor:
`python -m ops.chaos.engine.cluster HOME` is that supervisor.

Any of its brokers may be killed, also one that is alone: see decision 0017 for what that took.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from ops.local import kafka
from ops.local.errors import StackError
from ops.local.jars import ensure_jars
from ops.local.layout import STACK_ADMIN, Home, Ports, StackConfig, cache_directory
from ops.local.preflight import free_port_base
from ops.local.start import prepare, spawn_supervisor
from ops.local.state import ProcessState, read_state
from ops.local.supervisor import Supervisor
from ops.local.units import kafka_units

BASES = range(31_200, 32_600, 50)  # below the ephemeral ports
PROXY, BEHIND_PROXY = 28, 29  # offsets from the base
READY_S = 120.0
STOP_S = 30.0
POLL_S = 0.1


@dataclass(frozen=True)
class Cluster:
    """Where Kafka is, and the PEM files (`ca`, `cert`, `key`) of a super user."""

    bootstrap: str
    tls: Mapping[str, str]
    home: Home | None = None  # of brokers of our own
    nodes: int = 1
    proxied: tuple[int, int] | None = None  # port of a proxy for the app's clients, and that of the broker behind it

    def config(self) -> dict[str, Any]:
        """librdkafka's connection settings."""
        security = {
            "security.protocol": "ssl",
            "ssl.ca.location": self.tls["ca"],
            "ssl.certificate.location": self.tls["cert"],
            "ssl.key.location": self.tls["key"],
        }
        return {"bootstrap.servers": self.bootstrap, "log_level": 0, **security}

    @property
    def may_lose_a_broker(self) -> bool:
        """Whether brokers may be killed: they are ours."""
        return self.home is not None

    @property
    def through_proxy(self) -> Cluster:
        """The same cluster as clients see it that come through its proxy."""
        assert self.proxied is not None
        return replace(self, bootstrap=f"127.0.0.1:{self.proxied[0]}")

    def kill_broker(self, node: int, how: signal.Signals = signal.SIGKILL) -> None:
        """End it; the supervisor starts it again. Returns when it is gone."""
        assert self.home is not None, "only a broker of our own may be ended"
        state = read_state(self.home)
        assert state is not None
        pid = next(unit.pid for unit in state.processes if unit.name == "kafka" and unit.instance == node)
        if pid is None:
            return  # it is down already
        broker = psutil.Process(pid)
        os.kill(pid, how)
        psutil.wait_procs([broker], timeout=STOP_S)

    def all_brokers_run(self) -> bool:
        """Whether every broker of our own is up again."""
        state = None if self.home is None else read_state(self.home)
        return state is None or all(unit.state is ProcessState.RUNNING for unit in state.processes)


def cluster_of(home: Home) -> Cluster:
    """The Kafka of a running stack. Raises StackError when none was ever started in `home`."""
    config = home.read_config()
    if config is None:
        raise StackError(f"There is no stack in {home.root}.", "`payments up` starts one; --home names another.")
    return _cluster(home, config)


@contextmanager
def own_cluster(nodes: int = 1, *, proxied: bool = False) -> Iterator[Cluster]:
    """Brokers in a temporary home, which end with the `with` block, or with this process.

    `proxied`: one broker, which also listens for a proxy and tells the proxy's clients to come there.
    """
    assert nodes == 1 or not proxied
    home = Home(Path(tempfile.mkdtemp(prefix="payments-chaos-")).resolve())
    base = free_port_base(BASES, lambda base: [*kafka.listeners(nodes, Ports(base)), *_proxy_listeners(base)])
    config = StackConfig(nodes=nodes, port_base=base, servers_only=True, owner_pid=os.getpid())
    ensure_jars(cache_directory(), lambda _: None)
    prepare(home, config)
    proxy = (base + PROXY, base + BEHIND_PROXY) if proxied else None
    if proxy is not None:
        _listen_behind(proxy, home, Ports(base))
    supervisor = spawn_supervisor(home, "ops.chaos.engine.cluster")
    try:
        _wait_until_ready(home, supervisor)
        yield Cluster(**{**vars(_cluster(home, config)), "home": home, "nodes": nodes, "proxied": proxy})
    finally:
        supervisor.terminate()
        supervisor.wait(STOP_S)
        shutil.rmtree(home.root)


def _proxy_listeners(base: int) -> list[tuple[str, str, int]]:
    return [(name, "127.0.0.1", base + at) for name, at in (("proxy", PROXY), ("kafka behind it", BEHIND_PROXY))]


def _listen_behind(proxy: tuple[int, int], home: Home, ports: Ports) -> None:
    """One more listener, which advertises the proxy's address. Of a key that comes twice Java takes the last."""
    own = f"SSL://127.0.0.1:{ports.kafka(0)}"
    more = {
        "listeners": f"{own},CONTROLLER://127.0.0.1:{ports.controller(0)},PROXIED://127.0.0.1:{proxy[1]}",
        "advertised.listeners": f"{own},PROXIED://127.0.0.1:{proxy[0]}",
        "listener.security.protocol.map": "SSL:SSL,CONTROLLER:SSL,PROXIED:SSL",
    }
    with kafka.properties_file(home, 0).open("a") as file:
        file.writelines(f"{key}={value}\n" for key, value in more.items())


def _cluster(home: Home, config: StackConfig) -> Cluster:
    tls = {"ca": home.ca, "cert": home.cert(STACK_ADMIN), "key": home.key(STACK_ADMIN)}
    bootstrap = kafka.bootstrap(config, Ports(config.port_base))
    return Cluster(bootstrap, {name: str(path) for name, path in tls.items()}, nodes=config.nodes)


def _wait_until_ready(home: Home, supervisor: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        state = read_state(home)
        if state is not None and all(unit.state is ProcessState.RUNNING for unit in state.processes):
            return
        if supervisor.poll() is not None or time.monotonic() > deadline:
            log = home.log("supervisor").read_text(errors="replace")
            raise StackError("The broker did not start.", f"Its supervisor said: {log[-1_000:]}")
        time.sleep(POLL_S)


def main() -> None:
    """Keep the broker of a home running until SIGTERM."""
    home = Home(Path(sys.argv[1]))
    with home.supervisor_lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        config = home.read_config()
        assert config is not None, "written by who started us"
        units = kafka_units(home, cache_directory(), config, Ports(config.port_base))
        asyncio.run(Supervisor(home, config, units).run())


if __name__ == "__main__":
    main()
