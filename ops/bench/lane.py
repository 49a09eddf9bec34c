"""What a lane costs on one core, without Kafka: decode, decide, encode, stage (`work_us`), and the store (`apply_us`).

The workload is that of the engine's benchmark (ops/bench/engine/workload.py), once with fastavro and once with the
repository's codec. Steady enough for a shared machine: it is CPU time, and the best of several passes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Message

from ops.bench.engine import workload
from ops.bench.engine.workers import codecs
from streams.exactly_once import timers
from streams.exactly_once.agent import AgentSpec, DeciderHandler
from streams.exactly_once.clients import Clients
from streams.exactly_once.decider import DeciderLane
from streams.exactly_once.effects import Effects, State
from streams.exactly_once.membership import Membership
from streams.exactly_once.metrics import EngineMetrics
from streams.exactly_once.records import Input, Output, Record
from streams.exactly_once.store import LaneStore
from streams.exactly_once.table_spec import TableSpec
from streams.exactly_once.transaction import LaneProducer, Receipt

TOPIC, PARTITION = "movements", 0
COMMIT_EVERY = 2_000  # records of a busy lane's commit
NOW_MS = 1_760_000_000_000


class LaneSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """Microseconds of CPU for a record."""

    codec: str
    work_us: float
    apply_us: float


def measure_lane(passes: int) -> list[LaneSpeed]:
    """The best of so many passes over one partition's share of the workload's cycle, with each codec."""
    return [
        _speed("fastavro", workload.decode_movement, workload.encode_balance, passes),
        _speed("topics.codec", codecs.decode_movement, codecs.encode_balance, passes),
    ]


def _speed(name: str, decode: Callable[[bytes], Any], encode: Callable[[Any], bytes], passes: int) -> LaneSpeed:
    messages = [
        Message(topic=TOPIC, partition=PARTITION, offset=offset, key=key, value=value, timestamp=(2, NOW_MS))
        for offset, (key, value) in enumerate(workload.Movements().encoded())
        if workload.partition_of(key) == PARTITION
    ]
    with tempfile.TemporaryDirectory(prefix="payments-bench-lane-") as directory:
        lane = _sums(decode, encode, LaneStore(Path(directory) / "lane"))
        found = [_pass(lane, messages) for _ in range(passes)]
        lane.close()
    work_s, apply_s = min(found, key=sum)
    return LaneSpeed(
        codec=name,
        work_us=round(work_s / len(messages) * 1e6, 2),
        apply_us=round(apply_s / len(messages) * 1e6, 2),
    )


def _pass(lane: DeciderLane, messages: list[Message]) -> tuple[float, float]:
    """CPU seconds of work and of applying what it did."""
    work_s = apply_s = 0.0
    for start in range(0, len(messages), COMMIT_EVERY):
        began = time.thread_time()
        lane.feed(messages[start : start + COMMIT_EVERY])
        while lane.inbox:
            lane.work()
        worked = time.thread_time()
        lane.begin_commit()
        lane.end_commit(Receipt({("balances-changelog", PARTITION): start}, None))
        work_s += worked - began
        apply_s += time.thread_time() - worked
    return work_s, apply_s


def _sums(decode: Callable[[bytes], Any], encode: Callable[[Any], bytes], store: LaneStore) -> DeciderLane:
    balances = TableSpec("balances", encode=workload.encode_state, decode=int)
    output = Output("balances", encode)

    def sums(batch: Sequence[Record], state: State, effects: Effects) -> None:
        for record in batch:
            movement = record.value
            balance = (state.get(balances, record.key) or 0) + movement["amount"]
            effects.put(balances, record.key, balance)
            effects.send(output, workload.balance_after(movement, balance), key=record.key)

    return bench_lane(sums, decode, store, tables=(balances,), outputs=(output,))


def bench_lane(
    decide: DeciderHandler,
    decode: Callable[[bytes], Any],
    store: LaneStore,
    *,
    tables: tuple[TableSpec, ...] = (),
    outputs: tuple[Output, ...] = (),
    clock_ms: Callable[[], int] = lambda: NOW_MS,
) -> DeciderLane:
    """A decider's lane on TOPIC, with timers; nothing of it ever reaches a broker."""
    timer_table = timers.timer_table("sums")
    spec = AgentSpec(
        "sums",
        (Input(TOPIC, decode),),
        tables,
        outputs,
        decide,
        None,
        timer_table,
        lambda _: Output("dlq", lambda letter: repr(letter).encode()),
    )
    return DeciderLane(
        spec,
        PARTITION,
        producer=LaneProducer(Clients(), {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, "bench-lane"),
        store=store,
        base=store,
        membership=Membership("bench", 1, "member", None),
        committed={(TOPIC, PARTITION): 0},
        changelogs={table.name: f"{table.name}-changelog" for table in spec.all_tables},
        clock_ms=clock_ms,
        metrics=EngineMetrics().lane("sums", PARTITION),
    )
