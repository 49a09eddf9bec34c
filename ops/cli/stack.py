"""`payments up`, `status`, `logs`, `restart`, `down`: the local stack from the command line."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from ops.local import start as stack
from ops.local.errors import StackError
from ops.local.jars import ensure_jars
from ops.local.layout import SERVERS, SERVICES, Home, StackConfig, cache_directory, default_home
from ops.local.state import read_state, supervisor_is_alive

READY_WITHIN_S = 300.0  # three nodes on two busy cores; one node on idle ones takes 15 s
DIFFERS = " It keeps its settings; to start with others, `payments down` first."
HomeOption = Annotated[
    Path | None, typer.Option("--home", help="Where the stack lives (default: PAYMENTS_HOME or .local).")
]

console = Console(stderr=True, highlight=False)


def up(
    home: HomeOption = None,
    nodes: Annotated[int | None, typer.Option(help="Kafka brokers and Cassandra nodes: 1 or 3.")] = None,
    port_base: Annotated[
        int | None, typer.Option(help="Use ports from this number on instead of the well-known.")
    ] = None,
    scale: Annotated[list[str] | None, typer.Option(help="SERVICE=N: run N processes of a service.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return when everything is ready.")] = False,
    servers_only: Annotated[
        bool, typer.Option("--servers-only", help="Only Kafka, Cassandra, schema registry.")
    ] = False,
    owner_pid: Annotated[int | None, typer.Option(hidden=True, help="Stop when this process is gone.")] = None,
) -> None:
    """Start the platform on this machine and wait until it is ready. Safe to repeat."""
    place = chosen_home(home)
    with plain_errors():
        existing = place.read_config() or StackConfig()
        config = StackConfig(
            nodes=checked_nodes(nodes or existing.nodes),
            port_base=port_base if port_base is not None else existing.port_base,
            scale=_parse_scale(scale) if scale is not None else existing.scale,
            servers_only=servers_only,
            owner_pid=owner_pid,
        )
        started = stack.start(place, config, lambda sentence: console.print(sentence))
        if not started:
            kept = "" if msgspec.structs.replace(config, owner_pid=existing.owner_pid) == existing else DIFFERS
            console.print(f"Already running in {place.root}.{kept}", soft_wrap=True)
        _follow(place)
        _print_status(place)
        if started and not detach:
            stay(place)


def _follow(place: Home) -> None:
    from ops.cli.progress import Progress

    with Progress(console) as progress:
        stack.follow(place, progress.show, READY_WITHIN_S)


def stay(place: Home) -> None:
    """Keep the terminal until Ctrl-C, then stop the stack."""
    console.print("Press Ctrl-C to stop.")
    try:
        while supervisor_is_alive(place):
            time.sleep(0.5)
        console.print("The stack was stopped.")
    except KeyboardInterrupt:
        console.print("Stopping.")
        stack.stop(place, console.print)


def status(home: HomeOption = None, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Show what runs. Exit code 0 when everything is ready, 1 when not."""
    from ops.local.status import status_document

    place = chosen_home(home)
    with plain_errors():
        document = status_document(place)
        if as_json:
            sys.stdout.write(msgspec.json.format(msgspec.json.encode(document, enc_hook=str)).decode() + "\n")
        else:
            _print_status(place)
    raise typer.Exit(0 if document.ready else 1)


def _print_status(place: Home) -> None:
    from ops.cli.progress import status_table
    from ops.local.status import status_document

    Console(highlight=False).print(status_table(status_document(place)), crop=False)


def logs(
    service: Annotated[str, typer.Argument(help="Name of a service, or name-instance.")],
    follow: Annotated[bool, typer.Option("-f", "--follow")] = False,
    home: HomeOption = None,
) -> None:
    """Print the log of a service (all its instances), and with -f what is added to it."""
    place = chosen_home(home)
    with plain_errors():
        files = sorted({*place.path("logs").glob(f"{service}-[0-9]*.log"), *place.path("logs").glob(f"{service}.log")})
        if not files:
            raise StackError(
                f"There is no log of {service!r} in {place.root}.", f"Known: {', '.join((*SERVICES, *SERVERS))}."
            )
        try:
            _print_logs(files, follow=follow)
        except KeyboardInterrupt:
            return


def _print_logs(files: list[Path], *, follow: bool) -> None:
    opened = [file.open(encoding="utf-8", errors="replace") for file in files]
    while True:
        for stream in opened:
            for line in stream:
                sys.stdout.write(line)
        sys.stdout.flush()
        if not follow:
            return
        time.sleep(0.2)


def restart(service: Annotated[str, typer.Argument()], home: HomeOption = None) -> None:
    """Stop each instance of a service; the supervisor starts it again. Waits until the new one is ready."""
    place = chosen_home(home)
    with plain_errors():
        state = read_state(place)
        mine = [unit for unit in state.processes if unit.name == service] if state else []
        if not mine or not supervisor_is_alive(place):
            raise StackError(f"{service} is not running in {place.root}.", "`payments status` shows what is.")
        for unit in mine:
            stack.restart(place, unit)
            console.print(f"{unit.name} {unit.instance} restarted.")


def down(
    home: HomeOption = None, wipe: Annotated[bool, typer.Option("--wipe", help="Remove all its data.")] = False
) -> None:
    """Stop the stack, services first. Its data stays unless --wipe is given."""
    place = chosen_home(home)
    with plain_errors():
        stack.stop(place, console.print)
        if wipe and place.root.exists():
            stack.wipe(place)
        console.print(f"Stopped{' and removed' if wipe else ''}: {place.root}")


def fetch() -> None:
    """Fetch and verify the servers' jars, so that the next `up` needs no network."""
    with plain_errors():
        ensure_jars(cache_directory(), console.print)


def chosen_home(given: Path | None) -> Home:
    return Home(given.absolute() if given is not None else default_home())


def checked_nodes(nodes: int) -> int:
    """`nodes`, if so many brokers can be started; raises StackError."""
    if nodes not in (1, 3):
        raise StackError(f"There are 1 or 3 nodes, not {nodes}.", "Use --nodes 1 or --nodes 3.")
    return nodes


def _parse_scale(entries: list[str]) -> dict[str, int]:
    scale = {}
    for entry in entries:
        name, _, count = entry.partition("=")
        if name not in SERVICES or not count.isdecimal() or not 1 <= int(count) <= 9:
            raise StackError(
                f"--scale {entry} is not SERVICE=N with N from 1 to 9.", f"Services: {', '.join(SERVICES)}."
            )
        scale[name] = int(count)
    return scale


@contextmanager
def plain_errors() -> Iterator[None]:
    """A StackError is one sentence for the person, not a traceback."""
    try:
        yield
    except StackError as error:
        console.print(f"[red]{error.what}[/red] {error.way_out}", soft_wrap=True)
        raise typer.Exit(1) from error
