"""The `payments` command: a register of sub-commands, each imported only when it is called, so that `--help` is fast.

To add one: write `ops/cli/<name>.py` with a Typer app `app` (or a function) and a line in COMMANDS.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

if TYPE_CHECKING:
    from typer._click.core import Command, Context  # typer carries its own copy of click


class Registered(NamedTuple):
    target: str  # module:attribute, a Typer app or a function
    help: str
    hidden: bool = False


COMMANDS: dict[str, Registered] = {
    "up": Registered("ops.cli.stack:up", "Start the platform on this machine."),
    "status": Registered("ops.cli.stack:status", "Show what runs, where and how large it is."),
    "logs": Registered("ops.cli.stack:logs", "Print the log of a service."),
    "restart": Registered("ops.cli.stack:restart", "Restart a service, one instance after the other."),
    "down": Registered("ops.cli.stack:down", "Stop the platform; its data stays unless --wipe is given."),
    "fetch": Registered("ops.cli.stack:fetch", "Fetch and verify the servers' jars (`up` does it too)."),
    "run": Registered("ops.cli.run:run", "Start everything, show one payment's whole life, stay until Ctrl-C."),
    "demo": Registered("ops.cli.demo:app", "Drive payments through everything and verify each hop."),
    "bench": Registered("ops.cli.bench:app", "Measure the platform."),
    "chaos": Registered("ops.cli.chaos:app", "Inject faults and check the invariants."),
    "topics": Registered("ops.cli.topics:app", "List, apply and compare topics and their access rules."),
    "schema": Registered("ops.cli.schema:app", "Check and register the Avro schemas."),
    "db": Registered("ops.cli.db:app", "Migrate the record tables."),
    "merchants": Registered("ops.cli.merchants:app", "Create and change merchants."),
    "keys": Registered("ops.cli.keys:app", "Create and revoke API keys."),
    "webhooks": Registered("ops.cli.webhooks:app", "Look at endpoints and deliveries."),
    "settlement": Registered("ops.cli.settlement:app", "Run and show settlements."),
    "dlq": Registered("ops.cli.dlq:app", "Look at dead letters and replay them."),
    "reconcile": Registered("ops.cli.reconcile:app", "Compare topics, tables, records and the provider's ledger."),
    "audit": Registered("ops.cli.audit:app", "Verify the audit log."),
    "events": Registered("ops.cli.events:app", "Follow events."),
    "listen": Registered("ops.cli.listen:app", "Forward webhooks to a local URL."),
    "trigger": Registered("ops.cli.trigger:app", "Make an event happen."),
    "service": Registered("ops.cli.service:service", "Run one service process (the stack starts these).", hidden=True),
}


class Registry(TyperGroup):
    """Lists commands from the register; imports a command's module only to run it."""

    def list_commands(self, ctx: Context) -> list[str]:
        return [name for name, entry in COMMANDS.items() if _exists(entry)]

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """What help shows of a command; `resolve_command` gets the real one."""
        entry = COMMANDS.get(cmd_name)
        if entry is None or not _exists(entry):
            return None
        return TyperCommand(cmd_name, help=entry.help, hidden=entry.hidden)

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        name, known, rest = super().resolve_command(ctx, args)
        return name, _load(COMMANDS[name]) if name is not None and known is not None else known, rest


def _exists(entry: Registered) -> bool:
    return importlib.util.find_spec(entry.target.partition(":")[0]) is not None


def _load(entry: Registered) -> Command:
    module, _, attribute = entry.target.partition(":")
    target = getattr(importlib.import_module(module), attribute)
    if isinstance(target, typer.Typer):
        return get_command(target)
    app = typer.Typer(add_completion=False)
    app.command(help=target.__doc__)(target)
    return get_command(app)


def main() -> None:
    """Entry point of the `payments` script."""
    app = typer.Typer(cls=Registry, help="A payment platform as a stream pipeline.", no_args_is_help=True)
    app.callback()(lambda: None)
    try:
        get_command(app)(prog_name="payments")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
