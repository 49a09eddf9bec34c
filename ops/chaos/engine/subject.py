"""The agents that the simulation tests: a decider with balances and timers, and an effector behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from streams.exactly_once.agent import AgentSpec, DeadLetter
from streams.exactly_once.effects import Effects, State
from streams.exactly_once.errors import Poison
from streams.exactly_once.records import TIMERS, Input, Output, Record
from streams.exactly_once.table_spec import TableSpec
from streams.exactly_once.timers import timer_table

GROUP = "app"
PARTITIONS = 2
KEYS = (b"a", b"b", b"c", b"d")
TOPICS = {"in": PARTITIONS, "mid": PARTITIONS, "out": 3, "dlq": 1}
TIMER_EVERY = 5  # every so many amounts set a timer, which must fire once

BALANCES = TableSpec("balances", encode=lambda value: b"%d" % value, decode=int)


def _decode(value: bytes) -> str:
    if value == b"garbage":
        raise Poison("garbage")
    return value.decode()


def _dead_letter(letter: DeadLetter) -> bytes:
    return f"{letter.source_topic}:{letter.source_partition}:{letter.source_offset}".encode()


MID = Output("mid", str.encode)
OUT = Output("out", str.encode)


def sums(batch: Sequence[Record], state: State, effects: Effects) -> None:
    """The decider under test: balances, one output each in order, and now and then a timer."""
    for record in batch:
        if record.topic == TIMERS:
            effects.send(MID, f"timer:{record.value.name}", key=record.key)
            continue
        if record.value == "666":
            effects.put(BALANCES, record.key, -1)  # must leave no trace: the record fails after it
            raise ValueError("the beast")
        balance = (state.get(BALANCES, record.key) or 0) + int(record.value)
        effects.put(BALANCES, record.key, balance)
        effects.send(MID, f"{record.partition}/{record.offset}:{balance}", key=record.key)
        if int(record.value) % TIMER_EVERY == 0:
            name = f"{record.partition}/{record.offset}"
            effects.set_timer(record.key, name, record.timestamp_ms + 50)


async def relay(record: Record, state: State, effects: Effects) -> None:
    """The effector under test: passes everything on, some keys slower than others."""
    for _ in range(record.key[0] % 3):
        await asyncio.sleep(0)
    effects.send(OUT, record.value, key=record.key)


def specs() -> tuple[AgentSpec, AgentSpec]:
    """sums: in -> mid; relay: mid -> out."""
    dead_letters = Output("dlq", _dead_letter)
    return (
        AgentSpec(
            "sums", (Input("in", _decode),), (BALANCES,), (MID,), decide=sums, effect=None,
            timer_table=timer_table("sums"), dead_letters=lambda _: dead_letters, batch_max=7, commit_pause_s=0.0,
        ),
        AgentSpec(
            "relay", (Input("mid", _decode),), (), (OUT,), decide=None, effect=relay,
            timer_table=None, dead_letters=lambda _: dead_letters, concurrency=5, commit_pause_s=0.0,
        ),
    )  # fmt: skip
