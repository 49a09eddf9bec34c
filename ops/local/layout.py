"""Where a stack keeps its files and which ports it takes: the one place that knows paths and numbers.

A home belongs to one stack. `stack.json` in it names the layout's version and how the stack was last started.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from ops.local.errors import StackError

LAYOUT_VERSION = 1
SERVERS = ("kafka", "cassandra", "schema-registry")
# The order is the order of the admin ports: append, never insert.
SERVICES = (
    "payment-api",
    "payment-worker",
    "records-worker",
    "provider-gateway",
    "batch-processor",
    "webhook-dispatcher",
    "provider-simulator",
)
CLIENTS = ("internal-producer", "operator", "settlement-operator", "auditor")
STACK_ADMIN = "stack-admin"  # applies topics, ACLs, migrations, roles and grants; no service runs as it
IDENTITIES = (*SERVICES, *SERVERS, *CLIENTS, STACK_ADMIN)
CHECKOUT = Path(__file__).resolve().parents[2]


class StackConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a stack is started. Persisted, so that `status`, `down` and a plain second `up` need no flags."""

    layout: int = LAYOUT_VERSION
    nodes: int = 1  # Kafka brokers and Cassandra nodes: 1 or 3
    port_base: int | None = None  # None: the well-known ports
    scale: dict[str, int] = {}  # service -> processes; absent: 1
    servers_only: bool = False
    owner_pid: int | None = None  # the stack stops when this process is gone (tests)

    def instances(self, service: str) -> int:
        return self.scale.get(service, 1)


class Ports(msgspec.Struct, frozen=True):
    """TCP ports of one stack; `base` None gives the well-known ones, else offsets from it (all below base + 150)."""

    base: int | None

    def _at(self, default: int, offset: int) -> int:
        return default if self.base is None else self.base + offset

    def api(self, instance: int = 0) -> int:
        return self._at(8443, 0) if instance == 0 else self._at(8530, 130) + 3 * instance

    def internal(self, instance: int = 0) -> int:
        return self._at(8444, 1) if instance == 0 else self._at(8531, 131) + 3 * instance

    def api_loopback(self, instance: int = 0) -> int:
        return self._at(8080, 5) if instance == 0 else self._at(8532, 132) + 3 * instance

    @property
    def provider(self) -> int:
        return self._at(8445, 2)

    @property
    def schema_registry(self) -> int:
        return self._at(8446, 3)

    @property
    def vault(self) -> int:
        return self._at(8447, 4)

    @property
    def apicurio(self) -> int:
        return self._at(18446, 40)

    def kafka(self, node: int) -> int:
        return self._at(19092, 20) + node

    def controller(self, node: int) -> int:
        return self._at(19096, 25) + node

    @property
    def cassandra(self) -> int:
        """The nodes share it: they listen on 127.0.0.1 to 127.0.0.3."""
        return self._at(19042, 30)

    @property
    def cassandra_storage(self) -> int:
        return self._at(19045, 35)

    def admin(self, service: str, instance: int) -> int:
        return self._at(8450, 50) + 10 * SERVICES.index(service) + instance


class Home(msgspec.Struct, frozen=True):
    """The files of one stack."""

    root: Path

    def path(self, *parts: str) -> Path:
        return self.root.joinpath(*parts)

    @property
    def config_file(self) -> Path:
        return self.path("stack.json")

    @property
    def state_file(self) -> Path:
        return self.path("run", "state.json")

    @property
    def supervisor_lock(self) -> Path:
        return self.path("run", "supervisor.lock")

    @property
    def merchants_file(self) -> Path:
        return self.path("secrets", "merchants.json")

    @property
    def ca(self) -> Path:
        return self.path("tls", "ca.pem")

    def cert(self, identity: str) -> Path:
        return self.path("tls", f"{identity}.pem")

    def key(self, identity: str) -> Path:
        return self.path("tls", f"{identity}.key")

    def bundle(self, identity: str) -> Path:
        """Key, leaf and authority in one file, as the JVM servers want it."""
        return self.path("tls", f"{identity}.bundle.pem")

    @property
    def secrets(self) -> Path:
        return self.path("secrets")

    def state(self, name: str, instance: int) -> Path:
        """RocksDB of a service process."""
        return self.path("state", f"{name}-{instance}")

    def failpoints(self, name: str, instance: int = 0) -> Path:
        """What `payments chaos` arms in a service."""
        return self.path("run", f"failpoints-{name}-{instance}")

    def log(self, name: str, instance: int = 0) -> Path:
        return self.path("logs", f"{name}-{instance}.log")

    def read_config(self) -> StackConfig | None:
        """How this home was last started; None for a new one. Raises StackError for a home that is not ours to use."""
        if not self.config_file.exists():
            # `run` comes first of all (it holds the locks), so a start that was killed there leaves a new home.
            if self.root.exists() and any(entry.name != "run" for entry in self.root.iterdir()):
                raise StackError(
                    f"{self.root} is not empty and holds no stack of this version.",
                    "Name an empty directory, or one that does not exist yet, with --home.",
                )
            return None
        raw = msgspec.json.decode(self.config_file.read_bytes())
        layout = raw.get("layout") if isinstance(raw, dict) else None
        if layout != LAYOUT_VERSION:
            raise StackError(
                f"{self.root} was made by another version (layout {layout}, not {LAYOUT_VERSION}); it is left alone.",
                "Start with another --home, or remove this one with `payments down --wipe`.",
            )
        return msgspec.convert(raw, StackConfig)

    def write_config(self, config: StackConfig) -> None:
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self.config_file, msgspec.json.format(msgspec.json.encode(config)))


def write_atomically(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Readers see the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)


def default_home() -> Path:
    """`PAYMENTS_HOME`, else `.local` in the checkout."""
    return Path(os.environ.get("PAYMENTS_HOME") or CHECKOUT / ".local").absolute()


def cache_directory() -> Path:
    """`PAYMENTS_CACHE`, else `.cache` in the checkout: shared by all homes; what it holds can be fetched again."""
    return Path(os.environ.get("PAYMENTS_CACHE") or CHECKOUT / ".cache").absolute()
