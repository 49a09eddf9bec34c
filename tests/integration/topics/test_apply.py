"""Applying the catalogue: afterwards nothing differs, drift is repaired, and what could lose records is refused."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from typer.testing import CliRunner

from ops.cli.topics import app
from tests.integration.topics.conftest import NewTopic
from tests.local_servers import Servers
from topics.apply import ApplyRefused, apply_topics, diff, read_topics


def test_a_running_stack_differs_in_nothing(servers: Servers) -> None:
    result = CliRunner().invoke(app, ["diff", "--home", str(servers.home.root)])
    assert (result.exit_code, result.output) == (0, "")


def test_a_second_apply_finds_nothing_to_do(admin: AdminClient, own_topic: NewTopic) -> None:
    topics = (own_topic(),)
    first = apply_topics(admin, replication_factor=1, topics=topics)
    assert [difference.text for difference in first] == [f"topic {topics[0].name} is not there (3 partitions)"]
    assert apply_topics(admin, replication_factor=1, topics=topics) == ()


def test_a_setting_that_has_drifted_is_repaired(admin: AdminClient, own_topic: NewTopic) -> None:
    apply_topics(admin, replication_factor=1, topics=(own_topic(retention_ms=60_000),))
    wanted = own_topic(retention_ms=120_000)
    (difference,) = apply_topics(admin, replication_factor=1, topics=(wanted,))
    assert difference.text == f"topic {wanted.name}: retention.ms is 60000, not 120000"
    assert read_topics(admin, [wanted])[wanted.name].config["retention.ms"] == "120000"


@pytest.mark.parametrize("partitions", [2, 6])
def test_another_number_of_partitions_is_refused_and_nothing_is_changed(
    admin: AdminClient, own_topic: NewTopic, partitions: int
) -> None:
    present = own_topic(partitions=3)
    apply_topics(admin, replication_factor=1, topics=(present,))
    wanted = own_topic(partitions=partitions, retention_ms=120_000)
    with pytest.raises(ApplyRefused, match=f"has 3 partitions where the catalogue says {partitions}"):
        apply_topics(admin, replication_factor=1, topics=(wanted,))
    state = read_topics(admin, [present])[present.name]
    assert (state.partitions, state.config["retention.ms"]) == (3, "60000")


def test_another_replication_factor_is_refused(admin: AdminClient, own_topic: NewTopic) -> None:
    topics = (own_topic(),)
    apply_topics(admin, replication_factor=1, topics=topics)
    with pytest.raises(ApplyRefused, match="replication factor 1 instead of 3"):
        apply_topics(admin, replication_factor=3, topics=topics)


def test_a_grant_that_the_catalogue_does_not_know_is_revoked(admin: AdminClient, own_topic: NewTopic) -> None:
    topic = own_topic()
    apply_topics(admin, replication_factor=1, topics=(topic,))
    hole = AclBinding(
        ResourceType.TOPIC,
        topic.name,
        ResourcePatternType.LITERAL,
        "User:mallory",
        "*",
        AclOperation.WRITE,
        AclPermissionType.ALLOW,
    )
    admin.create_acls([hole])[hole].result()
    repaired: list[str] = []
    while not repaired:  # the broker shows a new grant a moment after it was made; the test's time-out bounds this
        repaired = [d.text for d in apply_topics(admin, replication_factor=1, topics=(topic,))]
    assert repaired == [f"not in the catalogue: User:mallory may write topic {topic.name}"]
    assert diff(admin, replication_factor=1, topics=(topic,)) == ()
