"""What users of Faust have reported of `exactly_once`, tables and recovery, played to the engine on a real broker.

Numbers with an `r` are those of robinhood/faust, with an `s` of faust-streaming/faust. `test_held_requests` has r736
(connections that break), `tests/unit/exactly_once/test_layers.py` s497 (rows written for a batch), `test_exactly_once`
more of r340. What s461 was could not be found out.
"""

from __future__ import annotations

import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, OffsetSpec

from ops.chaos.engine.checker import rows_of
from ops.chaos.engine.cluster import Cluster
from ops.chaos.engine.harness import Harness
from ops.chaos.engine.load import Inputs, amounts, append
from ops.chaos.engine.takeover import take_over
from ops.chaos.engine.topology import Topics
from ops.chaos.engine.workers import Worker

SETTLE_S = 60.0
KEYS = 200
SLOW = 200  # records of one slow key: ten seconds of work, and looking at what is done takes one
Start = Callable[..., Harness]


@pytest.fixture
def start(kafka_super_user: Cluster, tmp_path: Path) -> Iterator[Start]:
    """Apps of their own on the session's broker."""
    with ExitStack() as stack:

        def prepared(partitions: int = 4, **options: str) -> Harness:
            topics = Topics(f"t-users-{uuid.uuid4().hex[:8]}", partitions)
            root = tmp_path / topics.id
            root.mkdir()
            return stack.enter_context(Harness(kafka_super_user, topics, root, **options).prepared())

        yield prepared


def every_key(amount: int) -> Inputs:
    """One input of each key, of an amount that sets no timer."""
    return ((f"k{number}", str(amount)) for number in range(KEYS))


def test_one_key_counted_at_full_speed_loses_nothing_to_kill_9(start: Start) -> None:
    """r340, s517: counts were lost, or doubled; s333: lost under intense writes of one key; r599: no offsets kept."""
    harness = start()
    append(harness.cluster, harness.topics, (("one", "2") for _ in range(4_000)))
    for passes in (3, 10):
        worker = harness.workers.start(failpoints=f"before_end=kill:{passes}")
        assert harness.workers.wait(worker, SETTLE_S) == -signal.SIGKILL
    harness.workers.start()
    assert harness.finish(SETTLE_S).violations == []


def test_two_apps_on_one_cluster_leave_each_other_alone(start: Start) -> None:
    """r367: transactional ids without the app's name; two apps fenced each other."""
    apps = [start(), start()]
    for harness in apps:
        harness.workers.start()
        append(harness.cluster, harness.topics, amounts(300, 1))
    for harness in apps:
        assert harness.finish(SETTLE_S).violations == []
        assert not harness.workers.ended


def test_an_app_without_tables_and_standbys_starts_and_sends(start: Start) -> None:
    """s440: KeyError at the start, because Faust's assignor was not used; r339: every send raised TypeError."""
    harness = start(module="tests.engine.app_without_tables")
    harness.workers.start()
    harness.recovery_s(SETTLE_S)
    append(harness.cluster, harness.topics, amounts(300, 2))
    harness.recovery_s(SETTLE_S)
    inputs = {(entry.partition, entry.offset): entry for entry in harness.checker.read(harness.topics.inputs)}
    assert sorted(entry.value or b"" for entry in harness.checker.read(harness.topics.echo)) == sorted(
        b"%d/%d:%s" % (*place, entry.value or b"") for place, entry in inputs.items()
    )
    assert not harness.workers.ended


def test_what_an_aborted_transaction_has_sent_stays_invisible(start: Start) -> None:
    """s177: messages outside any transaction."""
    harness = start()
    harness.workers.start(failpoints="after_offsets=abort:2")
    append(harness.cluster, harness.topics, amounts(500, 3))
    verdict = harness.finish(SETTLE_S)
    assert verdict.violations == []
    assert verdict.aborted_outputs > 0, "the transaction that was aborted had sent nothing"


def test_a_slow_record_is_not_skipped_by_the_commits_of_those_behind_it(start: Start) -> None:
    """s312, s606: offsets past a gap in the acks were committed; r604: what was not acked was skipped by a restart."""
    harness = start(partitions=1)
    worker = harness.workers.start()
    harness.recovery_s(SETTLE_S)
    append(harness.cluster, harness.topics, (pair for _ in range(SLOW) for pair in (("slow2", "2"), ("k5", "3"))))
    seen = 0
    while seen < 20:  # fast ones are answered, most of the slow ones are not
        seen = sum(entry.key == b"k5" for entry in harness.checker.read(harness.topics.echo))
    harness.workers.kill(worker)
    answered = sum(entry.key == b"slow2" for entry in harness.checker.read(harness.topics.echo))
    assert answered < SLOW, "nothing was under way when the worker was killed"
    harness.workers.start()
    assert harness.finish(SETTLE_S).violations == []


