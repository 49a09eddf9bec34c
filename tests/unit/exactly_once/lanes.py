"""A lane on a bench: no broker, records as librdkafka hands them over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from streams.exactly_once.agent import AgentSpec, DeadLetter
from streams.exactly_once.errors import Poison
from streams.exactly_once.layers import Stage
from streams.exactly_once.membership import Membership
from streams.exactly_once.metrics import EngineMetrics
from streams.exactly_once.records import Input, Output, Record
from streams.exactly_once.store import LaneStore
from streams.exactly_once.testing import MemoryBase
from streams.exactly_once.timers import timer_table

MEMBERSHIP = Membership("group", 3, "member-1", None)
OUT = Output("out", str.encode)


class Fetched:
    """A fetched message as librdkafka hands it over."""

    def __init__(self, offset: int, value: bytes | None, key: bytes | None = b"k", topic: str = "in") -> None:
        self._offset, self._value, self._key, self._topic = offset, value, key, topic

    def topic(self) -> str:
        return self._topic

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_000 + self._offset


def decode(value: bytes) -> str:
    if value == b"garbage":
        raise Poison("it means nothing")
    if value == b"later":
        raise ConnectionError("the registry is away")
    return value.decode()


def dead_letter(letter: DeadLetter) -> bytes:
    return f"{letter.source_offset}:{letter.error_class}:{letter.error_text}".encode()


def spec_of(decide: Any = None, effect: Any = None, *, timers: bool = True, **options: Any) -> AgentSpec:
    return AgentSpec(
        "agent", (Input("in", decode),), (), (OUT,), decide=decide, effect=effect,
        timer_table=timer_table("agent") if timers else None,
        dead_letters=lambda topic: Output(f"{topic}.dlq", dead_letter), **options,
    )  # fmt: skip


def lane_of(
    kind: type[Any], spec: AgentSpec, clock_ms: Callable[[], int] = lambda: 5_000, store: LaneStore | None = None
) -> Any:
    class NoProducer:
        def close(self) -> None:
            """Nothing to release."""

    return kind(
        spec, 0, producer=NoProducer(), store=store, base=store or MemoryBase(),
        membership=MEMBERSHIP, committed={("in", 0): 0},
        changelogs={table.name: f"app-{table.name}-changelog" for table in spec.all_tables}, clock_ms=clock_ms,
        metrics=EngineMetrics().lane("agent", 0),
    )  # fmt: skip


def sent(lane: Any) -> list[tuple[str, bytes | None]]:
    return [(send.topic, send.value) for send in lane.layers.promoted.sends]


def echo(batch: Sequence[Record], state: Stage, effects: Stage) -> None:
    for record in batch:
        if record.value == "bad":
            raise ValueError("bad")
        effects.send(OUT, record.value, key=record.key)
