"""The benchmark's own Kafka: nodes of the local stack (mutual TLS), a temporary home, four times the heap."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from ops.local import kafka
from ops.local.ca import ensure_certificates
from ops.local.errors import StackError
from ops.local.jars import ensure_jars
from ops.local.layout import STACK_ADMIN, Home, Ports, StackConfig, cache_directory
from ops.local.preflight import free_port_base

BASES = range(31_200, 32_400, 200)  # above the blocks that tests use, below the ephemeral ports
READY_S = 300.0  # a shared machine may be slow to start it
HEAP_MB = 1024


@dataclass(frozen=True)
class Broker:
    """Running brokers and the PEM files of their super user."""

    home: Home
    bootstrap: str
    processes: list[psutil.Process]

    @property
    def cpu_s(self) -> float:
        """CPU time of all of them so far, in seconds."""
        return float(sum(sum(process.cpu_times()[:2]) for process in self.processes))

    @property
    def tls(self) -> dict[str, str]:
        """Paths under `ca`, `cert`, `key`, and `bundle` for Java clients."""
        home = self.home
        paths = {"ca": home.ca, "cert": home.cert(STACK_ADMIN), "key": home.key(STACK_ADMIN)}
        return {name: str(path) for name, path in (paths | {"bundle": home.bundle(STACK_ADMIN)}).items()}

    def client(self) -> dict[str, object]:
        """librdkafka settings."""
        tls = self.tls
        return {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": "ssl",
            "ssl.ca.location": tls["ca"],
            "ssl.certificate.location": tls["cert"],
            "ssl.key.location": tls["key"],
        }


@contextlib.contextmanager
def running_broker(nodes: int = 1) -> Iterator[Broker]:
    """1 or 3 brokers for the duration of the block; their home goes with it. Raises StackError if one does not start.

    Topics have as many replicas as there are brokers, and two of three must be in sync.
    """
    ensure_jars(cache_directory(), lambda sentence: print(sentence, file=sys.stderr))  # noqa: T201
    root = Path(tempfile.mkdtemp(prefix="payments-bench-")).resolve()
    try:
        home = Home(root)
        config = StackConfig(
            nodes=nodes,
            port_base=free_port_base(BASES, lambda base: kafka.listeners(nodes, Ports(base))),
            servers_only=True,
        )
        ports = Ports(config.port_base)
        home.write_config(config)
        ensure_certificates(home, ("kafka", STACK_ADMIN))
        kafka.write_configuration(home, config, ports)
        cache = cache_directory()
        for node in range(nodes):
            subprocess.run(kafka.format_command(home, cache, node, nodes), check=True, capture_output=True)  # noqa: S603
        with contextlib.ExitStack() as running:
            processes = [running.enter_context(_process(home, cache, node)) for node in range(nodes)]
            for node, process in enumerate(processes):
                asyncio.run(_wait_until_ready(home, ports.kafka(node), process))
            yield Broker(home, kafka.bootstrap(config, ports), [psutil.Process(process.pid) for process in processes])
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def _process(home: Home, cache: Path, node: int) -> Iterator[subprocess.Popen[bytes]]:
    command = kafka.start_command(home, cache, node)
    command = [f"-Xmx{HEAP_MB}m" if part == f"-Xmx{kafka.HEAP_MB}m" else part for part in command]
    home.path("logs").mkdir(exist_ok=True)
    with home.log("kafka").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def _wait_until_ready(home: Home, port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        if await kafka.is_ready(home, port):
            return
        await asyncio.sleep(0.2)
    tail = home.log("kafka").read_text(errors="replace")[-2_000:]
    raise StackError("The benchmark's broker did not start.", tail)
