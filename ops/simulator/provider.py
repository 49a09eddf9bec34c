"""The provider's HTTP API: operations under idempotency keys, status queries, the ledger. Mutual TLS.

The gateway may do everything, the auditor may read. Answers to an operation: 200 succeeded, 402 refused, 409 still in
progress, 422 key reused, 429 and 503 not processed, 500 unknown; and, by magic token, silence or a reset connection.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from ops.runtime.clock import Clock, to_rfc3339
from ops.runtime.tls import peer_identity
from ops.simulator import ledger, operations
from ops.simulator.documents import Authorization, Fault, Operation, Refund, Settlement, Verdict, Void
from ops.simulator.http import (
    BODY_BYTES_MAX,
    Handler,
    RefusedError,
    answer_failures,
    json_response,
    read_body,
    refusal_response,
)
from ops.simulator.store import Store

GATEWAY = "provider-gateway"
AUDITOR = "auditor"

KEY_LENGTH_MAX = 255
PAGE_DEFAULT = 10
PAGE_MAX = 100

Body = TypeVar("Body", Void, Refund, Settlement)
Perform = Callable[[sqlite3.Connection, str, Body, int], Operation]


class Provider:
    """Handlers of the provider's API over one store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._in_progress: set[str] = set()  # keys being decided; a crash forgets them, and nothing was done for them

    def application(self) -> web.Application:
        """The routes, behind the check of who calls."""
        app = web.Application(middlewares=[answer_failures, _admit], client_max_size=BODY_BYTES_MAX)
        app.router.add_post("/v1/authorizations", self.post_authorization)
        app.router.add_post("/v1/voids", self.post_void)
        app.router.add_post("/v1/refunds", self.post_refund)
        app.router.add_post("/v1/settlements", self.post_settlement)
        app.router.add_get("/v1/operations", self.get_operation)
        app.router.add_get("/v1/ledger", self.get_ledger)
        return app

    async def post_authorization(self, request: web.Request) -> web.StreamResponse:
        """Hold money. What the token says comes between the send and its answer."""
        key = _idempotency_key(request)
        body = await read_body(request, Authorization)
        _check_amount(body.amount)
        self._refuse_while_in_progress(key)
        verdict: Verdict = await self._transact(operations.authorize, key, body)
        match verdict.fault:
            case Fault.NONE:
                return _operation_response(verdict.operation)
            case Fault.UNAVAILABLE:
                return refusal_response(503, "unavailable", "the acquirer is down", retryable=True)
            case Fault.RATE_LIMITED:
                return refusal_response(429, "rate_limited", "too many requests", retryable=True)
            case Fault.ERROR:
                return refusal_response(500, "internal_error", "something went wrong", retryable=True)
            case Fault.SILENCE:
                return await _until_client_leaves()
            case Fault.RESET:
                assert request.transport is not None
                request.transport.abort()
                return await _until_client_leaves()
            case Fault.DELAY:
                return _operation_response(await self._decide_later(key, body, verdict.delay_s))

    async def post_void(self, request: web.Request) -> web.StreamResponse:
        """Undo an authorisation, named by its idempotency key."""
        return await self._perform(request, Void, operations.void)

    async def post_refund(self, request: web.Request) -> web.StreamResponse:
        """Pay back captured money."""
        return await self._perform(request, Refund, operations.refund)

    async def post_settlement(self, request: web.Request) -> web.StreamResponse:
        """Capture the payments of a chunk, each with a result of its own."""
        return await self._perform(request, Settlement, operations.settle)

    async def get_operation(self, request: web.Request) -> web.StreamResponse:
        """What became of the sends under a key; 404 when nothing was ever processed under it."""
        query = _query(request, {"idempotency_key"})
        if "idempotency_key" not in query:
            raise RefusedError(400, "invalid_request", "idempotency_key is required")
        key = query["idempotency_key"]
        operation = await self._store.transact(partial(operations.find, key=key))
        if operation is not None and operation.status is None and key in self._in_progress:
            operation = msgspec.structs.replace(operation, status="in_progress")
        if operation is None or operation.status is None:
            raise RefusedError(404, "not_found", "no operation has this key")
        return json_response(200, _document(operation))

    async def get_ledger(self, request: web.Request) -> web.StreamResponse:
        """Every movement really made, oldest first."""
        query = _query(request, {"after", "limit", "payment_id"})
        limit = query.get("limit", str(PAGE_DEFAULT))
        if not limit.isascii() or not limit.isdigit() or len(limit) > 9 or not 1 <= int(limit) <= PAGE_MAX:
            raise RefusedError(400, "invalid_request", f"limit is 1 to {PAGE_MAX}")
        page = partial(ledger.page, after=query.get("after"), limit=int(limit), payment_id=query.get("payment_id"))
        try:
            movements, has_more = await self._store.transact(page)
        except ledger.UnknownOperationError:
            raise RefusedError(400, "invalid_request", "after names no operation") from None
        return json_response(200, {"object": "list", "data": movements, "has_more": has_more})

    async def _perform(self, request: web.Request, kind: type[Body], perform: Perform[Body]) -> web.StreamResponse:
        key = _idempotency_key(request)
        body = await read_body(request, kind)
        if isinstance(body, Refund):
            _check_amount(body.amount)
        if isinstance(body, Settlement):
            for item in body.items:
                _check_amount(item.amount)
        return _operation_response(await self._transact(perform, key, body))

    async def _transact(self, perform: Callable[..., Any], key: str, body: msgspec.Struct) -> Any:
        now_us = self._clock.now_us()
        try:
            return await self._store.transact(lambda connection: perform(connection, key, body, now_us))
        except operations.KeyReusedError:
            raise RefusedError(422, "idempotency_key_reused", "the key belongs to another request") from None

    async def _decide_later(self, key: str, body: Authorization, delay_s: float) -> Operation:
        """Work on an operation for a while, visibly in progress, then decide it; a client that leaves stops nothing."""
        self._in_progress.add(key)
        work = asyncio.create_task(self._decide_after(key, body, delay_s), name="slow authorization")
        return await asyncio.shield(work)

    async def _decide_after(self, key: str, body: Authorization, delay_s: float) -> Operation:
        def decide(connection: sqlite3.Connection) -> Operation:
            _, behaviour = operations.behaviour_of(connection, body.payment_method_token)
            return operations.decide_authorization(connection, key, behaviour, self._clock.now_us())

        try:
            await asyncio.sleep(delay_s)
            return await self._store.transact(decide)
        finally:
            self._in_progress.discard(key)

    def _refuse_while_in_progress(self, key: str) -> None:
        if key in self._in_progress:
            raise RefusedError(409, "operation_in_progress", "the same request is being worked on", retryable=True)


