"""`payments reconcile`: whether topics, table, records and the provider's ledger tell the same of every payment."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import aiohttp
import msgspec
import typer

from ops.cli.stack import HomeOption, chosen_home, plain_errors
from ops.local.access import Access, servers_answer
from ops.local.errors import StackError
from ops.local.probes import client_context
from ops.local.record_tables import KEYSPACE, cassandra_address
from ops.local.status import urls
from ops.reconcile.run import Outcome, reconcile
from ops.reconcile.sources import TOPICS, LedgerError, Topics
from tables.records.errors import RecordsUnavailable
from tables.records.session import RecordsSession
from topics.committed import CommittedReader

AUDITOR = "auditor"
WAY_OUT = "`payments status` shows what runs."

app = typer.Typer(add_completion=False)


@app.command()
def command(
    payments: Annotated[list[str] | None, typer.Argument(metavar="[PAYMENT...]", help="Only these: pay_...")] = None,
    patience_s: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds that a difference gets to go away: work goes on meanwhile.")
    ] = 20.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per difference.")] = False,
    home: HomeOption = None,
) -> None:
    """Compare what the topics, the table, Cassandra and the provider say of every payment; exit code 1 on a difference.

    Reads only, with the auditor's certificate.
    """
    with plain_errors(), servers_answer():
        try:
            outcome = asyncio.run(_reconcile(Access(chosen_home(home)), patience_s, payments))
        except (RecordsUnavailable, LedgerError, aiohttp.ClientError) as error:
            raise StackError(f"{error}.", WAY_OUT) from error
    for difference in outcome.differences:
        shown = msgspec.json.encode(difference._asdict()).decode() if as_json else ": ".join(difference)
        sys.stdout.write(f"{shown}\n")
    summary = f"{outcome.payments} payments, {len(outcome.differences)} differences\n"
    (sys.stderr if as_json else sys.stdout).write(summary)
    raise typer.Exit(1 if outcome.differences else 0)


async def _reconcile(access: Access, patience_s: float, only: list[str] | None) -> Outcome:
    topics = Topics(CommittedReader(access.kafka(AUDITOR), AUDITOR), access.open_codec(AUDITOR, *TOPICS))
    address = cassandra_address(access.home, access.config, access.ports, AUDITOR)
    session = await RecordsSession.connect(address, KEYSPACE)
    try:
        tls = client_context(access.home, AUDITOR)
        provider = urls(access.ports)["provider"]
        return await reconcile(topics, session, provider, tls, patience_s=patience_s, only=only or None)
    finally:
        await session.close()
