"""`payments topics ls|diff|apply`: topics and grants of the catalogue, on the local stack or any other cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from rich.console import Console
from rich.table import Column, Table

from ops.local import kafka
from ops.local.errors import StackError
from ops.local.layout import STACK_ADMIN, Home, Ports, default_home
from topics import apply, catalog, document

app = typer.Typer(help="List, apply and compare topics and their access rules.", no_args_is_help=True)
console = Console(highlight=False)

HomeOption = Annotated[Path | None, typer.Option("--home", help="The local stack to work on.")]
BootstrapOption = Annotated[
    str | None, typer.Option(help="Another cluster, host:port[,host:port]; then the options below, too.")
]
CaOption = Annotated[Path | None, typer.Option("--ca", help="PEM of the authority of its certificates.")]
CertOption = Annotated[Path | None, typer.Option("--cert", help="PEM of the administrator's certificate.")]
KeyOption = Annotated[Path | None, typer.Option("--key", help="PEM of its key.")]
FactorOption = Annotated[int, typer.Option("--replication-factor", help="Copies of each partition there.")]


@app.command()
def ls(markdown: Annotated[bool, typer.Option("--markdown", help="The page topics/README.md.")] = False) -> None:
    """Show the catalogue."""
    if markdown:
        sys.stdout.write(document.markdown())
        return
    table = Table(Column("Topic", overflow="fold"), "Parts", "Kept", "Writer", "Readers", box=None)
    for topic in catalog.all_topics():
        table.add_row(topic.name, str(topic.partitions), document.kept(topic), topic.writer, ", ".join(topic.readers))
    console.print(table)


@app.command("diff")
def diff_command(
    home: HomeOption = None,
    bootstrap: BootstrapOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    replication_factor: FactorOption = 3,
) -> None:
    """Show what the cluster has otherwise than the catalogue. Exit code 0 when nothing differs, else 1."""
    admin, factor = _connect(home, bootstrap, ca, cert, key, replication_factor)
    with _plain_errors():
        found = apply.diff(admin, replication_factor=factor)
    for difference in found:
        console.print(difference.text, markup=False, soft_wrap=True)
    raise typer.Exit(1 if found else 0)


@app.command("apply")
def apply_command(
    home: HomeOption = None,
    bootstrap: BootstrapOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    replication_factor: FactorOption = 3,
) -> None:
    """Create and alter topics and grants until nothing differs. Safe to repeat; loses nothing."""
    admin, factor = _connect(home, bootstrap, ca, cert, key, replication_factor)
    with _plain_errors():
        found = apply.apply_topics(admin, replication_factor=factor)
    for difference in found:
        console.print(f"repaired: {difference.text}", markup=False, soft_wrap=True)
    if not found:
        console.print("Nothing to do.")


def _connect(
    home: Path | None, bootstrap: str | None, ca: Path | None, cert: Path | None, key: Path | None, factor: int
) -> tuple[AdminClient, int]:
    """An administrator, and the replication factor that fits: the local stack's number of nodes, or the option's."""
    if bootstrap is not None:
        if ca is None or cert is None or key is None:
            raise _failure("Another cluster needs --ca, --cert and --key, too.")
        return apply.connect(bootstrap, _security(ca, cert, key)), factor
    place = Home(home.absolute() if home is not None else default_home())
    with _plain_errors():
        config = place.read_config()
    if config is None:
        raise _failure(f"There is no stack in {place.root}: start one with `payments up`, or name a --bootstrap.")
    security = _security(place.ca, place.cert(STACK_ADMIN), place.key(STACK_ADMIN))
    return apply.connect(kafka.bootstrap(config, Ports(config.port_base)), security), config.nodes


def _security(ca: Path, cert: Path, key: Path) -> dict[str, str]:
    return {
        "security.protocol": "ssl",
        "ssl.ca.location": str(ca),
        "ssl.certificate.location": str(cert),
        "ssl.key.location": str(key),
    }


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except StackError as error:
        raise _failure(f"{error.what} {error.way_out}") from error
    except KafkaException as error:
        raise _failure(f"Kafka: {error.args[0].str()}. Is it running? `payments status` shows it.") from error
    except (apply.ApplyRefused, TimeoutError) as error:
        raise _failure(str(error)) from error


def _failure(sentence: str) -> typer.Exit:
    Console(stderr=True, highlight=False).print(sentence, soft_wrap=True, markup=False)
    return typer.Exit(1)
