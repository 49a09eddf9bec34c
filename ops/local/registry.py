"""The schema registry of the local stack: Apicurio, which keeps its schemas in Kafka, behind our guard.

Apicurio cannot ask for client certificates: its own port is for the guard only, and the guard is the public one.
"""

from __future__ import annotations

from pathlib import Path

from ops.local.jars import read_lock, server_directory, unpacked
from ops.local.java import java_command
from ops.local.kafka import bootstrap
from ops.local.layout import STACK_ADMIN, Home, Ports, StackConfig
from ops.local.probes import http_ok

HEAP_MB = 192
IDENTITY = "schema-registry"
TOPIC_PREFIXES = ("kafkasql-", "registry-events")
GROUP_PREFIX = "apicurio-"


def environment(home: Home, config: StackConfig, ports: Ports) -> dict[str, str]:
    """Apicurio is configured by environment variables; secrets stay in files."""
    kafka = "APICURIO_KAFKA_COMMON_"
    return {
        "APICURIO_STORAGE_KIND": "kafkasql",
        "APICURIO_KAFKASQL_BOOTSTRAP_SERVERS": bootstrap(config, ports),
        "APICURIO_KAFKASQL_CONSUMER_GROUP_PREFIX": GROUP_PREFIX,
        # With the classic protocol and the default wait it takes five minutes to be ready.
        "APICURIO_KAFKASQL_CONSUMER_GROUP_PROTOCOL": "consumer",
        "APICURIO_KAFKASQL_CONSUMER_POLL_TIMEOUT": "500",
        f"{kafka}BOOTSTRAP_SERVERS": bootstrap(config, ports),
        f"{kafka}SECURITY_PROTOCOL": "SSL",
        f"{kafka}SSL_KEYSTORE_TYPE": "PEM",
        f"{kafka}SSL_KEYSTORE_LOCATION": str(home.bundle(IDENTITY)),
        f"{kafka}SSL_TRUSTSTORE_TYPE": "PEM",
        f"{kafka}SSL_TRUSTSTORE_LOCATION": str(home.ca),
        "QUARKUS_HTTP_HOST": "127.0.0.1",
        "QUARKUS_HTTP_INSECURE_REQUESTS": "disabled",
        "QUARKUS_HTTP_SSL_PORT": str(ports.apicurio),
        "QUARKUS_HTTP_SSL_CERTIFICATE_FILES": str(home.cert(IDENTITY)),
        "QUARKUS_HTTP_SSL_CERTIFICATE_KEY_FILES": str(home.key(IDENTITY)),
        "QUARKUS_HTTP_IO_THREADS": "2",
        "QUARKUS_THREAD_POOL_MAX_THREADS": "8",
        "QUARKUS_LOG_LEVEL": "WARN",
        "QUARKUS_BANNER_ENABLED": "false",
    }


def start_command(cache: Path) -> list[str]:
    (artifact,) = read_lock().servers["schema-registry"].artifacts
    directory = unpacked(server_directory(cache, "schema-registry"), artifact)
    runner = directory / f"{artifact.name}-{artifact.version}-runner.jar"  # its manifest names the rest
    options = ("-Djava.util.logging.manager=org.jboss.logmanager.LogManager",)
    return java_command("io.quarkus.runner.GeneratedMain", [runner], HEAP_MB, options)


async def is_ready(home: Home, ports: Ports) -> bool:
    """`/health/ready`: the Confluent-compatible API answers long before the storage is there."""
    return await http_ok(home, ports.apicurio, "/health/ready", STACK_ADMIN)


async def guard_is_ready(home: Home, ports: Ports) -> bool:
    return await http_ok(home, ports.schema_registry, "/readyz", STACK_ADMIN)
