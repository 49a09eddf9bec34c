"""`payments bench`: measure the running platform; results as JSON on standard output."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import uvloop

from ops.cli.stack import HomeOption, checked_nodes, chosen_home, plain_errors

app = typer.Typer(add_completion=False, no_args_is_help=True)

WARM_UP_COMMITS = 8_000  # a broker that has just started is slow


@app.callback()
def bench() -> None:
    """Measure the platform."""


@app.command()
def create(
    rate: Annotated[float, typer.Option(min=0.1, help="Requests per second.")] = 50.0,
    seconds: Annotated[float, typer.Option(min=1.0)] = 30.0,
    home: HomeOption = None,
) -> None:
    """Latency of POST /payments at a steady rate, from the client's side."""
    from ops.bench.create import measure_creates
    from ops.demo.platform import find_platform

    with plain_errors():
        platform = find_platform(chosen_home(home))
        _print(uvloop.run(measure_creates(platform, rate, seconds)))


@app.command()
def saturation(
    step: Annotated[float, typer.Option(min=1.0, help="Seconds at each rate on the way up.")] = 10.0,
    seconds: Annotated[float, typer.Option(min=1.0, help="Seconds at half of it.")] = 30.0,
    home: HomeOption = None,
) -> None:
    """The highest rate of POST /payments that the platform keeps up with, and the latency at half of it."""
    from ops.bench.rest import processes_of
    from ops.bench.saturation import measure_saturation
    from ops.demo.platform import find_platform

    with plain_errors():
        chosen = chosen_home(home)
        _print(uvloop.run(measure_saturation(find_platform(chosen), processes_of(chosen), step, seconds)))


@app.command()
def idle(seconds: Annotated[float, typer.Option(min=1.0)] = 30.0, home: HomeOption = None) -> None:
    """CPU, memory and threads of each process while nobody uses the platform."""
    from ops.bench.idle import measure_idle

    with plain_errors():
        costs = measure_idle(chosen_home(home), seconds)
    total = {"cpu_percent": round(sum(c.cpu_percent for c in costs), 2), "rss_mb": sum(c.rss_mb for c in costs)}
    _print({"seconds": seconds, "total": total, "processes": costs})


@app.command()
def life(
    payments: Annotated[int, typer.Option(min=1)] = 500,
    rate: Annotated[float, typer.Option(min=0.1, help="Payments per second.")] = 15.0,
    home: HomeOption = None,
) -> None:
    """CPU of each process per 1,000 payments: created, confirmed, authorised, recorded, notified by webhook."""
    from ops.bench.life import measure_life
    from ops.demo.platform import find_platform

    with plain_errors():
        chosen = chosen_home(home)
        _print(uvloop.run(measure_life(chosen, find_platform(chosen), payments, rate)))


@app.command()
def api(
    rate: Annotated[float, typer.Option(min=0.1, help="Requests per second.")] = 200.0,
    seconds: Annotated[float, typer.Option(min=1.0)] = 20.0,
    home: HomeOption = None,
) -> None:
    """CPU of payment-api for one request, beside a bare handler that only authenticates, encodes and produces."""
    from ops.bench.api import measure_api
    from ops.demo.platform import find_platform
    from ops.local.access import Access

    with plain_errors():
        chosen = chosen_home(home)
        _print(uvloop.run(measure_api(Access(chosen), find_platform(chosen), rate, seconds)))


@app.command()
def decide(payments: Annotated[int, typer.Option(min=1)] = 20_000) -> None:
    """Commands per second that one core decides, alone and with a lane's decoding and encoding; needs no stack."""
    from ops.bench.decide import measure_decide

    _print(measure_decide(payments))


@app.command()
def lane(passes: Annotated[int, typer.Option(min=1, help="The best of so many counts.")] = 6) -> None:
    """Microseconds of CPU that a lane needs for a record, with fastavro and with our codec; needs no stack."""
    from ops.bench.lane import measure_lane

    _print(measure_lane(passes))


@app.command()
def timers(count: Annotated[int, typer.Option(min=1, help="So many, one after the other.")] = 20_000) -> None:
    """Microseconds of CPU that a lane needs for a timer, the first and the last of many; needs no stack."""
    from ops.bench.timers import measure_timers

    _print(measure_timers(count))


@app.command()
def commits(
    pause_ms: Annotated[list[float] | None, typer.Option(help="Pauses to try; 0 and 8 when not given.")] = None,
    lanes: Annotated[list[int] | None, typer.Option(help="Lanes at once; 1 and 3 when not given.")] = None,
    records: Annotated[list[int] | None, typer.Option(help="Outputs of each lane; 1 and 10 when not given.")] = None,
    count: Annotated[int, typer.Option("--commits", min=10, help="Transactions of each kind.")] = 400,
) -> None:
    """What a transaction takes and costs, with the engine's producer and librdkafka's, on a broker of its own."""
    from ops.bench.commits import measure_commits
    from ops.bench.engine.broker import running_broker

    with plain_errors(), running_broker() as broker:
        list(measure_commits(broker, [3], [1], [0.0], WARM_UP_COMMITS))
        for found in measure_commits(broker, lanes or [1, 3], records or [1, 10], pause_ms or [0.0, 8.0], count):
            sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
            sys.stdout.flush()


@app.command()
def engine(
    only: Annotated[list[str] | None, typer.Option(help="Contenders, by name; all when not given.")] = None,
    warm_up: Annotated[float, typer.Option(min=0.0, help="Seconds.")] = 10.0,
    seconds: Annotated[float, typer.Option(min=1.0, help="Measured seconds per contender.")] = 30.0,
    records: Annotated[int, typer.Option(min=10_000, help="Records of input, the same for all.")] = 4_000_000,
    keys: Annotated[int, typer.Option(min=10_000, help="Accounts; above 10,000 each has a row at the start.")] = 10_000,
    nodes: Annotated[int, typer.Option(help="Brokers, and replicas of each topic: 1 or 3.")] = 1,
    rate: Annotated[float, typer.Option(min=1.0, help="Events per second of the latency part.")] = 2_000.0,
    commit_ms: Annotated[int, typer.Option(min=1, help="Commit interval of contenders that have one.")] = 100,
    baseline: Annotated[str, typer.Option(help="Contender that ratios are against.")] = "ours",
    short: Annotated[
        bool,
        typer.Option(help="2 s, 5 s, 300,000 records, 100,000 keys at most: shows that it works, measures little."),
    ] = False,
    page: Annotated[
        Path | None, typer.Option(help="A file.md for this run's page; its figures go beside it, as .json.")
    ] = None,
) -> None:
    """The engine against Kafka Streams, Quix Streams, a bare loop and stock Faust, on a broker of its own."""
    from ops.bench.engine.page import page as page_of
    from ops.bench.engine.run import Options, run_benchmark

    if short:
        warm_up, seconds, records, keys = 2.0, 5.0, 300_000, min(keys, 100_000)
    with plain_errors():
        options = Options(
            only=only or [],
            warm_up_s=warm_up,
            seconds=seconds,
            records=records,
            keys=keys,
            nodes=checked_nodes(nodes),
            rate=rate,
            commit_ms=commit_ms,
            baseline=baseline,
        )
        results = run_benchmark(options, shlex.join(["payments", *sys.argv[1:]]))
    text = page_of(results)
    sys.stderr.write("\n" + text)
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text)
        page.with_suffix(".json").write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    _print(results)
    if any(
        row.throughput is not None and row.throughput.differences for row in results.rows if row.name.startswith("ours")
    ):
        raise typer.Exit(1)


def _print(result: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(result)).decode() + "\n")
