"""`payments db migrate|status`: the schema of the record tables, on the local stack or any other cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from ops.local import cassandra
from ops.local.errors import StackError
from ops.local.layout import STACK_ADMIN, Home, Ports, default_home
from ops.local.record_tables import KEYSPACE, cassandra_address
from tables.records.errors import RecordsError
from tables.records.grants import apply_grants
from tables.records.migrate import Applied, create_keyspace, migrate, status
from tables.records.session import CassandraAddress, RecordsSession

T = TypeVar("T")

app = typer.Typer(help="Migrate the record tables.", no_args_is_help=True)
console = Console(highlight=False)

HomeOption = Annotated[Path | None, typer.Option("--home", help="The local stack to work on.")]
ContactOption = Annotated[
    list[str] | None, typer.Option("--contact-point", help="Another cluster's node; then the options below, too.")
]
PortOption = Annotated[int, typer.Option(help="Its CQL port.")]
DatacenterOption = Annotated[str, typer.Option(help="Its datacenter that we write to.")]
CaOption = Annotated[Path | None, typer.Option("--ca", help="PEM of the authority of its certificates.")]
CertOption = Annotated[Path | None, typer.Option("--cert", help="PEM of the administrator's certificate.")]
KeyOption = Annotated[Path | None, typer.Option("--key", help="PEM of its key.")]
KeyspaceOption = Annotated[str, typer.Option(help="The keyspace of the records.")]


@app.command("migrate")
def migrate_command(
    home: HomeOption = None,
    contact_point: ContactOption = None,
    port: PortOption = 9042,
    datacenter: DatacenterOption = cassandra.DATACENTER,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    keyspace: KeyspaceOption = KEYSPACE,
    replication_factor: Annotated[int | None, typer.Option(help="For a keyspace that is not there yet.")] = None,
    grants: Annotated[bool, typer.Option(help="Also grant the services' permissions; their roles must exist.")] = True,
) -> None:
    """Apply the migrations that are pending. Safe to repeat, and to run in several places at once."""
    address, factor = _address(home, contact_point, port, datacenter, ca, cert, key)
    applied = _run(_migrate(address, keyspace, replication_factor or factor, grants=grants))
    for name in applied:
        console.print(f"applied {name}")
    if not applied:
        console.print("Nothing to apply.")


@app.command("status")
def status_command(
    home: HomeOption = None,
    contact_point: ContactOption = None,
    port: PortOption = 9042,
    datacenter: DatacenterOption = cassandra.DATACENTER,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    keyspace: KeyspaceOption = KEYSPACE,
) -> None:
    """Show each migration and when it was applied. Exit code 0 when none is pending, 1 when one is."""
    address, _ = _address(home, contact_point, port, datacenter, ca, cert, key)
    entries = _run(_status(address, keyspace))
    for entry in entries:
        console.print(f"{entry.migration.version:04d}_{entry.migration.name}  {_when(entry)}")
    raise typer.Exit(1 if any(entry.applied_at is None for entry in entries) else 0)


async def _migrate(address: CassandraAddress, keyspace: str, replication_factor: int, *, grants: bool) -> list[str]:
    session = await RecordsSession.connect(address, keyspace)
    try:
        await create_keyspace(session, address.datacenter, replication_factor)
        applied = await migrate(session)
        if grants:
            await apply_grants(session, keyspace)
    finally:
        await session.close()
    return [f"{migration.version:04d}_{migration.name}" for migration in applied]


async def _status(address: CassandraAddress, keyspace: str) -> list[Applied]:
    session = await RecordsSession.connect(address, keyspace)
    try:
        return await status(session)
    finally:
        await session.close()


def _address(
    home: Path | None,
    contact_points: list[str] | None,
    port: int,
    datacenter: str,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
) -> tuple[CassandraAddress, int]:
    """Where to go, and the replication factor that fits: the local stack's nodes, or 3."""
    if contact_points:
        files = {"tls_ca": ca, "tls_cert": cert, "tls_key": key}
        return CassandraAddress(contact_points=contact_points, port=port, datacenter=datacenter, **files), 3
    place = Home(home.absolute() if home is not None else default_home())
    try:
        config = place.read_config()
    except StackError as error:
        raise _failure(f"{error.what} {error.way_out}") from error
    if config is None:
        raise _failure(f"There is no stack in {place.root}: start one with `payments up`, or name a --contact-point.")
    return cassandra_address(place, config, Ports(config.port_base), STACK_ADMIN), config.nodes


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except RecordsError as error:
        raise _failure(str(error)) from error


def _failure(sentence: str) -> typer.Exit:
    Console(stderr=True, highlight=False).print(sentence, soft_wrap=True, markup=False)
    return typer.Exit(1)


def _when(entry: Applied) -> str:
    if entry.applied_at is None:
        return "pending"
    return datetime.fromtimestamp(entry.applied_at / 1_000_000, UTC).strftime("applied %Y-%m-%d %H:%M:%SZ")
