"""`payments bench`: measure the running platform; results as JSON on standard output."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Any

import msgspec
import typer

from ops.cli.stack import HomeOption, chosen_home, plain_errors

app = typer.Typer(add_completion=False, no_args_is_help=True)


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
        _print(asyncio.run(measure_creates(platform, rate, seconds)))


@app.command()
def idle(seconds: Annotated[float, typer.Option(min=1.0)] = 30.0, home: HomeOption = None) -> None:
    """CPU, memory and threads of each process while nobody uses the platform."""
    from ops.bench.idle import measure_idle

    with plain_errors():
        costs = measure_idle(chosen_home(home), seconds)
    total = {"cpu_percent": round(sum(c.cpu_percent for c in costs), 2), "rss_mb": sum(c.rss_mb for c in costs)}
    _print({"seconds": seconds, "total": total, "processes": costs})


def _print(result: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(result)).decode() + "\n")
