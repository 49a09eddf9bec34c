"""Cassandra of the local stack: TLS for clients and nodes, certificates as identities, every permission granted.

First boot: a new cluster knows no identity, so it starts once with passwords (`first_boot`), gets the stack's
administrator, and from then on takes certificates only; the default user with its well-known password is dropped.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import yaml

from ops.local.jars import class_path
from ops.local.java import java_command
from ops.local.layout import STACK_ADMIN, Home, Ports, StackConfig, write_atomically
from ops.local.probes import client_context, exchange

HEAP_MB = 512
YOUNG_MB = 192  # of the heap; what requests leave behind dies in it (decision 0028)
MAIN = "org.apache.cassandra.service.CassandraDaemon"
DATACENTER = "local"
RING = 2**64
OPTIONS_OPCODE, SUPPORTED_OPCODE = 0x05, 0x06

# What Cassandra's own launcher passes to Java 17.
_OPENS = (
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.lang.reflect",
    "java.base/java.math",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.util.jar",
    "java.base/sun.nio.ch",
    "java.rmi/sun.rmi.transport.tcp",
    "jdk.management/com.sun.management.internal",
)
_EXPORTS = (
    "java.base/java.lang.ref",
    "java.base/java.lang.reflect",
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.rmi/sun.rmi.transport.tcp",
    "java.sql/java.sql",
    "jdk.unsupported/sun.misc",
)


def address(node: int) -> str:
    return f"127.0.0.{node + 1}"


def contact_points(config: StackConfig) -> list[str]:
    return [address(node) for node in range(config.nodes)]


def server_yaml(home: Home, config: StackConfig, ports: Ports, node: int, *, first_boot: bool) -> dict[str, Any]:
    """`cassandra.yaml` of one node."""
    data = home.path("data", f"cassandra-{node}")
    return {
        "cluster_name": "payments",
        "storage_compatibility_mode": "NONE",
        "num_tokens": 1,
        # Explicit tokens let all nodes of a new cluster come up at once.
        "initial_token": str(-(RING // 2) + node * (RING // config.nodes)),
        "auto_bootstrap": False,
        "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
        "seed_provider": [
            {
                "class_name": "org.apache.cassandra.locator.SimpleSeedProvider",
                "parameters": [{"seeds": ",".join(f"{a}:{ports.cassandra_storage}" for a in contact_points(config))}],
            }
        ],
        "listen_address": address(node),
        "rpc_address": address(node),
        "native_transport_port": ports.cassandra,
        "storage_port": ports.cassandra_storage,
        "ssl_storage_port": ports.cassandra_storage + 4,
        "endpoint_snitch": "GossipingPropertyFileSnitch",
        "data_file_directories": [str(data / "data")],
        "commitlog_directory": str(data / "commitlog"),
        "hints_directory": str(data / "hints"),
        "saved_caches_directory": str(data / "saved_caches"),
        "cdc_raw_directory": str(data / "cdc"),
        **_durability_and_size(),
        "authorizer": "CassandraAuthorizer",
        "role_manager": "CassandraRoleManager",
        "authenticator": _authenticator(first_boot=first_boot),
        # Short validities gave spurious refusals while nodes recovered; active updates keep long ones current.
        **{
            f"{cache}_{setting}": value
            for cache in ("roles", "permissions", "credentials")
            for setting, value in (("validity", "60s"), ("update_interval", "2s"), ("cache_active_update", False))
        },
        "client_encryption_options": {
            "enabled": True,
            "optional": False,
            "require_client_auth": True,
            **_key_material(home),
        },
        "server_encryption_options": {
            "internode_encryption": "all",
            "require_client_auth": True,
            **_key_material(home),
        },
    }


def _durability_and_size() -> dict[str, Any]:
    return {
        "commitlog_sync": "batch",  # a write is answered after an fsync that it shares with those beside it
        "commitlog_segment_size": "8MiB",
        "commitlog_total_space": "256MiB",
        "memtable_allocation_type": "offheap_objects",  # on the heap each collection copied them: decision 0028
        "memtable_heap_space": "64MiB",
        "memtable_offheap_space": "64MiB",
        "memtable": {"configurations": {"default": {"class_name": "TrieMemtable"}}},
        "sstable": {"selected_format": "bti"},
        "file_cache_size": "32MiB",
        "networking_cache_size": "16MiB",
        "key_cache_size": "8MiB",
        "counter_cache_size": "0MiB",
        "concurrent_reads": 16,
        "concurrent_writes": 16,
        "concurrent_counter_writes": 2,
        "native_transport_max_threads": 32,
        "concurrent_compactors": 1,
        "compaction_throughput": "4MiB/s",  # as fast as it can it takes a core for seconds: decision 0028
        # What tables/records/write_groups.py puts into one request is meant; the defaults would warn of each.
        "batch_size_warn_threshold": "32KiB",
        "unlogged_batch_across_partitions_warn_threshold": 64,
        "auto_snapshot": False,
        "disk_failure_policy": "die",
        "commit_failure_policy": "die",
        "auto_hints_cleanup_enabled": True,
    }


def _authenticator(*, first_boot: bool) -> dict[str, Any] | str:
    if first_boot:
        return "PasswordAuthenticator"
    return {
        "class_name": "org.apache.cassandra.auth.MutualTlsAuthenticator",
        "parameters": {"validator_class_name": "org.apache.cassandra.auth.SpiffeCertificateValidator"},
    }


def _key_material(home: Home) -> dict[str, Any]:
    return {
        "ssl_context_factory": {"class_name": "org.apache.cassandra.security.PEMBasedSslContextFactory"},
        "keystore": str(home.bundle("cassandra")),
        "truststore": str(home.ca),
    }


LOGBACK = """\
<configuration scan="false">
  <appender name="STDOUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%date{ISO8601} %-5level [%thread] %logger{0}: %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="STDOUT"/></root>
  <logger name="org.apache.cassandra.db.ColumnFamilyStore" level="WARN"/>
  <logger name="org.apache.cassandra.schema" level="WARN"/>
