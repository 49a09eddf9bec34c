"""Webhook endpoints of a merchant. A secret is shown when it is made; it is stored encrypted, for signing."""

from __future__ import annotations

from urllib.parse import urlsplit

from aiohttp import web
from msgspec import UNSET, structs

from api.audit import Auditor
from api.calls import Call
from api.documents import ListDocument, WebhookEndpointDocument
from api.lists import ListQuery
from api.models import CreateWebhookEndpoint, RotateSecret, UpdateWebhookEndpoint
from api.problems import Problem, not_found, unavailable
from api.routes import KeyAccess, Route
from ops.runtime.clock import Clock, to_rfc3339
from ops.runtime.encryption import DataKeys, EncryptionError
from ops.runtime.settings import Settings
from streams.domain import ids
from streams.webhooks.client import check_destination
from streams.webhooks.destinations import RefusedDestination, is_loopback, reach_of
from streams.webhooks.signing import new_secret
from tables.records.endpoints import Endpoint, EndpointRecords, EndpointSecret

ENDPOINTS_MAX = 50  # of a merchant: each gets its own copy of every event
ROTATION_OVERLAP_US = 24 * 3_600 * 1_000_000  # the old secret signs beside the new one for so long
UPDATE_ATTEMPTS = 5

_PAYMENT_EVENTS = (
    *("created", "processing", "authorized", "declined", "failed"),
    *("canceled", "expired", "settled", "refunded"),
)
EVENT_TYPES = frozenset(
    {f"payment.{name}" for name in _PAYMENT_EVENTS}
    | {"settlement_batch.completed", "webhook_endpoint.disabled", "webhook_endpoint.test"}
)
_PATTERNS = EVENT_TYPES | {"*"} | {event_type.partition(".")[0] + ".*" for event_type in EVENT_TYPES}

_ONE = "/webhook_endpoints/{endpoint_id}"


