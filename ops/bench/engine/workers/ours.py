"""Contender: this repository's engine, through its public interface."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog

from ops.bench.engine.workers.codecs import decode_movement, encode_balance
from ops.bench.engine.workers.job import Job, read_job
from ops.bench.engine.workload import balance_after, encode_state
from streams.exactly_once.app import App
from streams.exactly_once.clients import Clients
from streams.exactly_once.effects import Effects, State
from streams.exactly_once.producer.transactional import TransactionalProducer
from streams.exactly_once.records import Input, Output, Record
from streams.exactly_once.table_spec import TableSpec

_commits_s: list[float] = []
_restores: list[
    tuple[str, float, int]
] = []  # ("start", epoch s, 0) and ("end", epoch s, records), as the Java one has it


class TimedProducer(TransactionalProducer):
    """Notes how long each transaction took, from its begin to the answer of EndTxn."""

    def begin_transaction(self) -> None:
        """Start the watch."""
        self._began = time.perf_counter()
        super().begin_transaction()

    def commit_transaction(self, timeout_s: float) -> None:
        """Stop the watch."""
        super().commit_transaction(timeout_s)
        _commits_s.append(time.perf_counter() - self._began)


def build(job: Job) -> App:
    """The workload as a decider."""
    app = App(
        job.app,
        kafka=job.bootstrap,
        tls={name: job.tls[name] for name in ("ca", "cert", "key")},
        state_dir=Path(job.state),
        instance_id=job.instance,
        dead_letters=lambda topic: Output(f"{job.app}.dlq", lambda letter: repr(letter).encode()),
    )
    app._lane_options["clients"] = Clients(producer=TimedProducer)
    balances = TableSpec("balances", encode=encode_state, decode=int)
    output = Output(job.output, encode_balance)

    @app.decider("sums", inputs=[Input(job.input, decode_movement)], outputs=[output], tables=[balances])
    def sums(batch: Sequence[Record], state: State, effects: Effects) -> None:
        """Add every amount to its account's balance."""
        get, put, send = state.get, effects.put, effects.send
        for record in batch:
            key, movement = record.key, record.value
            balance = (get(balances, key) or 0) + movement["amount"]
            put(balances, key, balance)
            send(output, balance_after(movement, balance), key=key)

    return app


def note_restores(logger: Any, method: str, event: Any) -> Any:
    """A structlog processor that keeps when each lane was opened, and how many records that took."""
    if event.get("event") == "lane opened":
        now_s = time.time()
        _restores.extend([("start", now_s - event["seconds"], 0), ("end", now_s, event["restored"])])
    return event


async def run(app: App, ready_file: Path) -> None:
    """Run until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await app.start()
    while not app.lanes.ready and not stop.is_set():  # noqa: ASYNC110 - the app has no event for it
        await asyncio.sleep(0.01)
    await asyncio.to_thread(ready_file.touch)
    failed = asyncio.create_task(app.wait_until_stopped())
    await asyncio.wait({failed, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    await app.stop()
    if app.failure is not None:
        raise app.failure


def main() -> None:
    """Entry point."""
    job = read_job()
    structlog.configure(processors=[note_restores, *structlog.get_config()["processors"]])
    asyncio.run(run(build(job), Path(job.result).with_suffix(".ready")))
    job.finish(_commits_s, restores=_restores)


if __name__ == "__main__":
    main()
