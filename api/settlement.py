"""Step 8, Settle, over HTTP: runs are started and watched by operators; batches are read by them and by merchants."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Sequence
from datetime import date
from typing import Any

import msgspec
from aiohttp import web

from api.audit import Auditor
from api.calls import Call
from api.documents import (
    ChunkDocument,
    ListDocument,
    SettlementBatchDocument,
    SettlementItemDocument,
    SettlementRunDocument,
)
from api.lists import ListQuery
from api.models import StartSettlementRun
from api.problems import Problem, not_found
from api.routes import SETTLEMENT_OPERATORS, SETTLEMENT_READERS, KeyAccess, OperatorAccess, Route
from api.settlement_runner import SettlementRunner
from tables.records.settlement import Batch, Run, SettlementRecords

CSV_TYPE = "text/csv"
CSV_PAGE = 1_000
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_PAGES = {"limit": "1 to 100, default 10", "starting_after": "the last id of the page before"}


class Settlement:
    """The handlers of /settlement_batches and /settlement_runs."""

    def __init__(self, records: SettlementRecords, runner: SettlementRunner, auditor: Auditor) -> None:
        self._records = records
        self._runner = runner
        self._auditor = auditor

    def operator_routes(self) -> list[Route]:
        """The internal routes: runs, and every merchant's batches."""
        return [
            Route(
                method="POST",
                path="/settlement_batches",
                handler=self.start_run,
                summary="Close a day and every day before it",
                access=SETTLEMENT_OPERATORS,
                body=StartSettlementRun,
                answers={202: SettlementRunDocument},
                problems=frozenset({"settlement_date_open", "unavailable"}),
            ),
            Route(
                method="GET",
                path="/settlement_runs/{settlement_date}",
                handler=self.get_run,
                summary="A day's run and its totals",
                access=SETTLEMENT_READERS,
                answers={200: SettlementRunDocument},
                problems=frozenset({"not_found", "unavailable"}),
            ),
            *self._batch_routes(SETTLEMENT_READERS),
        ]

    def public_routes(self) -> list[Route]:
        """The public routes: a merchant's own batches."""
        return self._batch_routes(KeyAccess("settlement:read"))

    def _batch_routes(self, access: KeyAccess | OperatorAccess) -> list[Route]:
        missing = frozenset({"not_found", "unavailable"})
        return [
            Route(
                method="GET",
                path="/settlement_batches",
                handler=self.list_batches,
                summary="Batches, of one day or newest first",
                access=access,
                query={"settlement_date": "only batches of this day", **_PAGES},
                answers={200: ListDocument},
                problems=frozenset({"unavailable"}),
            ),
            Route(
                method="GET",
                path="/settlement_batches/{batch_id}",
                handler=self.get_batch,
                summary="A batch with its chunks; frozen once completed",
                access=access,
                answers={200: SettlementBatchDocument},
                problems=missing,
            ),
            Route(
                method="GET",
                path="/settlement_batches/{batch_id}/payments",
                handler=self.list_items,
                summary="The payments of a batch",
                access=access,
                query=_PAGES,
                answers={200: ListDocument},
                problems=missing,
            ),
            Route(
                method="GET",
                path="/settlement_batches/{batch_id}/payments.csv",
                handler=self.download_items,
                summary="The payments of a batch as a table",
                access=access,
                answers={200: str},
                problems=missing,
                media_type=CSV_TYPE,
            ),
        ]

    async def start_run(self, call: Call) -> web.Response:
        """Passes the request on to batch-processor, which alone closes days; its answer is the run's status."""
        request: StartSettlementRun = call.body
        _check_date(request.settlement_date)
        answer = await self._runner.start_run(call, request.settlement_date, force=request.force)
        run = await self._records.run(request.settlement_date)
        status = run.status if run is not None else answer.status
        document = SettlementRunDocument(settlement_date=request.settlement_date, status=status)
        await self._auditor.record(
            call, "settlement_run.requested", request.settlement_date, after={"status": status, "force": request.force}
        )
        return call.answer(202, document)

    async def get_run(self, call: Call) -> web.Response:
        settlement_date = call.path("settlement_date")
        _check_date(settlement_date)
        run = await self._records.run(settlement_date)
        if run is None:
            raise not_found()
        return call.answer(200, _run_document(run))

    async def list_batches(self, call: Call) -> web.Response:
        page = ListQuery.of(call.query)
        day = call.query.get("settlement_date")
        if day is not None:
            _check_date(day)
        if call.caller is not None:
            batches = await self._records.batches_of_merchant(call.caller.merchant_id, day)
            cut = page.cut(batches, lambda batch: batch.batch_id)
            return call.answer(200, ListDocument(data=await self._documents(cut.data), has_more=cut.has_more))
        after = None
        if page.starting_after is not None:
            after = await self._records.batch(page.starting_after)
            if after is None or day not in (None, after.settlement_date):
                raise Problem("invalid_request", "there is no such batch in this list", param="starting_after")
        if day is None:
            found = await self._records.page_of_all(limit=page.limit + 1, after=after)
        else:
            behind = "" if after is None else after.batch_id
            found = await self._records.page_of_date(day, limit=page.limit + 1, starting_after=behind)
        data = await self._documents(found[: page.limit])
        return call.answer(200, ListDocument(data=data, has_more=len(found) > page.limit))

    async def _documents(self, batches: Sequence[Batch]) -> list[SettlementBatchDocument]:
        """Batches of a list, whose rows hold no chunks, as GET shows each of them."""
        whole = await asyncio.gather(*(self._records.batch(batch.batch_id) for batch in batches))
        return [_batch_document(batch) for batch in whole if batch is not None]

    async def get_batch(self, call: Call) -> web.Response:
        return call.answer(200, _batch_document(await self._visible(call)))

    async def list_items(self, call: Call) -> web.Response:
        page = ListQuery.of(call.query)
        batch = await self._visible(call)
        after = page.starting_after or ""
        if page.starting_after is not None and not await self._records.items_between(batch.batch_id, after, after):
            raise Problem("invalid_request", "there is no such payment in this batch", param="starting_after")
        found = await self._records.items(batch.batch_id, limit=page.limit + 1, starting_after=after)
        data = [
            SettlementItemDocument(
                payment_id=item.payment_id, amount=item.amount, currency=item.currency, status=item.status
            )
            for item in found[: page.limit]
        ]
        return call.answer(200, ListDocument(data=data, has_more=len(found) > page.limit))

    async def download_items(self, call: Call) -> web.StreamResponse:
        """The items as CSV, a page at a time, so that a batch of any size takes the memory of one page."""
        batch = await self._visible(call)
        response = web.StreamResponse(
            headers={
                "Content-Type": f"{CSV_TYPE}; charset=utf-8",
                "Content-Disposition": f'attachment; filename="{batch.batch_id}.csv"',
                "Request-Id": call.request_id,
                "Cache-Control": "no-store",
            }
        )
        rows: list[list[Any]] = [["payment_id", "amount", "currency", "status", "chunk", "transaction_id"]]
        after = ""
        while True:
            items = await self._records.items(batch.batch_id, limit=CSV_PAGE, starting_after=after)
            rows += [
                [item.payment_id, item.amount, item.currency, item.status, item.chunk, item.transaction_id]
                for item in items
            ]
            if not response.prepared:
                await response.prepare(call.request)
            await response.write(_csv(rows))
            if len(items) < CSV_PAGE:
                break
            rows, after = [], items[-1].payment_id
        await response.write_eof()
        return response

    async def _visible(self, call: Call) -> Batch:
        """The batch, which a merchant sees only when it is its own. Raises Problem not_found."""
        batch = await self._records.batch(call.path("batch_id"))
        if batch is None or (call.caller is not None and batch.merchant_id != call.caller.merchant_id):
            raise not_found()
        return batch