class WebhookEndpoints:
    """The handlers of /webhook_endpoints."""

    def __init__(
        self, settings: Settings, records: EndpointRecords, data_keys: DataKeys, auditor: Auditor, clock: Clock
    ) -> None:
        self._settings = settings
        self._records = records
        self._data_keys = data_keys
        self._auditor = auditor
        self._clock = clock

    def routes(self) -> list[Route]:
        """The public routes of webhook endpoints."""
        read, write = KeyAccess("webhooks:read"), KeyAccess("webhooks:write")
        missing = frozenset({"not_found", "unavailable"})
        return [
            Route(
                method="POST",
                path="/webhook_endpoints",
                handler=self.create,
                summary="Register an endpoint; its secret is shown this once",
                access=write,
                body=CreateWebhookEndpoint,
                answers={201: WebhookEndpointDocument},
                problems=frozenset({"unavailable"}),
            ),
            Route(
                method="GET",
                path="/webhook_endpoints",
                handler=self.list_page,
                summary="List the merchant's endpoints",
                access=read,
                query={"limit": "1 to 100, default 10", "starting_after": "the last endpoint_id of the page before"},
                answers={200: ListDocument},
                problems=frozenset({"unavailable"}),
            ),
            Route(
                method="GET",
                path=_ONE,
                handler=self.get,
                summary="An endpoint",
                access=read,
                answers={200: WebhookEndpointDocument},
                problems=missing,
            ),
            Route(
                method="PATCH",
                path=_ONE,
                handler=self.update,
                summary="Change an endpoint",
                access=write,
                body=UpdateWebhookEndpoint,
                answers={200: WebhookEndpointDocument},
                problems=missing,
            ),
            Route(
                method="DELETE",
                path=_ONE,
                handler=self.delete,
                summary="Remove an endpoint",
                access=write,
                answers={204: None},
                problems=missing,
            ),
            Route(
                method="POST",
                path=f"{_ONE}/rotate_secret",
                handler=self.rotate_secret,
                summary="Replace the secret; the old one signs for 24 h more",
                access=write,
                body=RotateSecret,
                body_optional=True,
                answers={200: WebhookEndpointDocument},
                problems=missing,
            ),
        ]

    async def create(self, call: Call) -> web.Response:
        """Registers an endpoint, enabled at once."""
        request: CreateWebhookEndpoint = call.body
        await self._check(request.url, request.event_types)
        merchant_id = call.principal.merchant_id
        if len(await self._records.of_merchant(merchant_id)) >= ENDPOINTS_MAX:
            raise Problem("invalid_request", f"a merchant has at most {ENDPOINTS_MAX} endpoints", param="url")
        endpoint_id = ids.unkeyed(ids.ENDPOINT)
        secret = new_secret()
        now = self._clock.now_us()
        endpoint = Endpoint(
            merchant_id=merchant_id,
            endpoint_id=endpoint_id,
            url=request.url,
            event_types=request.event_types,
            description=request.description,
            status="ENABLED",
            secrets=[await self._sealed(endpoint_id, secret, now)],
            created_at=now,
            updated_at=now,
        )
        created = await self._records.create(endpoint)
        assert created, "a fresh id is free"
        await self._audit(call, "webhook_endpoint.created", None, endpoint)
        location = {"Location": f"/webhook_endpoints/{endpoint_id}"}
        return call.answer(201, _document(endpoint, secret), location)

    async def list_page(self, call: Call) -> web.Response:
        page = ListQuery.of(call.query)
        endpoints = await self._records.of_merchant(call.principal.merchant_id)
        return call.answer(200, page.cut([_document(each) for each in endpoints], lambda each: each.endpoint_id))

    async def get(self, call: Call) -> web.Response:
        return call.answer(200, _document(await self._found(call)))

    async def update(self, call: Call) -> web.Response:
        """Changes what the body names. Enabling forgets why it was disabled."""
        request: UpdateWebhookEndpoint = call.body
        changes = {name: value for name, value in structs.asdict(request).items() if value is not UNSET}
        if request.url is not UNSET or request.event_types is not UNSET:
            url = None if request.url is UNSET else request.url
            await self._check(url, [] if request.event_types is UNSET else request.event_types)
        if changes.get("status") == "ENABLED":
            changes |= {"disabled_reason": None, "failing_since": None}
        before, after = await self._change(call, changes)
        await self._audit(call, "webhook_endpoint.updated", before, after)
        return call.answer(200, _document(after))

    async def delete(self, call: Call) -> web.Response:
        endpoint = await self._found(call)
        if not await self._records.delete(endpoint.merchant_id, endpoint.endpoint_id):
            raise not_found()
        await self._audit(call, "webhook_endpoint.deleted", endpoint, None)
        return call.empty()

    async def rotate_secret(self, call: Call) -> web.Response:
        """A new secret in front; the one before signs too until the overlap ends, older ones end now."""
        secret = new_secret()
        now = self._clock.now_us()
        sealed = await self._sealed(call.path("endpoint_id"), secret, now)
        for _ in range(UPDATE_ATTEMPTS):
            endpoint = await self._found(call)
            old = structs.replace(endpoint.secrets[0], expires_at=now + ROTATION_OVERLAP_US)
            changed = await self._records.update(structs.replace(endpoint, secrets=[sealed, old]), now=now)
            if changed is not None:
                await self._audit(call, "webhook_endpoint.secret_rotated", endpoint, changed)
                return call.answer(200, _document(changed, secret))
        raise unavailable("the endpoint is being changed by others")

    async def _change(self, call: Call, changes: dict[str, object]) -> tuple[Endpoint, Endpoint]:
        for _ in range(UPDATE_ATTEMPTS):
            endpoint = await self._found(call)
            changed = await self._records.update(structs.replace(endpoint, **changes), now=self._clock.now_us())
            if changed is not None:
                return endpoint, changed
        raise unavailable("the endpoint is being changed by others")

    async def _check(self, url: str | None, event_types: list[str]) -> None:
        """Raises Problem invalid_request for a URL that may not be called or a type that does not exist."""
        if not set(event_types) <= _PATTERNS:
            raise Problem("invalid_request", "an event type, its family with .*, or *", param="event_types")
        if url is None:
            return
        if not url.isascii() or not url.isprintable() or " " in url:
            raise Problem("invalid_request", "a URL in ASCII", param="url")
        try:
            await check_destination(url, self._settings.mode)
            if reach_of(url, self._settings.mode) == "loopback" and not _is_this_host(url):
                raise RefusedDestination("plain http to another host")
        except RefusedDestination:
            raise Problem("invalid_request", "https at a public address", param="url") from None

    async def _sealed(self, endpoint_id: str, secret: str, now: int) -> EndpointSecret:
        try:
            sealed = await self._data_keys.encrypt(endpoint_id, secret.encode())
        except EncryptionError:
            raise unavailable("secrets cannot be encrypted at the moment") from None
        return EndpointSecret(key_id=sealed.key_id, nonce=sealed.nonce, ciphertext=sealed.ciphertext, created_at=now)

    async def _found(self, call: Call) -> Endpoint:
        endpoint = await self._records.get(call.principal.merchant_id, call.path("endpoint_id"))
        if endpoint is None:
            raise not_found()
        return endpoint

    async def _audit(self, call: Call, act: str, before: Endpoint | None, after: Endpoint | None) -> None:
        endpoint = after or before
        assert endpoint is not None
        await self._auditor.record(
            call,
            act,
            endpoint.endpoint_id,
            merchant_id=endpoint.merchant_id,
            before=None if before is None else _document(before),
            after=None if after is None else _document(after),
        )


def _is_this_host(url: str) -> bool:
    """Plain http leaves no doubt about where it goes: a name that may lead elsewhere later is not enough."""
    host = urlsplit(url).hostname or ""
    return host == "localhost" or is_loopback(host)


def _document(endpoint: Endpoint, secret: str | None = None) -> WebhookEndpointDocument:
    return WebhookEndpointDocument(
        endpoint_id=endpoint.endpoint_id,
        url=endpoint.url,
        event_types=endpoint.event_types,
        description=endpoint.description,
        status=endpoint.status,
        created_at=to_rfc3339(endpoint.created_at),
        secret=UNSET if secret is None else secret,
    )
