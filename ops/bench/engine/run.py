"""One run of the benchmark: broker, input, every contender in turn; results as a document."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ops.bench.engine import topics
from ops.bench.engine.broker import running_broker
from ops.bench.engine.contenders import CONTENDERS, Contender, Skipped
from ops.bench.engine.measure import Bench, Latency, Restore, Throughput
from ops.bench.engine.workload import FEW_KEYS, Movements

INPUT = "movements"


class Row(msgspec.Struct, kw_only=True):
    """What one contender reached; `skipped` says why it did not run or did not finish."""

    name: str
    title: str
    throughput: Throughput | None = None
    restore: Restore | None = None
    latency: Latency | None = None
    skipped: str | None = None


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    only: list[str]
    warm_up_s: float
    seconds: float
    records: int
    keys: int
    nodes: int
    rate: float
    commit_ms: int
    baseline: str


class Results(msgspec.Struct, kw_only=True):
    """A whole run."""

    at: datetime
    command: str
    cores: int
    python: str
    load_before: float
    options: Options
    rows: list[Row]


def run_benchmark(options: Options, command: str) -> Results:
    """Everything, in the order of CONTENDERS. A contender that fails is a row that says so; the others go on."""
    results = Results(
        at=datetime.now(UTC),
        command=command,
        cores=os.cpu_count() or 0,
        python=platform.python_version(),
        load_before=os.getloadavg()[0],
        options=options,
        rows=[],
    )
    chosen = [contender for contender in CONTENDERS if not options.only or contender.name in options.only]
    with running_broker(options.nodes) as broker, tempfile.TemporaryDirectory(prefix="payments-bench-") as name:
        movements = Movements(options.keys)
        bench = Bench(broker, movements, Path(name), options.commit_ms)
        report(f"Writing {options.records} records of input.")
        topics.create_topics(broker.client(), [INPUT], [])
        topics.fill(broker.client(), INPUT, movements, options.records)
        for contender in chosen:
            row = Row(name=contender.name, title=contender.title)
            results.rows.append(row)
            try:
                _measure(bench, contender, row, options)
            except Skipped as reason:
                row.skipped = str(reason)
            except AssertionError as error:  # it did not start, or did nothing: that is its result
                row.skipped = f"failed: {error}"
            if row.skipped:
                report(f"{contender.name}: {row.skipped}")
            topics.delete_topics(broker.client(), (f"{contender.name}", f"changelog__{contender.name}"))
    return results


def _measure(bench: Bench, contender: Contender, row: Row, options: Options) -> None:
    if options.keys > FEW_KEYS and not contender.restores:
        raise Skipped("it has no changelog that could be filled beforehand")
    command = contender.prepare(report)
    report(f"{contender.title}: {options.warm_up_s:.0f} s warm-up, {options.seconds:.0f} s measured.")
    row.throughput = bench.throughput(contender, command, INPUT, options.records, options.warm_up_s, options.seconds)
    found = row.throughput
    report(f"  {found.events_per_s:,.0f} events/s, verified: {'; '.join(found.differences) or 'every record right'}")
    if contender.restores:
        row.restore = bench.restore(contender, command, INPUT)
        report(f"  restore {row.restore.records_per_s:,.0f} changelog records/s")
    if contender.latency:
        row.latency = bench.latency(contender, command, options.rate, options.seconds)
        report(f"  latency p50 {row.latency.ms_p50:.1f} ms, p99 {row.latency.ms_p99:.1f} ms")


def report(sentence: str) -> None:
    """Progress, for the person who waits."""
    sys.stderr.write(sentence + "\n")
