"""The connection to Cassandra: TLS identity, explicit consistency, prepared statements, and a bridge into asyncio.

The driver completes requests on its own event thread. `_Completions` hands them over in groups, one wake-up of the
loop for all that completed meanwhile, because a wake-up per request costs more than the bookkeeping itself.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cassandra import ConsistencyLevel, InvalidRequest, ProtocolVersion
from cassandra.auth import Authenticator, AuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import DCAwareRoundRobinPolicy, ExponentialReconnectionPolicy, TokenAwarePolicy
from cassandra.protocol import SyntaxException
from cassandra.query import (
    BoundStatement,
    PreparedStatement,
    SimpleStatement,
    Statement,
    named_tuple_factory,
)

from tables.records.errors import RecordsRefused, RecordsUnavailable
from tables.records.write_groups import WriteGroups

REQUEST_TIMEOUT_S = 1.5  # a client has its answer, or its 503, in 2 s
DDL_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 5.0
PAGE_ROWS = 1000  # a page of settlement items is about 200 KiB
RECONNECT_MAX_S = 2.0  # a returning node is used again within this time

_NO_DELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
"""The driver sends a request in pieces of 4 KiB. Without this the second waits for the first one's ACK, up to 40 ms."""

_SELECT_SCHEMA = "SELECT version FROM schema_migrations WHERE scope = 'records' LIMIT 1"

_TABLE = re.compile(r"\b(INTO|FROM|UPDATE) (?=\w+\b(?!\.))")  # what comes before a statement's one table

Mutation = Sequence[tuple[str, Sequence[Any]]]  # statements with their values, all of one partition key
Row = Any  # a named tuple of the driver, one field per selected column


@dataclass(frozen=True, kw_only=True)
class CassandraAddress:
    """Where Cassandra is and as whom to go there. Without `tls_ca` the connection is plain (tests only)."""

    contact_points: Sequence[str]
    port: int
    datacenter: str
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None


class CertificateAuthProvider(AuthProvider):  # type: ignore[misc]
    """The server takes the identity from the client's certificate; the driver still wants a provider object."""

    def new_authenticator(self, host: str) -> Authenticator:
        return _CertificateAuthenticator()


class _CertificateAuthenticator(Authenticator):  # type: ignore[misc]
    def initial_response(self) -> bytes:
        return b"certificate"

    def evaluate_challenge(self, challenge: bytes) -> bytes:
        return b""


