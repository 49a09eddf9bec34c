"""Makes a cluster's topics and grants equal to the catalogue, and says first what differs.

Idempotent: a second run finds nothing to do. What could lose or misplace records is refused, never done.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from topics import access, catalog
from topics.access import Grant
from topics.catalog import Topic

TIMEOUT_S = 15.0
IN_SYNC_OF_THREE = 2
REGISTRY_PRINCIPAL = "User:schema-registry"  # the stack grants it its own topics before the catalogue is applied

_RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional_id": ResourceType.TRANSACTIONAL_ID,
    "cluster": ResourceType.BROKER,  # librdkafka's name of the cluster resource
}
_PATTERNS = {"literal": ResourcePatternType.LITERAL, "prefixed": ResourcePatternType.PREFIXED}
_OPERATIONS = {
    "read": AclOperation.READ,
    "write": AclOperation.WRITE,
    "describe": AclOperation.DESCRIBE,
    "describe_configs": AclOperation.DESCRIBE_CONFIGS,
    "idempotent_write": AclOperation.IDEMPOTENT_WRITE,
}


class ApplyRefused(Exception):  # noqa: N818 - an answer, not a fault
    """The cluster differs in a way that applying could only repair by losing or misplacing records."""


class TopicState(NamedTuple):
    """A topic as the cluster has it; `config` holds the settings that the catalogue speaks of."""

    partitions: int
    replication_factor: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """What the cluster has otherwise than the catalogue, in words, and what to do about it."""

    text: str
    create: Topic | None = None
    configure: tuple[str, Mapping[str, str]] | None = None
    grant: AclBinding | None = None
    revoke: AclBinding | None = None
    is_refused: bool = False


def connect(bootstrap: str, security: Mapping[str, str]) -> AdminClient:
    """An administrator; `security` as ops.runtime.tls.kafka_security makes it."""
    return AdminClient({"bootstrap.servers": bootstrap, "client.id": "topics", **security})


def apply_topics(
    admin: AdminClient, *, replication_factor: int, topics: tuple[Topic, ...] | None = None
) -> tuple[Difference, ...]:
    """Repairs what `diff` finds, waits until the brokers act on it, and returns what it was.

    Raises ApplyRefused before anything is changed, TimeoutError, KafkaException.
    """
    found = diff(admin, replication_factor=replication_factor, topics=topics)
    if refused := [d.text for d in found if d.is_refused]:
        raise ApplyRefused("; ".join(refused))
    waiting: list[Future[Any]] = []
    if created := [_new_topic(d.create, replication_factor) for d in found if d.create]:
        waiting += admin.create_topics(created, request_timeout=TIMEOUT_S).values()
    if configured := [_alteration(*d.configure) for d in found if d.configure]:
        waiting += admin.incremental_alter_configs(configured, request_timeout=TIMEOUT_S).values()
    if granted := [d.grant for d in found if d.grant]:
        waiting += admin.create_acls(granted, request_timeout=TIMEOUT_S).values()
    if revoked := [_filter(d.revoke) for d in found if d.revoke]:
        waiting += admin.delete_acls(revoked, request_timeout=TIMEOUT_S).values()
    for future in waiting:
        _finish(future)
    deadline = time.monotonic() + TIMEOUT_S
    while found and (left := _texts(found) & _texts(diff(admin, replication_factor=replication_factor, topics=topics))):
        # Brokers learn of changes from the controller, a moment after it has accepted them.
        if time.monotonic() > deadline:
            raise TimeoutError(f"not in force after {TIMEOUT_S:.0f} s: {min(left)}")
        time.sleep(0.05)
    return found


def diff(
    admin: AdminClient, *, replication_factor: int, topics: tuple[Topic, ...] | None = None
) -> tuple[Difference, ...]:
    """Everything that `apply_topics` would change or refuse. Raises KafkaException when the cluster does not answer."""
    wanted = catalog.all_topics() if topics is None else topics
    acls = admin.describe_acls(_ANY, request_timeout=TIMEOUT_S)
    states = read_topics(admin, wanted)
    settings = _compare_topics(wanted, states, replication_factor)
    return (*settings, *_compare_grants({_binding(grant) for grant in access.grants()}, acls.result()))


def read_topics(admin: AdminClient, wanted: Iterable[Topic]) -> dict[str, TopicState]:
    """Those of the wanted topics that exist."""
    known = admin.list_topics(timeout=TIMEOUT_S).topics
    present = [topic for topic in wanted if topic.name in known]
    if not present:
        return {}
    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic.name) for topic in present]
    configs = {
        resource.name: {entry.name: entry.value for entry in future.result().values()}
        for resource, future in admin.describe_configs(resources, request_timeout=TIMEOUT_S).items()
    }
    return {
        topic.name: TopicState(
            len(known[topic.name].partitions),
            len(next(iter(known[topic.name].partitions.values())).replicas),
            {name: configs[topic.name][name] for name in settings_of(topic, 1)},
        )
        for topic in present
    }


def settings_of(topic: Topic, replication_factor: int) -> dict[str, str]:
    """The topic's settings on a cluster of this size."""
    in_sync = IN_SYNC_OF_THREE if replication_factor >= 3 else 1
    return {**topic.config(), "min.insync.replicas": str(in_sync)}


