"""Kafka of the local stack: combined broker and controller per node (KRaft), mutual TLS only, denied by default."""

from __future__ import annotations

import base64
import os
import ssl
import struct
from pathlib import Path

from ops.local.jars import class_path
from ops.local.java import java_command
from ops.local.layout import STACK_ADMIN, Home, Ports, StackConfig, write_atomically
from ops.local.probes import client_context, exchange

HEAP_MB = 512
PAUSE_MS = 25  # that the collector aims at (decision 0028)
INTERNAL_PARTITIONS = 3  # of __consumer_offsets and its like: a local stack has few groups
# Eligible leader replicas (KIP-966) take a broker that was killed for one that lost its data, so that nobody may lead
# but by an unclean election. Of no use to a broker that is alone.
ALONE = "eligible.leader.replicas.version=0"
MAIN = "kafka.Kafka"
STORAGE_TOOL = "kafka.tools.StorageTool"


def bootstrap(config: StackConfig, ports: Ports) -> str:
    return ",".join(f"127.0.0.1:{ports.kafka(node)}" for node in range(config.nodes))


def server_properties(home: Home, config: StackConfig, ports: Ports, node: int) -> str:
    """`server.properties` of one node."""
    replicas = config.nodes
    in_sync = 2 if replicas == 3 else 1
    voters = ",".join(f"{n + 1}@127.0.0.1:{ports.controller(n)}" for n in range(config.nodes))
    properties: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": node + 1,
        "controller.quorum.voters": voters,
        "listeners": f"SSL://127.0.0.1:{ports.kafka(node)},CONTROLLER://127.0.0.1:{ports.controller(node)}",
        "advertised.listeners": f"SSL://127.0.0.1:{ports.kafka(node)}",
        "listener.security.protocol.map": "SSL:SSL,CONTROLLER:SSL",
        "inter.broker.listener.name": "SSL",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": home.path("data", f"kafka-{node}"),
        **_security(home),
        # Kept small: a laptop runs this beside everything else.
        "num.network.threads": 1,
        "num.io.threads": 2,
        "group.coordinator.threads": 1,
        "share.coordinator.threads": 1,
        "num.replica.fetchers": 1,
        "num.recovery.threads.per.data.dir": 2,
        "background.threads": 2,
        "log.index.size.max.bytes": 1_048_576,
        "log.cleaner.dedupe.buffer.size": 8_388_608,
        "offsets.topic.num.partitions": INTERNAL_PARTITIONS,
        "transaction.state.log.num.partitions": INTERNAL_PARTITIONS,
        "share.coordinator.state.topic.num.partitions": INTERNAL_PARTITIONS,
        # Durable as in production, as far as the number of nodes allows.
        "default.replication.factor": replicas,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "share.coordinator.state.topic.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.min.isr": in_sync,
        "auto.create.topics.enable": "false",  # topics come from the catalogue only
        "log.message.timestamp.type": "LogAppendTime",  # deciders take their time from the broker
        # Of a transaction that begins while the markers of its id's last one are being written; 20 by default.
        "add.partitions.to.txn.retry.backoff.ms": 2,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
    }
    if config.nodes > 1:  # a dead leader is replaced in about 6 s instead of 9 s
        properties |= {"broker.session.timeout.ms": 3000, "broker.heartbeat.interval.ms": 500}
    return "".join(f"{key}={value}\n" for key, value in properties.items())


def _security(home: Home) -> dict[str, object]:
    return {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": home.bundle("kafka"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": home.ca,
        "ssl.client.auth": "required",
        "ssl.enabled.protocols": "TLSv1.3,TLSv1.2",
        "ssl.principal.mapping.rules": "RULE:^CN=([a-z0-9-]+)$/$1/,DEFAULT",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "false",
        "super.users": f"User:kafka;User:{STACK_ADMIN}",
    }


LOG4J = """\
status = warn
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
logger.config.name = org.apache.kafka.common.config.AbstractConfig
logger.config.level = warn
logger.coordinator.name = org.apache.kafka.coordinator
logger.coordinator.level = warn
"""
TELLS_COMMITS = """\
logger.loader.name = org.apache.kafka.image.loader.MetadataLoader
logger.loader.level = debug
"""


def properties_file(home: Home, node: int) -> Path:
    return home.path("conf", f"kafka-{node}.properties")


