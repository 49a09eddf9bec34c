"""The session against a Cassandra that is away, or slow: errors say which it is, and nothing hangs."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ops.local.layout import STACK_ADMIN
from tables.records.errors import RecordsUnavailable
from tables.records.session import CassandraAddress, RecordsSession
from tables.records.store import RecordStore
from tests.local_servers import Servers

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]


async def test_a_port_where_nobody_listens_is_an_outage() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = CassandraAddress(contact_points=["127.0.0.1"], port=reserved.getsockname()[1], datacenter="local")
        with pytest.raises(RecordsUnavailable, match=r"Cassandra does not answer at 127\.0\.0\.1"):
            await RecordsSession.connect(address, "payments")


async def test_a_server_of_another_authority_is_not_spoken_to(
    address_of: Callable[[str], CassandraAddress], servers: Servers, tmp_path: Path
) -> None:
    other = tmp_path / "ca.pem"
    other.write_bytes(
        servers.tls(STACK_ADMIN).cert.read_bytes()
    )  # a certificate of ours, but no authority of the node's
    with pytest.raises(RecordsUnavailable, match="certificate verify failed"):
        await RecordsSession.connect(replace(address_of(STACK_ADMIN), tls_ca=other), "payments")


async def test_a_request_over_its_time_is_an_outage(
    address_of: Callable[[str], CassandraAddress], keyspace: str
) -> None:
    session = await RecordsSession.connect(address_of(STACK_ADMIN), keyspace, timeout_s=0.000_001)
    try:
        began = time.monotonic()
        with pytest.raises(RecordsUnavailable):
            await RecordStore(session).payments.get("pay_1")
        assert time.monotonic() - began < 20
    finally:
        await session.close()


async def test_a_keyspace_that_is_not_there_yet_is_waited_for(address_of: Callable[[str], CassandraAddress]) -> None:
    session = await RecordsSession.connect(address_of(STACK_ADMIN), "t_records_of_tomorrow", timeout_s=20)
    try:
        with pytest.raises(RecordsUnavailable):
            await RecordStore(session).payments.get("pay_1")
        assert await session.ready() is False
    finally:
        await session.close()


async def test_a_caller_that_goes_away_leaves_the_others_their_answers(store: RecordStore) -> None:
    reads = [asyncio.create_task(store.payments.get(f"pay_{number}")) for number in range(200)]
    await asyncio.sleep(0)
    for read in reads[::2]:
        read.cancel()
    answers = await asyncio.gather(*reads, return_exceptions=True)
    assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])
    assert answers[1::2] == [None] * 100
    assert await store.session.ready() is True