def _compare_topics(
    wanted: Iterable[Topic], states: Mapping[str, TopicState], replication_factor: int
) -> Iterable[Difference]:
    for topic in wanted:
        state = states.get(topic.name)
        if state is None:
            yield Difference(f"topic {topic.name} is not there ({topic.partitions} partitions)", create=topic)
            continue
        if state.partitions != topic.partitions:
            yield Difference(
                f"topic {topic.name} has {state.partitions} partitions where the catalogue says {topic.partitions}: "
                "changing it would move keys away from their history, so it is not done; use a new topic",
                is_refused=True,
            )
        if state.replication_factor != replication_factor:
            yield Difference(
                f"topic {topic.name} has replication factor {state.replication_factor} instead of "
                f"{replication_factor}: reassign its partitions with Kafka's own tool",
                is_refused=True,
            )
        settings = settings_of(topic, replication_factor)
        changed = {name: value for name, value in settings.items() if state.config[name] != value}
        if changed:
            words = ", ".join(f"{name} is {state.config[name]}, not {value}" for name, value in changed.items())
            yield Difference(f"topic {topic.name}: {words}", configure=(topic.name, changed))


def _compare_grants(wanted: set[AclBinding], present: Iterable[AclBinding]) -> Iterable[Difference]:
    """Grants that the catalogue does not know are holes: they are revoked."""
    there = {binding for binding in present if binding.principal != REGISTRY_PRINCIPAL}
    for binding in sorted(wanted - there, key=_words):
        yield Difference(f"missing: {_words(binding)}", grant=binding)
    for binding in sorted(there - wanted, key=_words):
        yield Difference(f"not in the catalogue: {_words(binding)}", revoke=binding)


def _words(binding: AclBinding) -> str:
    verb = "may" if binding.permission_type == AclPermissionType.ALLOW else "may not"
    ending = "..." if binding.resource_pattern_type == ResourcePatternType.PREFIXED else ""
    resource, operation = binding.restype.name.lower(), binding.operation.name.lower()
    return f"{binding.principal} {verb} {operation} {resource} {binding.name}{ending}"


def _binding(grant: Grant) -> AclBinding:
    return AclBinding(
        _RESOURCES[grant.resource],
        grant.name,
        _PATTERNS[grant.pattern],
        grant.principal,
        "*",
        _OPERATIONS[grant.operation],
        AclPermissionType.ALLOW,
    )


def _filter(binding: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        binding.restype,
        binding.name,
        binding.resource_pattern_type,
        binding.principal,
        binding.host,
        binding.operation,
        binding.permission_type,
    )


_ANY = AclBindingFilter(
    ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
)


def _new_topic(topic: Topic, replication_factor: int) -> NewTopic:
    return NewTopic(topic.name, topic.partitions, replication_factor, config=settings_of(topic, replication_factor))


def _alteration(name: str, settings: Mapping[str, str]) -> ConfigResource:
    entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in settings.items()]
    return ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=entries)


def _texts(differences: Iterable[Difference]) -> set[str]:
    return {difference.text for difference in differences}


def _finish(future: Future[Any]) -> None:
    try:
        future.result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # somebody applied at the same time: as good
            raise
