"""`payments schema check|register`: the repository's Avro schemas against the schema registry."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ops.local.errors import StackError
from ops.local.layout import Home, Ports, default_home
from topics.catalog import all_topics
from topics.registry import Registry, RegistryError, RegistryUnavailable, check_schemas, register_schemas
from topics.schemas import subjects

OPERATOR = "operator"  # the only identity that the registry's guard lets write

app = typer.Typer(help="Check and register the Avro schemas.", no_args_is_help=True)
console = Console(highlight=False)

HomeOption = Annotated[Path | None, typer.Option("--home", help="The local stack to work on.")]
UrlOption = Annotated[str | None, typer.Option(help="Another registry; then the options below, too.")]
CaOption = Annotated[Path | None, typer.Option("--ca", help="PEM of the authority of its certificate.")]
CertOption = Annotated[Path | None, typer.Option("--cert", help="PEM of the operator's certificate.")]
KeyOption = Annotated[Path | None, typer.Option("--key", help="PEM of its key.")]


@app.command()
def check(
    home: HomeOption = None,
    url: UrlOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
) -> None:
    """Compare every schema with all its registered versions. Exit code 1 when one breaks FULL_TRANSITIVE."""
    with _connected(home, url, ca, cert, key) as registry:
        verdicts = check_schemas(registry, subjects(all_topics()))
    breaches = [verdict for verdict in verdicts if not verdict.is_compatible]
    for verdict in breaches:
        reasons = "; ".join(verdict.messages) or "a reader of one version could not read the other"
        console.print(f"{verdict.subject} is not compatible with what is registered: {reasons}", soft_wrap=True)
    console.print(f"{len(verdicts) - len(breaches)} of {len(verdicts)} schemas are compatible.")
    raise typer.Exit(1 if breaches else 0)


@app.command()
def register(
    home: HomeOption = None,
    url: UrlOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
) -> None:
    """Register every schema that is not there yet. Safe to repeat; refused when one breaks FULL_TRANSITIVE."""
    with _connected(home, url, ca, cert, key) as registry:
        ids = register_schemas(registry, subjects(all_topics()))
    console.print(f"{len(ids)} schemas are registered.")


@contextmanager
def _connected(
    home: Path | None, url: str | None, ca: Path | None, cert: Path | None, key: Path | None
) -> Iterator[Registry]:
    """The registry of the local stack, or the one that the options name; its errors become one sentence."""
    try:
        registry = _registry(home, url, ca, cert, key)
        try:
            yield registry
        finally:
            registry.close()
    except StackError as error:
        raise _failure(f"{error.what} {error.way_out}") from error
    except (RegistryError, RegistryUnavailable) as error:
        raise _failure(str(error)) from error


def _registry(home: Path | None, url: str | None, ca: Path | None, cert: Path | None, key: Path | None) -> Registry:
    if url is not None:
        if ca is None or cert is None or key is None:
            raise _failure("Another registry needs --ca, --cert and --key, too.")
        return Registry(url, _context(ca, cert, key))
    place = Home(home.absolute() if home is not None else default_home())
    config = place.read_config()
    if config is None:
        raise _failure(f"There is no stack in {place.root}: start one with `payments up`, or name a --url.")
    here = f"https://127.0.0.1:{Ports(config.port_base).schema_registry}"
    return Registry(here, _context(place.ca, place.cert(OPERATOR), place.key(OPERATOR)))


def _context(ca: Path, cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    context.load_cert_chain(cert, key)
    return context


def _failure(sentence: str) -> typer.Exit:
    Console(stderr=True, highlight=False).print(sentence, soft_wrap=True, markup=False)
    return typer.Exit(1)
