"""What a person sees of a run: its progress, the table of checks, what is wrong."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ops.demo.orders import Order
from ops.demo.receiver import Receiver
from ops.demo.verify import Finding

PROBLEMS_SHOWN = 40
_DECIDED = ("AUTHORIZED", "SETTLED", "DECLINED", "FAILED")


class Bars:
    """Progress of many orders: accepted, decided by the provider, settled, notified."""

    def __init__(self, console: Console, orders: Sequence[Order]) -> None:
        self._console = console
        self._orders = orders
        self._progress = Progress(
            TextColumn("{task.description:<34}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        webhooks = sum(len(order.card.path) for order in orders)
        approved = sum(order.card.is_approved for order in orders)
        add = self._progress.add_task
        self._created = add("accepted (steps 1 to 4)", total=len(orders))
        self._decided = add("authorised or declined (5, 6)", total=len(orders))
        self._settled = add("settled (8)", total=approved)
        self._notified = add("webhooks received (7)", total=webhooks)

    def start(self) -> None:
        """Say that it begins, also where bars show only once they are complete."""
        self._console.print(f"{len(self._orders)} payments, each through every step")
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def update(self, receiver: Receiver) -> None:
        """Take the counts from what the orders are now."""
        orders = self._orders
        counts = {
            self._created: sum(bool(order.payment_id) for order in orders),
            self._decided: sum(order.status in _DECIDED for order in orders),
            self._settled: sum(order.status == "SETTLED" for order in orders),
            self._notified: sum(len(receiver.of(order.payment_id)) for order in orders if order.payment_id),
        }
        for task, completed in counts.items():
            self._progress.update(task, completed=completed)


def show_findings(console: Console, findings: Sequence[Finding]) -> None:
    """The table of checks, then each problem by name."""
    table = Table(title="Verified, hop by hop", title_justify="left")
    for heading in ("step", "witness", "what"):
        table.add_column(heading)
    for heading in ("expected", "found"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for finding in findings:
        mark = "[red]✗[/red]" if finding.problems else "[green]✓[/green]"
        table.add_row(finding.step, finding.place, finding.what, str(finding.expected), str(finding.found), mark)
    console.print(table)
    problems = [problem for finding in findings for problem in finding.problems]
    for problem in problems[:PROBLEMS_SHOWN]:
        console.print(problem, style="red", soft_wrap=True, markup=False)
    if len(problems) > PROBLEMS_SHOWN:
        console.print(f"and {len(problems) - PROBLEMS_SHOWN} more", style="red")
