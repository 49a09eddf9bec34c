"""`payments demo`: drive payments through everything, show it, verify each hop."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console

from ops.cli.stack import HomeOption, chosen_home, plain_errors
from ops.local.layout import Home

PAYMENTS_MAX = 100_000
app = typer.Typer(add_completion=False)


@app.command(help="Drive payments through everything and verify each hop; exit code 1 when anything is missing.")
def demo(
    payments: Annotated[int, typer.Option(min=1, max=PAYMENTS_MAX, help="How many; 20 and more mix in failures.")] = 1,
    home: HomeOption = None,
    seed: Annotated[int, typer.Option(help="Same cards and amounts for the same seed.")] = 1,
) -> None:
    with plain_errors():
        if not play(chosen_home(home), payments, seed):
            raise typer.Exit(1)


def play(home: Home, payments: int, seed: int) -> bool:
    """One run on the stack of `home`, told on standard output; True when everything is accounted for."""
    from ops.demo.platform import find_platform
    from ops.demo.run import run_demo

    return asyncio.run(run_demo(find_platform(home), payments, seed, Console(highlight=False)))
