"""The registry's public port: everyone may read, only the operator's certificate may write.

Apicurio itself cannot ask for client certificates. Started as `payments service schema-registry`.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import ssl
from pathlib import Path
from urllib.parse import unquote

import aiohttp
import msgspec
import yarl
from aiohttp import web

from ops.runtime.tls import peer_identity

READS = frozenset({"GET", "HEAD", "OPTIONS"})
# POST that only asks: is this schema compatible, is it known under this subject.
QUESTIONS = re.compile(r"/apis/ccompat/v7/(compatibility/.+|subjects/[^/]+)")
# Confluent's clients know only the registry's root; Apicurio speaks their dialect below a path.
CONFLUENT = "/apis/ccompat/v7"
CONFLUENT_ROOTS = frozenset({"subjects", "schemas", "config", "compatibility", "mode", "contexts"})
WRITER = "operator"
MAX_BODY_BYTES = 1024 * 1024
HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "host", "content-length"}
)
UPSTREAM = web.AppKey("upstream", str)
SESSION = web.AppKey("session", aiohttp.ClientSession)

log = logging.getLogger("schema-registry")


class GuardSettings(msgspec.Struct, frozen=True, kw_only=True):
    """From the environment (`GUARD_` and the field's name in capitals)."""

    port: int
    upstream: str  # https://127.0.0.1:<Apicurio>
    tls_ca: Path
    tls_cert: Path
    tls_key: Path


def load_guard_settings() -> GuardSettings:
    raw = {name: os.environ.get(f"GUARD_{name.upper()}") for name in GuardSettings.__struct_fields__}
    return msgspec.convert(raw, GuardSettings, strict=False, dec_hook=lambda kind, value: kind(value))


def run(settings: GuardSettings | None = None) -> None:
    """Serve until SIGTERM."""
    settings = settings or load_guard_settings()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    web.run_app(
        build(settings),
        host="127.0.0.1",
        port=settings.port,
        ssl_context=server_context(settings),
        access_log=None,
        print=None,
        shutdown_timeout=2.0,
    )


def server_context(settings: GuardSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(settings.tls_ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL  # who shows none may read
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context


def build(settings: GuardSettings) -> web.Application:
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app[UPSTREAM] = settings.upstream
    app.cleanup_ctx.append(lambda app: _session(app, settings))
    app.router.add_get("/readyz", _ready)
    app.router.add_get("/healthz", _healthy)
    app.router.add_route("*", "/{path:.*}", _forward)
    return app


async def _session(app: web.Application, settings: GuardSettings):  # type: ignore[no-untyped-def]
    context = ssl.create_default_context(cafile=str(settings.tls_ca))
    timeout = aiohttp.ClientTimeout(total=30, connect=2)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context), timeout=timeout, auto_decompress=False
    ) as session:
        app[SESSION] = session
        yield


def identity_of(request: web.Request) -> str:
    """Who the client's certificate says it is (TLS has verified it against our authority)."""
    certificate = request.transport.get_extra_info("peercert") if request.transport else None
    return peer_identity(certificate) or ""


def upstream_path(path: str) -> str:
    """Where Apicurio serves `path`; also what the rules below are about."""
    root = path.removeprefix("/").partition("/")[0].partition("?")[0]
    return CONFLUENT + path if root in CONFLUENT_ROOTS else path


def is_plain(path: str) -> bool:
    """Whether the registry reads the path as we do: no dot segments, none that appear after unescaping."""
    segments = unquote(path.partition("?")[0]).replace("\\", "/").split("/")
    return path.startswith("/") and not {".", ".."} & set(segments) and "%2f" not in path.lower()


def may(identity: str, method: str, path: str) -> bool:
    """Reads for all; questions by POST for all; everything else for the operator."""
    return method in READS or (method == "POST" and QUESTIONS.fullmatch(path) is not None) or identity == WRITER


async def _forward(request: web.Request) -> web.StreamResponse:
    identity = identity_of(request)
    path = upstream_path(request.raw_path)
    if not is_plain(path):
        return web.json_response({"error_code": 400, "message": "the path is not in its plain form"}, status=400)
    if not may(identity, request.method, path.partition("?")[0]):
        log.warning("refused %s %s for %s", request.method, request.path, identity)
        return web.json_response({"error_code": 403, "message": f"only {WRITER} may write schemas"}, status=403)
    headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
    try:
        async with request.app[SESSION].request(
            request.method,
            yarl.URL(request.app[UPSTREAM] + path, encoded=True),  # as it came: subjects hold escapes
            headers=headers,
            data=await request.read() or None,
            allow_redirects=False,
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            return web.Response(status=answer.status, headers=kept, body=await answer.read())
    except (aiohttp.ClientError, TimeoutError) as error:
        log.warning("registry does not answer: %r", error)
        return web.json_response({"error_code": 503, "message": "the registry does not answer"}, status=503)


async def _healthy(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _ready(request: web.Request) -> web.Response:
    try:
        async with request.app[SESSION].get(request.app[UPSTREAM] + "/health/ready") as answer:
            return web.Response(status=answer.status, text="ready\n" if answer.ok else "registry not ready\n")
    except (aiohttp.ClientError, TimeoutError):
        return web.Response(status=503, text="registry not ready\n")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the supervisor decides
    run()
