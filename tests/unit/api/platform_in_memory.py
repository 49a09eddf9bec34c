"""The API on a real HTTP port, with memory in place of Kafka and Cassandra; decisions are the real ones.

A command that is "published" is decided by the domain at once, recorded, and its reply delivered: what the agents do.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from prometheus_client import CollectorRegistry

from api.admission import Backlog
from api.api_key_texts import key_hashes, new_key_text
from api.api_keys import ApiKeys
from api.audit import Auditor, AuditTrail
from api.auth import Authenticator
from api.calls import Call
from api.client_secrets import ClientSecrets
from api.gate import Gate
from api.idempotency_keys import IdempotencyKeys
from api.limits import RateLimits
from api.merchants import Merchants
from api.openapi import OpenApi
from api.payments import payment_routes
from api.ports import ClientCommand, Delivery
from api.problems import Problem, refuse_unparsed
from api.refusals import RefusalAudit
from api.replies import CommandReply, ReplyBoard
from api.request_log import RequestLog
from api.routes import READERS, OpenAccess, Route
from api.settlement import Settlement
from api.settlement_runner import SettlementRunner, StartedRun
from api.webhook_endpoints import WebhookEndpoints
from ops.runtime.encryption import DataKeys
from ops.runtime.http_server import HttpServer
from ops.runtime.secrets import SecretKey, SecretKeys
from ops.runtime.settings import Settings
from streams.domain import commands, ids
from streams.domain.decide import decide
from streams.domain.decision import Context
from streams.domain.envelope import Actor, ReplyTo
from streams.domain.payment import Payment, PaymentRow
from streams.domain.settlement_days import day_of
from tables.records.audit import AuditedAct
from tables.records.endpoints import Endpoint
from tables.records.errors import RecordsUnavailable
from tables.records.merchants import ApiKey, Merchant
from tables.records.payments import HistoryEntry
from tests.unit.api.rows_in_memory import BatchRows, DataKeyRows, EndpointRows, MerchantRows

START_US = 1_795_000_000_000_000
MERCHANT = ids.derived(ids.MERCHANT, "one")
OTHER_MERCHANT = ids.derived(ids.MERCHANT, "two")
OUTCOMES = {"CommandRejected": "rejected", "CommandRepeated": "repeated", "CommandFailed": "failed"}


def api_settings(**changes: Any) -> Settings:
    """Settings whose files and servers are never touched."""
    nowhere = Path("/nonexistent")
    return Settings(
        **{
            "service": "payment-api",
            "tls_ca": nowhere,
            "tls_cert": nowhere,
            "tls_key": nowhere,
            "kafka_bootstrap": "127.0.0.1:1",
            "cassandra_contact_points": ["127.0.0.1"],
            "cassandra_port": 1,
            "schema_registry_url": "https://127.0.0.1:1",
            "state_dir": nowhere,
            "secrets_dir": nowhere,
            "provider_url": "https://127.0.0.1:1",
            "batch_processor_url": "https://127.0.0.1:1",
            "admin_port": 0,
            "reply_timeout_s": 0.3,
            **changes,
        }
    )


class SteppingClock:
    """Every look at it is a millisecond later."""

    def __init__(self) -> None:
        self._ticks = itertools.count(START_US, 1_000)
        self.ahead_us = 0

    def now_us(self) -> int:
        return next(self._ticks) + self.ahead_us


def one_key(name: str) -> SecretKeys:
    return SecretKeys([SecretKey("k1", name.encode().ljust(32, b"."))])


@dataclass
class Records:
    """Cassandra's place: payments with their history, merchants, keys, endpoints, data keys, audit."""

    rows: dict[str, PaymentRow] = field(default_factory=dict)
    entries: dict[str, list[HistoryEntry]] = field(default_factory=dict)
    merchants: dict[str, Merchant] = field(default_factory=dict)
    api_keys: dict[bytes, ApiKey] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    data_keys: dict[str, bytes] = field(default_factory=dict)
    acts: list[AuditedAct] = field(default_factory=list)
    away: bool = False
    reads: int = 0

    def _read(self) -> None:
        self.reads += 1
        if self.away:
            raise RecordsUnavailable("away")

    async def get(self, payment_id: str) -> Payment | None:
        self._read()
        row = self.rows.get(payment_id)
        return row.payment if row else None

    async def at_revision(self, payment_id: str, revision: int) -> Payment | None:
        self._read()
        return next((e.payment for e in self.entries.get(payment_id, []) if e.revision == revision), None)

    async def at_version(self, payment_id: str, version: int) -> Payment | None:
        self._read()
        found = [e for e in self.entries.get(payment_id, []) if e.transition and e.version <= version]
        return found[-1].payment if found else None

    async def at_time(self, payment_id: str, at: int) -> Payment | None:
        self._read()
        found = [e for e in self.entries.get(payment_id, []) if e.occurred_at <= at]
        return found[-1].payment if found else None

    async def history(self, payment_id: str) -> Sequence[HistoryEntry]:
        self._read()
        return self.entries.get(payment_id, [])

    async def list(
        self,
        merchant_id: str,
        *,
        limit: int,
        status: str | None = None,
        created_after: int = 0,
        created_before: int | None = None,
        starting_after: Payment | None = None,
    ) -> Sequence[Payment]:
        self._read()
        found = [row.payment for row in self.rows.values() if row.payment.merchant_id == merchant_id]
        found = [p for p in found if p.created_at > created_after and status in (None, p.status.value)]
        found = [p for p in found if created_before is None or p.created_at < created_before]
        found.sort(key=lambda p: (p.created_at, p.payment_id), reverse=True)
        if starting_after is not None:
            found = [p for p in found if p.created_at < starting_after.created_at]
        return found[:limit]

    async def by_hash(self, key_hash: bytes) -> ApiKey | None:
        self._read()
        return self.api_keys.get(key_hash)

    async def merchant(self, merchant_id: str) -> Merchant | None:
        self._read()
        return self.merchants.get(merchant_id)

    async def add(self, act: AuditedAct) -> None:
        self._read()
        self.acts.append(act)

    async def find(self, at: int, audit_id: str) -> AuditedAct | None:
        return next((act for act in self.acts if (act.at, act.audit_id) == (at, audit_id)), None)

    async def newest(self, *, limit: int, before: AuditedAct | None = None) -> Sequence[AuditedAct]:
        acts = sorted(self.acts, key=lambda act: (act.at, act.audit_id), reverse=True)
        return [act for act in acts if before is None or (act.at, act.audit_id) < (before.at, before.audit_id)][:limit]


