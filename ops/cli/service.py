"""`payments service NAME`: run one service process with the settings of its environment. The stack starts these."""

from __future__ import annotations

import importlib
import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from ops.runtime.logs import logger
from ops.runtime.settings import PREFIX, SettingsError, load_settings
from streams.exactly_once.failpoints import configure

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
    if settings.failpoints_file != Path():
        signal.signal(signal.SIGUSR1, lambda *_: _arm(settings.failpoints_file))
    module, _, function = ENTRY_POINTS[name].partition(":")
    raise typer.Exit(getattr(importlib.import_module(module), function)(settings))


def _arm(failpoints_file: Path) -> None:
    """Arm what the file says, "after_end=kill:3", or nothing: streams.exactly_once.failpoints."""
    text = failpoints_file.read_text().strip()
    try:
        configure(text)
    except ValueError as error:
        logger().error("failpoints refused", reason=str(error))
    else:
        logger().warning("failpoints armed", failpoints=text)
