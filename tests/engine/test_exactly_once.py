"""The engine on a real broker: nothing lost, doubled or torn, whatever is killed. What has more time does more of it:
`payments chaos engine`."""

from __future__ import annotations

import json
import shutil
import signal
import time
import uuid
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from ops.chaos.engine.cluster import Cluster, own_cluster
from ops.chaos.engine.harness import Harness
from ops.chaos.engine.load import amounts, append
from ops.chaos.engine.mutants import mutant_named
from ops.chaos.engine.red_controls import run_mutant, stock_violations
from ops.chaos.engine.rounds import run_rounds
from ops.chaos.engine.topology import BEAST, GARBAGE, Topics
from streams.exactly_once.failpoints import IN_A_COMMIT

SETTLE_S = 60.0  # of silence; busy cores are slow
FAULTS = ["zombie-at-failpoint", "kill-at-failpoint", "abort", "churn", "kill-all", "terminate"]


@pytest.fixture
def harness(kafka_super_user: Cluster, tmp_path: Path) -> Iterator[Harness]:
    """An app of its own on the session's broker."""
    with Harness(kafka_super_user, Topics(f"t-engine-{uuid.uuid4().hex[:8]}"), tmp_path).prepared() as harness:
        yield harness


def test_a_round_of_faults_under_load_breaks_no_promise(kafka_super_user: Cluster, tmp_path: Path) -> None:
    report = run_rounds(kafka_super_user, [FAULTS], 7, tmp_path, rate=300, workers=2, partitions=6)
    assert report.violations == []


def test_kill_9_at_every_failpoint_loses_doubles_and_tears_nothing(harness: Harness) -> None:
    bad = [("k3", GARBAGE.decode()), ("k4", str(BEAST))]
    append(harness.cluster, harness.topics, chain(amounts(3_000, 7), bad))
    for number, failpoint in enumerate(IN_A_COMMIT):
        worker = harness.workers.start(failpoints=f"{failpoint}=kill:2")
        append(harness.cluster, harness.topics, amounts(300, number))
        assert harness.workers.wait(worker, 60) == -signal.SIGKILL, f"{failpoint} was never reached"
    harness.workers.start()
    verdict = harness.finish(SETTLE_S)
    assert verdict.violations == []
    assert verdict.aborted_outputs > 0, "no transaction was aborted: the kills came between commits"
    letters = sorted(json.loads(entry.value or b"")[3:] for entry in harness.checker.read(harness.topics.dlq))
    assert letters == [["Poison", "not an amount: b'garbage'"], ["ValueError", "the beast"]]


def test_a_damaged_state_directory_is_rebuilt_from_the_changelog(harness: Harness) -> None:
    append(harness.cluster, harness.topics, amounts(1_000, 9))
    worker = harness.workers.start()
    harness.settle(SETTLE_S)
    assert harness.workers.retire(worker) == 0
    for number, lane in enumerate(sorted((worker.state / "sums").iterdir())):
        if number % 2:
            shutil.rmtree(lane)
            continue
        for file in lane.glob("*.sst"):
            file.write_bytes(b"\0" * file.stat().st_size)
        (lane / "CURRENT").write_text("nonsense\n")
    append(harness.cluster, harness.topics, amounts(1_000, 10))
    harness.workers.start()
    assert harness.finish(SETTLE_S).violations == []


def test_a_group_offset_moved_without_its_state_is_refused_at_start(harness: Harness) -> None:
    append(harness.cluster, harness.topics, amounts(500, 11))
    worker = harness.workers.start()
    harness.settle(SETTLE_S)
    harness.workers.kill(worker)
    admin = AdminClient(harness.cluster.config())
    moved = ConsumerGroupTopicPartitions(harness.topics.id, [TopicPartition(harness.topics.inputs, 0, 1)])
    _wait_until_empty(admin, harness.topics.id)
    admin.alter_consumer_group_offsets([moved])[harness.topics.id].result()
    harness.workers.start()
    assert harness.workers.wait(worker, 60) == 1
    assert "StateMismatch" in harness.workers.log_of(0)
    assert "Move both together" in harness.workers.log_of(0)


def test_a_broker_that_went_away_in_good_order_is_found_again(tmp_path: Path) -> None:
    """As librdkafka does not: it waits for ever inside a commit for a group coordinator that it has forgotten."""
    with own_cluster() as cluster, Harness(cluster, Topics("t-restart"), tmp_path).prepared() as harness:
        append(cluster, harness.topics, amounts(500, 12))
        harness.workers.start()
        harness.settle(SETTLE_S)
        cluster.kill_broker(0, signal.SIGTERM)
        append(cluster, harness.topics, amounts(500, 13))
        verdict = harness.finish(SETTLE_S)
        assert verdict.violations == []
        ended = harness.workers.ended
    assert not ended or set(ended) == {"LaneLost"}, ended


def test_kill_9_of_a_broker_that_is_alone_tears_no_transaction(tmp_path: Path) -> None:
    """Kafka skips markers and forgets offsets if it leads by metadata of before: decision 0017."""
    with own_cluster() as cluster, Harness(cluster, Topics("t-alone"), tmp_path).prepared() as harness:
        harness.workers.start()
        harness.recovery_s(SETTLE_S)
        append(cluster, harness.topics, amounts(3_000, 14))
        cluster.kill_broker(0)
        append(cluster, harness.topics, amounts(1_000, 15))
        assert harness.finish(SETTLE_S).violations == []
        log = cluster.home.log("kafka").read_text() if cluster.home is not None else ""
    assert "the broker that was killed is fenced" in log
    assert "likely deleted already" not in log


def test_stock_faust_turns_red(kafka_super_user: Cluster, tmp_path: Path) -> None:
    assert stock_violations(kafka_super_user, tmp_path, seed=1), "a check that cannot go red is no check"


@pytest.mark.parametrize("name", ["apply before commit", "commit N+1"])
def test_a_seeded_bug_turns_red_on_the_cluster_too(kafka_super_user: Cluster, tmp_path: Path, name: str) -> None:
    assert run_mutant(kafka_super_user, tmp_path, mutant_named(name))


def _wait_until_empty(admin: AdminClient, group: str) -> None:
    """The broker refuses to move offsets while the killed member's session lasts (6 s)."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        described = admin.describe_consumer_groups([group])[group].result()
        if not described.members:
            return
        time.sleep(0.2)
    raise AssertionError("the group never became empty")
