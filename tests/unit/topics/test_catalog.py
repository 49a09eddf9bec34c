"""The catalogue keeps its own rules: one writer per topic, co-partitioning, limits, and a page that says the same."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from topics import access, catalog, document
from topics.catalog import TOPICS, Topic, all_topics, dead_letter_topic, find

SERVICES = {*catalog.FAUST_APPS, *catalog.CLIENTS}
README = Path(document.__file__).with_name("README.md")


def every_topic() -> list[Any]:
    return [pytest.param(topic, id=topic.name) for topic in all_topics()]


def test_names_are_unique() -> None:
    names = [topic.name for topic in all_topics()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("topic", every_topic())
def test_a_topic_has_one_writer_and_readers_that_exist(topic: Topic) -> None:
    assert topic.writer in SERVICES
    assert set(topic.readers) <= SERVICES


@pytest.mark.parametrize("topic", every_topic())
def test_a_topic_takes_its_time_from_the_broker_and_limits_its_records(topic: Topic) -> None:
    config = topic.config()
    assert config["message.timestamp.type"] == "LogAppendTime"
    is_dead_letters = topic.name.endswith(".dlq")
    assert int(config["max.message.bytes"]) == (2 << 20 if is_dead_letters else 1 << 20)
    assert config["cleanup.policy"] == ("compact" if topic.name.endswith("-changelog") else "delete")


@pytest.mark.parametrize(
    ("key", "partitions"),
    [("payment_id", 6), ("merchant_id", 3), ("<merchant_id>:<currency>", 3)],
)
def test_topics_with_the_same_key_have_the_same_number_of_partitions(key: str, partitions: int) -> None:
    keyed = [topic for topic in TOPICS if topic.key.split(";")[0] == key]
    assert len(keyed) > 1 or key.startswith("<")
    assert {topic.partitions for topic in keyed} == {partitions}


@pytest.mark.parametrize("app", catalog.FAUST_APPS)
def test_no_changelog_has_more_partitions_than_the_topics_its_app_reads(app: str) -> None:
    read = max(topic.partitions for topic in TOPICS if app in topic.readers)
    assert all(log.partitions <= read for log in catalog.CHANGELOGS if log.app == app)


def test_every_reader_through_lanes_has_dead_letters_of_its_own() -> None:
    letters = [dead_letter_topic(t.name, reader) for t in TOPICS if t.has_dead_letters for reader in t.readers]
    assert len(letters) == len(set(letters))
    assert dead_letter_topic("payments.commands", "payment-worker") == "payments.commands.dlq"
    assert find("merchants.events.dlq").writer == "webhook-dispatcher"
    assert find(dead_letter_topic("merchants.events", "records-worker")).writer == "records-worker"
    with pytest.raises(ValueError, match="payment-api has no dead letters"):
        dead_letter_topic("payments.replies", "payment-api")


def test_an_unknown_topic_is_named() -> None:
    with pytest.raises(catalog.UnknownTopic, match=r"no topic payments\.evnets"):
        find("payments.evnets")


def test_nobody_but_its_writer_is_granted_to_write_a_topic() -> None:
    written = sorted((g.name, g.principal) for g in access.grants() if g.resource == "topic" and g.operation == "write")
    writers = {name: [principal for _, principal in pairs] for name, pairs in groupby(written, lambda pair: pair[0])}
    assert writers == {topic.name: [f"User:{topic.writer}"] for topic in all_topics()}


def test_only_the_auditor_has_grants_on_everything_and_none_of_them_writes() -> None:
    wide = [grant for grant in access.grants() if grant.name == access.EVERY]
    assert {grant.principal for grant in wide} == {"User:auditor"}
    assert all(
        grant.operation in {"read", "describe", "describe_configs"}
        for grant in access.grants()
        if grant.principal == "User:auditor"
    )


def test_services_may_use_only_groups_and_transactional_ids_of_their_own_name() -> None:
    for grant in access.grants():
        service = grant.principal.removeprefix("User:")
        if grant.resource == "transactional_id" and service != "auditor":
            assert (grant.name, grant.pattern) == (f"{service}-", "prefixed")
        if grant.resource == "group" and service != "auditor":
            assert (grant.name, grant.pattern) == (service, "literal")


def test_the_page_says_what_the_catalogue_says() -> None:
    expected = document.markdown()
    assert README.read_text(encoding="utf-8") == expected, "run: payments topics ls --markdown > topics/README.md"
