"""The proof on a real cluster: seeded rounds of faults under continuous load, and the checker's verdict at the end."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from ops.chaos.engine.checker import Verdict
from ops.chaos.engine.cluster import Cluster
from ops.chaos.engine.faults import FAULTS, one_round
from ops.chaos.engine.harness import Harness, NoAnswer
from ops.chaos.engine.load import Load
from ops.chaos.engine.report import Report
from ops.chaos.engine.topology import Topics

WORKERS, PARTITIONS = 3, 12
START_S = 120.0
RECOVERY_S = 120.0  # what takes longer is no recovery; figures are in the report
SETTLE_S = 30.0
RATE = 600.0  # records a second: what leaves two cores room for rebalances

Say = Callable[[str], None]


def seeded_rounds(seed: int, rounds: int, *, may_kill_broker: bool) -> list[list[str]]:
    """The faults of a run, by name: the same for the same seed."""
    source = random.Random(seed)
    return [one_round(source, may_kill_broker=may_kill_broker) for _ in range(rounds)]


def run_rounds(
    cluster: Cluster,
    rounds: Sequence[Sequence[str]],
    seed: int,
    root: Path,
    *,
    rate: float = RATE,
    workers: int = WORKERS,
    partitions: int = PARTITIONS,
    say: Say = lambda _: None,
) -> Report:
    """Start the app, go through the faults, let it settle, check everything."""
    began = time.monotonic()
    harness = Harness(cluster, Topics(f"chaos-{uuid.uuid4().hex[:8]}", partitions), root)
    report = Report(seed=seed, rounds=len(rounds))
    with harness.prepared():
        for number in range(workers):
            harness.workers.start(number)
        harness.recovery_s(START_S)
        with Load(cluster, harness.topics, rate, seed):
            _go_through(harness, rounds, random.Random(seed), report, say)
        verdict: Verdict = harness.finish(SETTLE_S)
    report.violations += verdict.violations
    report.inputs, report.outputs, report.aborted_outputs = verdict.inputs, verdict.outputs, verdict.aborted_outputs
    report.ended = dict(harness.workers.ended)
    report.seconds = round(time.monotonic() - began, 1)
    if not report.aborted_outputs and any(FAULTS[name].kind == "kill" for names in rounds for name in names):
        report.violations.append("no transaction of the engine was aborted: the faults did not bite")
    return report


def _go_through(
    harness: Harness, rounds: Sequence[Sequence[str]], source: random.Random, report: Report, say: Say
) -> None:
    for number, names in enumerate(rounds, 1):
        for name in names:
            report.faults[name] = report.faults.get(name, 0) + 1
            for step in FAULTS[name].inject(harness, source):
                try:
                    seconds = harness.recovery_s(RECOVERY_S)
                except NoAnswer as error:
                    report.violations.append(f"round {number}, {step}: {error}")
                    return
                report.recovery_s.setdefault(step, []).append(round(seconds, 2))
                say(f"round {number}: {step}: every partition answers after {seconds:.1f} s")
