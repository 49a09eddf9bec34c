"""The admin port of a service: `/metrics`, `/healthz`, `/readyz`, and operations that other services may call.

Mutual TLS: a client without a certificate of our authority does not get past the handshake.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from ops.runtime import metrics
from ops.runtime.http_server import HttpServer
from ops.runtime.logs import exception_fields, log_context, logger
from ops.runtime.problem import REQUEST_ID_HEADER, problem_response
from ops.runtime.request_ids import known_request_id, new_request_id
from ops.runtime.settings import Settings
from ops.runtime.tls import peer_identity, server_context

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CHECK_TIMEOUT_S = 2.0  # a dependency that takes longer to say that it is well is not

IDENTITY: web.RequestKey[str] = web.RequestKey("identity", str)
"""In a request: the caller's identity, from its certificate."""


@dataclass(frozen=True, slots=True)
class AdminRoute:
    """One operation beside the usual three. `identities` are the certificates that may call it."""

    method: str
    path: str
    handler: Handler
    identities: frozenset[str]


class Readiness:
    """What this process depends on, by name, and how to ask each whether it is there."""

    def __init__(self) -> None:
        self._checks: dict[str, Callable[[], Awaitable[None]]] = {}

    def add(self, name: str, check: Callable[[], Awaitable[None]]) -> None:
        """`check` returns when the dependency is usable and raises (any Exception) when it is not."""
        assert name not in self._checks
        self._checks[name] = check

    async def report(self) -> dict[str, str]:
        """ "ok" or a short reason, by dependency; all asked at once, each at most CHECK_TIMEOUT_S."""
        answers = await asyncio.gather(*(self._ask(check) for check in self._checks.values()))
        return dict(zip(self._checks, answers, strict=True))

    @staticmethod
    async def _ask(check: Callable[[], Awaitable[None]]) -> str:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await check()
        except TimeoutError:
            return f"no answer in {CHECK_TIMEOUT_S:.0f} s"
        except Exception as error:
            fields = exception_fields(error)
            return str(fields.get("error_text") or fields["error"])
        return "ok"


class AdminHandlers:
    """The three endpoints that every service has; payment-api serves them on its internal port too."""

    def __init__(self, settings: Settings, registry: CollectorRegistry, readiness: Readiness) -> None:
        self._settings = settings
        self._registry = registry
        self._readiness = readiness

    async def get_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(self._registry), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def get_healthz(self, _request: web.Request) -> web.Response:
        """200 while the process answers at all."""
        return _json(200, {"status": "ok", "service": self._settings.service, "instance": self._settings.instance})

    async def get_readyz(self, _request: web.Request) -> web.Response:
        """200 when every dependency is usable, else 503; both name each."""
        dependencies = await self._readiness.report()
        ready = all(answer == "ok" for answer in dependencies.values())
        return _json(200 if ready else 503, {"ready": ready, "dependencies": dependencies})


def admin_server(
    settings: Settings, registry: CollectorRegistry, readiness: Readiness, routes: tuple[AdminRoute, ...] = ()
) -> HttpServer:
    """The admin port on `settings.admin_port`, not yet started. `routes` are mounted beside the usual three."""
    handlers = AdminHandlers(settings, registry, readiness)
    app = web.Application(middlewares=[_admit])
    app.router.add_get("/metrics", handlers.get_metrics)
    app.router.add_get("/healthz", handlers.get_healthz)
    app.router.add_get("/readyz", handlers.get_readyz)
    for route in routes:
        app.router.add_route(route.method, route.path, _only_for(route.identities, route.handler))
    server = HttpServer(app, lambda status, code, detail: problem_response(status, code, detail, new_request_id()))
    server.add_port(settings.listen_host, settings.admin_port, server_context(settings, "required"))
    return server


@web.middleware
async def _admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Names the caller, gives the request its id, and turns every failure into problem+json."""
    transport = request.transport
    identity = peer_identity(transport.get_extra_info("peercert")) if transport else None
    request_id = known_request_id(request.headers.get(REQUEST_ID_HEADER)) or new_request_id()
    if identity is None:
        return problem_response(403, "forbidden", "the certificate names no identity", request_id)
    request[IDENTITY] = identity
    with log_context(request_id=request_id):
        try:
            response = await handler(request)
        except web.HTTPException as error:
            code = {404: "not_found", 405: "method_not_allowed"}.get(error.status, "invalid_request")
            return problem_response(error.status, code, code.replace("_", " "), request_id)
        except Exception as error:
            logger().error("request failed", **exception_fields(error))
            return problem_response(500, "internal_error", "an error of ours; it was logged", request_id)
    response.headers.setdefault(REQUEST_ID_HEADER, request_id)
    return response


def _only_for(identities: frozenset[str], handler: Handler) -> Handler:
    async def guarded(request: web.Request) -> web.StreamResponse:
        if request[IDENTITY] not in identities:
            return problem_response(403, "forbidden", "not for this identity", new_request_id())
        return await handler(request)

    return guarded


def _json(status: int, body: Mapping[str, object]) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")