def test_workers_that_join_and_leave_a_table_of_ten_partitions_end_nobody(start: Start) -> None:
    """r658, s323, s136: crashes in a rebalance; s323, s502: records processed twice after one."""
    harness = start(partitions=10)
    harness.workers.start(0, static=False)
    append(harness.cluster, harness.topics, amounts(500, 4))
    harness.recovery_s(SETTLE_S)
    append(harness.cluster, harness.topics, amounts(500, 5))
    harness.workers.start(1, static=False)
    harness.recovery_s(SETTLE_S)
    assert harness.workers.retire(harness.workers.all[0]) == 0
    append(harness.cluster, harness.topics, amounts(500, 6))
    assert harness.finish(SETTLE_S).violations == []
    assert not harness.workers.ended


def test_recovery_ends_after_a_transaction_that_was_aborted_at_the_changelogs_end(start: Start) -> None:
    """s47: recovery waited for ever for records that nobody will ever see."""
    harness = start()
    append(harness.cluster, harness.topics, amounts(500, 8))
    worker = harness.workers.start(failpoints="before_end=kill:3")
    assert harness.workers.wait(worker, SETTLE_S) == -signal.SIGKILL
    shutil.rmtree(worker.state)
    worker.state.mkdir()
    harness.workers.start()
    assert harness.finish(SETTLE_S).violations == []


def test_old_state_is_rebuilt_when_its_changelog_has_moved_on(start: Start) -> None:
    """s155, s176, s651: the next changelog record was gone, and recovery stood still, or went on from the end."""
    harness = start()
    worker = _settled(harness, every_key(2))
    shutil.copytree(worker.state, harness.root / "old")
    _settled(harness, every_key(3))
    until = _ends(harness)
    _settled(harness, every_key(4))
    _delete_changelog_before(harness, until)
    shutil.rmtree(worker.state)
    shutil.move(harness.root / "old", worker.state)
    append(harness.cluster, harness.topics, amounts(100, 9))
    harness.workers.start()
    assert harness.finish(SETTLE_S).violations == []
    assert "rebuilding" in harness.workers.log_of(0)


def test_an_emptied_changelog_is_no_reason_to_wait(start: Start) -> None:
    """s597: retention had left a changelog's partition empty, and recovery waited for its last record."""
    harness = start()
    _settled(harness, every_key(2))
    _delete_changelog_before(harness, _ends(harness))
    _settled(harness, every_key(3))
    harness.workers.start()
    assert harness.finish(SETTLE_S).violations == []


def test_state_ahead_of_a_changelog_made_anew_is_refused_in_plain_words(start: Start) -> None:
    """s158: the persisted offset was higher than the changelog's end, and recovery failed, again and again."""
    harness = start()
    _settled(harness, every_key(2))
    admin = AdminClient(harness.cluster.config())
    for future in admin.delete_topics(list(harness.topics.changelogs), operation_timeout=SETTLE_S).values():
        future.result()
    anew = [NewTopic(name, count, 1) for name, count in harness.topics.changelogs.items()]
    for future in admin.create_topics(anew, operation_timeout=SETTLE_S).values():
        future.result()
    worker = harness.workers.start()
    assert harness.workers.wait(worker, SETTLE_S) == 1
    assert "StateMismatch" in harness.workers.log_of(0)
    assert "Move both together" in harness.workers.log_of(0)
    kept = [rows_of(path) for path in worker.state.glob("sums/*")]  # set aside, or not yet looked at
    assert sum(len(rows.balances) for rows in kept) == KEYS, "the only copy was thrown away"


def test_a_standby_holds_what_the_owner_had_and_takes_over_with_little_to_restore(start: Start) -> None:
    """s212: changelog events that came after the start were missing from copies."""
    harness = start()
    for number in (0, 1):
        harness.workers.start(number)
    harness.recovery_s(SETTLE_S)
    append(harness.cluster, harness.topics, ((f"k{number}", "2") for number in range(5_000)))
    harness.settle(SETTLE_S)
    takeover = take_over(harness, harness.workers.all[0], harness.workers.all[1])
    assert takeover.rows > 5_000
    assert takeover.restored < 100, "the copies held little of what the owner had"
    assert harness.finish(SETTLE_S).violations == []


def _settled(harness: Harness, inputs: Inputs) -> Worker:
    """The worker after it has answered these inputs and ended in good order."""
    worker = harness.workers.start()
    append(harness.cluster, harness.topics, inputs)
    harness.settle(SETTLE_S)
    assert harness.workers.retire(worker) == 0
    return worker


def _ends(harness: Harness) -> dict[tuple[str, int], int]:
    """The end of every changelog partition."""
    parts = [TopicPartition(name, n) for name, count in harness.topics.changelogs.items() for n in range(count)]
    admin = AdminClient(harness.cluster.config())
    found = admin.list_offsets({part: OffsetSpec.latest() for part in parts})
    return {(part.topic, part.partition): future.result().offset for part, future in found.items()}


def _delete_changelog_before(harness: Harness, offsets: dict[tuple[str, int], int]) -> None:
    """As retention does; a compacted topic allows it only once it may also delete."""
    admin = AdminClient(harness.cluster.config())
    policy = ConfigEntry("cleanup.policy", "compact,delete", incremental_operation=AlterConfigOpType.SET)
    resources = [
        ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[policy])
        for name in harness.topics.changelogs
    ]
    for future in admin.incremental_alter_configs(resources).values():
        future.result()
    for future in admin.delete_records([TopicPartition(*at, offset) for at, offset in offsets.items()]).values():
        future.result()
