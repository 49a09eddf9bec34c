"""The merchant's side of step 7, Notify: a web server on loopback that checks each webhook's signature and order.

The signature is computed here from the Standard Webhooks specification, not with the platform's own code.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

TOLERANCE_S = 300  # a signature is good for five minutes


class Delivery(NamedTuple):
    """The first arrival of one webhook."""

    webhook_id: str
    type: str
    sequence: int
    subject: str  # payment_id or batch_id
    document: dict[str, Any]
    at: float  # epoch seconds


class Receiver:
    """Collects webhooks; `on_delivery` hears of each first arrival."""

    def __init__(self, on_delivery: Callable[[Delivery], None]) -> None:
        self._on_delivery = on_delivery
        self._secrets: dict[str, str] = {}  # path -> endpoint secret
        self._runner: web.AppRunner | None = None
        self._base = ""
        self._seen: set[str] = set()
        self._by_subject: dict[str, list[Delivery]] = {}
        self.repeats = 0  # arrivals of a webhook that had come before: allowed, delivery is at least once
        self.bad_signatures: list[str] = []

    async def start(self) -> None:
        """Listen on a free port of loopback."""
        app = web.Application()
        app.router.add_post("/{path}", self._receive)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self._base = f"http://{host}:{port}/"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def new_url(self) -> str:
        """A URL for one registration; until `trust` names its secret it answers 410, which ends an endpoint."""
        return f"{self._base}{uuid.uuid4()}"

    def owns(self, url: str) -> bool:
        """Whether `new_url` made it."""
        return url.startswith(self._base)

    def trust(self, url: str, secret: str) -> None:
        self._secrets[url.removeprefix(self._base)] = secret

    def of(self, subject: str) -> list[Delivery]:
        """First arrivals about a payment or batch, in order of arrival."""
        return self._by_subject.get(subject, [])

    async def _receive(self, request: web.Request) -> web.Response:
        secret = self._secrets.get(request.match_info["path"])
        if secret is None:
            return web.Response(status=410)
        body = await request.read()
        webhook_id = request.headers.get("webhook-id", "")
        if not is_signed(request.headers.get("webhook-signature", ""), webhook_id, request, body, secret):
            self.bad_signatures.append(webhook_id)
            return web.Response(status=400)
        self.take(_delivery(webhook_id, body))
        return web.Response(status=204)

    def take(self, delivery: Delivery) -> None:
        """Keep a first arrival, count a repetition."""
        if delivery.webhook_id in self._seen:
            self.repeats += 1
            return
        self._seen.add(delivery.webhook_id)
        self._by_subject.setdefault(delivery.subject, []).append(delivery)
        self._on_delivery(delivery)


def is_signed(header: str, webhook_id: str, request: web.Request, body: bytes, secret: str) -> bool:
    """Whether one of the signatures in `header` is ours and fresh (Standard Webhooks, symmetric)."""
    timestamp = request.headers.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE_S:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b".".join((webhook_id.encode(), timestamp.encode(), body))
    expected = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return any(hmac.compare_digest(candidate, expected) for candidate in header.split())


def _delivery(webhook_id: str, body: bytes) -> Delivery:
    document = msgspec.json.decode(body)
    about = document["data"]["object"]
    subject = about.get("payment_id") or about.get("batch_id") or ""
    return Delivery(webhook_id, document["type"], document["sequence"], subject, about, time.time())
