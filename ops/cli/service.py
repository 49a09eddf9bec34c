"""`payments service NAME`: run one service process with the settings of its environment. The stack starts these."""

from __future__ import annotations

import importlib
import os
from typing import Annotated

import typer

from ops.runtime.settings import PREFIX, SettingsError, load_settings

FAUST = "streams.services:run"
ENTRY_POINTS = {
    "payment-api": "api.server:run",
    "payment-worker": FAUST,
    "records-worker": FAUST,
    "provider-gateway": FAUST,
    "batch-processor": FAUST,
    "webhook-dispatcher": FAUST,
    "provider-simulator": "ops.simulator.server:run",
}


def service(
    name: Annotated[str, typer.Argument(help=", ".join(ENTRY_POINTS))],
    instance: Annotated[int, typer.Option(help="Number among the processes of this service.")] = 0,
) -> None:
    """Run one service until SIGTERM; settings come from PAYMENTS_* environment variables."""
    if name not in ENTRY_POINTS:
        raise typer.BadParameter(f"{name} is none of {', '.join(ENTRY_POINTS)}")
    given = {f"{PREFIX}SERVICE": name, f"{PREFIX}INSTANCE": str(instance)}
    try:
        settings = load_settings({**os.environ, **given})
    except SettingsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    module, _, function = ENTRY_POINTS[name].partition(":")
    raise typer.Exit(getattr(importlib.import_module(module), function)(settings))
