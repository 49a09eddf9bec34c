"""Judges a simulated history from the logs alone: what must have come out is the fold of the visible input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ops.chaos.engine.model_broker import Broker
from ops.chaos.engine.subject import GROUP, PARTITIONS, TIMER_EVERY
from streams.exactly_once.lane import Lane, decode_offsets
from streams.exactly_once.timers import DUE, IDENTITY, OFFSETS

Pair = tuple[bytes | None, bytes | None]  # key and value of a record


def violations(broker: Broker, lanes: Iterable[Lane]) -> list[str]:
    """What exactly-once would not allow; empty when all is well."""
    expected, balances, letters = _fold(broker)
    found = _compare(broker, "mid", expected) + _compare(broker, "out", expected, may_repeat=True)
    found += _difference("dlq", letters, [(entry.key, entry.value) for entry in _visible(broker, "dlq")])
    changelog: dict[bytes | None, bytes | None] = {}
    for entry in _visible(broker, f"{GROUP}-balances-changelog"):
        changelog[entry.key] = entry.value
    if changelog != {key: b"%d" % value for key, value in balances.items()}:
        found.append(f"changelog {changelog} is not the fold {balances}")
    found += [f"transaction of {name} is still open" for name in broker.open_transactions()]
    found += _offsets_and_state(broker, lanes)
    return found


def _fold(
    broker: Broker,
) -> tuple[list[Pair], dict[bytes, int], list[Pair]]:
    """What must have come out: outputs (timers among them), balances, dead letters."""
    expected: list[Pair] = []
    balances: dict[bytes, int] = {}
    letters: list[Pair] = []
    for number in range(PARTITIONS):
        for offset, entry in broker.visible(("in", number)):
            assert entry.key is not None
            assert entry.value is not None
            if not entry.value.isdigit() or entry.value == b"666":
                letters.append((entry.key, f"in:{number}:{offset}".encode()))
                continue
            amount = int(entry.value)
            balances[entry.key] = balances.get(entry.key, 0) + amount
            expected.append((entry.key, f"{number}/{offset}:{balances[entry.key]}".encode()))
            if amount % TIMER_EVERY == 0:
                expected.append((entry.key, f"timer:{number}/{offset}".encode()))
    return expected, balances, letters


def _compare(broker: Broker, topic: str, expected: list[Pair], *, may_repeat: bool = False) -> list[str]:
    """Count and order per key. `may_repeat`: an effector's record beyond the committed prefix runs again."""
    entries = _visible(broker, topic)
    if may_repeat:
        entries = list({(entry.key, entry.value): entry for entry in reversed(entries)}.values())[::-1]
    found = _difference(topic, list(expected), [(entry.key, entry.value) for entry in entries])
    last: dict[bytes | None, int] = {}
    for entry in entries:
        if entry.value is None or entry.value.startswith(b"timer"):
            continue
        offset = int(entry.value.split(b"/")[1].split(b":")[0])
        if offset < last.get(entry.key, -1):
            found.append(f"{topic}: {entry.key!r} out of order at {offset}")
        last[entry.key] = offset
    return found


def _offsets_and_state(broker: Broker, lanes: Iterable[Lane]) -> list[str]:
    """Each lane's store = its changelog; offsets in it = the group's; no timer is left behind."""
    found = []
    for lane in lanes:
        if lane.store is None or lane.spec.timer_table is None:
            continue
        encoded = lane.store.get(lane.spec.timer_table, OFFSETS)
        embedded = {} if encoded is None else decode_offsets(encoded)
        group = {log: at for log, at in broker.committed.items() if log == ("in", lane.partition)}
        if embedded != group:
            found.append(f"{lane.name}: embedded offsets {embedded}, group {group}")
        left = list(lane.store.scan(lane.spec.timer_table, DUE, IDENTITY))
        if left:
            found.append(f"{lane.name}: {len(left)} timers never fired")
    return found


def _visible(broker: Broker, topic: str) -> list[Any]:
    return [entry for number in range(broker.partitions[topic]) for _, entry in broker.visible((topic, number))]


def _difference(topic: str, expected: Sequence[tuple[Any, Any]], got: Sequence[tuple[Any, Any]]) -> list[str]:
    count = Counter(got)
    count.subtract(expected)
    return [f"{topic}: {item} {number:+d}" for item, number in count.items() if number]
