"""Mutual TLS and the admin port, over real sockets with real certificates."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from ops.local.ca import ensure_certificates, tls_files
from ops.local.layout import Home
from ops.runtime.admin import IDENTITY, AdminRoute, Readiness, admin_server
from ops.runtime.metrics import new_registry
from ops.runtime.settings import Settings
from ops.runtime.tls import client_context, peer_identity
from tests.tls_sessions import tls_session
from tests.unit.api.platform_in_memory import api_settings

OURS = ("payment-api", "operator", "batch-processor")


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Home]:
    """Certificates of our authority, and of another one that also says `operator`."""
    made = {name: Home(tmp_path_factory.mktemp(name)) for name in ("ours", "foreign")}
    now = datetime.now(UTC)
    ensure_certificates(made["ours"], OURS, now)
    ensure_certificates(made["ours"], ("auditor",), now - timedelta(days=3650))
    ensure_certificates(made["ours"], ("internal-producer",), now + timedelta(days=30))
    ensure_certificates(made["foreign"], OURS, now)
    return made


def as_identity(home: Home, identity: str, trusts: Home | None = None) -> Settings:
    ca, cert, key = tls_files(home, identity)
    return api_settings(
        service=identity, tls_ca=ca if trusts is None else tls_files(trusts, identity)[0], tls_cert=cert, tls_key=key
    )


class Admin:
    def __init__(self, port: int, readiness: Readiness) -> None:
        self.url = f"https://127.0.0.1:{port}"
        self.readiness = readiness

    async def call(self, method: str, path: str, context: ssl.SSLContext) -> tuple[int, bytes]:
        async with (
            tls_session(self.url, context) as session,
            session.request(method, path) as response,
        ):
            return response.status, await response.read()


@pytest.fixture
async def admin(homes: dict[str, Home]) -> AsyncIterator[Admin]:
    settings = as_identity(homes["ours"], "batch-processor")

    async def who(request: web.Request) -> web.Response:
        return web.Response(text=request[IDENTITY])

    readiness = Readiness()
    routes = (AdminRoute("POST", "/settlement_runs", who, frozenset({"payment-api"})),)
    server = admin_server(settings, new_registry(settings), readiness, routes)
    await server.start()
    yield Admin(server.ports[0], readiness)
    await server.stop()


async def test_health_metrics_and_readiness_by_dependency(admin: Admin, homes: dict[str, Home]) -> None:
    operator = client_context(as_identity(homes["ours"], "operator"))

    async def fine() -> None: ...

    async def broken() -> None:
        raise ConnectionError("kafka is away")

    assert (await admin.call("GET", "/healthz", operator))[0] == 200
    status, text = await admin.call("GET", "/metrics", operator)
    assert status == 200
    assert b"payments_service" in text
    admin.readiness.add("cassandra", fine)
    assert (await admin.call("GET", "/readyz", operator))[0] == 200
    admin.readiness.add("kafka", broken)
    status, text = await admin.call("GET", "/readyz", operator)
    assert status == 503
    assert text == b'{"ready":false,"dependencies":{"cassandra":"ok","kafka":"kafka is away"}}'


async def test_an_operation_is_for_the_identities_it_names(admin: Admin, homes: dict[str, Home]) -> None:
    api = client_context(as_identity(homes["ours"], "payment-api"))
    operator = client_context(as_identity(homes["ours"], "operator"))
    assert await admin.call("POST", "/settlement_runs", api) == (200, b"payment-api")
    assert (await admin.call("POST", "/settlement_runs", operator))[0] == 403
    assert (await admin.call("POST", "/healthz", api))[0] == 405
    assert (await admin.call("GET", "/nowhere", api))[0] == 404


@pytest.mark.parametrize("which", ["foreign", "expired", "not yet valid", "none", "old TLS"])
async def test_the_handshake_refuses_what_does_not_prove_an_identity(
    admin: Admin, homes: dict[str, Home], which: str
) -> None:
    ours = homes["ours"]
    match which:
        case "foreign":
            context = client_context(as_identity(homes["foreign"], "operator", trusts=ours))
        case "expired":
            context = client_context(as_identity(ours, "auditor"))
        case "not yet valid":
            context = client_context(as_identity(ours, "internal-producer"))
        case "none":
            context = ssl.create_default_context(cafile=str(tls_files(ours, "operator")[0]))
        case _:
            context = client_context(as_identity(ours, "operator"))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((aiohttp.ClientError, OSError)):
        await admin.call("GET", "/healthz", context)


def test_an_identity_is_the_one_uri_of_our_trust_domain() -> None:
    def certificate(*uris: str) -> dict[str, object]:
        return {"subjectAltName": (*(("URI", uri) for uri in uris), ("DNS", "localhost"))}

    assert peer_identity(certificate("spiffe://payments.local/operator")) == "operator"
    assert peer_identity(certificate("spiffe://elsewhere.local/operator")) is None
    assert peer_identity(certificate("spiffe://payments.local/a", "spiffe://payments.local/b")) is None
    assert peer_identity(certificate("spiffe://payments.local/")) is None
    assert peer_identity(certificate()) is None
    assert peer_identity(None) is None


def test_private_keys_are_for_their_owner_only(homes: dict[str, Home]) -> None:
    key: Path = tls_files(homes["ours"], "operator")[2]
    assert key.stat().st_mode & 0o077 == 0
