"""Real Cassandra for the records: a keyspace of its own with the real schema, and events to write into it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from ops.local import cassandra
from ops.local.layout import STACK_ADMIN
from streams.domain import ids
from tables.records.migrate import create_keyspace, migrate
from tables.records.session import CassandraAddress, RecordsSession
from tables.records.store import RecordStore
from tests.local_servers import Servers

TIMEOUT_S = 20.0  # a test machine may be slow; only what tests time-outs has a short one

CREATED_AT = 1_795_372_800_000_000  # 2026-11-22T18:40:00Z in microseconds
DAY = "2026-11-22"

AddressOf = Callable[[str], CassandraAddress]
EventOf = Callable[..., tuple[str, dict[str, Any]]]


@pytest.fixture(scope="session")
def address_of(servers: Servers) -> AddressOf:
    """The test servers' Cassandra, as the identity that is named."""
    return servers.cassandra_address


@pytest_asyncio.fixture(loop_scope="session")
async def empty_keyspace(address_of: AddressOf) -> AsyncIterator[str]:
    """A keyspace without tables, dropped afterwards."""
    async for keyspace in _keyspace(address_of):
        yield keyspace


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def keyspace(address_of: AddressOf) -> AsyncIterator[str]:
    """A keyspace with the whole schema, shared by the tests: each makes payments and merchants of its own."""
    async for keyspace in _keyspace(address_of):
        session = await RecordsSession.connect(address_of(STACK_ADMIN), keyspace)
        await migrate(session)
        await session.close()
        yield keyspace


async def _keyspace(address_of: AddressOf) -> AsyncIterator[str]:
    name = f"t_records_{uuid.uuid4().hex[:12]}"
    admin = await RecordsSession.connect(address_of(STACK_ADMIN), name)
    await create_keyspace(admin, cassandra.DATACENTER, 1)
    yield name
    await admin.execute_ddl(f"DROP KEYSPACE {name}")
    await admin.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def store(address_of: AddressOf, keyspace: str) -> AsyncIterator[RecordStore]:
    session = await RecordsSession.connect(address_of(STACK_ADMIN), keyspace, timeout_s=TIMEOUT_S)
    yield RecordStore(session)
    await session.close()


@pytest.fixture
def merchant_id() -> str:
    return ids.unkeyed(ids.MERCHANT)


@pytest.fixture
def payment_event(merchant_id: str) -> EventOf:
    """Makes (record name, fields) of an event as the codec decodes it."""

    def make(
        name: str, revision: int, *, transition: bool = True, payment_id: str | None = None, **payment: Any
    ) -> tuple[str, dict[str, Any]]:
        snapshot: dict[str, Any] = {
            "payment_id": payment_id or ids.payment_id(merchant_id, "one"),
            "merchant_id": merchant_id,
            "status": "PENDING" if name == "PaymentCreated" else name.removeprefix("Payment").upper(),
            "amount": 2500,
            "amount_refunded": 0,
            "currency": "USD",
            "personal_data": {"key_id": "dk_1", "nonce": b"\x00\xff" * 6, "ciphertext": b"\x80secret\x00"},
            "payment_method_token": None,
            "client_secret_key_id": "k1",
            "batch_id": None,
            "settlement_date": None,
            "version": revision,
            "revision": revision,
            "created_at": CREATED_AT,
            "updated_at": CREATED_AT + revision * 1_000_000,
            "expires_at": CREATED_AT + 86_400_000_000,
            "failure": None,
            "transactions": [],
            **payment,
        }
        fields = {
            "id": ids.event_id(snapshot["payment_id"], revision),
            "type": f"payment.{name.removeprefix('Payment').lower()}",
            "sequence": snapshot["version"] if transition else None,
            "occurred_at": snapshot["updated_at"],
            "actor": {"identity": "key_1", "role": "merchant"},
            "request_id": f"req_{revision}",
            "payment": msgspec.msgpack.decode(msgspec.msgpack.encode(snapshot)),  # a copy of its own
            "command_id": f"cmd_{revision}",
            "reply_to": None,
            "traceparent": None,
        }
        return name, fields

    return make


@pytest.fixture
def transaction() -> Callable[..., dict[str, Any]]:
    """Makes a transaction as the codec decodes it."""

    def make(kind: str, status: str, **fields: Any) -> dict[str, Any]:
        return {
            "transaction_id": f"txn_{kind.lower()}",
            "type": kind,
            "status": status,
            "amount": 2500,
            "currency": "USD",
            "idempotency_key": None,
            "provider_reference": None,
            "attempts": 1,
            "error": None,
            "created_at": CREATED_AT + 1,
            "updated_at": CREATED_AT + 2,
            **fields,
        }

    return make
