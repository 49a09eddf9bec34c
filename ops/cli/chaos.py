"""`payments chaos`: inject faults and check what must hold whatever happens."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ops.cli.stack import HomeOption, checked_nodes, chosen_home, plain_errors

if TYPE_CHECKING:
    from ops.chaos.engine.cluster import Cluster

app = typer.Typer(add_completion=False, no_args_is_help=True)
console = Console(stderr=True, highlight=False, soft_wrap=True)


@app.callback()
def chaos() -> None:
    """Inject faults and check the invariants."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what it has started ends with it, as on Ctrl-C


@app.command()
def engine(
    rounds: Annotated[int, typer.Option(min=1, help="Each a kill -9, a zombie and a change of membership.")] = 3,
    seed: Annotated[int, typer.Option(help="Same faults for the same seed.")] = 1,
    rate: Annotated[float, typer.Option(min=10.0, help="Records a second.")] = 600.0,
    home: HomeOption = None,
    nodes: Annotated[int, typer.Option(help="Brokers of our own, 1 or 3, which are killed, too.")] = 3,
    mutants: Annotated[bool, typer.Option("--mutants", help="Seeded bugs instead: each must turn red.")] = False,
    only: Annotated[str, typer.Option(help="With --mutants: those whose name contains this.")] = "",
    stock: Annotated[bool, typer.Option("--stock", help="Stock Faust instead, which must turn red.")] = False,
    keep: Annotated[
        Path | None, typer.Option(help="Workers' logs and state go here (default: kept only after a failure).")
    ] = None,
) -> None:
    """The exactly-once engine under faults, on brokers of its own, or with --home on that of a running stack.

    Prints a report as JSON; exit code 1 when a promise was broken (with --mutants or --stock: when none was).
    """
    with (
        plain_errors(),
        _cluster(home, 1 if mutants or stock else checked_nodes(nodes), proxied=mutants) as cluster,
        _directory(keep) as root,
    ):
        if mutants or stock:
            from ops.chaos.engine.red_controls import run_mutants, run_stock

            passed = run_mutants(cluster, root, only, _say) if mutants else run_stock(cluster, root, seed, _say)
        else:
            from ops.chaos.engine.rounds import run_rounds, seeded_rounds

            faults = seeded_rounds(seed, rounds, may_kill_broker=cluster.may_lose_a_broker)
            report = run_rounds(cluster, faults, seed, root, rate=rate, say=_say)
            console.print(report.as_table())
            sys.stdout.write(report.as_json().decode() + "\n")
            passed = not report.violations
        if not passed:
            raise typer.Exit(1)


@app.command()
def takeover(
    times: Annotated[int, typer.Option(min=1, help="Kills.")] = 5,
    rows: Annotated[int, typer.Option(min=1, help="In the table.")] = 100_000,
    partitions: Annotated[int, typer.Option(min=2, help="Of the input.")] = 12,
    keep: Annotated[
        Path | None, typer.Option(help="Workers' logs and state go here (default: kept only after a failure).")
    ] = None,
) -> None:
    """How long partitions stand still when their worker is killed with -9, stays dead, and another one has its copies.

    Prints a JSON document for each kill; on a broker of its own.
    """
    import msgspec

    with plain_errors(), _cluster(None, 1, proxied=False) as cluster, _directory(keep) as root:
        from ops.chaos.engine.takeover import takeovers

        for found in takeovers(cluster, root, times, rows, partitions, _say):
            sys.stdout.write(msgspec.json.encode(found).decode() + "\n")


@app.command()
def payments(
    seed: Annotated[int, typer.Option(help="Same kills in the same order for the same seed.")] = 1,
    kills: Annotated[int | None, typer.Option(min=1, help="Only the first so many (default: all failpoints).")] = None,
    home: HomeOption = None,
    keep: Annotated[
        Path | None, typer.Option(help="The demos' output goes here (default: kept only after a failure).")
    ] = None,
) -> None:
    """A running platform whose services are killed at each failpoint of a payment's steps 1 to 7, under load.

    Prints a report as JSON; exit code 1 when `payments demo` or `payments reconcile` finds anything missing or doubled.
    """
    from ops.chaos.payments.run import run_payments_chaos

    with plain_errors(), _directory(keep) as logs:
        report = run_payments_chaos(chosen_home(home), seed, kills, logs, _say)
        sys.stdout.write(report.as_json().decode() + "\n")
        for sentence in report.violations:
            _say(f"VIOLATION {sentence}")
        _say(
            f"{len(report.kills)} kills, {report.payments} payments in {report.seconds:.0f} s, "
            f"{len(report.not_reached)} failpoints not reached: {len(report.violations)} violations"
        )
        if report.violations or not report.kills:
            raise typer.Exit(1)


def _say(sentence: str) -> None:
    console.print(sentence)


@contextmanager
def _cluster(home: Path | None, nodes: int, *, proxied: bool) -> Iterator[Cluster]:
    from ops.chaos.engine.cluster import cluster_of, own_cluster

    if home is not None:
        yield cluster_of(chosen_home(home))
        return
    console.print(f"Starting Kafka, {nodes} node(s).")
    with own_cluster(nodes, proxied=proxied) as cluster:
        yield cluster


@contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    path = Path(tempfile.mkdtemp(prefix="payments-chaos-state-"))
    try:
        yield path
    except BaseException:
        _say(f"Logs and state are kept in {path}: they tell what happened.")
        raise
    shutil.rmtree(path)
