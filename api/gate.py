"""The gate every request passes, in the contract's order of checks; each check that fails ends the request.

Framing, card data in header/query/path, rate of the address, 401, rate of the key, route (404/405), 406, key kind,
scope and merchant (403), 413, 415, card data in body, JSON, fields, syntax of the idempotency key. What follows
(found, client secret, key reused, state) is the business of the handler and of the decider.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import unquote_plus

from aiohttp import web

from api.auth import Authenticator
from api.bodies import card_data_forbidden, check_media_type, parse_body, read_body
from api.calls import Call
from api.card_data import holds_card_number, is_forbidden_name
from api.limits import RateLimits, address_name
from api.problems import Problem, not_found, unavailable
from api.refusals import RefusalAudit
from api.request_log import Answered, RequestLog
from api.routes import IdempotencyKey, KeyAccess, OpenAccess, OperatorAccess, Route
from ops.runtime.http_server import check_head_size
from ops.runtime.logs import exception_fields, log_context, logger
from ops.runtime.request_ids import new_request_id
from ops.runtime.tls import peer_identity
from ops.runtime.tracing import new_traceparent, parse_traceparent
from tables.records.errors import RecordsUnavailable

IDEMPOTENCY_KEY_MAX = 255
_EXEMPT_HEADERS = frozenset({"authorization", "client-secret"})
_SURVIVE_OUTAGE = frozenset({("POST", "/payments"), ("POST", "/payments/{payment_id}/confirm")})

CORS_HEADERS: Mapping[str, str] = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Request-Id, Location, Retry-After, Idempotency-Replayed, Preference-Applied",
}
PREFLIGHT_HEADERS: Mapping[str, str] = {
    **CORS_HEADERS,
    "Access-Control-Allow-Headers": "Authorization, Client-Secret, Content-Type, Idempotency-Key, Prefer, Traceparent",
    "Access-Control-Max-Age": "600",
}

Dispatch = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gate:
    """The checks before a handler, and the form of every refusal. One gate per application (public, internal)."""

    def __init__(
        self,
        routes: list[Route],
        authenticator: Authenticator | None,
        request_log: RequestLog,
        refusals: RefusalAudit,
        limits: RateLimits | None = None,
    ) -> None:
        """`authenticator` None: operators, known by their certificates. `limits` None: none."""
        self._authenticator = authenticator
        self._request_log = request_log
        self._refusals = refusals
        self._limits = limits
        self._by_key = {(route.method, route.path): route for route in routes}
        self._cors_paths = frozenset(route.path for route in routes if route.cors)
        self._methods: dict[str, set[str]] = {}
        for route in routes:
            self._methods.setdefault(route.path, set()).add(route.method)

    def application(self) -> web.Application:
        """An application that answers this gate's routes and refuses everything else."""
        app = web.Application(middlewares=[self._pass], client_max_size=0)
        for method, path in self._by_key:
            app.router.add_route(method, _pattern(path), _unreached)
        for path in self._cors_paths:
            app.router.add_route("OPTIONS", _pattern(path), _unreached)
        return app

    @web.middleware
    async def _pass(self, request: web.Request, handler: Dispatch) -> web.StreamResponse:
        """Everything from the parsed head to the answer; aiohttp's own `handler` is never needed."""
        request_id = new_request_id()
        traceparent = parse_traceparent(request.headers.get("traceparent"))
        traceparent = traceparent.child() if traceparent else new_traceparent()
        path = _canonical_path(request)
        call = Call(request=request, request_id=request_id, traceparent=traceparent)
        with log_context(request_id=request_id, trace_id=traceparent.trace_id):
            response = await self._answer(call, path)
            if path in self._cors_paths:
                response.headers.update(CORS_HEADERS)
            response.headers["Server"] = "payments"
            response.headers["X-Content-Type-Options"] = "nosniff"
        self._note(call, path, response.status)
        return response

    async def _answer(self, call: Call, path: str | None) -> web.StreamResponse:
        try:
            return await self._checked(call, path)
        except Problem as problem:
            if problem.status == 403:
                self._refusals.note(call, path, problem.code)
            return problem.response(call.request_id)
        except RecordsUnavailable:
            return unavailable("records cannot be read at the moment").response(call.request_id)
        except ConnectionError:
            raise  # the client has gone; aiohttp closes the connection
        except Exception as error:
            logger().error("request failed", **exception_fields(error))
            return Problem("internal_error", "an error of ours; it was logged under this request_id").response(
                call.request_id
            )

    async def _checked(self, call: Call, path: str | None) -> web.StreamResponse:
        request = call.request
        _check_head(request)
        if self._limits is not None:
            self._limits.admit_address(_address(request))
        if request.method == "OPTIONS" and path in self._cors_paths:
            methods = ", ".join(sorted({*self._methods[path], "OPTIONS"}))
            headers = {**PREFLIGHT_HEADERS, "Access-Control-Allow-Methods": methods}
            response = call.empty(204)
            response.headers.update(headers)
            return response
        route = self._by_key.get((request.method, path)) if path is not None else None
        await self._identify(call, route)
        if self._limits is None or call.caller is None:
            return await _handled(call, route)
        self._limits.begin(call.caller.key_id)
        try:
            return await _handled(call, route)
        finally:
            self._limits.end(call.caller.key_id)

    async def _identify(self, call: Call, route: Route | None) -> None:
        if route is not None and isinstance(route.access, OpenAccess):
            return
        if self._authenticator is None:
            transport = call.request.transport
            call.operator = peer_identity(transport.get_extra_info("peercert")) if transport else None
            if call.operator is None:
                raise Problem("forbidden", "a client certificate of ours is required")
            return
        survives = route is not None and (route.method, route.path) in _SURVIVE_OUTAGE
        authorization = call.request.headers.getall("Authorization", [])
        header = authorization[0] if len(authorization) == 1 else None
        try:
            call.caller = await self._authenticator.authenticate(header, survives_outage=survives)
        except Problem as problem:
            if problem.code == "unauthenticated" and self._limits is not None:
                self._limits.key_refused(_address(call.request))
            raise

    def _note(self, call: Call, path: str | None, status: int) -> None:
        route = path or "unknown"
        method = call.request.method
        self._request_log.note(
            Answered(
                request_id=call.request_id,
                trace_id=call.traceparent.trace_id,
                method=method if (method, route) in self._by_key else "other",
                route=route,
                status=status,
                seconds=time.monotonic() - call.started,
                caller=call.caller.key_id if call.caller else call.operator,
                merchant_id=call.caller.merchant_id if call.caller else None,
                payment_id=call.payment_id,
            )
        )


