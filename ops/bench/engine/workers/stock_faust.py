"""Contender: faust-streaming as it comes, `processing_guarantee="exactly_once"`, RocksDB, the same Avro codec."""

from __future__ import annotations

import asyncio
import signal
import ssl
from typing import Any

import faust

from ops.bench.engine.workers.job import Job, read_job
from ops.bench.engine.workload import PARTITIONS, balance_after, decode_movement, encode_balance


def build(job: Job) -> Any:
    """The workload as a plain Faust agent."""
    context = ssl.create_default_context(cafile=job.tls["ca"])
    context.load_cert_chain(job.tls["cert"], job.tls["key"])
    app = faust.App(
        job.app,
        broker=f"kafka://{job.bootstrap}",
        broker_credentials=faust.SSLCredentials(context),
        processing_guarantee="exactly_once",
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=job.commit_ms / 1000,
        topic_disable_leader=True,
        store="rocksdb://?driver=rocksdict",
        datadir=job.state,
        web_enabled=False,
        topic_partitions=PARTITIONS,
    )
    raw: dict[str, Any] = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    source = app.topic(job.input, partitions=PARTITIONS, **raw)
    output = app.topic(job.output, partitions=PARTITIONS, **raw)
    balances = app.Table("balances", default=int, partitions=PARTITIONS)

    async def sums(stream: Any) -> None:
        async for event in stream.events():
            movement = decode_movement(event.value)
            account = movement["account"]
            balances[account] = balance = balances[account] + movement["amount"]
            await output.send(key=event.key, value=encode_balance(balance_after(movement, balance)))

    async def sink(stream: Any) -> None:
        """Without it every send raises: stock transactions cannot write to a topic that the app does not read."""
        async for _ in stream:
            continue

    app.agent(source)(sums)
    app.agent(output)(sink)
    return app


async def run(app: Any) -> None:
    """Run until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await app.start()
    await stop.wait()
    await app.stop()


def main() -> None:
    """Entry point."""
    job = read_job()
    asyncio.run(run(build(job)))
    job.finish([])


if __name__ == "__main__":
    main()
