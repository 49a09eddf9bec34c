"""What a lane's timers cost on one core, and that it does not grow with how many have fired before.

A timer that has fired is deleted at the head of the order in which the next one is looked for, and RocksDB keeps what
is deleted until it compacts. Each timer here is set by a record, fires, and is committed by itself, as they are in a
quiet hour. CPU time, without Kafka.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from confluent_kafka import Message

from ops.bench.lane import NOW_MS, PARTITION, TOPIC, bench_lane
from streams.exactly_once.effects import Effects, State
from streams.exactly_once.records import TIMERS, Record
from streams.exactly_once.store import LaneStore
from streams.exactly_once.transaction import Receipt

WINDOW = 1_000  # timers at the beginning and at the end that are looked at


class TimerSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """Microseconds of CPU for a timer, from the record that sets it until it has fired and is committed."""

    timers: int
    first_us: float  # of the first WINDOW
    last_us: float  # of the last


def measure_timers(count: int) -> TimerSpeed:
    """Set and fire `count` timers, one after the other."""
    now_ms = NOW_MS

    def decide(batch: Sequence[Record], _state: State, effects: Effects) -> None:
        for record in batch:
            if record.topic != TIMERS:
                effects.set_timer(record.key, "retry", now_ms + 1)

    with tempfile.TemporaryDirectory(prefix="payments-bench-timers-") as directory:
        lane = bench_lane(decide, bytes, LaneStore(Path(directory) / "lane"), clock_ms=lambda: now_ms)
        lane.timers.compare(None)
        spent_s = []
        for number in range(count):
            message = Message(
                topic=TOPIC,
                partition=PARTITION,
                offset=number,
                key=b"pay_%026d" % number,
                value=b"",
                timestamp=(2, now_ms),
            )
            began = time.thread_time()
            for messages in ([message], []):
                lane.feed(messages)
                assert lane.work()
                lane.begin_commit()
                lane.end_commit(Receipt({}, None))
                now_ms += 1
            spent_s.append(time.thread_time() - began)
        assert lane.idle_until_ms() is None, "all have fired"
        lane.close()
    first_s, last_s = sum(spent_s[:WINDOW]), sum(spent_s[-WINDOW:])
    seen = min(WINDOW, count)
    return TimerSpeed(timers=count, first_us=round(first_s / seen * 1e6, 1), last_us=round(last_s / seen * 1e6, 1))
