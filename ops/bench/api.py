"""What a request costs payment-api, beside the least that takes a payment (ops/bench/bare_api.py), in one run."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import psutil
from confluent_kafka.admin import AdminClient, NewTopic

from ops.bench.bare_api import Job
from ops.bench.create import Load, open_session
from ops.demo.platform import Platform
from ops.local.access import Access
from ops.local.layout import CHECKOUT, STACK_ADMIN
from ops.local.preflight import free_port_base
from ops.local.status import status_document

PORTS = range(32_600, 32_700)  # below the ephemeral ports
WARM_UP_S = 5.0
READY_S = 30.0


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """One process under the load. `cpu_ms` is of its own CPU, per request."""

    requests: int
    statuses: dict[str, int]
    cpu_ms: float
    requests_per_cpu_s: float
    p50_ms: float
    p99_ms: float


class ApiCost(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a run. `ratio`: requests per CPU second of ours against the bare handler's."""

    rate: float
    ours: Cost
    bare: Cost
    ratio: float


async def measure_api(access: Access, platform: Platform, rate: float, seconds: float) -> ApiCost:
    """POST /payments at `rate` per second, to payment-api and then to the bare handler."""
    [ours_pid] = [service.pid for service in status_document(access.home).services if service.name == "payment-api"]
    assert ours_pid is not None
    ours = await _cost(platform, platform.urls["api"], psutil.Process(ours_pid), rate, seconds)
    async with _bare(access, platform) as (url, process):
        bare = await _cost(platform, url, process, rate, seconds)
    ratio = round(ours.requests_per_cpu_s / bare.requests_per_cpu_s, 2)
    return ApiCost(rate=rate, ours=ours, bare=bare, ratio=ratio)


async def _cost(platform: Platform, url: str, process: psutil.Process, rate: float, seconds: float) -> Cost:
    async with open_session(platform) as session:
        load = Load(session, url, platform.secret_key)
        await load.run(rate, WARM_UP_S)
        load.forget()
        before = process.cpu_times()
        took_s = await load.run(rate, seconds)
        after = process.cpu_times()
    found = load.latencies(rate, took_s)
    cpu_s = after.user + after.system - before.user - before.system
    return Cost(
        requests=found.requests,
        statuses=found.statuses,
        cpu_ms=round(cpu_s / found.requests * 1000, 3),
        requests_per_cpu_s=round(found.requests / cpu_s, 1),
        p50_ms=found.p50_ms,
        p99_ms=found.p99_ms,
    )


@asynccontextmanager
async def _bare(access: Access, platform: Platform) -> AsyncIterator[tuple[str, psutil.Process]]:
    """The bare handler in a process of its own, with a topic of its own; both are gone afterwards."""
    admin = AdminClient(access.kafka(STACK_ADMIN))
    topic = f"bench-api-{uuid.uuid4().hex[:8]}"
    partitions, replicas = 6, access.config.nodes
    admin.create_topics([NewTopic(topic, partitions, replicas)])[topic].result()
    home = access.home
    job = Job(
        port=free_port_base(PORTS, lambda port: [("the bare handler", "127.0.0.1", port)]),
        tls={"ca": str(home.ca), "cert": str(home.cert("payment-api")), "key": str(home.key("payment-api"))},
        kafka=access.kafka(STACK_ADMIN),
        topic=topic,
        secret_key=platform.secret_key,
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "ops.bench.bare_api"),
        cwd=Path(CHECKOUT),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(job))
        process.stdin.close()
        async with asyncio.timeout(READY_S):
            line = await process.stdout.readline()
        assert line == b"ready\n", "the bare handler did not start"
        yield f"https://127.0.0.1:{job.port}", psutil.Process(process.pid)
    finally:
        process.terminate()
        await process.wait()
        await asyncio.to_thread(admin.delete_topics([topic])[topic].result)