class Runner(SettlementRunner):
    """batch-processor is not there; a run of a day that is over is begun."""

    def __init__(self, settings: Settings, clock: SteppingClock) -> None:
        super().__init__(settings)
        self._clock = clock

    async def start_run(self, call: Call, settlement_date: str, *, force: bool) -> StartedRun:
        if settlement_date >= day_of(self._clock.now_us()) and not force:
            raise Problem("settlement_date_open", "the day is not over")
        return StartedRun("CLOSING")


class Log:
    """Kafka's place and the agents': decides each command as it comes."""

    def __init__(self, records: Records, board: ReplyBoard, clock: SteppingClock) -> None:
        self._records = records
        self._board = board
        self._clock = clock
        self.published: list[ClientCommand] = []
        self.away = False  # Kafka does not answer
        self.reports = True  # and the producer has given up; without, it still tries
        self.arrived = asyncio.Event()
        self.silent = False  # commands are kept, nobody decides them
        self.last_closed_date: str | None = None

    def send(self, command: ClientCommand, undelivered: Callable[[], None]) -> Delivery:
        delivery = Delivery()
        if self.away:
            if self.reports:
                asyncio.get_running_loop().call_soon(undelivered)
            return delivery
        delivery.is_durable = True
        self.published.append(command)
        if not self.silent:
            self.decide(command)
        self.arrived.set()
        return delivery

    async def received(self, commands: int) -> None:
        """Returns once so many were published."""
        async with asyncio.timeout(5):
            while len(self.published) < commands:
                self.arrived.clear()
                await self.arrived.wait()

    def decide(self, command: Any) -> None:
        """Steps 2 to 4 for one command or outcome."""
        before = self._records.rows.get(command.payment_id)
        context = Context(
            now_us=self._clock.now_us(), highest_us=self._clock.now_us(), last_closed_date=self.last_closed_date
        )
        decision = decide(before, command, context)
        assert decision.event is not None
        if decision.row is not None:
            self._records.rows[command.payment_id] = decision.row
        event = decision.event
        name = type(event).__name__
        payment = getattr(event, "payment", None)
        if payment is not None:
            self._records.entries.setdefault(payment.payment_id, []).append(
                HistoryEntry(
                    payment_id=payment.payment_id,
                    revision=payment.revision,
                    event_id=event.id,
                    event=name,
                    type=event.type,
                    version=payment.version,
                    status=payment.status.value,
                    transition=event.sequence is not None,
                    occurred_at=event.occurred_at,
                    actor_identity=event.actor.identity,
                    actor_role=event.actor.role,
                    request_id=event.request_id,
                    command_id=event.command_id,
                    snapshot=msgspec.json.encode(payment).decode(),
                )
            )
        reply_to = getattr(event, "reply_to", None)
        if reply_to is not None:
            reply = CommandReply(
                id=event.id,
                command_id=event.command_id,
                correlation_id=reply_to.correlation_id,
                payment_id=command.payment_id,
                outcome=OUTCOMES.get(name, "accepted"),
                event=name,
                code=getattr(event, "code", None),
                status_code=getattr(event, "status_code", None),
                revision=getattr(event, "revision", None),
                payment_status=getattr(event, "payment_status", None),
                payment=payment,
            )
            self._board.deliver([reply])