async def _handled(call: Call, route: Route | None) -> web.StreamResponse:
    """By its route's handler, after the checks that follow the key's."""
    if route is None:
        raise _no_route(call.request)
    _check_accept(call.request, route)
    _check_access(call, route)
    await _read(call, route)
    return await route.handler(call)


def _no_route(request: web.Request) -> Problem:
    refusal = request.match_info.http_exception
    if isinstance(refusal, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(refusal.allowed_methods))
        return Problem("method_not_allowed", "not with this method", headers={"Allow": allowed})
    return not_found()


async def _unreached(_request: web.Request) -> web.StreamResponse:
    raise AssertionError("the gate answers every request")


def _pattern(path: str) -> str:
    """The path as aiohttp's router takes it: without an expression of its own, a segment may hold no braces."""
    return path.replace("}", ":[^/]+}")


def _address(request: web.Request) -> str:
    """The peer's, as the socket knows it: what a header says of it anybody may write."""
    transport = request.transport
    return address_name(transport.get_extra_info("peername")) if transport is not None else ""


def _canonical_path(request: web.Request) -> str | None:
    """The path as the table of routes has it, or None when no route has it with this method."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else None


def _check_head(request: web.Request) -> None:
    refusal = check_head_size(request)
    if refusal is not None:
        _status, code, detail = refusal
        raise Problem(code, detail, closes_connection=True)
    told = [text for header in request.headers.items() if header[0].lower() not in _EXEMPT_HEADERS for text in header]
    told.append(request.path)
    told.append(unquote_plus(request.rel_url.raw_query_string))
    if holds_card_number("\n".join(told)):  # no number goes on over the end of a line
        raise card_data_forbidden()
    if any(is_forbidden_name(name) for name in request.query):
        raise card_data_forbidden()


def _check_accept(request: web.Request, route: Route) -> None:
    """Raises Problem not_acceptable unless `Accept` lets the route's media type through."""
    accept = ",".join(request.headers.getall("Accept", []))
    if not accept.strip():
        return
    kind = route.media_type.partition("/")[0]
    best: tuple[int, float] = (-1, 0.0)
    for part in accept.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        rank = {"*/*": 0, f"{kind}/*": 1, route.media_type: 2}.get(media, -1)
        if rank > best[0]:
            best = (rank, _quality(parameters))
    if best[1] <= 0.0:
        raise Problem("not_acceptable", f"the answer is {route.media_type}")


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _check_access(call: Call, route: Route) -> None:
    match route.access:
        case KeyAccess() as access:
            _check_key(call, access, route)
        case OperatorAccess(identities):
            if call.operator not in identities:
                raise Problem("forbidden", "not for this identity")
        case OpenAccess():
            pass


def _check_key(call: Call, access: KeyAccess, route: Route) -> None:
    caller = call.principal
    is_open = access.publishable and route.query_of_secret_keys.isdisjoint(call.request.query)
    if caller.kind == "publishable" and not is_open:
        raise Problem("forbidden", "not with a publishable key")
    if caller.kind == "restricted" and access.scope not in caller.scopes:
        raise Problem("forbidden", f"the key lacks the scope {access.scope}")
    if access.active_merchant and caller.merchant_status != "ACTIVE":
        raise Problem("merchant_inactive", "the merchant is suspended or closed")


async def _read(call: Call, route: Route) -> None:
    """The body, the query and the idempotency key, each as the route takes it."""
    request = call.request
    if route.body is not None:
        body = await read_body(request)
        check_media_type(request, body)
        call.body = parse_body(b"{}" if route.body_optional and not body else body, route.body)
    if route.check is not None:
        route.check(call)
    call.query = _query(request, route)
    call.idempotency_key = _idempotency_key(request, route.idempotency_key)


def _query(request: web.Request, route: Route) -> dict[str, str]:
    query: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in route.query:
            raise Problem("invalid_request", "a query parameter that is not documented", param=name[:64])
        if name in query:
            raise Problem("invalid_request", "a query parameter given twice", param=name)
        query[name] = value
    return query


def _idempotency_key(request: web.Request, use: IdempotencyKey) -> str | None:
    if use is IdempotencyKey.IGNORED:
        return None
    given = request.headers.getall("Idempotency-Key", [])
    if not given:
        if use is IdempotencyKey.REQUIRED:
            raise Problem("idempotency_key_required", "this operation needs the header Idempotency-Key")
        return None
    key: Any = given[0]
    if len(given) > 1 or not 1 <= len(key) <= IDEMPOTENCY_KEY_MAX or not (key.isascii() and key.isprintable()):
        raise Problem("idempotency_key_invalid", f"one key of 1 to {IDEMPOTENCY_KEY_MAX} printable ASCII characters")
    return str(key)