class _Completions:
    """Carries results from the driver's thread to the loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._awake = False

    def put(self, waiter: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        self._done.append((waiter, result, error))
        if not self._awake:  # set before the call and cleared before draining: a lost wake-up is not possible
            self._awake = True
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:  # the loop is closed: nobody waits any more
                self._done.clear()

    def _drain(self) -> None:
        self._awake = False
        while self._done:
            waiter, result, error = self._done.popleft()
            if waiter.done():  # its caller was cancelled
                continue
            if error is None:
                waiter.set_result(result)
            else:
                waiter.set_exception(error)


class RecordsSession:
    """Executes CQL for one service. Statements are prepared at their first use and named by their text."""

    def __init__(
        self, cluster: Cluster, session: Any, keyspace: str | None, loop: asyncio.AbstractEventLoop, timeout_s: float
    ) -> None:
        self.keyspace = keyspace  # of unqualified tables
        self._timeout_s = timeout_s
        self._cluster = cluster
        self._session = session
        self._session.default_fetch_size = None  # `pages` asks for pages; elsewhere LIMIT bounds the rows
        self._session.use_client_timestamp = False  # every plain write names its own: no host's clock takes part
        self._loop = loop
        self._completions = _Completions(loop)
        self._groups = WriteGroups(loop, self._send)
        self._prepared: dict[str, PreparedStatement] = {}
        self._preparing: dict[str, asyncio.Task[PreparedStatement]] = {}

    @classmethod
    async def connect(
        cls,
        address: CassandraAddress,
        keyspace: str | None,
        *,
        auth_provider: AuthProvider | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> RecordsSession:
        """A session on `keyspace`, which need not exist yet; `timeout_s` is each request's.

        Raises RecordsUnavailable when no contact point answers in CONNECT_TIMEOUT_S.
        """
        loop = asyncio.get_running_loop()
        cluster = open_cluster(address, auth_provider)
        try:
            session = await asyncio.to_thread(cluster.connect)  # no USE: statements name their keyspace
        except Exception as error:
            await asyncio.to_thread(cluster.shutdown)
            where = ", ".join(f"{point}:{address.port}" for point in address.contact_points)
            raise RecordsUnavailable(f"Cassandra does not answer at {where}: {error}") from error
        return cls(cluster, session, keyspace, loop, timeout_s)

    async def close(self) -> None:
        """Let go of every connection; requests in flight fail."""
        await asyncio.to_thread(self._cluster.shutdown)

    async def execute(self, cql: str, values: Sequence[Any] = (), *, timeout_s: float | None = None) -> list[Row]:
        """All rows of one statement (use `pages` where there may be many).

        Raises RecordsUnavailable or RecordsRefused.
        """
        rows, _ = await self._run(await self._bind(cql, values), timeout_s or self._timeout_s)
        return rows

    async def write(self, *mutations: Mutation) -> None:
        """Write to several partitions at once; each mutation becomes visible as a whole, in all its tables.

        Returns when all are acknowledged. Raises RecordsUnavailable or RecordsRefused when one is not: the others may
        have been applied.
        """
        await self._groups.write([[await self._bind(*statement) for statement in mutation] for mutation in mutations])

    async def pages(self, cql: str, values: Sequence[Any] = ()) -> AsyncIterator[list[Row]]:
        """The rows of one statement, PAGE_ROWS at a time."""
        paging_state = None
        while True:
            statement = await self._bind(cql, values)
            statement.fetch_size = PAGE_ROWS
            rows, paging_state = await self._run(statement, self._timeout_s, paging_state)
            yield rows
            if paging_state is None:
                return

    async def apply(self, cql: str, values: Sequence[Any] = ()) -> bool:
        """One lightweight transaction; False when its condition did not hold."""
        rows = await self.execute(cql, values)
        return bool(rows[0].applied)

    async def execute_ddl(self, cql: str, *, in_keyspace: bool = True) -> list[Row]:
        """A schema or permission statement, or any that is not worth preparing. Not `in_keyspace`: what creates it.

        Returns when all nodes have the schema that it makes, so that the next statement meets it on any of them.
        """
        waiter, response = self._start(
            SimpleStatement(cql, keyspace=self.keyspace if in_keyspace else None), DDL_TIMEOUT_S
        )
        rows = await waiter
        if not response.is_schema_agreed:  # the driver has waited for it
            raise RecordsUnavailable("the nodes do not agree on the schema")
        return rows or []

    async def ready(self) -> bool:
        """Whether a read at the usual consistency finds the schema (for /readyz)."""
        try:
            return bool(await self.execute(_SELECT_SCHEMA, timeout_s=1.0))
        except RecordsUnavailable:
            return False

    async def _prepare(self, cql: str) -> PreparedStatement:
        task = self._preparing.get(cql)
        if task is None:  # many callers at once, one round trip
            task = self._loop.create_task(asyncio.to_thread(self._session.prepare, self._qualified(cql)))
            self._preparing[cql] = task
            task.add_done_callback(lambda _: self._preparing.pop(cql, None))
        try:
            prepared = await asyncio.shield(task)
        except Exception as error:  # a table that is not there yet is a migration that is still to come: an outage
            raise RecordsUnavailable(f"{type(error).__name__}: {error}") from error
        self._prepared[cql] = prepared
        return prepared

    def _qualified(self, cql: str) -> str:
        """With the keyspace before the table: Cassandra warns of prepared statements that depend on a session's."""
        return cql if self.keyspace is None else _TABLE.sub(rf"\1 {self.keyspace}.", cql, count=1)

    async def _bind(self, cql: str, values: Sequence[Any]) -> BoundStatement:
        prepared = self._prepared.get(cql) or await self._prepare(cql)
        try:
            return prepared.bind(values)
        except Exception as error:  # the driver's serialisers raise what they like; no I/O happens in them
            raise RecordsRefused(f"{error} in {cql}") from error

    async def _run(
        self, statement: Statement, timeout_s: float, paging_state: bytes | None = None
    ) -> tuple[list[Row], Any]:
        waiter, response = self._start(statement, timeout_s, paging_state)
        rows = await waiter
        return rows or [], response._paging_state  # the driver's public accessor blocks for the result

    def _send(self, statement: Statement) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = self._start(statement, self._timeout_s)[0]
        return answer

    def _start(self, statement: Statement, timeout_s: float, paging_state: bytes | None = None) -> Any:
        """(future of the rows, the driver's response). Both this and the future raise our errors."""
        waiter: asyncio.Future[Any] = self._loop.create_future()
        put = self._completions.put
        try:
            response = self._session.execute_async(statement, timeout=timeout_s, paging_state=paging_state)
        except Exception as error:
            raise _translate(error) from error
        response.add_callbacks(lambda rows: put(waiter, rows, None), lambda error: put(waiter, None, _translate(error)))
        return waiter, response


def open_cluster(address: CassandraAddress, auth_provider: AuthProvider | None = None) -> Cluster:
    """The driver's cluster object, not yet connected."""
    profile = ExecutionProfile(
        load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy(local_dc=address.datacenter)),
        consistency_level=ConsistencyLevel.LOCAL_QUORUM,
        serial_consistency_level=ConsistencyLevel.LOCAL_SERIAL,
        request_timeout=REQUEST_TIMEOUT_S,
        row_factory=named_tuple_factory,
    )
    return Cluster(
        contact_points=list(address.contact_points),
        port=address.port,
        protocol_version=ProtocolVersion.V5,
        ssl_context=_ssl_context(address),
        auth_provider=auth_provider or CertificateAuthProvider(),
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        connect_timeout=CONNECT_TIMEOUT_S,
        control_connection_timeout=CONNECT_TIMEOUT_S,
        reconnection_policy=ExponentialReconnectionPolicy(0.1, RECONNECT_MAX_S),
        sockopts=[_NO_DELAY],
    )


def _ssl_context(address: CassandraAddress) -> ssl.SSLContext | None:
    if address.tls_ca is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(address.tls_ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if address.tls_cert is not None:
        context.load_cert_chain(str(address.tls_cert), None if address.tls_key is None else str(address.tls_key))
    return context


def _translate(error: BaseException) -> Exception:
    """Ours for the driver's. Unauthorized counts as an outage: permission caches fail so while nodes recover."""
    kind = RecordsRefused if isinstance(error, InvalidRequest | SyntaxException) else RecordsUnavailable
    ours = kind(f"{type(error).__name__}: {error}")
    ours.__cause__ = error
    return ours
