"""What a run has shown: as JSON for machines, as a table for people."""

from __future__ import annotations

import statistics

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

SHOWN_VIOLATIONS = 20


class Report(msgspec.Struct):
    """One run of rounds. Times in seconds."""

    seed: int
    rounds: int
    seconds: float = 0.0
    inputs: int = 0
    outputs: int = 0  # timers' included
    aborted_outputs: int = 0
    faults: dict[str, int] = {}  # by name
    recovery_s: dict[str, list[float]] = {}  # by step: until every partition answered
    ended: dict[str, int] = {}  # how worker processes ended by themselves
    violations: list[str] = []

    def as_json(self) -> bytes:
        """Everything, with the percentiles."""
        recovery = {step: quantiles(samples) for step, samples in self.recovery_s.items()}
        return msgspec.json.format(msgspec.json.encode({**msgspec.structs.asdict(self), "recovery": recovery}))

    def as_table(self) -> RenderableType:
        """For people."""
        table = Table(title=self._title(), title_justify="left", box=SIMPLE_HEAD)
        for heading in ("step", "times", "p50 s", "p99 s", "max s"):
            table.add_column(heading, justify="left" if heading == "step" else "right")
        for step, samples in sorted(self.recovery_s.items()):
            figures = quantiles(samples)
            table.add_row(step, str(len(samples)), *(f"{figures[name]:.1f}" for name in ("p50", "p99", "max")))
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        ended = ", ".join(f"{reason} {count}" for reason, count in sorted(self.ended.items()))
        lines = [f"faults: {faults}", f"workers that ended and were started again: {ended or 'none'}"]
        shown = [f"VIOLATION {sentence}" for sentence in self.violations[:SHOWN_VIOLATIONS]]
        return Group(table, Text("\n".join([*lines, *shown, f"violations: {len(self.violations)}"])))

    def _title(self) -> str:
        return (
            f"seed {self.seed}, {self.rounds} rounds in {self.seconds:.0f} s: {self.inputs} inputs, {self.outputs} "
            f"outputs, {self.aborted_outputs} records of aborted transactions"
        )


def quantiles(samples: list[float]) -> dict[str, float]:
    """p50, p99 and maximum; of few samples p99 is the maximum."""
    ordered = sorted(samples)
    return {
        "p50": statistics.median(ordered),
        "p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
        "max": ordered[-1],
    }
