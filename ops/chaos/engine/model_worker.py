"""A worker process of the simulation: what dies with it, what outlives it, and commits that wait for their turn."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

from streams.exactly_once.lane import Lane
from streams.exactly_once.membership import Membership
from streams.exactly_once.opening import LaneOpener
from streams.exactly_once.pump import Pump


class LaterExecutor(Executor):
    """Commits wait here until the seed lets them run: before, between and after other steps."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def submit(self, call: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
        self.waiting.append((call, args))
        return Future()


@dataclass(eq=False)
class Worker:
    """A worker process: its disk outlives it, everything else dies with it."""

    name: str
    disk: dict[str, dict[str, Any]] = field(default_factory=dict)
    member_id: str = ""
    pump: Pump | None = None
    opener: LaneOpener | None = None
    executor: LaterExecutor = field(default_factory=LaterExecutor)
    lanes: dict[tuple[str, int], Lane] = field(default_factory=dict)
    membership: Membership | None = None
    pending: tuple[Membership, frozenset[int]] | None = None  # an assignment that it has not heard of yet

    @property
    def alive(self) -> bool:
        return self.pump is not None
