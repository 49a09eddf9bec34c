"""payment-api: puts the API together and runs it on its ports.

Public HTTPS for merchants and browsers; the same over plain HTTP on loopback, in the local stack; mutual TLS for
operators. Components start in the order of need: records, commands and replies first, so that no request is taken
before its answer can be given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from api.admission import Backlog
from api.api_keys import ApiKeys
from api.audit import Auditor, AuditTrail
from api.auth import Authenticator
from api.calls import Call
from api.client_secrets import ClientSecrets
from api.commands import TOPIC as COMMANDS
from api.commands import CommandProducer, Encode
from api.gate import Gate
from api.idempotency_keys import IdempotencyKeys
from api.limits import RateLimits
from api.merchants import Merchants
from api.openapi import OpenApi
from api.payments import payment_routes
from api.ports import ClientCommand
from api.problems import refuse_unparsed
from api.refusals import RefusalAudit
from api.replies import TOPIC as REPLIES
from api.replies import CommandReply, ReplyBoard, ReplyReader
from api.request_log import RequestLog
from api.routes import READERS, Access, OpenAccess, OperatorAccess, Route
from api.sealing import sealing_route
from api.settlement import Settlement
from api.settlement_runner import SettlementRunner
from api.webhook_endpoints import WebhookEndpoints
from ops.runtime.admin import AdminHandlers, admin_server
from ops.runtime.clock import SystemClock
from ops.runtime.encryption import DataKeys
from ops.runtime.http_server import HttpServer
from ops.runtime.secrets import read_secret_keys
from ops.runtime.service import Component, Service
from ops.runtime.service import run as run_service
from ops.runtime.settings import Settings
from ops.runtime.tls import server_context
from streams.domain.commands import CancelPayment, ConfirmPayment, CreatePayment, RefundPayment
from tables.records.errors import RecordsUnavailable
from tables.records.store import RecordStore, open_store
from topics.codec import Codec
from topics.replays import replay_route, service_replayer
from topics.schema_ids import open_codec

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_STATUS_READERS = OperatorAccess(frozenset({"operator", "auditor"}))
_HEALTH_READERS = OperatorAccess(frozenset({"operator", "auditor", "settlement-operator"}))


def run(settings: Settings) -> int:
    """Runs payment-api until it is told to end; returns the process's exit status."""
    return run_service(settings, _build)


async def _build(service: Service) -> Sequence[Component]:
    """Everything of the service, in the order in which it starts."""
    settings = service.settings
    codec = await asyncio.to_thread(open_codec, settings)
    store = await open_store(settings)
    clock = SystemClock()
    board = ReplyBoard(Backlog(settings))
    producer = CommandProducer(settings, _command_encoder(codec), service.fail)
    replies = ReplyReader(settings, _reply_decoder(codec), board, service.fail)
    secrets = {name: read_secret_keys(settings.secrets_dir / name) for name in _KEY_FILES}
    data_keys = DataKeys(secrets["master.key"], store.data_keys, clock)
    runner = SettlementRunner(settings)
    auditor = Auditor(store.audit, clock)
    refusals = RefusalAudit(store.audit, clock, service.registry)
    settlement = Settlement(store.settlement, runner, auditor)
    payments = payment_routes(
        settings,
        clock,
        producer,
        board,
        store.payments,
        data_keys,
        ClientSecrets(secrets["client-secret.keys"]),
        secrets["fingerprint.keys"],
    )
    public = [
        *payments,
        *IdempotencyKeys(store.payments).routes(),
        *WebhookEndpoints(settings, store.endpoints, data_keys, auditor, clock).routes(),
        *settlement.public_routes(),
    ]
    internal = [
        *Merchants(store.merchants, auditor, clock).routes(),
        *ApiKeys(store.merchants, secrets["pepper.key"], settings.mode, auditor, clock).routes(),
        *settlement.operator_routes(),
        *AuditTrail(store.audit).routes(),
        *_status_routes(service),
    ]
    authenticator = Authenticator(store.merchants, secrets["pepper.key"], settings.mode, clock)
    request_log = RequestLog(service.registry, clock)
    board.backlog.describe(service.registry)
    public = _with_openapi("Payments", public, OpenAccess())
    internal = _with_openapi("Payments, operators", internal, READERS)
    service.readiness.add("kafka", producer.check)
    service.readiness.add("replies", replies.check)
    service.readiness.add("cassandra", lambda: _check_records(store))
    return [
        _Records(store, data_keys),
        producer,
        replies,
        runner,
        refusals,
        request_log,
        _public_server(settings, Gate(public, authenticator, request_log, refusals, RateLimits(settings))),
        _internal_server(settings, Gate(internal, None, request_log, refusals)),
        admin_server(
            settings,
            service.registry,
            service.readiness,
            (replay_route(service_replayer(settings, codec)), sealing_route(data_keys)),
        ),
        _Drain(board),
    ]


