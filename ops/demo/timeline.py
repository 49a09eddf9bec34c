"""The life of one payment on the terminal, hop by hop as it happens: when, which step, what, and where.

Sources differ in delay (Kafka's records come over a consumer, answers directly), so lines wait a moment and are
printed in the order of their times.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from ops.demo.journal import Entry

HOLD_S = 0.4  # longer than a record takes to be read back
STEPS = {
    1: "Accept",
    2: "Decide",
    3: "Record",
    4: "Reply",
    5: "Confirm",
    6: "Authorise",
    7: "Notify",
    8: "Settle",
}
_STEP_OF_RECORD = {
    "CreatePayment": 1,
    "ConfirmPayment": 5,
    "AuthorizeRequest": 5,
    "AuthorizationOutcome": 6,
    "AttemptFailed": 6,
    "CommandReply": 4,
    "MerchantEvent": 7,
    "FeedEvent": 7,
    "DeliveryAttempted": 7,
    **dict.fromkeys(("EntryAdded", "EntrySettled", "EntryFailed", "CloseSettlementDay", "DayBarrier"), 8),
    **dict.fromkeys(("SettleChunkRequest", "SettlementOutcome", "ChunkClosed", "BatchCompleted", "DayClosed"), 8),
}
_DECIDE = 2  # every other record of payments.events


class Hop(NamedTuple):
    """One line."""

    at: float  # epoch seconds
    step: int
    what: str
    where: str


class Timeline:
    """Prints hops in the order of their times, `HOLD_S` late; equal neighbours become one line."""

    def __init__(self, console: Console, began: float) -> None:
        self._console = console
        self._began = began
        self._held: list[Hop] = []
        self._printer: asyncio.Task[None] | None = None
        self._clock = asyncio.get_running_loop().time
        self._arrived: dict[Hop, float] = {}

    def start(self) -> None:
        self._printer = asyncio.create_task(self._print_as_due())

    async def stop(self) -> None:
        """Print what is still held."""
        if self._printer is not None:
            self._printer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._printer
        self._print(self._held)
        self._held = []

    def add(self, hop: Hop) -> None:
        self._held.append(hop)
        self._arrived.setdefault(hop, self._clock())

    async def _print_as_due(self) -> None:
        while True:
            await asyncio.sleep(HOLD_S / 2)
            due = [hop for hop in self._held if self._clock() - self._arrived[hop] >= HOLD_S]
            if due:
                latest = max(hop.at for hop in due)
                ready = [hop for hop in self._held if hop.at <= latest]
                self._held = [hop for hop in self._held if hop.at > latest]
                self._print(ready)

    def _print(self, hops: list[Hop]) -> None:
        hops = sorted(hops)
        position = 0
        while position < len(hops):
            hop = hops[position]
            same = 1
            while position + same < len(hops) and hops[position + same][1:3] == hop[1:3]:
                same += 1
            self._line(hop, same)
            position += same

    def _line(self, hop: Hop, times: int) -> None:
        line = Text()
        line.append(f"{max(0.0, hop.at - self._began):7.3f} s  ", style="dim")
        line.append(f"{hop.step} {STEPS[hop.step]:<10}", style="cyan")
        line.append(f"{hop.what + (f' x{times}' if times > 1 else ''):<58} ")
        line.append(hop.where if times == 1 else hop.where.partition("[")[0], style="dim")
        self._console.print(line, soft_wrap=True)


def hop_of(entry: Entry) -> Hop | None:
    """A committed record as a line; None for what tells nothing new."""
    if not entry.name or entry.topic.endswith("-changelog"):
        return None
    step = _STEP_OF_RECORD.get(entry.name, _DECIDE)
    return Hop(
        entry.at, step, f"{entry.name} {_detail(entry)}".rstrip(), f"{entry.topic}[{entry.partition}]@{entry.offset}"
    )


def _detail(entry: Entry) -> str:
    fields = entry.fields
    if entry.name in ("MerchantEvent", "FeedEvent"):
        place = f", feed sequence {fields['feed_sequence']}" if "feed_sequence" in fields else ""
        return f"{fields['type']}{place}"
    if entry.name == "CommandReply":
        return f"{fields['outcome']}: {fields['payment_status']}"
    if entry.name == "DeliveryAttempted":
        return f"{fields['event_type']}: {fields['status']}"
    if payment := fields.get("payment"):
        return f"-> {payment['status']}, version {payment['version']}"
    if "succeeded" in fields:
        return "succeeded" if fields["succeeded"] else "refused"
    if "date" in fields:
        return str(fields["date"])
    if entry.name in ("SettleChunkRequest", "ChunkClosed", "BatchCompleted"):
        return f"{fields['count']} payments, {fields['amount']} {fields.get('currency', '')}"
    return ""
