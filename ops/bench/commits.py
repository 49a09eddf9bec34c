"""What a lane's commit takes, by the pause between the end of one and the beginning of the next (decision 0021)."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Sequence

import msgspec
from confluent_kafka.admin import AdminClient, NewTopic

from ops.bench.engine.broker import Broker
from streams.exactly_once.clients import Clients
from streams.exactly_once.layers import Layer, Row, Send
from streams.exactly_once.table_spec import TableSpec
from streams.exactly_once.transaction import LaneProducer, Membership, Work

ROWS = TableSpec("rows", encode=bytes, decode=bytes)
PARTITIONS = 4
RECORDS = 10  # outputs and changelog rows of a commit, each
OUTPUT, ROW = b"x" * 120, Row(b"x" * 20, b"x" * 20)


class CommitTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Commits of `lanes` lanes at once, each pausing `pause_ms` after each; times in milliseconds."""

    lanes: int
    pause_ms: float
    commit_p50: float
    commit_p90: float
    cycle_p50: float  # pause and commit


def measure_commits(
    broker: Broker, lanes: Sequence[int], pauses_ms: Sequence[float], commits: int
) -> Iterator[CommitTimes]:
    """Each number of lanes with each pause, `commits` commits of each lane."""
    for number in lanes:
        for pause_ms in pauses_ms:
            took_ms = sorted(_run(broker, number, pause_ms / 1000, commits))
            p50, p90 = (round(took_ms[int(len(took_ms) * share)], 1) for share in (0.5, 0.9))
            yield CommitTimes(
                lanes=number, pause_ms=pause_ms, commit_p50=p50, commit_p90=p90, cycle_p50=round(p50 + pause_ms, 1)
            )


def _run(broker: Broker, lanes: int, pause_s: float, commits: int) -> list[float]:
    settings = {**broker.client(), "log_level": 0}
    name = f"commits-{uuid.uuid4().hex[:8]}"
    topics = [NewTopic(f"{name}.{kind}", PARTITIONS, 1) for kind in ("in", "out", "changelog")]
    admin = AdminClient(settings)
    for created in admin.create_topics(topics).values():
        created.result()
    took_ms: list[float] = []

    def lane(partition: int) -> None:
        producer = LaneProducer(Clients(), settings, f"{name}-{partition}", partition)
        producer.initialise()
        for number in range(commits):
            began = time.perf_counter()
            producer.commit(_work(name, partition, number))
            took_ms.append((time.perf_counter() - began) * 1000)
            time.sleep(pause_s)
        producer.close()

    threads = [threading.Thread(target=lane, args=(partition,)) for partition in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took_ms


def _work(name: str, partition: int, number: int) -> Work:
    sends = [Send(f"{name}.out", b"k%d" % key, OUTPUT, None, ()) for key in range(RECORDS)]
    layer = Layer({ROWS: {b"k%d" % key: ROW for key in range(RECORDS)}}, sends)
    membership = Membership(name, -1, "", None)  # of no generation: nobody is a member
    return Work(layer, {(f"{name}.in", partition): number}, membership, {ROWS: f"{name}.changelog"})