def controller_file(home: Home, node: int) -> Path:
    """The configuration that starts a node's controller without its broker."""
    return home.path("conf", f"kafka-controller-{node}.properties")


def controller_properties(home: Home, config: StackConfig, ports: Ports, node: int) -> str:
    """Of a controller that takes its own broker for gone after a second without a heartbeat."""
    changed = {
        "process.roles": "controller",
        "listeners": f"CONTROLLER://127.0.0.1:{ports.controller(node)}",
        "broker.session.timeout.ms": 1000,
        "broker.heartbeat.interval.ms": 500,
    }
    unfit = ("advertised.listeners", "inter.broker.listener.name", *changed)
    kept = [line for line in server_properties(home, config, ports, node).splitlines() if not line.startswith(unfit)]
    return "".join(f"{line}\n" for line in (*kept, *(f"{key}={value}" for key, value in changed.items())))


def write_configuration(home: Home, config: StackConfig, ports: Ports) -> None:
    write_atomically(home.path("conf", "kafka-log4j2.properties"), LOG4J.encode())
    write_atomically(home.path("conf", "kafka-controller-log4j2.properties"), (LOG4J + TELLS_COMMITS).encode())
    for node in range(config.nodes):
        write_atomically(properties_file(home, node), server_properties(home, config, ports, node).encode())
        write_atomically(controller_file(home, node), controller_properties(home, config, ports, node).encode())
    cluster = home.path("conf", "kafka-cluster-id")
    if not cluster.exists():
        write_atomically(cluster, base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"="))


def is_formatted(home: Home, node: int) -> bool:
    return home.path("data", f"kafka-{node}", "meta.properties").exists()


def format_command(home: Home, cache: Path, node: int, nodes: int) -> list[str]:
    """One-shot: gives an empty data directory its cluster id; leaves a formatted one alone."""
    cluster_id = home.path("conf", "kafka-cluster-id").read_text()
    arguments = (
        "format",
        "--ignore-formatted",
        f"--cluster-id={cluster_id}",  # with "=": an id may begin with "-" (one in 64), as options do
        "--config",
        str(properties_file(home, node)),
        *(("--feature", ALONE) if nodes == 1 else ()),
    )
    return java_command(STORAGE_TOOL, class_path(cache, "kafka"), 64, _log_options(home), arguments)


def was_killed(home: Home, node: int) -> bool:
    """Whether the broker ran before and did not end in good order: it leaves a file when it does."""
    data = home.path("data", f"kafka-{node}")
    return (data / "__cluster_metadata-0").exists() and not (data / ".kafka_cleanshutdown").exists()


def listeners(nodes: int, ports: Ports) -> list[tuple[str, str, int]]:
    """(name, address, port) of each socket of so many brokers."""
    return [
        ("kafka", "127.0.0.1", port) for node in range(nodes) for port in (ports.kafka(node), ports.controller(node))
    ]


def start_command(home: Home, cache: Path, node: int) -> list[str]:
    arguments = (str(properties_file(home, node)),)
    collector = ("-XX:-UseSerialGC", "-XX:+UseG1GC", f"-XX:MaxGCPauseMillis={PAUSE_MS}")
    options = (f"-Xms{HEAP_MB}m", *collector, *_log_options(home))
    return java_command(MAIN, class_path(cache, "kafka"), HEAP_MB, options, arguments, works_hard=True)


def controller_command(home: Home, cache: Path, node: int) -> list[str]:
    """A node's controller without its broker; it tells what it has committed."""
    arguments = (str(controller_file(home, node)),)
    return java_command(MAIN, class_path(cache, "kafka"), 128, _log_options(home, "controller-"), arguments)


def _log_options(home: Home, whose: str = "") -> tuple[str, ...]:
    return (f"-Dlog4j2.configurationFile={home.path('conf', f'kafka-{whose}log4j2.properties')}",)


async def is_ready(home: Home, port: int) -> bool:
    """An ApiVersions request over mutual TLS is answered without an error."""
    client = b"payments"
    body = struct.pack(f">hhih{len(client)}s", 18, 0, 1, len(client), client)  # ApiVersions v0, correlation id 1
    context: ssl.SSLContext = client_context(home, STACK_ADMIN)
    answer = await exchange("127.0.0.1", port, context, struct.pack(">i", len(body)) + body, 10)
    return answer is not None and struct.unpack(">ih", answer[4:10]) == (1, 0)
