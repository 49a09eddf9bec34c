"""How the stack looks on a terminal: progress while it starts, a table once it runs."""

from __future__ import annotations

import time
from types import TracebackType

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ops.local.state import ProcessState, StackState, UnitState
from ops.local.status import StatusDocument, shown_urls

MARKS = {
    ProcessState.WAITING: ("·", "dim"),
    ProcessState.STARTING: ("…", "yellow"),
    ProcessState.RUNNING: ("✓", "green"),
    ProcessState.DONE: ("✓", "green"),
    ProcessState.RESTARTING: ("↻", "red"),
    ProcessState.FAILED: ("✗", "red"),
    ProcessState.STOPPING: ("…", "dim"),
    ProcessState.STOPPED: ("·", "dim"),
}


class Progress:
    """Shows every unit's state: live on a terminal, one line per change elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, transient=True, refresh_per_second=8) if console.is_terminal else None
        self._seen: dict[tuple[str, int], ProcessState] = {}
        self._started = time.monotonic()

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, state: StackState) -> None:
        if self._live:
            self._live.update(Group(*(self._line(unit) for unit in state.units)))
            return
        for unit in state.units:
            if self._seen.get((unit.name, unit.instance)) is not unit.state:
                self._seen[unit.name, unit.instance] = unit.state
                if unit.state not in (ProcessState.WAITING, ProcessState.STARTING):
                    self._console.print(self._line(unit))

    def _line(self, unit: UnitState) -> RenderableType:
        mark, style = MARKS[unit.state]
        elapsed = time.monotonic() - self._started
        return Text(
            f"{mark} {elapsed:5.1f} s  {unit.name} {unit.instance or ''} {unit.state} {unit.message}", style=style
        )


def status_table(document: StatusDocument) -> RenderableType:
    """The status document for people."""
    title = f"{document.home}: {'ready' if document.ready else 'not ready'}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("service", "#", "pid", "state", "restarts", "RSS MB", "threads", "CPU s"):
        table.add_column(heading, justify="left" if heading in ("service", "state") else "right", no_wrap=True)
    rows = document.services
    for row in rows:
        cells = (row.instance, row.pid or "", row.state, row.restarts, row.rss_mb, row.threads, f"{row.cpu_s:.0f}")
        table.add_row(row.name, *map(str, cells))
    table.add_section()
    sums = (sum(row.restarts for row in rows), sum(row.rss_mb for row in rows), sum(row.threads for row in rows))
    table.add_row("total", "", "", "", *map(str, sums), f"{sum(row.cpu_s for row in rows):.0f}")
    places = {**shown_urls(document), "kafka": document.kafka["bootstrap"]}
    lines = [f"{name:<16}{url}" for name, url in places.items()]
    for merchant in document.merchants:
        lines += [f"{merchant['name']:<16}{merchant[kind]}" for kind in ("secret_key", "publishable_key")]
    return Group(table, Text("\n".join(lines), no_wrap=True, overflow="ignore"))