</configuration>
"""


def yaml_file(home: Home, node: int, *, first_boot: bool) -> Path:
    return home.path("conf", f"cassandra-{node}{'-first-boot' if first_boot else ''}.yaml")


def write_configuration(home: Home, config: StackConfig, ports: Ports) -> None:
    write_atomically(home.path("conf", "cassandra-logback.xml"), LOGBACK.encode())
    write_atomically(home.path("conf", "cassandra-rackdc.properties"), f"dc={DATACENTER}\nrack=rack1\n".encode())
    for node in range(config.nodes):
        for first_boot in (True, False):
            content = server_yaml(home, config, ports, node, first_boot=first_boot)
            write_atomically(yaml_file(home, node, first_boot=first_boot), yaml.safe_dump(content).encode())


def has_administrator(home: Home) -> bool:
    """The first boot is behind us (its marker is written when the default user is gone)."""
    return home.path("data", "cassandra-administrator").exists()


def mark_administrator(home: Home) -> None:
    write_atomically(home.path("data", "cassandra-administrator"), b"spiffe identities only\n")


def start_command(home: Home, cache: Path, config: StackConfig, node: int, *, first_boot: bool = False) -> list[str]:
    options = [
        f"-Dcassandra.config=file://{yaml_file(home, node, first_boot=first_boot)}",
        f"-Dcassandra.storagedir={home.path('data', f'cassandra-{node}')}",
        f"-Dlogback.configurationFile={home.path('conf', 'cassandra-logback.xml')}",
        f"-Dcassandra-rackdc.properties=file://{home.path('conf', 'cassandra-rackdc.properties')}",
        "-Dcassandra-foreground=yes",
        "-Djava.security.manager=allow",
        "-Djdk.attach.allowAttachSelf=true",
        "-Dio.netty.tryReflectionSetAccessible=true",
        # Waits that protect a real cluster from its network; here they are only waits.
        "-Dcassandra.superuser_setup_delay_ms=0",
        "-Dcassandra.skip_wait_for_gossip_to_settle=0",
        "-Dcassandra.ring_delay_ms=500",
        f"-Dcassandra.system_auth.default_rf={config.nodes}",
        f"-Dcassandra.system_distributed.default_rf={config.nodes}",
        f"-Dcassandra.system_traces.default_rf={config.nodes}",
        "-XX:MaxDirectMemorySize=256m",
        f"-Xms{HEAP_MB}m",  # the serial collector stops for a full collection before it lets the old generation grow
        f"-Xmn{YOUNG_MB}m",
        *(f"--add-opens={package}=ALL-UNNAMED" for package in _OPENS),
        *(f"--add-exports={package}=ALL-UNNAMED" for package in _EXPORTS),
    ]
    return java_command(MAIN, class_path(cache, "cassandra"), HEAP_MB, tuple(options), works_hard=True)


async def is_ready(home: Home, ports: Ports, node: int) -> bool:
    """An OPTIONS request of the native protocol (v4) over mutual TLS is answered with SUPPORTED."""
    request = struct.pack(">BBhBi", 0x04, 0, 1, OPTIONS_OPCODE, 0)
    context = client_context(home, STACK_ADMIN)
    answer = await exchange(address(node), ports.cassandra, context, request, 9)
    return answer is not None and answer[4] == SUPPORTED_OPCODE