_KEY_FILES = ("master.key", "pepper.key", "fingerprint.keys", "client-secret.keys")


class _Records:
    """The store as a component: the first data key is made before the first request, connections close last."""

    def __init__(self, store: RecordStore, data_keys: DataKeys) -> None:
        self._store = store
        self._data_keys = data_keys

    async def start(self) -> None:
        await self._data_keys.prepare()

    async def stop(self) -> None:
        await self._store.close()


class _Drain:
    """Stops first: requests that wait for an outcome are answered before the servers close their connections."""

    def __init__(self, board: ReplyBoard) -> None:
        self._board = board

    async def start(self) -> None:
        """Nothing to do before the end."""

    async def stop(self) -> None:
        self._board.drain()


async def _check_records(store: RecordStore) -> None:
    if not await store.session.ready():
        raise RecordsUnavailable("no quorum answers")


def _command_encoder(codec: Codec) -> Encode:
    kinds = (CreatePayment, ConfirmPayment, CancelPayment, RefundPayment)
    encoders = {kind: codec.record_encoder(COMMANDS, kind.__name__) for kind in kinds}

    def encode(command: ClientCommand) -> bytes:
        return encoders[type(command)](command)

    return encode


def _reply_decoder(codec: Codec) -> Callable[[bytes], CommandReply]:
    return codec.value_decoder(REPLIES, {"CommandReply": CommandReply})


def _with_openapi(title: str, routes: list[Route], access: Access) -> list[Route]:
    return [*routes, *OpenApi(title, routes, access).routes()]


def _public_server(settings: Settings, gate: Gate) -> HttpServer:
    server = HttpServer(gate.application(), refuse_unparsed)
    server.add_port(settings.listen_host, settings.api_port, server_context(settings, "none"))
    if settings.api_loopback_port:
        assert settings.listen_host in _LOOPBACK or settings.mode == "test"
        server.add_port("127.0.0.1", settings.api_loopback_port, None)
    return server


def _internal_server(settings: Settings, gate: Gate) -> HttpServer:
    server = HttpServer(gate.application(), refuse_unparsed)
    server.add_port(settings.listen_host, settings.internal_port, server_context(settings, "required"))
    return server


def _status_routes(service: Service) -> list[Route]:
    """/metrics, /healthz and /readyz as operators reach them."""
    handlers = AdminHandlers(service.settings, service.registry, service.readiness)

    def serve(handler: Callable[[web.Request], Awaitable[web.Response]]) -> Callable[[Call], Awaitable[web.Response]]:
        async def answer(call: Call) -> web.Response:
            response = await handler(call.request)
            response.headers["Request-Id"] = call.request_id
            return response

        return answer

    def route(path: str, handler: Any, summary: str, access: OperatorAccess, **more: Any) -> Route:
        answers = {200: dict[str, Any]}
        return Route(
            method="GET", path=path, handler=serve(handler), summary=summary, access=access, answers=answers, **more
        )

    return [
        route("/metrics", handlers.get_metrics, "Prometheus figures", _STATUS_READERS, media_type="text/plain"),
        route("/healthz", handlers.get_healthz, "Whether the process answers", _HEALTH_READERS),
        route("/readyz", handlers.get_readyz, "Each dependency by name", _STATUS_READERS),
    ]
