"""The topics of an app under test, and what its records mean to the worker, the load and the checker alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

BEAST = 666  # an amount on which the decider fails: it belongs to the dead letters
GARBAGE = b"garbage"  # a value that is no amount: poison
SLOW, LATER = b"2", b"1"  # ends of keys which the effector answers slowly, or through a timer
TIMER_EVERY = 10  # amounts that leave 1 when divided by this set a timer
TABLES = ("balances", "sums-timers", "echo-timers")


@dataclass(frozen=True, slots=True)
class Topics:
    """Those of one app under test. Outputs have other partition counts than the input unless told otherwise."""

    id: str
    partitions: int = 4
    out_partitions: int = 0  # of the decider's output, which is the effector's input
    changelogs: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "out_partitions", self.out_partitions or max(2, self.partitions // 2 - 1))
        counts = {"balances": self.partitions, "sums-timers": self.partitions, "echo-timers": self.out_partitions}
        object.__setattr__(self, "changelogs", {self.changelog(table): counts[table] for table in TABLES})

    @property
    def inputs(self) -> str:
        return f"{self.id}.in"

    @property
    def out(self) -> str:
        return f"{self.id}.out"

    @property
    def echo(self) -> str:
        return f"{self.id}.echo"

    @property
    def dlq(self) -> str:
        return f"{self.id}.dlq"

    @property
    def topics(self) -> Mapping[str, int]:
        """Every topic but the changelogs, with its partitions."""
        return {self.inputs: self.partitions, self.out: self.out_partitions, self.echo: 3, self.dlq: 1}

    def changelog(self, table: str) -> str:
        return f"{self.id}-{table}-changelog"
