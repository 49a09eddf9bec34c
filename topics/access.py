"""Who may do what in Kafka, cell by cell, derived from the catalogue: denied is everything that is not listed here.

Read and Write imply Describe in Kafka, so a service sees exactly the topics and groups that it uses.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from topics import catalog

Resource = Literal["topic", "group", "transactional_id", "cluster"]
Pattern = Literal["literal", "prefixed"]
Operation = Literal["read", "write", "describe", "describe_configs", "idempotent_write"]

CLUSTER = "kafka-cluster"  # the one name that Kafka knows for the resource
EVERY = "*"


class Grant(NamedTuple):
    """One thing that one principal may do, from any host."""

    principal: str  # "User:" and the common name of its certificate
    resource: Resource
    name: str
    pattern: Pattern
    operation: Operation


def grants() -> frozenset[Grant]:
    """Every grant of the platform."""
    found: set[Grant] = set()
    for topic in catalog.all_topics():
        found.add(_grant(topic.writer, "topic", topic.name, "write"))
        found.update(_grant(reader, "topic", topic.name, "read") for reader in topic.readers)
    for service in (*catalog.FAUST_APPS, *catalog.CLIENTS):
        found.add(_grant(service, "cluster", CLUSTER, "idempotent_write"))
    for app in (*catalog.FAUST_APPS, "payment-api"):
        found.add(_grant(app, "group", app, "read"))
    for app in catalog.FAUST_APPS:
        for operation in ("write", "describe"):
            found.add(_grant(app, "transactional_id", f"{app}-", operation, "prefixed"))
    return frozenset(found | _auditor())


def principals() -> frozenset[str]:
    """Every principal that the catalogue speaks of; grants of others are not ours to judge."""
    return frozenset(grant.principal for grant in grants())


def _auditor() -> set[Grant]:
    """Reads every topic, setting and offset, writes nothing; its own groups begin with its name."""
    name = catalog.READS_EVERYTHING
    return {
        _grant(name, "topic", EVERY, "read"),
        _grant(name, "topic", EVERY, "describe_configs"),
        _grant(name, "group", EVERY, "describe"),
        _grant(name, "group", name, "read", "prefixed"),
        _grant(name, "transactional_id", EVERY, "describe"),
        _grant(name, "cluster", CLUSTER, "describe"),
        _grant(name, "cluster", CLUSTER, "describe_configs"),
    }


def _grant(service: str, resource: Resource, name: str, operation: Operation, pattern: Pattern = "literal") -> Grant:
    return Grant(f"User:{service}", resource, name, pattern, operation)
