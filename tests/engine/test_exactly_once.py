"""The engine on a real broker: nothing lost, doubled or torn, whatever is killed."""

from __future__ import annotations

import random
import shutil
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.engine.harness import DLQ, OUT, Cluster, Harness


@pytest.fixture
def harness(kafka_super_user: Cluster, tmp_path: Path) -> Iterator[Harness]:
    """An app of its own on the session's broker."""
    harness = Harness(kafka_super_user, f"t-engine-{uuid.uuid4().hex[:8]}", tmp_path)
    harness.create_topics()
    yield harness
    harness.stop()
    harness.delete_topics()


def amounts(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """`count` inputs over 200 keys."""
    source = random.Random(seed)
    for _ in range(count):
        yield f"k{source.randrange(200)}", str(source.randrange(100))


@pytest.mark.parametrize("seed", [7])
def test_kill_9_at_every_failpoint_loses_doubles_and_tears_nothing(harness: Harness, seed: int) -> None:
    count = harness.produce(amounts(6_000, seed))
    for failpoint in (
        "before_begin=kill:3",
        "after_produce=kill:3",
        "after_offsets=kill:2",
        "before_end=kill:2",
        "after_end=kill:2",
        "before_apply=kill:2",
        "after_apply=kill:2",
    ):
        worker = harness.start(failpoints=failpoint)
        count += harness.produce(amounts(500, seed + len(failpoint)))
        assert worker.wait(60) == -signal.SIGKILL, f"{failpoint} was never reached: the fault did not bite"
    last = harness.start()
    harness.wait_for_echoes(count, 30)
    last.send_signal(signal.SIGTERM)
    assert last.wait(20) == 0
    assert harness.violations() == []
    raw, committed = (
        len(harness.read(f"{harness.app}.{OUT}", level)) for level in ("read_uncommitted", "read_committed")
    )
    assert raw > committed, "no transaction was aborted: the kills came between commits"


def test_a_zombie_is_fenced_and_its_successor_takes_over(harness: Harness) -> None:
    zombie, healthy = harness.start(0), harness.start(1)
    count = harness.produce(amounts(2_000, 1))
    harness.wait_for_echoes(count, 30)
    zombie.send_signal(signal.SIGSTOP)
    count += harness.produce(amounts(4_000, 2))
    harness.wait_for_echoes(count, 30)  # only possible once the other worker owns every partition
    zombie.send_signal(signal.SIGCONT)
    count += harness.produce(amounts(2_000, 3))
    harness.wait_for_echoes(count, 30)
    for worker in (zombie, healthy):
        worker.send_signal(signal.SIGTERM)
        worker.wait(20)
    assert harness.violations() == []


def test_workers_that_come_and_go_lose_nothing(harness: Harness) -> None:
    first = harness.start(0)
    count = harness.produce(amounts(3_000, 4))
    harness.wait_for_echoes(count, 30)
    second = harness.start(1)
    count += harness.produce(amounts(3_000, 5))
    harness.wait_for_echoes(count, 30)
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 0, harness.log_of(0)[-2_000:]
    count += harness.produce(amounts(3_000, 6))
    harness.wait_for_echoes(count, 30)
    second.send_signal(signal.SIGTERM)
    assert second.wait(20) == 0, harness.log_of(1)[-2_000:]
    assert harness.violations() == []


def test_poison_and_failing_records_go_to_the_dlq_and_the_others_go_on(harness: Harness) -> None:
    good = list(amounts(1_000, 8))
    bad = [("k1", "garbage"), ("k2", "666")]
    count = harness.produce(iter(good[:500] + bad + good[500:]))
    worker = harness.start()
    harness.wait_for_echoes(count - len(bad), 30)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    letters = sorted(message.value() for message in harness.read(f"{harness.app}.{DLQ}"))
    assert len(letters) == 2
    assert b"Poison" in letters[0] + letters[1]
    assert b"the beast" in letters[0] + letters[1]
    assert harness.violations() == []


@pytest.mark.parametrize("damage", ["deleted", "corrupted"])
def test_a_damaged_state_directory_is_rebuilt_from_the_changelog(harness: Harness, damage: str) -> None:
    count = harness.produce(amounts(2_000, 9))
    worker = harness.start()
    harness.wait_for_echoes(count, 30)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    for lane in (harness.state / "0" / "sums").iterdir():
        if damage == "deleted":
            shutil.rmtree(lane)
        else:
            for file in lane.glob("*.sst"):
                file.write_bytes(b"\0" * file.stat().st_size)
            (lane / "CURRENT").write_text("nonsense\n")
    count += harness.produce(amounts(2_000, 10))
    worker = harness.start()
    harness.wait_for_echoes(count, 30)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert harness.violations() == []


def test_a_group_offset_moved_without_its_state_is_refused_at_start(harness: Harness) -> None:
    count = harness.produce(amounts(500, 11))
    worker = harness.start()
    harness.wait_for_echoes(count, 30)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    admin = AdminClient(harness.cluster.config())
    moved = ConsumerGroupTopicPartitions(harness.app, [TopicPartition(f"{harness.app}.in", 0, 1)])
    _wait_until_empty(admin, harness.app)
    admin.alter_consumer_group_offsets([moved])[harness.app].result()
    worker = harness.start()
    assert worker.wait(30) == 1
    assert "StateMismatch" in harness.log_of(0)
    assert "Move both together" in harness.log_of(0)


def _wait_until_empty(admin: AdminClient, group: str) -> None:
    """The broker refuses to move offsets while the killed member's session lasts (6 s)."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        described = admin.describe_consumer_groups([group])[group].result()
        if not described.members:
            return
        time.sleep(0.2)
    raise AssertionError("the group never became empty")
