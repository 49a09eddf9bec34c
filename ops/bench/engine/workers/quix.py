"""Contender: Quix Streams, exactly-once, RocksDB, the same Avro codec. Runs in an environment of its own (quix.txt)."""

from __future__ import annotations

import logging
import time
from typing import Any

from quixstreams import Application  # type: ignore[import-not-found]
from quixstreams.checkpointing import Checkpoint  # type: ignore[import-not-found]
from quixstreams.kafka.configuration import ConnectionConfig  # type: ignore[import-not-found]

from ops.bench.engine.workers.job import read_job
from ops.bench.engine.workload import balance_after, decode_movement, encode_balance

_commits_s: list[float] = []


def _time_commits() -> None:
    plain = Checkpoint.commit

    def commit(self: Any, *arguments: Any, **options: Any) -> None:
        began = time.perf_counter()
        plain(self, *arguments, **options)
        _commits_s.append(time.perf_counter() - began)

    Checkpoint.commit = commit


def main() -> None:
    """Entry point."""
    job = read_job()
    logging.getLogger("quixstreams").setLevel(logging.WARNING)
    _time_commits()
    connection = ConnectionConfig(
        bootstrap_servers=job.bootstrap,
        security_protocol="ssl",
        ssl_ca_location=job.tls["ca"],
        ssl_certificate_location=job.tls["cert"],
        ssl_key_location=job.tls["key"],
    )
    app = Application(
        broker_address=connection,
        consumer_group=job.app,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=job.commit_ms / 1000,
        state_dir=job.state,
        auto_create_topics=True,
        consumer_extra_config={"fetch.queue.backoff.ms": 5},
        producer_extra_config={"linger.ms": 1, "queue.buffering.max.messages": 1_000_000},
    )
    source = app.topic(job.input, key_deserializer="bytes", value_deserializer="bytes")
    output = app.topic(job.output, key_serializer="bytes", value_serializer="bytes")

    def add(value: bytes, state: Any) -> bytes:
        movement = decode_movement(value)
        balance = state.get("balance", 0) + movement["amount"]
        state.set("balance", balance)
        return encode_balance(balance_after(movement, balance))

    frame = app.dataframe(source)
    frame.apply(add, stateful=True).to_topic(output)
    app.run()
    job.finish(_commits_s)


if __name__ == "__main__":
    main()
