"""What the schema registry may do in Kafka: its own topics and groups. Applied before it starts."""

from __future__ import annotations

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from ops.local.kafka import bootstrap
from ops.local.layout import STACK_ADMIN, Home, Ports, StackConfig
from ops.local.registry import GROUP_PREFIX, IDENTITY, TOPIC_PREFIXES

REQUEST_TIMEOUT_S = 30.0


def kafka_administrator(home: Home, config: StackConfig, ports: Ports) -> AdminClient:
    """Kafka as the stack's administrator."""
    settings = {
        "bootstrap.servers": bootstrap(config, ports),
        "security.protocol": "SSL",
        "ssl.ca.location": str(home.ca),
        "ssl.certificate.location": str(home.cert(STACK_ADMIN)),
        "ssl.key.location": str(home.key(STACK_ADMIN)),
        "client.id": STACK_ADMIN,
    }
    return AdminClient(settings)


def grant_registry(home: Home, config: StackConfig, ports: Ports) -> None:
    """Idempotent: Kafka keeps one copy of equal grants."""
    admin = kafka_administrator(home, config, ports)
    bindings = [_grant(ResourceType.TOPIC, prefix) for prefix in TOPIC_PREFIXES]
    bindings.append(_grant(ResourceType.GROUP, GROUP_PREFIX))
    for future in admin.create_acls(bindings, request_timeout=REQUEST_TIMEOUT_S).values():
        future.result()


def _grant(kind: ResourceType, prefix: str) -> AclBinding:
    return AclBinding(
        kind, prefix, ResourcePatternType.PREFIXED, f"User:{IDENTITY}", "*", AclOperation.ALL, AclPermissionType.ALLOW
    )