@web.middleware
async def _admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    transport = request.transport
    identity = peer_identity(transport.get_extra_info("peercert")) if transport else None
    if identity != GATEWAY and not (identity == AUDITOR and request.method in ("GET", "HEAD")):
        raise RefusedError(403, "forbidden", "not for this certificate")
    return await handler(request)


def _idempotency_key(request: web.Request) -> str:
    keys = request.headers.getall("Idempotency-Key", [])
    if len(keys) != 1 or not 1 <= len(keys[0]) <= KEY_LENGTH_MAX or not keys[0].isascii() or not keys[0].isprintable():
        raise RefusedError(400, "idempotency_key_invalid", "one Idempotency-Key of 1 to 255 printable characters")
    return keys[0]


def _query(request: web.Request, known: set[str]) -> Mapping[str, str]:
    if unknown := sorted(set(request.query) - known):
        raise RefusedError(400, "invalid_request", f"{len(unknown)} unknown query parameters")
    return request.query


def _check_amount(amount: int) -> None:
    if amount < 1:
        raise RefusedError(400, "invalid_request", "an amount is at least 1")


async def _until_client_leaves() -> web.StreamResponse:
    """Waits for ever; the server cancels the handler when the client disconnects."""
    answer: asyncio.Future[web.StreamResponse] = asyncio.get_running_loop().create_future()
    return await answer


def _operation_response(operation: Operation) -> web.Response:
    return json_response(402 if operation.status == "failed" else 200, _document(operation))


def _document(operation: Operation) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(operation)
    document["created_at"] = to_rfc3339(operation.created_at)
    if operation.items is None:
        del document["items"]
    return document