def _check_date(text: str) -> None:
    try:
        valid = date.fromisoformat(text).isoformat() == text
    except ValueError:
        valid = False
    if not valid:
        raise Problem("invalid_request", "a date, YYYY-MM-DD", param="settlement_date")


def _run_document(run: Run) -> SettlementRunDocument:
    return msgspec.convert(
        {"settlement_date": run.settlement_date, "status": run.status, "totals": run.totals}, SettlementRunDocument
    )


def _batch_document(batch: Batch) -> SettlementBatchDocument:
    chunks = [
        ChunkDocument(chunk=chunk.chunk, count=chunk.count, amount=chunk.amount, status=chunk.status)
        for chunk in sorted(batch.chunks, key=lambda chunk: chunk.chunk)
    ]
    return SettlementBatchDocument(
        batch_id=batch.batch_id,
        merchant_id=batch.merchant_id,
        settlement_date=batch.settlement_date,
        currency=batch.currency,
        status=batch.status,
        count=batch.count,
        amount=batch.amount,
        settled_count=batch.settled_count,
        failed_count=batch.failed_count,
        chunks=chunks,
    )


def _csv(rows: list[list[Any]]) -> bytes:
    """RFC 4180; a text that a spreadsheet would take for a formula gets an apostrophe in front."""
    text = io.StringIO()
    writer = csv.writer(text)
    for row in rows:
        writer.writerow(
            [f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS) else cell for cell in row]
        )
    return text.getvalue().encode()
