"""One run of the demo: drives the orders while the witnesses watch, then verifies and says what came of it."""

from __future__ import annotations

import asyncio
import time

from rich.console import Console

from ops.demo import witnesses
from ops.demo.client import Client, GaveUp
from ops.demo.drive import Drive
from ops.demo.journal import Entry, Journal
from ops.demo.orders import Order, make_orders
from ops.demo.platform import Platform
from ops.demo.show import Bars, show_findings
from ops.demo.timeline import Hop, Timeline, hop_of
from ops.demo.verify import Evidence, Finding, findings
from tables.payments import CHANGELOG
from topics import catalog
from topics.codec import Codec
from topics.registry import Registry, find_ids
from topics.schemas import subjects

WATCHED = (*(topic.name for topic in catalog.TOPICS if topic.records and topic.name != "audit.log"), CHANGELOG)


async def run_demo(platform: Platform, count: int, seed: int, console: Console) -> bool:
    """Drive `count` payments through everything; True when every hop of every one of them is accounted for."""
    began = time.time()
    orders = make_orders(count, seed)
    run = _Run(platform, orders, console, began)
    try:
        found = await run.play()
    finally:
        await run.close()
    show_findings(console, found)
    console.print(run.summary())
    return not any(finding.problems for finding in found)


class _Run:
    def __init__(self, platform: Platform, orders: list[Order], console: Console, began: float) -> None:
        self._platform = platform
        self._orders = orders
        self._console = console
        self._began = began
        self._client = Client()
        self._timeline = Timeline(console, began) if len(orders) == 1 else None
        self._bars = Bars(console, orders) if len(orders) > 1 else None
        self._drive = Drive(platform, orders, self._client, self._on_hop, self._on_change)
        self._ids = {self._drive.expected_id(order) for order in orders}
        registry = Registry(platform.urls["schema_registry"], platform.auditor)
        self._registry = registry
        self._journal: Journal | None = None

    async def play(self) -> list[Finding]:
        """Drive, wait until the witnesses have seen all of it, and compare."""
        self._journal = journal = await self._open_journal()
        await journal.start()
        view = self._timeline or self._bars
        assert view is not None
        view.start()
        trouble: list[str] = []
        try:
            await self._drive.run()
            await journal.catch_up()
        except GaveUp as reason:
            trouble.append(str(reason))
        finally:
            if self._timeline is not None:
                await self._timeline.stop()
            if self._bars is not None:
                self._bars.stop()
        found = list(findings(await self._evidence(journal)))
        return [*found, Finding("", "the run", "went on to its end", 1, 0, trouble)] if trouble else found

    def summary(self) -> str:
        """What a person asks next: how long, and how much of it had to be said twice."""
        first = self._drive.first_settled_at
        settled = f"first settled {first - self._began:.1f} s after the start, " if first else ""
        repeated, again = self._client.repetitions, self._drive.receiver.repeats
        return (
            f"{len(self._orders)} payments in {time.time() - self._began:.1f} s: {settled}"
            f"{repeated} requests repeated, {again} webhooks received again."
        )

    async def close(self) -> None:
        if self._journal is not None:
            await self._journal.stop()
        await self._client.close()
        self._registry.close()

    async def _open_journal(self) -> Journal:
        known = tuple(topic for topic in catalog.all_topics() if topic.name in WATCHED)
        ids = await asyncio.to_thread(find_ids, self._registry, subjects(known))
        codec = Codec(ids, self._registry.schema)
        return Journal(self._platform.kafka_auditor, codec, WATCHED, self._on_entry)

    async def _evidence(self, journal: Journal) -> Evidence:
        paid = [order.payment_id for order in self._orders if order.payment_id]
        witness = await witnesses.RecordsWitness.connect(self._platform)
        try:
            recorded = await witnesses.recorded(witness, paid)
        finally:
            await witness.close()
        return Evidence(
            orders=self._orders,
            entries=journal.entries,
            recorded=recorded,
            ledgers=await witnesses.ledgers(self._client, self._platform, paid),
            public_events=await witnesses.public_events(self._client, self._platform, paid),
            receiver=self._drive.receiver,
        )

    def _on_entry(self, entry: Entry) -> None:
        if self._timeline is not None and self._is_ours(entry) and (hop := hop_of(entry)) is not None:
            self._timeline.add(hop)

    def _is_ours(self, entry: Entry) -> bool:
        """Of our payment or our merchant, or of the settlement day that all share."""
        fields = entry.fields
        payment: str | None = fields.get("payment_id") or (fields.get("payment") or {}).get("payment_id")
        if payment:
            return payment in self._ids
        merchant: str = fields.get("merchant_id", self._platform.merchant_id)
        return merchant == self._platform.merchant_id

    def _on_hop(self, hop: Hop) -> None:
        if self._timeline is not None:
            self._timeline.add(hop)

    def _on_change(self) -> None:
        if self._bars is not None:
            self._bars.update(self._drive.receiver)
