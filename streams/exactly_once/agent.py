"""What an agent is to a lane: its name, what it reads, keeps and writes, and its handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from streams.exactly_once.effects import Effects, State
from streams.exactly_once.records import Input, Output, Record
from streams.exactly_once.table_spec import TableSpec

COMMIT_PAUSE_S = 0.004
"""The coordinator answers a commit before its markers are written, and refuses the id's next transaction until they
are: this is how long they take (decision 0021)."""

DeciderHandler = Callable[[Sequence[Record], State, Effects], None]
EffectorHandler = Callable[[Record, State, Effects], Awaitable[None]]
DeadLetterHook = Callable[[Record, Exception, State, Effects], None]


@dataclass(slots=True, frozen=True)
class DeadLetter:
    """A record that no attempt could handle, with where it came from and why. Bytes are as they were read."""

    source_topic: str
    source_partition: int
    source_offset: int  # -1 for a timer
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    error_class: str
    error_text: str


@dataclass(slots=True, frozen=True, eq=False)
class AgentSpec:
    """One decider or effector. `inputs` must have equal partition counts: partition n of each is lane n."""

    name: str
    inputs: tuple[Input, ...]
    tables: tuple[TableSpec, ...]
    outputs: tuple[Output, ...]
    decide: DeciderHandler | None  # exactly one of decide and effect is set
    effect: EffectorHandler | None
    timer_table: TableSpec | None  # timers and source offsets; None: keeps no state, may not set timers
    dead_letters: Callable[[str], Output]  # DLQ of an input topic; takes DeadLetter values
    on_dead_letter: DeadLetterHook | None = None  # may stage what the failed record's senders must hear
    concurrency: int = 200  # effectors: handlers in flight per lane
    ordered: bool = True  # effectors: one record of a key at a time
    batch_max: int = 1000  # deciders: records per call
    commit_pause_s: float = COMMIT_PAUSE_S  # from the end of a worker's transaction to the beginning of its next
    commit_interval_s: float = 0.0  # for which a lane waits, unless another lane's transaction takes its work along

    @property
    def all_tables(self) -> tuple[TableSpec, ...]:
        """Every table whose rows lie in the lane's store."""
        return self.tables if self.timer_table is None else (*self.tables, self.timer_table)
