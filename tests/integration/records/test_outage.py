"""The session against a Cassandra that is away, or slow: errors say which it is, and nothing hangs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from ops.local.layout import STACK_ADMIN
from streams.agents.records import Records
from streams.exactly_once.records import Output
from streams.exactly_once.testing import Bench
from tables.records.errors import RecordsUnavailable
from tables.records.session import CassandraAddress, RecordsSession
from tables.records.store import RecordStore
from tests.local_servers import Servers
from topics.codec import Message

EventOf = Callable[..., tuple[str, dict[str, Any]]]
pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="session")]


async def test_a_port_where_nobody_listens_is_an_outage() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = CassandraAddress(contact_points=["127.0.0.1"], port=reserved.getsockname()[1], datacenter="local")
        with pytest.raises(RecordsUnavailable, match=r"Cassandra does not answer at 127\.0\.0\.1"):
            await RecordsSession.connect(address, "payments")


async def test_a_request_in_several_pieces_does_not_wait_between_them(
    address_of: Callable[[str], CassandraAddress],
) -> None:
    """The driver cuts requests into pieces of 4 KiB; with Nagle each waits for the ACK of the one before."""
    session = await RecordsSession.connect(address_of(STACK_ADMIN), "payments")
    try:
        pools = session._cluster.get_connection_holders()
        sockets = [connection._socket for pool in pools for connection in pool.get_connections()]
        assert sockets
        assert all(each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in sockets)
    finally:
        await session.close()


async def test_a_server_of_another_authority_is_not_spoken_to(
    address_of: Callable[[str], CassandraAddress], servers: Servers, tmp_path: Path
) -> None:
    other = tmp_path / "ca.pem"
    other.write_bytes(
        servers.tls(STACK_ADMIN).cert.read_bytes()
    )  # a certificate of ours, but no authority of the node's
    with pytest.raises(RecordsUnavailable, match="certificate verify failed"):
        await RecordsSession.connect(replace(address_of(STACK_ADMIN), tls_ca=other), "payments")


class Wire:
    """A TCP wire to Cassandra that can be cut and mended."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.port = 0

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        self._writers.clear()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, far_writer}
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            pump = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
        sink.transport.abort()


async def test_an_event_that_meets_an_outage_is_recorded_when_it_ends(
    address_of: Callable[[str], CassandraAddress], keyspace: str, store: RecordStore, payment_event: EventOf
) -> None:
    address = address_of(STACK_ADMIN)
    wire = Wire(address.contact_points[0], address.port)
    await wire.mend()
    session = await RecordsSession.connect(
        replace(address, contact_points=["127.0.0.1"], port=wire.port), keyspace, timeout_s=2.0
    )
    sent: list[Message] = []

    def note(message: Message) -> bytes:
        sent.append(message)
        return b""

    inbox = Output("merchants.inbox", note)
    handler = Records(RecordStore(session), lambda *_: None, inbox, registry=CollectorRegistry())
    bench = Bench()

    async def handle(revision: int) -> None:
        name, fields = payment_event("PaymentCreated", revision)
        payment_id = fields["payment"]["payment_id"]
        record = bench.record("payments.events", payment_id.encode(), Message(name, fields))
        await bench.effect_async(handler, record)

    try:
        await handle(1)
        await wire.cut()
        second = asyncio.create_task(handle(2))
        done, _ = await asyncio.wait({second}, timeout=3)
        assert not done, "the event waits, it neither fails nor is skipped"
        assert len(sent) == 1, "nothing is passed on before it is written"
        await wire.mend()
        async with asyncio.timeout(60):
            await second
        assert len(sent) == 2
        history = await store.payments.history(sent[0].fields["payment"]["payment_id"])
        assert [entry.revision for entry in history] == [1, 2]
    finally:
        await session.close()
        await wire.cut()


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