class OperatorGate(Gate):
    """The internal port's gate; here a header says what a client certificate says there."""

    async def _identify(self, call: Call, route: Route | None) -> None:
        call.operator = call.request.headers["Operator"]


@dataclass
class Answer:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def code(self) -> str:
        return str(self.json["code"])


class Platform:
    """The API under test and everything around it."""

    def __init__(self, **settings: Any) -> None:
        self.settings = api_settings(**settings)
        self.clock = SteppingClock()
        self.records = Records()
        self.batches = BatchRows()
        self.board = ReplyBoard(Backlog(self.settings, lambda: time.monotonic() + self.seconds))
        self.board.is_listening = True
        self.log = Log(self.records, self.board, self.clock)
        self.pepper = one_key("pepper")
        self.client_secrets = ClientSecrets(one_key("client secrets"))
        self.data_keys = DataKeys(one_key("master"), DataKeyRows(self.records), self.clock)
        self.seconds = 0.0  # added to the authenticator's monotonic time
        for merchant_id in (MERCHANT, OTHER_MERCHANT):
            self.add_merchant(merchant_id)
        self.secret_key = self.add_key("secret")
        self.publishable_key = self.add_key("publishable")
        self.other_key = self.add_key("secret", merchant_id=OTHER_MERCHANT)

    def add_merchant(self, merchant_id: str, status: str = "ACTIVE", currencies: list[str] | None = None) -> None:
        self.records.merchants[merchant_id] = Merchant(
            merchant_id=merchant_id,
            name="Shop",
            status=status,
            settlement_currencies=currencies,
            created_at=START_US,
            updated_at=START_US,
        )

    def add_key(self, kind: str, scopes: Sequence[str] = (), merchant_id: str = MERCHANT, **ends: int) -> str:
        key_id = ids.unkeyed(ids.API_KEY)
        text = new_key_text(kind, "test", key_id)
        key_hash = key_hashes(text, self.pepper)[0]
        self.records.api_keys[key_hash] = ApiKey(
            key_hash=key_hash,
            key_id=key_id,
            merchant_id=merchant_id,
            kind=kind,
            scopes=list(scopes),
            created_at=START_US,
            **ends,
        )
        return text

    async def __aenter__(self) -> Platform:
        payments = payment_routes(
            self.settings,
            self.clock,
            self.log,
            self.board,
            self.records,
            self.data_keys,
            self.client_secrets,
            one_key("fingerprints"),
        )
        auditor = Auditor(self.records, self.clock)
        endpoints = WebhookEndpoints(
            self.settings,
            EndpointRows(self.records),  # type: ignore[arg-type]
            self.data_keys,
            auditor,
            self.clock,
        )
        settlement = Settlement(self.batches, Runner(self.settings, self.clock), auditor)
        self.routes = [*payments, *IdempotencyKeys(self.records).routes(), *endpoints.routes()]
        self.routes += settlement.public_routes()
        self.routes += OpenApi("Payments", self.routes, OpenAccess()).routes()
        self.authenticator = Authenticator(
            self.records, self.pepper, "test", self.clock, lambda: time.monotonic() + self.seconds
        )
        self.registry = registry = CollectorRegistry()
        self.request_log = RequestLog(registry, self.clock)
        self.refusals = RefusalAudit(self.records, self.clock, registry)
        await self.refusals.start()
        limits = RateLimits(self.settings, lambda: time.monotonic() + self.seconds)
        gate = Gate(self.routes, self.authenticator, self.request_log, self.refusals, limits)
        self._server = HttpServer(gate.application(), refuse_unparsed)
        self._server.add_port("127.0.0.1", 0, None)
        await self._server.start()
        self.port = self._server.ports[0]
        await self._open_internal_port(settlement, auditor)
        self._session = aiohttp.ClientSession(f"http://127.0.0.1:{self.port}", auto_decompress=False)
        return self

    async def _open_internal_port(self, settlement: Settlement, auditor: Auditor) -> None:
        merchants = MerchantRows(self.records)
        operators = [
            *Merchants(merchants, auditor, self.clock).routes(),
            *ApiKeys(merchants, self.pepper, self.settings.mode, auditor, self.clock).routes(),
            *AuditTrail(self.records).routes(),
            *settlement.operator_routes(),
        ]
        self.operator_routes = [*operators, *OpenApi("Operators", operators, READERS).routes()]
        internal = OperatorGate(self.operator_routes, None, self.request_log, self.refusals)
        self._internal = HttpServer(internal.application(), refuse_unparsed)
        self._internal.add_port("127.0.0.1", 0, None)
        await self._internal.start()
        self.internal_port = self._internal.ports[0]

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self.stop()

    async def stop(self) -> None:
        """As the process ends: whoever waits for an outcome first, then the servers."""
        self.board.drain()
        await self._internal.stop()
        await self._server.stop()
        await self.refusals.stop()

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = "",
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Answer:
        """One request; `key` "" is the merchant's secret key, None is none at all."""
        sent = dict(headers or {})
        if key is not None:
            sent.setdefault("Authorization", f"Bearer {key or self.secret_key}")
        if idempotency_key is not None:
            sent["Idempotency-Key"] = idempotency_key
        data = raw if raw is not None else json.dumps(body).encode() if body is not None else None
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        async with self._session.request(method, path, data=data, headers=sent, allow_redirects=False) as response:
            return Answer(response.status, response.headers, await response.read())

    async def operate(self, identity: str, method: str, path: str, body: object = None) -> Answer:
        """One request on the internal port."""
        url = f"http://127.0.0.1:{self.internal_port}{path}"
        async with aiohttp.request(method, url, headers={"Operator": identity}, json=body) as response:
            return Answer(response.status, response.headers, await response.read())

    async def create(self, idempotency_key: str | None = None, **changes: Any) -> Answer:
        return await self.call("POST", "/payments", {**PAYMENT, **changes}, idempotency_key=idempotency_key)

    async def confirm(self, payment_id: str, idempotency_key: str = "c1", **more: Any) -> Answer:
        body = {"payment_method_token": "pm_card_visa", **more.pop("body", {})}
        return await self.call("POST", f"/payments/{payment_id}/confirm", body, idempotency_key=idempotency_key, **more)

    def settle(self, payment_id: str) -> None:
        """Step 8: captured, in the batch of its day."""
        payment = self.records.rows[payment_id].payment
        day = day_of(self.clock.now_us())
        self.log.decide(
            commands.SettlementOutcome(
                id=ids.unkeyed("out_"),
                occurred_at=self.clock.now_us(),
                actor=Actor(identity="provider-gateway", role="service"),
                request_id="req_x",
                reply_to=None,
                payment_id=payment_id,
                transaction_id=ids.settlement_transaction_id(payment_id, day),
                batch_id=ids.batch_id(payment.merchant_id, payment.currency, day),
                chunk=0,
                succeeded=True,
                provider_reference="cap",
            )
        )

    def authorize(self, payment_id: str, correlation_id: str | None = None) -> None:
        """Step 6: the provider says yes."""
        payment = self.records.rows[payment_id].payment
        self.log.decide(
            commands.AuthorizationOutcome(
                id=ids.unkeyed("out_"),
                occurred_at=self.clock.now_us(),
                actor=Actor(identity="provider-gateway", role="service"),
                request_id="req_x",
                reply_to=None if correlation_id is None else ReplyTo(partition=0, correlation_id=correlation_id),
                payment_id=payment_id,
                transaction_id=payment.transactions[0].transaction_id,
                succeeded=True,
                provider_reference="ref",
                attempts=1,
            )
        )


PAYMENT = {
    "amount": 2500,
    "currency": "USD",
    "customer": {"email": "ann@example.com", "name": "Ann"},
    "description": "order 17",
    "metadata": {"order": "17"},
}
