"""What a transaction takes, by how many lanes' work it carries and how long its id has rested since the last one
(decisions 0021 and 0027)."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator, Sequence

import msgspec
from confluent_kafka.admin import AdminClient, NewTopic

from ops.bench.engine.broker import Broker
from streams.exactly_once.clients import Clients
from streams.exactly_once.errors import CommitAborted
from streams.exactly_once.layers import Layer, Row, Send
from streams.exactly_once.membership import Membership
from streams.exactly_once.table_spec import TableSpec
from streams.exactly_once.transaction import LaneProducer, Work

ROWS = TableSpec("rows", encode=bytes, decode=bytes)
PARTITIONS = 4
RECORDS = 10  # outputs and changelog rows of a commit, each
OUTPUT, ROW = b"x" * 120, Row(b"x" * 20, b"x" * 20)


class CommitTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Transactions of `lanes` lanes under `ids` ids in turn, `pause_ms` between them; times in milliseconds."""

    lanes: int
    ids: int
    pause_ms: float
    commit_p50: float
    commit_p90: float
    cycle_p50: float  # pause and commit


def measure_commits(
    broker: Broker, lanes: Sequence[int], pauses_ms: Sequence[float], commits: int
) -> Iterator[CommitTimes]:
    """`commits` transactions of each number of lanes with each pause, under one id and under all lanes' ids."""
    for number in lanes:
        for ids in sorted({1, number}):
            for pause_ms in pauses_ms:
                took_ms = sorted(_run(broker, number, ids, pause_ms / 1000, commits))
                p50, p90 = (round(took_ms[int(len(took_ms) * share)], 1) for share in (0.5, 0.9))
                cycle_p50 = round(p50 + pause_ms, 1)
                yield CommitTimes(
                    lanes=number, ids=ids, pause_ms=pause_ms, commit_p50=p50, commit_p90=p90, cycle_p50=cycle_p50
                )


def _run(broker: Broker, lanes: int, ids: int, pause_s: float, commits: int) -> list[float]:
    settings = {**broker.client(), "log_level": 0}
    name = f"commits-{uuid.uuid4().hex[:8]}"
    topics = [NewTopic(f"{name}.{kind}", PARTITIONS, 1) for kind in ("in", "out", "changelog")]
    admin = AdminClient(settings)  # a name of its own: without one it is gone before it answers
    for created in admin.create_topics(topics).values():
        created.result()
    producers = [LaneProducer(Clients(), settings, f"{name}-{number}") for number in range(ids)]
    for producer in producers:
        producer.initialise()
    membership = Membership(name, -1, "", None)  # of no generation: nobody is a member
    _commit_until_led(producers[0], [_work(name, partition, 0) for partition in range(lanes)], membership)
    took_ms: list[float] = []
    for number in range(commits):
        works = [_work(name, partition, number) for partition in range(lanes)]
        began = time.perf_counter()
        producers[number % ids].commit(works, membership)
        took_ms.append((time.perf_counter() - began) * 1000)
        time.sleep(pause_s)
    for producer in producers:
        producer.close()
    return took_ms


def _commit_until_led(producer: LaneProducer, works: Sequence[Work], membership: Membership) -> None:
    """A topic that was just made is told of before its leaders lead; a lane tries again after an abort, too."""
    while True:
        with contextlib.suppress(CommitAborted):
            producer.commit(works, membership)
            return


def _work(name: str, partition: int, number: int) -> Work:
    sends = [Send(f"{name}.out", b"k%d" % key, OUTPUT, None, ()) for key in range(RECORDS)]
    layer = Layer({ROWS: {b"k%d" % key: ROW for key in range(RECORDS)}}, sends)
    return Work(partition, layer, {(f"{name}.in", partition): number}, {ROWS: f"{name}.changelog"})
