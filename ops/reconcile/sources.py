"""Reads the witnesses with the auditor's certificate: two topics, one Cassandra table, the provider's ledger."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Collection
from typing import Any

import aiohttp
import msgspec

from ops.reconcile.compare import Movement, View, Witnesses, view_of
from streams.exactly_once.errors import Poison
from tables.payments import CHANGELOG
from tables.records import cql
from tables.records.session import RecordsSession
from topics.codec import Codec
from topics.committed import CommittedReader, Offsets

EVENTS = "payments.events"
TOPICS = (EVENTS, CHANGELOG)
LEDGER_PAGE = 100

_COLUMNS = (
    "payment_id, status, version, revision, amount, amount_refunded, currency,"
    " transaction_id, transaction_type, transaction_status, transaction_amount"
)
_SELECT_ALL = cql.select(_COLUMNS, "payments")
_SELECT_ONE = cql.select(_COLUMNS, "payments", "WHERE payment_id = ?")


class LedgerError(Exception):
    """The provider does not show its ledger; the message says what it answered."""


class Topics:
    """What is committed to the two topics, each record read once."""

    def __init__(self, reader: CommittedReader, codec: Codec) -> None:
        self._reader = reader
        self._codec = codec
        self._reached: Offsets | None = None

    def read_on(self, witnesses: Witnesses) -> None:
        """Everything that was committed since the last call. Blocking. Raises KafkaException, TimeoutError."""
        begin = self._reader.beginnings(TOPICS) if self._reached is None else self._reached
        end = self._reader.ends(TOPICS)
        for record in self._reader.read(begin, end):
            if record.topic == CHANGELOG and record.value is None:
                continue  # a row that was removed: what the other witnesses still know of it shows
            try:
                fields = self._codec.decode(record.topic, record.value).fields
            except Poison:
                continue  # tells of no payment; were one's event lost in it, the other witnesses would show that
            if record.topic == EVENTS:
                witnesses.add_event(fields)
            else:
                witnesses.table[fields["payment"]["payment_id"]] = view_of(fields["payment"])
        self._reached = end


async def read_records(session: RecordsSession, witnesses: Witnesses, only: Collection[str] | None = None) -> None:
    """Payments in Cassandra: all of them, or these. Raises RecordsUnavailable."""
    rows: dict[str, list[Any]] = {}
    if only is None:
        async for page in session.pages(_SELECT_ALL):
            for row in page:
                rows.setdefault(row.payment_id, []).append(row)
    else:
        for payment_id in only:
            witnesses.records.pop(payment_id, None)
            if found := await session.execute(_SELECT_ONE, (payment_id,)):
                rows[payment_id] = found
    for payment_id, found in rows.items():
        witnesses.records[payment_id] = _recorded(found)


def _recorded(rows: list[Any]) -> View:
    """One partition: the payment's columns on each row, a transaction on each but a lone first one."""
    first = rows[0]
    transactions = (
        (row.transaction_id, row.transaction_type, row.transaction_status, row.transaction_amount)
        for row in rows
        if row.transaction_id is not None
    )
    plain = (getattr(first, name) for name in View._fields[:-1])
    return View._make((*plain, tuple(sorted(transactions))))


async def read_ledger(
    http: aiohttp.ClientSession,
    url: str,
    tls: ssl.SSLContext,
    witnesses: Witnesses,
    only: Collection[str] | None = None,
) -> None:
    """The provider's movements: all of them, or those of these payments. Raises LedgerError, aiohttp.ClientError."""
    if only is None:
        witnesses.ledger.clear()
    for payment_id in only or ():
        witnesses.ledger.pop(payment_id, None)
    for query in [{}] if only is None else [{"payment_id": payment_id} for payment_id in only]:
        async for movement in _movements(http, url, tls, query):
            made = Movement(*(movement[name] for name in Movement._fields))
            witnesses.ledger.setdefault(movement["payment_id"], []).append(made)


async def _movements(
    http: aiohttp.ClientSession, url: str, tls: ssl.SSLContext, query: dict[str, str]
) -> AsyncIterator[dict[str, Any]]:
    after: dict[str, str] = {}
    while True:
        parameters = {**query, **after, "limit": str(LEDGER_PAGE)}
        async with http.get(f"{url}/v1/ledger", params=parameters, ssl=tls) as answer:
            content = await answer.read()
            if answer.status != 200:
                raise LedgerError(f"the provider answers {answer.status} for its ledger")
        page = msgspec.json.decode(content)
        for movement in page["data"]:
            yield movement
        if not page["has_more"]:
            return
        after = {"after": page["data"][-1]["operation_id"]}
