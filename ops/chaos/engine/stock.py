"""The red control: the same balances on stock faust-streaming with `processing_guarantee="exactly_once"`.

`python -m ops.chaos.engine.stock` takes the arguments of `worker`. It only has the decider's part: what it loses,
doubles or tears there is enough, and an effector would only add to it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import ssl
from pathlib import Path
from typing import Any

import faust
from yarl import URL

from ops.chaos.engine.topology import BEAST, GARBAGE, Topics

SESSION_TIMEOUT_S = 6.0  # as the engine's
COMMIT_INTERVAL_S = 0.5


def build(topics: Topics, kafka: str, tls: dict[str, str], state_dir: Path, instance: str | None) -> faust.App:
    """`<app>.in` -> balances in RocksDB -> `<app>.out`."""
    context = ssl.create_default_context(cafile=tls["ca"])
    context.load_cert_chain(tls["cert"], tls["key"])
    app = faust.App(
        topics.id,
        broker=[URL(f"kafka://{address}") for address in kafka.split(",")],
        broker_credentials=faust.SSLCredentials(context),
        broker_session_timeout=SESSION_TIMEOUT_S,
        broker_heartbeat_interval=0.5,
        broker_request_timeout=90.0,
        broker_commit_interval=COMMIT_INTERVAL_S,
        consumer_group_instance_id=instance or "",
        consumer_auto_offset_reset="earliest",
        processing_guarantee="exactly_once",
        datadir=str(state_dir),
        store="rocksdb://",
        topic_allow_declare=False,
        topic_disable_leader=True,
        reply_create_topic=False,
        web_enabled=False,
    )
    raw: dict[str, Any] = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    inputs = app.topic(topics.inputs, partitions=topics.partitions, **raw)
    out = app.topic(topics.out, partitions=topics.out_partitions, **raw)
    balances = app.Table("balances", default=int, partitions=topics.partitions, key_type=bytes, value_type=int)

    async def sums(stream: Any) -> None:
        async for event in stream.events():
            if event.value in (GARBAGE, b"%d" % BEAST):
                continue
            key = event.key.decode()
            balances[key] += int(event.value)
            place = f"{event.message.partition}/{event.message.offset}"
            await out.send(key=event.key, value=f"{place}:{balances[key]}".encode())

    async def sink(stream: Any) -> None:
        """Stock transactions cannot write to a topic that the app does not read."""
        async for _ in stream:
            continue

    app.agent(inputs, name="sums")(sums)
    app.agent(out, name="sink")(sink)
    return app


async def run(app: faust.App) -> int:
    """Run until SIGTERM or a crash; the exit status."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await app.start()
    failed = asyncio.create_task(app.wait_until_stopped())
    await asyncio.wait({failed, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    await app.stop()
    return 0 if app.crash_reason is None else 1


def main() -> None:
    """Entry point of the worker process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--app", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--kafka", required=True)
    parser.add_argument("--tls", required=True)
    parser.add_argument("--state", required=True, type=Path)
    parser.add_argument("--instance")
    options, _ = parser.parse_known_args()
    topics = Topics(options.app, options.partitions, options.partitions)
    app = build(topics, options.kafka, json.loads(options.tls), options.state, options.instance)
    with asyncio.Runner() as runner:
        os._exit(runner.run(run(app)))


if __name__ == "__main__":
    main()
