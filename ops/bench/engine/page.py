"""The results as a page: one table, what it was measured with, and how to repeat it."""

from __future__ import annotations

from ops.bench.engine.run import Options, Results, Row
from ops.bench.engine.workload import FEW_KEYS

HEAD = """\
# The engine measured side by side{on}

Written by `{command}`, never by hand; the `.json` beside it holds the same figures.

{at:%Y-%m-%d %H:%M} UTC, {cores} cores, Python {python}, load average before the run {load_before:.1f}.{shared}

4 partitions, {keys:,} keys{filled}, Avro values of about 120 bytes.
Per record: decode 10 fields, update a changelog-backed balance, encode and emit one output of 10 fields; output,
changelog and offsets in one transaction. Kafka of this repository's lock, {brokers}, mutual TLS for everybody, on the
same cores. {warm_up:.0f} s warm-up, {seconds:.0f} s measured, from a backlog of {records:,} records; who uses it up is
measured to its end. Commit interval {commit_ms} ms where a contender has one; this engine commits whenever something is
complete. This engine and the bare loop use this repository's Avro codec, the other Python contenders fastavro, Kafka
Streams Java's. Each run is verified: one output per input and account, the last outputs and the changelog against the
calculated balances.
"""
COLUMNS = (
    "| Contender | events/s | against {baseline} | CPU s per 100k | broker CPU s per 100k | commit p50 / p99 ms "
    "| RSS MB | load | verified |\n|---|---|---|---|---|---|---|---|---|\n"
)
ONE_BROKER, THREE_BROKERS = "one broker", "three brokers (RF 3, two in sync, acks=all)"
FILLED = " (each with a row in the changelog before the start)"
SHARED = " **Other work shared the machine: rows measured under different loads do not compare.**"
QUIET_LOAD = 1.0


def page(results: Results) -> str:
    """Markdown of the whole run."""
    options = results.options
    rows = {row.name: row for row in results.rows}
    text = HEAD.format(
        command=results.command,
        at=results.at,
        cores=results.cores,
        python=results.python,
        load_before=results.load_before,
        shared=SHARED if results.load_before > QUIET_LOAD else "",
        warm_up=options.warm_up_s,
        seconds=options.seconds,
        records=options.records,
        keys=options.keys,
        filled=FILLED if options.keys > FEW_KEYS else "",
        brokers=ONE_BROKER if options.nodes == 1 else THREE_BROKERS,
        on=_conditions(options),
        commit_ms=options.commit_ms,
    )
    text += "\n" + COLUMNS.format(baseline=options.baseline)
    text += "".join(_row(row, rows.get(options.baseline)) for row in results.rows)
    text += _extras(results)
    skipped = [f"- {row.title}: {row.skipped}" for row in results.rows if row.skipped]
    if skipped:
        text += "\n## Not measured\n\n" + "\n".join(skipped) + "\n"
    return text


def _conditions(options: Options) -> str:
    three = ", on three brokers" if options.nodes == 3 else ""
    many = f", with {options.keys:,} keys" if options.keys > FEW_KEYS else ""
    return three + many


def _row(row: Row, baseline: Row | None) -> str:
    found = row.throughput
    if found is None:
        return ""
    ratio = "-"
    if baseline is not None and baseline.throughput is not None:
        ratio = f"{found.events_per_s / baseline.throughput.events_per_s:.2f}"
    commits = "-"
    if found.commit_ms_p50 is not None and found.commit_ms_p99 is not None:
        commits = f"{found.commit_ms_p50:.1f} / {found.commit_ms_p99:.1f}"
    verified = "; ".join(found.differences) or "all right"
    return (
        f"| {row.title} | {found.events_per_s:,.0f} | {ratio} | {found.cpu_s_per_100k:.2f} "
        f"| {found.broker_cpu_s_per_100k:.2f} | {commits} | {found.rss_mb:.0f} | {found.load_average:.1f} "
        f"| {verified} |\n"
    )


def _extras(results: Results) -> str:
    restores = [
        f"| {row.title} | {row.restore.records_per_s:,.0f} | {row.restore.records:,} | {row.restore.seconds:.1f} |\n"
        for row in results.rows
        if row.restore is not None
    ]
    latencies = [
        f"| {row.title} | {row.latency.ms_p50:.1f} | {row.latency.ms_p99:.1f} |\n"
        for row in results.rows
        if row.latency is not None
    ]
    text = ""
    if restores:
        text += (
            "\n## Restore without state\n\n| Contender | changelog records/s | records | seconds |\n|---|---|---|---|\n"
        )
        text += "".join(restores)
    if latencies:
        text += (
            f"\n## Latency at {results.options.rate:,.0f} events/s\n\n"
            "From a record's hand-over to the producer to its committed output's arrival at a reader, both outside the "
            "contender.\n\n"
            "| Contender | p50 ms | p99 ms |\n|---|---|---|\n" + "".join(latencies)
        )
    return text
