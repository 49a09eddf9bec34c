"""One reconciliation of a running platform: read everything, compare, and look again at what differs.

The platform goes on meanwhile, so one witness may be ahead of another. A difference counts when it is still there
after a while in which its payment was read again from every witness.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import NamedTuple

import aiohttp

from ops.reconcile.compare import Difference, Witnesses, differences
from ops.reconcile.sources import Topics, read_ledger, read_records
from tables.records.session import RecordsSession

PAUSE_S = 1.0
ANSWER_S = 15.0


class Outcome(NamedTuple):
    """How many payments there are, and on what their witnesses do not agree."""

    payments: int
    differences: list[Difference]


async def reconcile(
    topics: Topics,
    session: RecordsSession,
    provider_url: str,
    tls: ssl.SSLContext,
    *,
    patience_s: float,
    only: Sequence[str] | None = None,
) -> Outcome:
    """Compare all payments, or these; differences get `patience_s` seconds to go away.

    Raises what the witnesses raise: KafkaException, TimeoutError, RecordsUnavailable, LedgerError, aiohttp.ClientError.
    """
    witnesses = Witnesses()
    deadline = asyncio.get_running_loop().time() + patience_s
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S), trust_env=False) as http:
        await asyncio.to_thread(topics.read_on, witnesses)
        await read_records(session, witnesses, only)
        await read_ledger(http, provider_url, tls, witnesses, only)
        compared = sorted(witnesses.payments()) if only is None else only
        found = list(differences(witnesses, compared))
        while found and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(PAUSE_S)
            suspects = sorted({difference.payment_id for difference in found})
            await read_records(session, witnesses, suspects)
            await read_ledger(http, provider_url, tls, witnesses, suspects)
            await asyncio.to_thread(topics.read_on, witnesses)
            found = list(differences(witnesses, suspects))
    return Outcome(len(compared), found)
