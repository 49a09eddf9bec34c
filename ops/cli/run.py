"""`payments run`: what `make run` does after the set-up: start, one payment before your eyes, stay until Ctrl-C."""

from __future__ import annotations

import os
import time

import typer
from rich.console import Console

from ops.cli.demo import play
from ops.cli.stack import HomeOption, chosen_home, plain_errors, stay, up
from ops.local.layout import Home
from ops.local.state import supervisor_is_alive
from ops.local.status import StatusDocument, shown_urls, status_document

console = Console(highlight=False)


def run(home: HomeOption = None) -> None:
    """Start the platform, drive one payment through its whole life, stay until Ctrl-C, then stop."""
    place = chosen_home(home)
    began = time.monotonic()
    was_running = supervisor_is_alive(place)
    owner = None if was_running else os.getpid()  # what we start ends with us, however we end
    up(place.root, nodes=None, port_base=None, scale=None, detach=True, servers_only=False, owner_pid=owner)
    console.print(f"Ready after {time.monotonic() - began:.0f} s. The life of one payment:")
    with plain_errors():
        is_complete = play(place, payments=1, seed=1)
        console.print(f"Done {time.monotonic() - began:.0f} s after the start.")
        _show_how_to_go_on(place)
    if not was_running:
        stay(place)
    raise typer.Exit(0 if is_complete else 1)


def _show_how_to_go_on(place: Home) -> None:
    document = status_document(place)
    for name, url in shown_urls(document).items():
        console.print(f"{name:<16}{url}")
    for merchant in document.merchants:
        console.print(f"{merchant['name']:<16}{merchant['secret_key']}", soft_wrap=True)
        console.print(f"{'':<16}{merchant['publishable_key']}", soft_wrap=True)
    console.print("Create a payment yourself:")
    console.print(curl_line(document), soft_wrap=True, markup=False)


def curl_line(document: StatusDocument) -> str:
    """A command that creates a payment, to be pasted into a shell."""
    key = document.merchants[0]["secret_key"]
    body = '{"amount": 2500, "currency": "USD", "customer": {"email": "a@example.com"}}'
    return (
        f"curl --cacert {document.tls['ca']} {document.urls['api']}/payments -H 'Authorization: Bearer {key}'"
        f" -H 'Content-Type: application/json' -H 'Idempotency-Key: my-first-payment' -d '{body}'"
    )
